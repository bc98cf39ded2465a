"""Loops, cut from stems whose every sample is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from wav_loops import acid_of, instrument_of

from tsbs_daw.audio.probe import inspect
from tsbs_daw.contracts.analysis import Beats
from tsbs_daw.core.errors import AnalysisError, UnreadableAudio
from tsbs_daw.pipeline.loops import bar_lines_s, cut_loops, pieces

RATE = 44100
NAME = "Song [127.5 BPM 8A]"


def beats_at(bpm: float, bars: int, first_s: float = 0.3, *, per_bar: int = 4, waver_s: float = 0.0) -> Beats:
    times = first_s + np.arange(bars * per_bar + 1) * 60 / bpm
    times += np.random.default_rng(1).uniform(-waver_s, waver_s, len(times))
    return Beats(
        times_s=tuple(times), confidence=0.9, downbeats_s=tuple(times[::per_bar]), beats_per_bar=per_bar,
        meter_confidence=0.9, meter_doubtful=False,
    )  # fmt: skip


def stem(path: Path, seconds: float, subtype: str = "FLOAT", container: str = "WAV", seed: int = 0) -> np.ndarray:
    sound = signals.noise(round(seconds * RATE), seed=seed)
    signals.write_file(path, sound, container=container, subtype=subtype)
    return found_in(path)


def found_in(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "PCM_16"), ("FLAC", "PCM_24")]
)
def test_loops_tile_to_the_stem_bit_by_bit(tmp_path, container, subtype):
    whole = stem(tmp_path / "drums", 17, subtype, container)
    (tmp_path / "loops").mkdir()
    beats = beats_at(127.5, 8)
    made = cut_loops({"drums": tmp_path / "drums"}, beats, bars=2, folder=tmp_path / "loops", name=NAME)
    assert [path.name for path in made] == [f"{NAME} drums 2 bars {number:03d}.wav" for number in (1, 3, 5, 7)]
    joined = np.concatenate([found_in(path) for path in made], axis=1)
    start = round(0.3 * RATE)
    assert np.array_equal(joined, whole[:, start : start + joined.shape[1]])
    assert start + joined.shape[1] == round(beats.downbeats_s[-1] * RATE)
    places = [inspect(path).time_reference_samples for path in made]
    assert places == [round(beats.downbeats_s[bar] * RATE) for bar in (0, 2, 4, 6)]


def test_a_loop_carries_its_tempo_its_key_and_its_loop_points(tmp_path):
    stem(tmp_path / "bass.wav", 17)
    stem(tmp_path / "drums.wav", 17)
    (tmp_path / "loops").mkdir()
    stems = {name: tmp_path / f"{name}.wav" for name in ("bass", "drums")}
    made = cut_loops(stems, beats_at(127.5, 8), bars=4, folder=tmp_path / "loops", name=NAME, key="A minor")
    assert len(made) == 4
    for path in made:
        found = acid_of(path)
        assert (found["beats"], found["loop"], found["root"]) == (16, True, 69 if "bass" in path.name else -1)
        assert found["bpm"] == pytest.approx(127.5, rel=1e-4)
        assert instrument_of(path)["loops"] == [(0, inspect(path).samples)]


def test_loops_of_doubtful_bars_say_so_in_their_names(tmp_path):
    stem(tmp_path / "drums.wav", 9)
    (tmp_path / "loops").mkdir()
    beats = beats_at(127.5, 4).model_copy(update={"meter_doubtful": True})
    made = cut_loops({"drums": tmp_path / "drums.wav"}, beats, bars=2, folder=tmp_path / "loops", name=NAME)
    assert [path.name for path in made] == [f"{NAME} drums ~2 bars {number:03d}.wav" for number in (1, 3)]
    assert inspect(made[0]).time_reference_samples == round(beats.downbeats_s[0] * RATE)


def test_a_waltz_says_that_it_is_one(tmp_path):
    stem(tmp_path / "a.wav", 9)
    (tmp_path / "loops").mkdir()
    beats = beats_at(90, 4, first_s=0.0, per_bar=3)
    made = cut_loops({"a": tmp_path / "a.wav"}, beats, bars=2, folder=tmp_path / "loops", name=NAME)
    assert [(acid_of(path)["beats"], acid_of(path)["meter"]) for path in made] == [(6, (3, 4))] * 2


def test_beats_that_waver_around_a_steady_tempo_give_loops_of_one_length(tmp_path):
    plan = pieces(beats_at(120, 40, waver_s=0.015).downbeats_s, 4, RATE, RATE * 200)
    lengths = [piece.end_samples - piece.start_samples for piece in plan]
    assert len(plan) == 10
    assert max(lengths) - min(lengths) <= 1
    assert np.mean(lengths) == pytest.approx(RATE * 8, rel=5e-4)
    assert all(one.end_samples == two.start_samples for one, two in itertools.pairwise(plan))


def test_the_last_bar_ends_where_the_next_would_begin():
    downbeats = beats_at(120, 8, first_s=0.0).downbeats_s[:-1]  # nothing is heard at the end of the eighth bar
    assert [piece.number for piece in pieces(downbeats, 4, RATE, RATE * 16)] == [1, 5]
    assert [piece.number for piece in pieces(downbeats, 4, RATE, RATE * 16 - 1)] == [1]


def test_beats_of_a_tempo_that_moves_are_taken_as_they_are():
    downbeats = tuple(np.cumsum(np.linspace(2.0, 1.6, 20)))
    assert np.array_equal(bar_lines_s(downbeats), downbeats)
    plan = pieces(downbeats, 1, RATE, RATE * 100)
    assert [piece.start_samples for piece in plan] == [round(at * RATE) for at in downbeats[:-1]]


def test_a_bar_of_another_length_is_in_no_loop():
    downbeats = (*np.arange(5) * 2.0, 9.0, *(9.0 + 2.0 * np.arange(1, 5)))  # the fifth bar has half the length
    plan = pieces(downbeats, 2, RATE, RATE * 100)
    assert [piece.number for piece in plan] == [1, 3, 6, 8]


def test_what_is_not_wholly_in_the_file_is_no_loop():
    downbeats = beats_at(120, 8, first_s=0.0).downbeats_s
    assert len(pieces(downbeats, 4, RATE, RATE * 16)) == 2
    assert len(pieces(downbeats, 4, RATE, RATE * 16 - 1)) == 1
    assert pieces(downbeats, 16, RATE, RATE * 16) == []


def test_silent_loops_and_what_leaked_into_them_are_left_out(tmp_path):
    sound = signals.noise(RATE * 17)
    beats = beats_at(120, 8, first_s=0.0)
    sound[:, RATE * 4 : RATE * 8] = 0
    sound[:, RATE * 8 : RATE * 12] *= 10 ** (-50 / 20)
    signals.write_file(tmp_path / "vocals.wav", sound)
    signals.write_file(tmp_path / "other.wav", sound * 0)
    (tmp_path / "loops").mkdir()
    stems = {name: tmp_path / f"{name}.wav" for name in ("vocals", "other")}
    made = cut_loops(stems, beats, bars=2, folder=tmp_path / "loops", name=NAME)
    assert [path.name[-7:-4] for path in made] == ["001", "007"]


def test_names_never_collide_and_every_system_takes_them(tmp_path):
    stem(tmp_path / "a.wav", 9)
    (tmp_path / "loops").mkdir()
    stems = {"Lead/1": tmp_path / "a.wav", "lead:1": tmp_path / "a.wav"}
    name = 'AC/DC: "é"' * 40
    for _ in range(2):
        cut_loops(stems, beats_at(120, 4, first_s=0.0), bars=4, folder=tmp_path / "loops", name=name)
    names = sorted(path.name for path in (tmp_path / "loops").iterdir())
    assert len({name.casefold() for name in names}) == 4
    assert all(len(name.encode()) <= 255 and not set(name) & set('/\\:*?"<>|') for name in names)


NO_METER = beats_at(120, 9).model_copy(update={"beats_per_bar": None})


@pytest.mark.parametrize("beats", [Beats(), NO_METER])
def test_where_there_are_no_bars_it_is_said(tmp_path, beats):
    with pytest.raises(AnalysisError, match="its bars could not be detected"):
        cut_loops({}, beats, bars=4, folder=tmp_path, name=NAME)


def test_a_song_of_fewer_bars_gives_no_loops(tmp_path):
    stem(tmp_path / "a.wav", 9)
    (tmp_path / "loops").mkdir()
    assert cut_loops({"a": tmp_path / "a.wav"}, beats_at(120, 2), bars=4, folder=tmp_path / "loops", name=NAME) == []


def test_a_stem_that_cannot_be_read_leaves_no_loops(tmp_path):
    stem(tmp_path / "a.wav", 9)
    (tmp_path / "b.wav").write_bytes(b"no sound at all")
    (tmp_path / "loops").mkdir()
    stems = {name: tmp_path / f"{name}.wav" for name in "ab"}
    with pytest.raises(UnreadableAudio):
        cut_loops(stems, beats_at(120, 4), bars=1, folder=tmp_path / "loops", name=NAME)
    assert list((tmp_path / "loops").iterdir()) == []
