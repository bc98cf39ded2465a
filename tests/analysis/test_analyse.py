from __future__ import annotations

import numpy as np
import pytest
import soundfile
from analysis.listening import analyse_sounds
from signals import RATE, chords, drum_kit, song, tone

from tsbs_daw.analysis.analyse import analyse
from tsbs_daw.analysis.features import extract, extract_stream
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.core.errors import AnalysisError


def cut(sound: np.ndarray, *sizes: int) -> list[np.ndarray]:
    """The sound in pieces of these sizes, again and again."""
    pieces, at, number = [], 0, 0
    while at < sound.shape[1]:
        pieces.append(sound[:, at : at + sizes[number % len(sizes)]])
        at, number = at + sizes[number % len(sizes)], number + 1
    return pieces


def test_what_is_heard_does_not_depend_on_how_the_sound_is_cut():
    sound = sum(song(7.3).values())
    whole, loudness = extract_stream([sound], RATE, 2)
    pieces, loudness_of_pieces = extract_stream(cut(sound, 1, 4096, 70_001, 333), RATE, 2)
    np.testing.assert_allclose(pieces.attacks, whole.attacks, atol=1e-4)
    np.testing.assert_allclose(pieces.pitches, whole.pitches, atol=1e-5)
    np.testing.assert_allclose(pieces.low_pitches, whole.low_pitches, atol=1e-5)
    np.testing.assert_allclose(pieces.levels, whole.levels, rtol=1e-5, atol=1e-12)
    assert (pieces.duration_s, loudness_of_pieces) == (whole.duration_s, loudness)


def test_files_are_analysed_and_the_document_survives_json(tmp_path):
    stems = song(12.0)
    for name, sound in {**stems, "mixture": sum(stems.values())}.items():
        soundfile.write(tmp_path / f"{name}.wav", sound.T, RATE, subtype="FLOAT")
    found = analyse(tmp_path / "mixture.wav", {name: tmp_path / f"{name}.wav" for name in stems})
    assert set(found.stems) == set(stems)
    assert found.duration_s == 12.0
    assert min(abs(found.tempo.bpm / 120 - ratio) for ratio in (0.5, 1.0)) < 0.001
    text = found.model_dump_json(by_alias=True)
    assert '"schema":1' in text
    assert Analysis.model_validate_json(text) == found


@pytest.mark.parametrize(
    "names", [(), ("drums", "bass", "other", "vocals"), ("vocals", "instrumental"), ("drums", "other")], ids=str
)
def test_pitches_that_are_not_kept_change_nothing(tmp_path, names):
    """Only those are kept that something is concluded from: the same comes of a hearing of everything."""
    sounds = song(12.0)
    sounds = {"instrumental": sum(part for name, part in sounds.items() if name != "vocals"), **sounds}
    sounds["mixture"] = sounds["instrumental"] + sounds["vocals"]
    for name in ("mixture", *names):
        soundfile.write(tmp_path / f"{name}.wav", sounds[name].T, RATE, subtype="FLOAT")
    found = analyse(tmp_path / "mixture.wav", {name: tmp_path / f"{name}.wav" for name in names})
    assert found == analyse_sounds(sounds["mixture"], **{name: sounds[name] for name in names})
    assert found.key is not None and len(found.beats.times_s) > 10


def test_a_file_that_cannot_be_read_is_an_error_of_the_analysis(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(b"no sound at all, but long enough to look at")
    with pytest.raises(AnalysisError, match=r"song\.wav"):
        analyse(path, {})


def test_a_song_without_stems_is_analysed_too(tmp_path):
    soundfile.write(tmp_path / "tone.flac", tone(220, RATE * 9).T, RATE)
    found = analyse(tmp_path / "tone.flac", {})
    assert found.stems == {}
    assert extract(tmp_path / "tone.flac")[0].duration_s == 9.0


def test_sections_begin_where_another_stem_comes_in():
    bpm = 120.0
    beats = np.arange(0.0, 48, 60 / bpm)
    drums = drum_kit(beats, 48.0)
    music = chords(((48, 60, 64, 67), (53, 60, 65, 69)), 2.0, 48.0)
    music[:, : 16 * RATE] = 0
    music[:, 32 * RATE :] = 0
    found = analyse_sounds(drums + music, drums=drums, other=music)
    starts = [section.start_s for section in found.sections]
    assert starts == pytest.approx([0, 16, 32], abs=1.1)
    assert [section.label for section in found.sections] == ["A", "B", "A"]
    assert found.sections[-1].end_s == 48.0
