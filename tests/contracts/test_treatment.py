"""Which treatments count as the same, for a watched folder and a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness.stage import settings_in

from tsbs_daw.contracts.job import ContentHashes, Treatment
from tsbs_daw.models import registry
from tsbs_daw.presets.delivery import DeliveryOptions

PRESET = """
description: A test preset.
outputs:
  - {name: drums, from: [drums], color: "#112233", chain: [{Gain: {gain_db: -6}}]}
"""


@pytest.fixture
def prints(tmp_path: Path) -> ContentHashes:
    settings_in(tmp_path).presets.mkdir(parents=True)
    return ContentHashes(settings_in(tmp_path))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_equal_treatments_have_one_print_in_every_run(prints, out, tmp_path):
    assert Treatment().fingerprint(prints, out) == Treatment().fingerprint(ContentHashes(settings_in(tmp_path)), out)


def test_everything_that_changes_the_result_changes_the_print(prints, out):
    changes = [
        {},
        {"preset": "karaoke"},
        {"model": "musdb18"},
        {"stage": "mask"},
        {"null": True},
        {"salvage": True},
        {"delivery": DeliveryOptions(format="mp3")},
        {"delivery": DeliveryOptions(quality="fast")},
        {"delivery": DeliveryOptions(quality="best")},
    ]
    assert set(Treatment.model_fields) == {name for change in changes for name in change}
    found = {Treatment(**change).fingerprint(prints, out) for change in changes}
    assert len(found | {Treatment().fingerprint(prints, out / "elsewhere")}) == len(changes) + 1


def test_an_edited_preset_counts_as_another_and_a_broken_one_is_no_error(prints, out, tmp_path):
    path = settings_in(tmp_path).presets / "mine.yaml"
    mine = Treatment(preset="mine")
    missing = mine.fingerprint(prints, out)
    path.write_text(PRESET)
    first = mine.fingerprint(prints, out)
    assert mine.fingerprint(prints, out) == first
    path.write_text(PRESET.replace("-6", "-7.5"))
    second = mine.fingerprint(prints, out)
    path.write_text("outputs: [")
    assert len({missing, first, second}) == 3
    assert mine.fingerprint(prints, out) not in {first, second}


def test_a_model_is_its_content_or_its_name_until_it_is_there(prints, tmp_path):
    absent = prints.of_model("mine")
    assert absent != prints.of_model("another")
    models = settings_in(tmp_path).models
    models.mkdir(parents=True)
    (models / "mine.safetensors").write_bytes(b"weights")
    present = prints.of_model("mine")
    assert present != absent
    assert prints.of_model(str(models / "mine.safetensors")) == present


def test_an_ensemble_is_the_content_of_all_its_models(prints, tmp_path):
    absent = prints.of_model("default,mine")
    models = settings_in(tmp_path).models
    models.mkdir(parents=True)
    (models / "mine.safetensors").write_bytes(b"weights")
    assert len({absent, *map(prints.of_model, ("default,mine", "default", "mine", "mine,default"))}) == 5


def test_new_bundled_weights_make_another_print(prints, tmp_path, monkeypatch):
    assert registry.BUNDLED.is_file()
    with_these = prints.of_model("default")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "default.safetensors")
    without = prints.of_model("default")
    registry.BUNDLED.write_bytes(b"new weights")
    assert len({with_these, without, prints.of_model("default")}) == 3


def test_with_another_precision_a_file_is_looked_at_anew_and_its_content_has_no_twin(prints, out, tmp_path):
    others = [ContentHashes(replace(settings_in(tmp_path), precision=name)) for name in ("float32", "bfloat16")]
    assert len({Treatment().fingerprint(one, out) for one in (prints, *others)}) == 3
    assert len({one.of_model("default") for one in (prints, *others)}) == 3


def test_new_weights_for_a_pass_count_as_another_model(prints, tmp_path):
    settings = settings_in(tmp_path)
    (settings.presets / "voices.yaml").write_text("passes: [{stem: vocals, model: voices}]")
    voices = Treatment(preset="voices")
    assert prints.of_models(Treatment()) == prints.of_model("default")
    absent = prints.of_models(voices)
    settings.models.mkdir(parents=True)
    (settings.models / "voices.safetensors").write_bytes(b"weights")
    present = prints.of_models(voices)
    (settings.models / "voices.safetensors").write_bytes(b"other weights")
    assert len({absent, present, prints.of_models(voices), prints.of_model("default")}) == 4
    assert prints.of_models(voices) == ContentHashes(settings).of_models(voices)
