from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from signals import RATE
from signals import noise as noise_samples
from song_files import STEMS

from tsbs_daw import cli
from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation import real
from tsbs_daw.lab.evaluation.real import (
    benchmark_songs,
    check_not_benchmark,
    evaluate_real,
    frame_sdr,
    make_real_songs,
    measure_real_song,
    summarise_real,
)
from tsbs_daw.lab.evaluation.songs import KnownSong


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """(2, samples) float32 at an RMS of one."""
    return noise_samples(round(seconds * RATE), amplitude=1.0, seed=seed)


class Scaled:
    """A separator that gives each stem as a fixed share of the mixture; the mask stage gives half of that."""

    model_hash = "0"
    stems = STEMS

    def __init__(self, shares: dict[str, float]):
        self.shares = shares
        self.network = SimpleNamespace(config=SimpleNamespace(sample_rate=RATE))

    def separate(self, audio, sample_rate, *, stage="full"):
        part = 1.0 if stage == "full" else 0.5
        return {stem: np.float32(part * self.shares[stem]) * audio for stem in self.stems}


def known_song(name: str = "song", seconds: float = 4.0) -> KnownSong:
    """A song that is vocals alone."""
    vocals = 0.1 * noise(seconds)
    targets = np.stack([vocals if stem == "vocals" else np.zeros_like(vocals) for stem in STEMS])
    return KnownSong(name, RATE, targets, targets.sum(axis=0))


def test_frame_sdr_is_the_median_of_the_seconds_that_sound():
    target = 0.1 * noise(5.0)
    target[:, 4 * RATE :] = 0.0  # a rest: what comes out there is no matter
    errors = [0.5, 0.1, 0.01, 0.1, 1.0]  # 6, 20, 40, 20 dB
    estimate = target + np.concatenate(
        [error * 0.1 * noise(5.0, seed=1)[:, i * RATE : (i + 1) * RATE] for i, error in enumerate(errors)], axis=1
    ).astype(np.float32)
    assert frame_sdr(target, estimate, RATE) == pytest.approx(20.0, abs=0.2)
    assert np.isnan(frame_sdr(np.zeros_like(target), estimate, RATE))


def test_silence_scores_nothing_and_the_mixture_of_one_stem_everything():
    song = known_song()
    silent = measure_real_song(song, Scaled(dict.fromkeys(STEMS, 0.0)))
    assert silent["scored"]["vocals"]["full"]["frame_sdr_db"] == 0.0
    half = measure_real_song(song, Scaled({**dict.fromkeys(STEMS, 0.0), "vocals": 0.9}))
    assert half["scored"]["vocals"]["full"]["frame_sdr_db"] == pytest.approx(20.0, abs=0.1)
    assert half["scored"]["vocals"]["mask"]["frame_sdr_db"] == pytest.approx(-20 * np.log10(0.55), abs=0.1)
    assert half["scored"]["vocals"]["seconds"] == 4
    assert half["scored"]["vocals"]["shared"]["frame_sdr_db"] > 60, "the residual went to the only stem that sounds"


def test_what_comes_out_for_a_stem_that_is_silent_is_a_leak():
    measured = measure_real_song(known_song(), Scaled({**dict.fromkeys(STEMS, 0.0), "bass": 0.1}))
    assert measured["leak_db"] == {"drums": None, "bass": pytest.approx(-20.0, abs=0.01), "other": None}


def test_a_song_of_the_benchmark_is_scored_on_the_stems_whose_truth_is_known():
    targets = np.stack([0.1 * noise(2.0, seed=index) for index in range(len(STEMS))])
    song = KnownSong("ev3-caesium", RATE, targets, targets.sum(axis=0))
    measured = measure_real_song(song, Scaled(dict.fromkeys(STEMS, 0.25)))
    assert set(measured["scored"]) == {"vocals", "drums"} and measured["leak_db"] == {}


def test_the_summary_is_the_median_over_songs():
    songs = [
        measure_real_song(known_song(seconds=2.0), Scaled({**dict.fromkeys(STEMS, 0.0), "vocals": share}))
        for share in (0.0, 0.5, 0.9)
    ]
    summary = summarise_real(songs, STEMS)
    vocals = summary["stems"]["vocals"]
    assert vocals["full"]["frame_sdr_db"] == pytest.approx(20 * np.log10(2), abs=0.01)
    assert vocals["worst_frame_sdr_db"] == 0.0 and vocals["songs"] == 3
    assert vocals["map_stage_adds_db"] == pytest.approx(20 * np.log10(0.75 / 0.5), abs=0.01)


def like_the_benchmark(name: str, start_s: float, seconds: float, gain: float) -> np.ndarray:
    """Noise with the levels of a song of the benchmark: what any copy of that song has, whatever its format."""
    levels = benchmark_songs()[name].levels
    envelope = np.repeat(10.0 ** (levels / 20.0), round(0.1 * RATE))[round(start_s * RATE) :][: round(seconds * RATE)]
    return gain * envelope * np.random.default_rng(3).standard_normal((2, len(envelope)))


