from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from analysis.listening import analyse_sounds, nearest_s
from signals import RATE, chords, drum_kit, noise, silence

DURATION_S = 24.0
LOOP = ((48, 60, 64, 67), (53, 60, 65, 69), (55, 59, 62, 67), (48, 60, 64, 67))


def beats_at(bpm: float, offset_s: float, duration_s: float = DURATION_S) -> np.ndarray:
    return np.arange(offset_s, duration_s, 60 / bpm)


@pytest.mark.parametrize(("bpm", "offset_s"), [(92.0, 0.37), (120.0, 0.011), (128.37, 0.233), (104.5, 0.559)])
def test_a_steady_tempo_is_found_to_a_thousandth_and_its_beats_to_a_hundredth_of_a_second(bpm, offset_s):
    beats = beats_at(bpm, offset_s)
    sound = drum_kit(beats, DURATION_S)
    found = analyse_sounds(sound, drums=sound)
    assert found.tempo.steady
    assert found.tempo.source == "drums"
    assert found.tempo.bpm == pytest.approx(bpm, rel=1e-3)
    assert nearest_s(beats, found.beats.times_s).max() < 0.01
    assert len(found.tempo.changes) == 1
    assert found.tempo.changes[0].at_s == pytest.approx(found.beats.times_s[0], abs=1e-4)


def each_at(beats: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """The same sound on every beat, over faint noise: mono (1, samples)."""
    whole = 1e-4 * noise(round((DURATION_S + 1) * RATE), channels=1)
    for beat in beats:
        start = round(beat * RATE)
        whole[0, start : start + len(sound)] += sound
    return whole[:, : round(DURATION_S * RATE)]


TIME_S = np.arange(round(0.25 * RATE)) / RATE


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(
            np.sin(2 * np.pi * (50 * TIME_S + 12 * (1 - np.exp(-30 * TIME_S)))) * np.exp(-14 * TIME_S), id="kick"
        ),
        pytest.param(np.sin(2 * np.pi * 440 * TIME_S) * np.exp(-8 * TIME_S), id="note"),
        pytest.param(0.3 * noise(len(TIME_S), channels=1)[0] * np.exp(-22 * TIME_S), id="noise"),
        pytest.param(np.hanning(88), id="click"),
    ],
)
@pytest.mark.parametrize(("bpm", "offset_s"), [(118.0, 0.123), (126.0, 0.31), (97.3, 0.05)])
def test_the_grid_lies_within_3_ms_of_the_attacks_whatever_makes_them(bpm, offset_s, sound):
    beats = beats_at(bpm, offset_s)
    mixture = each_at(beats, sound.astype(np.float32))
    found = analyse_sounds(mixture, drums=mixture)
    assert np.median(nearest_s(beats, found.beats.times_s)) < 0.003


def soft_drums(beats: np.ndarray, duration_s: float, rise_s: float) -> np.ndarray:
    """A boom on every beat that is loudest `rise_s` after it: mono (1, samples)."""
    time = np.arange(round(0.15 * RATE)) / RATE
    boom = np.minimum(time / rise_s, 1) * np.exp(-time / 0.04) * (0.5 * np.sin(120 * np.pi * time))
    hiss = noise(len(time), channels=1)[0] * np.minimum(time / rise_s, 1) * np.exp(-time / 0.04)
    sound = np.zeros(round(duration_s * RATE) + len(time), np.float32)
    for beat in beats:
        start = round(beat * RATE)
        sound[start : start + len(time)] += boom + hiss
    return sound[None, : round(duration_s * RATE)]


@pytest.mark.parametrize("rise_s", [0.0, 0.005, 0.010])
def test_beats_lie_where_attacks_begin_and_not_behind(rise_s: float):
    beats = beats_at(128.37, 0.233)
    sound = soft_drums(beats, DURATION_S, rise_s) if rise_s else drum_kit(beats, DURATION_S)
    times = np.asarray(analyse_sounds(sound, drums=sound).beats.times_s)
    away = np.asarray([time - beats[np.abs(time - beats).argmin()] for time in times])
    assert -0.006 < np.median(away) < rise_s / 2, "a soft attack has begun when it is half as loud"


