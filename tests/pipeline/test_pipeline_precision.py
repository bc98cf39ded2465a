"""What is kept of a song is handed out again in the precision that it was made in, and in no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness.studio import STEMS, Studio, stem_of

from tsbs_daw.core.errors import UsageError


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


def run(studio: Studio, precision: str, **changes):
    studio.settings = replace(studio.settings, precision=precision)
    return studio.run(studio.root / "song.wav", **changes)


def cached(studio: Studio) -> set[str]:
    return {folder.name for folder in (studio.settings.cache / "stems").iterdir()}


def test_stems_of_one_precision_are_not_handed_out_for_another(studio):
    studio.song()
    float32, bfloat16 = run(studio, "float32"), run(studio, "bfloat16")
    assert float32.folder != bfloat16.folder and len(cached(studio)) == 2
    assert [studio.manifest(one)["precision"] for one in (float32, bfloat16)] == ["float32", "bfloat16"]
    for stem in STEMS:
        assert not np.array_equal(stem_of(float32, stem), stem_of(bfloat16, stem))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_preset_in_the_same_precision_finds_its_stems(studio, precision):
    studio.song()
    first = run(studio, precision)
    before = cached(studio)
    second = run(studio, precision, null=True)
    assert first.folder != second.folder and cached(studio) == before


def test_auto_is_the_precision_that_it_comes_to(studio):
    studio.song()
    assert run(studio, "auto").folder == run(studio, "float32").folder
    assert len(cached(studio)) == 1


def test_what_the_bundled_model_made_before_there_was_a_choice_is_still_found(studio, monkeypatch):
    studio.song()
    monkeypatch.setattr("tsbs_daw.separation.separator.mark", lambda dtype, config: None)
    before = run(studio, "auto")
    monkeypatch.undo()
    assert run(studio, "float32").folder == before.folder
    assert run(studio, "bfloat16").folder != before.folder


def test_a_precision_that_does_not_exist_is_refused(studio):
    studio.song()
    with pytest.raises(UsageError, match=r"float16.*choose from auto, float32, bfloat16"):
        run(studio, "float16")
