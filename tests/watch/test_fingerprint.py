"""Which settings count as the same, for a watched file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness.stage import settings_in

from tsbs_daw.models import registry
from tsbs_daw.watch.fingerprint import Fingerprints
from tsbs_daw.watch.folders import WatchFolder

PRESET = """
description: A test preset.
outputs:
  - {name: drums, from: [drums], color: "#112233", chain: [{Gain: {gain_db: -6}}]}
"""


@pytest.fixture
def prints(tmp_path: Path) -> Fingerprints:
    settings_in(tmp_path).presets.mkdir(parents=True)
    return Fingerprints(settings_in(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> WatchFolder:
    return WatchFolder(tmp_path / "in", tmp_path / "out")


def test_equal_settings_have_one_print_in_every_run(prints, folder, tmp_path):
    assert prints.of_settings(folder) == Fingerprints(settings_in(tmp_path)).of_settings(folder)
    assert prints.of_settings(folder) == prints.of_settings(replace(folder, path=folder.path / "elsewhere"))


def test_everything_that_changes_the_result_changes_the_print(prints, folder):
    changes = [
        {},
        {"preset": "karaoke"},
        {"model": "musdb18"},
        {"stage": "mask"},
        {"null": True},
        {"output": folder.output / "elsewhere"},
    ]
    assert len({prints.of_settings(replace(folder, **change)) for change in changes}) == len(changes)


def test_an_edited_preset_counts_as_another_and_a_broken_one_is_no_error(prints, folder, tmp_path):
    path = settings_in(tmp_path).presets / "mine.yaml"
    mine = replace(folder, preset="mine")
    missing = prints.of_settings(mine)
    path.write_text(PRESET)
    first = prints.of_settings(mine)
    assert prints.of_settings(mine) == first
    path.write_text(PRESET.replace("-6", "-7.5"))
    second = prints.of_settings(mine)
    path.write_text("outputs: [")
    assert len({missing, first, second}) == 3
    assert prints.of_settings(mine) not in {first, second}


def test_a_model_is_its_content_or_its_name_until_it_is_there(prints, tmp_path):
    absent = prints.of_model("mine")
    assert absent != prints.of_model("another")
    models = settings_in(tmp_path).models
    models.mkdir(parents=True)
    (models / "mine.safetensors").write_bytes(b"weights")
    present = prints.of_model("mine")
    assert present != absent
    assert prints.of_model(str(models / "mine.safetensors")) == present


def test_new_bundled_weights_make_another_print(prints, tmp_path, monkeypatch):
    assert registry.BUNDLED.is_file()
    with_these = prints.of_model("default")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "default.safetensors")
    without = prints.of_model("default")
    registry.BUNDLED.write_bytes(b"new weights")
    assert len({with_these, without, prints.of_model("default")}) == 3


def test_with_another_precision_a_file_is_looked_at_anew_and_its_content_has_no_twin(prints, folder, tmp_path):
    others = [Fingerprints(replace(settings_in(tmp_path), precision=name)) for name in ("float32", "bfloat16")]
    assert len({one.of_settings(folder) for one in (prints, *others)}) == 3
    assert len({one.of_model("default") for one in (prints, *others)}) == 3
