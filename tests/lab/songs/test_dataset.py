"""Data sets on disk: layout, exact sums, truth, splits that never meet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.__main__ import main
from tsbs_daw.lab.songs.render import SPLITS, render_dataset, split_of
from tsbs_daw.lab.songs.score import STEMS


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    (written,) = render_dataset(folder, 1, 1003, 5.0)
    return written


def test_a_song_has_the_layout_of_musdb18_hq(song):
    assert song.parent.name == "train"
    assert {path.name for path in song.iterdir()} == {f"{name}.wav" for name in (*STEMS, "mixture")} | {"song.json"}
    for name in (*STEMS, "mixture"):
        info = sf.info(song / f"{name}.wav")
        assert (info.samplerate, info.channels, info.frames) == (44100, 2, 5 * 44100)


def test_the_mixture_is_the_exact_sum_of_its_stems(song):
    stems = [sf.read(song / f"{name}.wav", dtype="int16")[0].astype(np.int32) for name in STEMS]
    mixture = sf.read(song / "mixture.wav", dtype="int16")[0]
    assert np.array_equal(sum(stems), mixture)
    assert mixture.any()


def test_float_songs_add_up_too(tmp_path):
    (folder,) = render_dataset(tmp_path, 1, 9500, 2.0, subtype="FLOAT")
    stems = [sf.read(folder / f"{name}.wav", dtype="float32")[0] for name in STEMS]
    mixture = sf.read(folder / "mixture.wav", dtype="float32")[0]
    assert np.max(np.abs(sum(stems) - mixture)) < 1e-6


def test_the_truth_about_a_song_is_consistent(song):
    truth = json.loads((song / "song.json").read_text(encoding="utf-8"))
    beats = np.diff(truth["beats_s"])
    assert np.allclose(beats, 60 / truth["tempo_bpm"], atol=1e-5)
    assert set(truth["downbeats_s"]) <= set(truth["beats_s"])
    assert truth["key"].endswith(truth["mode"])
    assert truth["seed"] == 1003
    assert {part["stem"] for part in truth["parts"]} <= set(STEMS)


def test_a_finished_song_is_not_rendered_again(song):
    before = (song / "mixture.wav").stat().st_mtime_ns
    render_dataset(song.parent.parent, 1, 1003, 5.0)
    assert (song / "mixture.wav").stat().st_mtime_ns == before


def test_splits_never_meet():
    ranges = list(SPLITS.values())
    assert sum(len(seeds) for seeds in ranges) == len(set().union(*ranges))
    assert [split_of(seeds.start) for seeds in ranges] == list(SPLITS)


@pytest.mark.parametrize(
    ("songs", "start", "timbres"),
    [(1, 5, "builtin"), (2, 8999, "builtin"), (0, 1000, "builtin"), (1, 1000, "heldout"), (1, 10_000, "builtin")],
)
def test_seeds_outside_a_split_are_refused(tmp_path, songs, start, timbres):
    with pytest.raises(UsageError):
        render_dataset(tmp_path, songs, start, 2.0, timbres=timbres)
    assert not any(tmp_path.iterdir())


def test_the_command_writes_songs_and_reports_wrong_use(tmp_path, capsys):
    arguments = ["render", str(tmp_path), "--songs", "1", "--seconds", "1.5"]
    assert main([*arguments, "--start-seed", "9001"]) == 0
    assert (tmp_path / "valid" / "song-009001" / "song.json").exists()
    assert main([*arguments, "--start-seed", "3"]) == 2
    assert "split" in capsys.readouterr().err