def test_a_tempo_that_rises_gets_a_map_whose_beats_follow_it():
    beats = [0.4]
    while beats[-1] < 40:
        beats.append(beats[-1] + 60 / (100 + 0.5 * beats[-1]))
    sound = drum_kit(beats, 40.0)
    found = analyse_sounds(sound, drums=sound)
    assert not found.tempo.steady
    assert "The tempo changes." in found.notes
    changes = found.tempo.changes
    assert changes[0].bpm < 106 < 114 < changes[-1].bpm
    assert np.median(nearest_s(beats[:-1], found.beats.times_s)) < 0.02
    assert all(early.at_s < late.at_s for early, late in pairwise(changes))


def test_beats_lie_inside_the_song_and_rise():
    sound = drum_kit(beats_at(110, 0.3), DURATION_S)
    times = np.asarray(analyse_sounds(sound).beats.times_s)
    assert times[0] >= 0
    assert times[-1] < DURATION_S
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("bar", [3, 4])
def test_bars_of_three_and_four_are_told_apart(bar):
    bpm, offset_s = 116.0, 0.41
    beats = beats_at(bpm, offset_s)
    drums = drum_kit(beats, DURATION_S, bar=bar)
    music = chords(LOOP, bar * 60 / bpm, DURATION_S, start_s=offset_s)
    bass = chords([[pitch[0] - 12] for pitch in LOOP], bar * 60 / bpm, DURATION_S, start_s=offset_s)
    found = analyse_sounds(drums + music + bass, drums=drums, other=music, bass=bass, vocals=silence(drums.shape[1]))
    assert found.beats.beats_per_bar == bar
    assert nearest_s(beats[::bar], found.beats.downbeats_s).max() < 0.03
    assert set(found.beats.downbeats_s) <= set(found.beats.times_s)


def test_a_mono_song_at_another_rate_is_heard_as_well():
    beats = beats_at(120, 0.2)
    found = analyse_sounds(drum_kit(beats, DURATION_S, sample_rate=32_000, channels=1), 32_000)
    assert min(abs(found.tempo.bpm / 120 - of) for of in (0.5, 1)) < 1e-3
    assert found.tempo.source == "mixture"


def test_channels_of_opposite_polarity_do_not_cancel_out():
    sound = drum_kit(beats_at(120, 0.2), DURATION_S) * np.float32([[1], [-1]])
    bpm = analyse_sounds(sound).tempo.bpm
    assert min(abs(bpm / 120 - of) for of in (0.5, 1)) < 1e-3


@pytest.mark.parametrize("sound", [silence(RATE * 10), silence(RATE * 10) + np.float32(0.25)], ids=["silence", "dc"])
def test_what_has_no_attacks_has_no_pulse(sound):
    found = analyse_sounds(sound, drums=sound)
    assert found.tempo.bpm is None
    assert found.tempo.doubtful
    assert found.beats.times_s == ()
    assert found.notes


def test_noise_has_a_doubtful_tempo_at_most():
    assert analyse_sounds(noise(RATE * 12)).tempo.doubtful


def test_two_seconds_are_too_short_to_be_sure():
    sound = drum_kit(beats_at(120, 0.1, 2.0), 2.0)
    found = analyse_sounds(sound, drums=sound)
    assert found.tempo.doubtful
    assert found.beats.meter_doubtful
    assert any("too short" in note for note in found.notes)


@pytest.mark.parametrize("samples", [1, 2000, RATE // 3])
def test_next_to_nothing_is_analysed_without_complaint(samples):
    found = analyse_sounds(noise(samples), drums=noise(samples))
    assert found.tempo.bpm is None
    assert found.duration_s == pytest.approx(samples / RATE, abs=1e-6)


def test_without_drums_the_mixture_is_listened_to():
    offset_s, bpm = 0.3, 100.0
    music = chords(LOOP, 60 / bpm, DURATION_S, start_s=offset_s)
    found = analyse_sounds(music, other=music, drums=silence(music.shape[1]))
    assert found.tempo.source == "mixture"
    assert any("no drums" in note for note in found.notes)
    ratio = found.tempo.bpm / bpm
    assert min(abs(ratio - of) for of in (0.5, 1, 2)) < 0.02
