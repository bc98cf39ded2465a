from __future__ import annotations

import numpy as np
import pytest
import soundfile
from signals import RATE, silence
from song_files import STEMS, write_song

from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.songs import SILENT_DB, SongProblem, read_song_audio, require_whole, split_songs


def _read(*folders):
    songs, problems = [], []
    for folder in folders:
        song, reasons = read_song_audio(folder, STEMS, RATE)
        songs += [] if song is None else [song]
        problems += [SongProblem(folder.name, reason) for reason in reasons]
    return songs, problems


def _problem_of(folder) -> str:
    songs, problems = _read(folder)
    assert not songs
    assert [problem.song for problem in problems] == [folder.name] * len(problems)
    return "; ".join(problem.reason for problem in problems)


def test_train_and_valid_are_taken_as_they_are(songs):
    train, held_out = split_songs(songs, STEMS)
    assert [song.name for song in train] == ["song 0", "song 1", "song 2"]
    assert [song.name for song in held_out] == ["held out"]


def test_the_validation_songs_of_musdb18_are_held_out(tmp_path):
    write_song(tmp_path / "train" / "Meaxic - Take A Step", 0)
    write_song(tmp_path / "train" / "Some - Other", 1)
    train, held_out = split_songs(tmp_path, STEMS)
    assert [song.name for song in train] == ["Some - Other"]
    assert [song.name for song in held_out] == ["Meaxic - Take A Step"]


def test_a_plain_folder_of_songs_holds_some_out_always_the_same(tmp_path):
    for number in range(3):
        write_song(tmp_path / f"song {number}", number)
    first, again = split_songs(tmp_path, STEMS), split_songs(tmp_path, STEMS)
    assert first == again
    assert (len(first[0]), len(first[1])) == (2, 1)


def test_one_song_alone_cannot_be_split(tmp_path):
    write_song(tmp_path / "only", 0)
    with pytest.raises(DatasetError, match="1 songs to train on and 0"):
        split_songs(tmp_path, STEMS)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        split_songs(tmp_path / "nowhere", STEMS)


def test_levels_are_told_second_by_second(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    loud = np.concatenate([np.full((RATE, 2), 0.5, np.float32), np.zeros((RATE, 2), np.float32)])
    soundfile.write(folder / "bass.wav", loud, RATE, subtype="FLOAT")
    (song,), problems = _read(folder)
    assert not problems
    assert len(song.audio) == 2 * RATE
    assert song.levels_db[STEMS.index("bass")] == pytest.approx([20 * np.log10(0.5), SILENT_DB], abs=0.01)


def test_a_missing_stem_is_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    (folder / "bass.wav").unlink()
    assert _problem_of(folder) == "bass.wav is missing"


def test_a_file_that_is_no_audio_is_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    (folder / "drums.wav").write_text("<html>not found</html>")
    assert "drums.wav cannot be read" in _problem_of(folder)


def test_nan_is_reported_with_its_place(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    audio = np.zeros((2 * RATE, 2), np.float32)
    audio[RATE + 5, 1] = np.nan
    soundfile.write(folder / "other.wav", audio, RATE, subtype="FLOAT")
    assert _problem_of(folder) == f"other.wav holds NaN or infinity in the second that begins at sample {RATE}"


def test_another_sample_rate_is_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    soundfile.write(folder / "vocals.wav", silence(96_000).T, 48_000)
    assert "vocals.wav has 48000 Hz" in _problem_of(folder)


def test_stems_of_different_length_are_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    soundfile.write(folder / "vocals.wav", silence(100).T, RATE)
    assert "differ in length" in _problem_of(folder)


def test_more_than_two_channels_are_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    soundfile.write(folder / "vocals.wav", silence(2 * RATE, channels=3).T, RATE)
    assert "has 3 channels" in _problem_of(folder)


def test_an_empty_file_is_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    soundfile.write(folder / "vocals.wav", silence(0).T, RATE)
    assert "vocals.wav is empty" in _problem_of(folder)


def test_a_cut_flac_is_reported(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    whole = folder / "vocals.wav"
    soundfile.write(folder / "vocals.flac", soundfile.read(whole)[0], RATE)
    whole.unlink()
    data = (folder / "vocals.flac").read_bytes()
    (folder / "vocals.flac").write_bytes(data[: len(data) // 2])
    assert "vocals.flac" in _problem_of(folder)


def test_a_song_of_silence_is_reported(tmp_path):
    folder = tmp_path / "song"
    folder.mkdir()
    for stem in STEMS:
        soundfile.write(folder / f"{stem}.wav", silence(RATE).T, RATE)
    assert _problem_of(folder) == "all its stems are silent"


def test_every_broken_song_is_named_at_once(tmp_path):
    for number in range(3):
        write_song(tmp_path / f"song {number}", number)
    (tmp_path / "song 0" / "bass.wav").unlink()
    (tmp_path / "song 2" / "bass.wav").write_bytes(b"")
    songs, problems = _read(*sorted(tmp_path.iterdir()))
    assert [song.folder.name for song in songs] == ["song 1"]
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*song 0: bass\.wav is missing.*song 2: bass\.wav cannot"):
        require_whole(problems, tmp_path)
