"""Speakers of a pack sing a song's own melody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spoken_pack import write_pack

from tsbs_daw.lab.songs import casting, compose, dsp, render
from tsbs_daw.lab.songs.casting import cast_live
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.material import open_material
from tsbs_daw.lab.songs.recorded_voice import sing_live
from tsbs_daw.lab.songs.render import ANALYSES, render_dataset
from tsbs_daw.lab.songs.speakers import open_speakers
from tsbs_daw.lab.songs.voice import FRAME_S

pytestmark = pytest.mark.skipif(not dsp.has_pyworld(), reason="pyworld is not installed")


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    pack = write_pack(tmp_path_factory.mktemp("pack"))
    return open_speakers(open_material(pack), tmp_path_factory.mktemp("analyses"))


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(casting, "LIVE_SHARE", 1.0)
    monkeypatch.setattr(casting, "LIVE_RAP_SHARE", 0.0)


def _lead(score):
    return next(part for part in score.parts if part.name == "lead")


def test_the_lead_sings_the_songs_own_melody(speakers, always):
    score = cast_live(compose(1000, 12.0, style="ballad", complete=True), speakers)
    part = _lead(score)
    part = replace(part, timbre={**part.timbre, "rap": False})
    voice = sing_live(part, score, 12 * SAMPLE_RATE, speakers, stream(1, "take"), 0.0)
    f0_hz = dsp.analyse_voice(voice, 1000.0).f0_hz
    cents = []
    for note in part.events:
        first, end = score.seconds(note.beat) + 0.12, score.seconds(note.beat + note.beats) - 0.1
        found = f0_hz[int(first / FRAME_S) : int(end / FRAME_S)]
        found = found[found > 0]
        if end - first > 0.15 and len(found) > 8:
            cents.append(abs(1200 * np.log2(np.median(found) / 440) + 6900 - 100 * note.pitch))
    assert len(cents) >= 4
    assert np.mean(np.array(cents) < 30) > 0.9


def test_every_voice_of_a_song_is_the_speakers(speakers, always):
    for seed in range(1000, 1012):
        score = cast_live(compose(seed, 12.0, complete=True), speakers)
        vocals = [part for part in score.parts if part.stem == "vocals"]
        assert vocals
        assert all(part.timbre["engine"] == "live" for part in vocals)


def test_a_song_is_the_same_every_time(speakers, always):
    score = cast_live(compose(1002, 6.0, complete=True), speakers)
    first, second = render(score, speakers=speakers), render(score, speakers=speakers)
    assert np.array_equal(first["vocals"], second["vocals"])
    assert np.max(np.abs(first["vocals"])) > 0.01


def test_a_data_set_keeps_the_analyses(tmp_path, always):
    pack = write_pack(tmp_path / "pack", 1)
    render_dataset(tmp_path / "songs", 1, 1002, 3.0, material=pack)
    assert list((tmp_path / "songs" / ANALYSES).glob("*.npz"))


def test_without_pyworld_songs_are_sung_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr("tsbs_daw.lab.songs.speakers.has_pyworld", lambda: False)
    assert open_speakers(open_material(write_pack(tmp_path / "pack", 1)), None) is None