@pytest.mark.parametrize("name", sorted(benchmark_songs()))
@pytest.mark.parametrize(("start_s", "seconds", "gain"), [(0.0, 60.0, 1.0), (7.03, 30.0, 0.2), (20.055, 15.0, 3.0)])
def test_no_song_of_the_benchmark_can_be_trained_on(name, start_s, seconds, gain):
    with pytest.raises(DatasetError, match=f"{name} of the benchmark, which must never be trained on"):
        check_not_benchmark(like_the_benchmark(name, start_s, seconds, gain), RATE, "my song")


def test_other_songs_can_be_trained_on():
    beat = np.tile(np.exp(-np.arange(RATE // 2) / 4000.0), 60)
    check_not_benchmark(beat * np.random.default_rng(1).standard_normal((2, len(beat))), RATE, "a beat")
    check_not_benchmark(np.zeros((2, 20 * RATE)), RATE, "silence")
    check_not_benchmark(like_the_benchmark("ev3-caesium", 0.0, 5.0, 1.0), RATE, "too short to tell")


def test_the_command_writes_every_score(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "songs" / "song"
    folder.mkdir(parents=True)
    for stem, audio in zip(STEMS, known_song().targets, strict=True):
        soundfile.write(folder / f"{stem}.ogg" if stem == "vocals" else folder / f"{stem}.wav", audio.T, RATE)
    from tsbs_daw.separation.separator import Separator

    separator = Scaled({**dict.fromkeys(STEMS, 0.0), "vocals": 0.5})
    separator.precision = "float32"
    monkeypatch.setattr(Separator, "load", lambda *arguments, **options: separator)
    arguments = ["--real", "--data", str(tmp_path / "songs"), "--out", str(tmp_path / "out.json"), "--json"]
    assert cli.run(cli.find("evaluate"), arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out.json").read_text())
    assert printed == written["summary"]
    assert written["songs"][0]["scored"]["vocals"]["full"]["frame_sdr_db"] == pytest.approx(6.0, abs=0.3)


def test_a_folder_without_songs_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no songs"):
        evaluate_real(tmp_path, Scaled(dict.fromkeys(STEMS, 0.0)))


@pytest.fixture
def clone(tmp_path):
    """(a repository with three files, the document that describes it)"""
    folder = tmp_path / "band"
    (folder / "mix").mkdir(parents=True)
    for name, level in (("KICK", 0.1), ("SNARE", 0.2), ("VOX", 0.4)):
        soundfile.write(folder / "mix" / f"{name}.flac", np.full((2 * RATE, 1), level), RATE)
    run = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "songs"]):
        subprocess.run([*run, *command], check=True)
    commit = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    song = {
        "title": "a song", "repository": "band", "folder": "mix", "start_s": 0.5, "length_s": 1.0, "gain_db": -6.0206,
        "stems": {"drums": ["KICK", "SNARE"], "bass": [], "other": [], "vocals": ["VOX"]},
    }  # fmt: skip
    repository = {"url": "https://example.org/band", "commit": commit, "suffix": ".flac"}
    return folder, {"repositories": {"band": repository}, "songs": {"song": song}}


def test_songs_are_made_of_the_pinned_commit_whatever_is_checked_out(clone, tmp_path):
    folder, document = clone
    (folder / "mix" / "VOX.flac").write_bytes(b"changed")
    (made,) = make_real_songs(tmp_path / "out", [folder], document=document, report=lambda line: None)
    drums, rate = soundfile.read(made / "drums.flac")
    vocals, _ = soundfile.read(made / "vocals.flac")
    assert rate == RATE and drums.shape == (RATE, 2)
    assert drums[RATE // 2, 0] == pytest.approx(0.15, abs=1e-3) and vocals[RATE // 2, 0] == pytest.approx(0.2, abs=1e-3)
    assert not soundfile.read(made / "bass.flac")[0].any()


def test_a_clone_without_the_commit_or_of_something_else_is_refused(clone, tmp_path):
    folder, document = clone
    document["repositories"]["band"]["commit"] = "0" * 40
    with pytest.raises(DatasetError, match=r"does not hold mix/KICK.flac at commit 000000000000"):
        make_real_songs(tmp_path / "out", [folder], document=document, report=lambda line: None)
    assert not (tmp_path / "out" / "song").exists()
    with pytest.raises(DatasetError, match="not one of the benchmark's repositories"):
        make_real_songs(tmp_path / "out", [tmp_path], document=document, report=lambda line: None)


def test_the_document_names_stems_and_commits():
    assert {song.name for song in benchmark_songs().values() if "vocals" in song.silent} == {"mdn-multitrack"}
    assert all(set(song.scored) <= set(STEMS) and song.scored for song in benchmark_songs().values())
    assert real.SAME_SONG < 0.9
