"""Tempo and beats carry weight only where beats are heard; the rest of a song invents nothing."""

from __future__ import annotations

import numpy as np
import pytest
from analysis.listening import analyse_sounds, nearest_s
from signals import RATE, chords, drum_kit, noise, silence

from tsbs_daw.contracts.analysis import Analysis

LOOP = ((57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62))


def band(beats: np.ndarray, duration_s: float, bar: int = 4) -> np.ndarray:
    """Drums, chords and bass on these beats."""
    beat_s = float(np.median(np.diff(beats)))
    music = chords(LOOP, bar * beat_s, duration_s, start_s=float(beats[0]))
    bass = chords([[pitch[0] - 24] for pitch in LOOP], beat_s, duration_s, start_s=float(beats[0]))
    return drum_kit(beats, duration_s, bar=bar) + 0.5 * music + 0.5 * bass


def steady(bpm: float, duration_s: float, bar: int = 4) -> np.ndarray:
    return band(np.arange(0.0, duration_s, 60 / bpm), duration_s, bar)


def pad(duration_s: float) -> np.ndarray:
    time = np.arange(round(duration_s * RATE)) / RATE
    tones = [np.sin(2 * np.pi * hz * time) for hz in (220.0, 277.18, 329.63, 220.3)]
    return (0.1 * np.minimum(1, time / 3) * np.stack([tones[0] + tones[1], tones[2] + tones[3]])).astype(np.float32)


def speech(duration_s: float) -> np.ndarray:
    """Syllables of noise, as irregular as a speaker's."""
    random = np.random.default_rng(5)
    loudness, at = np.zeros(round(duration_s * RATE)), 0.0
    while at < duration_s:
        length_s = random.uniform(0.06, 0.3)
        part = loudness[round(at * RATE) : round((at + length_s) * RATE)]
        part += np.sin(np.pi * np.arange(len(part)) / max(len(part), 1)) * random.uniform(0.3, 1)
        at += length_s + random.choice([0.02, 0.05, 0.1, 0.6], p=[0.4, 0.3, 0.2, 0.1])
    return (0.4 * noise(len(loudness)) * loudness).astype(np.float32)


def quiet(duration_s: float) -> np.ndarray:
    return silence(round(duration_s * RATE))


def heard(*parts: np.ndarray) -> Analysis:
    return analyse_sounds(np.concatenate(parts, axis=1))


def check_steady(found: Analysis, bpm: float, *spans_s: tuple[float, float]) -> None:
    """One tempo, to a thousandth, and a grid on the beats of each span."""
    assert found.tempo.steady and len(found.tempo.changes) == 1, found.tempo
    assert found.tempo.bpm == pytest.approx(bpm, rel=1e-3)
    assert found.tempo.changes[0].bpm == pytest.approx(bpm, rel=1e-3)
    for start_s, end_s in spans_s:
        away = nearest_s(np.arange(start_s, end_s - 0.1, 60 / bpm), found.beats.times_s)
        assert np.median(away) < 0.005 and away.max() < 0.012


@pytest.mark.parametrize("beatless", [pad, speech, quiet])
@pytest.mark.parametrize(("bpm", "length_s"), [(126.0, 20.0), (97.3, 8.0)])
def test_a_beatless_intro_invents_nothing(beatless, bpm: float, length_s: float):
    check_steady(heard(beatless(length_s), steady(bpm, 24.0)), bpm, (length_s, length_s + 24.0))


@pytest.mark.parametrize("beatless", [pad, speech, quiet])
def test_a_beatless_end_invents_nothing(beatless):
    check_steady(heard(steady(118.0, 24.0), beatless(15.0)), 118.0, (0.0, 24.0))


def test_an_intro_longer_than_the_song_invents_nothing():
    check_steady(heard(pad(50.0), steady(126.0, 24.0)), 126.0, (50.0, 74.0))


@pytest.mark.parametrize("beatless", [pad, speech, quiet])
def test_breaks_of_whole_beats_leave_one_tempo(beatless):
    parts = [steady(120.0, 16.0), beatless(8.0), steady(120.0, 16.0), beatless(6.0), steady(120.0, 16.0)]
    check_steady(heard(*parts), 120.0, (0.0, 16.0), (24.0, 40.0), (46.0, 62.0))


def test_a_break_that_moves_the_beats_is_doubtful_and_the_grid_is_right_on_both_sides():
    found = heard(steady(126.0, 20.0), pad(11.3), steady(126.0, 20.0))
    assert found.tempo.doubtful and found.tempo.bpm == pytest.approx(126.0, rel=1e-3)
    for start_s in (0.0, 31.3):
        away = nearest_s(np.arange(start_s, start_s + 19.9, 60 / 126), found.beats.times_s)
        assert np.median(away) < 0.005 and away.max() < 0.03
    assert any("resume off the grid" in note for note in found.notes)


@pytest.mark.parametrize("sound", [pad(30.0), speech(30.0)], ids=["pad", "speech"])
def test_a_song_without_beats_has_no_certain_tempo(sound: np.ndarray):
    found = heard(sound)
    assert found.tempo.doubtful and found.tempo.steady


def test_a_half_time_section_is_no_change_of_tempo():
    beats = np.concatenate(
        [np.arange(0, 16, 60 / 140), 16 + np.arange(0, 12, 60 / 70), 28 + np.arange(0, 16, 60 / 140)]
    )
    found = heard(band(beats, 44.0))
    assert found.tempo.steady and min(abs(found.tempo.bpm / bpm - 1) for bpm in (70, 140)) < 1e-3


def test_a_fade_invents_nothing():
    song = steady(124.0, 30.0)
    song[:, -12 * RATE :] *= np.linspace(1, 0, 12 * RATE, dtype=np.float32)
    check_steady(heard(pad(10.0), song), 124.0, (10.0, 34.0))


@pytest.mark.parametrize(("before", "after"), [(100, 150), (150, 100), (120, 90), (90, 120), (100, 133)])
def test_a_step_of_tempo_is_one_change(before: int, after: int):
    beats = np.concatenate([np.arange(0, 18 - 1e-6, 60 / before), 18 + np.arange(0, 18 - 1e-6, 60 / after)])
    found = heard(steady(float(before), 18.0), steady(float(after), 18.0))
    assert not found.tempo.steady
    assert [change.bpm for change in found.tempo.changes] == [pytest.approx(bpm, rel=5e-3) for bpm in (before, after)]
    assert found.tempo.changes[1].at_s == pytest.approx(18.0, abs=0.02)
    assert np.median(nearest_s(beats, found.beats.times_s)) < 0.005


@pytest.mark.parametrize(("beats", "bpm"), [(5, 130), (5, 96), (7, 150), (7, 120), (9, 160), (11, 140)])
def test_odd_bars_are_doubtful_and_their_tempo_is_right_or_doubtful(beats: int, bpm: int):
    found = heard(steady(float(bpm), 30.0, bar=beats))
    assert found.beats.meter_doubtful
    assert found.tempo.bpm == pytest.approx(bpm, rel=1e-3) or (
        found.tempo.doubtful and any(f"{bpm}.0" in note for note in found.notes)
    )
