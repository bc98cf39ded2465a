"""Recorded notes: in tune, at the level asked for, without clicks; takes alternate; hi-hats choke."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import signals
from lab.songs.pack import RATE, PackWriter, burst, note_hz

from tsbs_daw.lab.songs.instruments import Bend, Sampler, read_at, shape, transpose
from tsbs_daw.lab.songs.kits import RecordedDrum, _performance
from tsbs_daw.lab.songs.material import open_material
from tsbs_daw.lab.songs.score import Hit, Part


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    pack = PackWriter(tmp_path_factory.mktemp("pack"))
    for note in (48, 54, 60):
        for velocity in (0.3, 1.0):
            for take in (1, 2):
                pack.add_tone("piano", "other", "keys-note", note, velocity=velocity, rr=take)
    pack.add("kit", "drums", "hihat-open", burst(2.0, 3.0, 1), velocity=1.0)
    for velocity in (0.2, 0.6, 0.65, 1.0):
        pack.add("kit", "drums", "snare", burst(0.4, 0.1, int(100 * velocity), velocity), velocity=velocity)
    return open_material(pack.close())


@pytest.fixture
def sampler(material):
    return Sampler(material, material.select("piano", "keys-note"))


def measured_hz(sound: np.ndarray, near_hz: float) -> float:
    """The frequency of a tone from the advance of its phase between two windows."""
    window, hop = 8192, 1024
    at = signals.times(window)
    probe = np.hanning(window) * np.exp(-2j * np.pi * near_hz * at)
    first, second = (np.sum(sound[0, start : start + window] * probe) for start in (4096, 4096 + hop))
    turn = np.angle(second / first * np.exp(-2j * np.pi * near_hz * hop / RATE))
    return near_hz + turn / (2 * np.pi) * RATE / hop


@pytest.mark.parametrize("pitch", [46.0, 48.0, 49.37, 51.0, 57.0, 62.5])
def test_a_note_is_within_five_cents_of_its_pitch(sampler, pitch):
    hz = measured_hz(sampler.play(pitch, 0.8, 1.0), note_hz(pitch))
    assert abs(1200 * np.log2(hz / note_hz(pitch))) < 5


def test_the_nearest_note_is_taken(sampler):
    assert sampler.choose(50.9, 1.0).pitch == 48
    assert sampler.choose(51.1, 1.0).pitch == 54
    assert sampler.choose(90.0, 1.0).pitch == 60


def test_the_nearest_layer_is_taken_and_its_takes_alternate(sampler):
    soft = [sampler.choose(48, 0.25) for _ in range(4)]
    assert {recording.velocity for recording in soft} == {0.3}
    assert [recording.row["rr"] for recording in soft] in ([1, 2, 1, 2], [2, 1, 2, 1])
    assert sampler.choose(48, 0.9).velocity == 1.0


def test_harder_is_louder_across_and_within_layers(sampler):
    levels = [
        np.sqrt(np.mean(sampler.play(48, velocity, 0.5)[:, 2000:20_000] ** 2)) for velocity in np.arange(0.1, 1, 0.1)
    ]
    assert all(after > before for before, after in itertools.pairwise(levels))
    assert sampler.play(48, 1.0, 0.5)[:, 4000:20_000].max() == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("held_s", [0.05, 0.311, 1.9, 5.0])
def test_notes_begin_and_end_without_a_click(sampler, held_s):
    pitch = 49.0
    sound = sampler.play(pitch, 1.0, held_s, 0.05)
    assert sound.shape[1] <= (held_s + 0.05) * RATE + 1
    assert abs(sound[0, 0]) == 0.0
    assert abs(sound[0, -1]) < 1e-3
    steepest = 0.4 * 2 * np.pi * note_hz(pitch) / RATE
    assert np.abs(np.diff(sound[0])).max() < 2.5 * steepest  # a click would be fifty times that


def test_a_bend_arrives_at_the_note(sampler):
    sound = sampler.play(54.0, 1.0, 1.5, bend=Bend(-2.0, 0.3))
    start = sound[0, : RATE // 10]
    crossings = np.flatnonzero((start[:-1] < 0) & (start[1:] >= 0))
    early = (len(crossings) - 1) * RATE / (crossings[-1] - crossings[0])
    late = measured_hz(sound[:, 30_000:], note_hz(54))
    assert note_hz(51.9) < early < note_hz(52.5)
    assert abs(1200 * np.log2(late / note_hz(54))) < 5


def test_reading_between_samples_follows_the_wave():
    tone = signals.tone(441.0, 4410, channels=1)
    position = np.arange(100, 3000) * 1.3371
    position = position[position < 4400]
    expected = 0.5 * np.sin(2 * np.pi * 441.0 * position / RATE)
    assert np.abs(read_at(tone, position)[0] - expected).max() < 1e-3


def test_transposing_down_keeps_the_level():
    tone = signals.tone(440.0, RATE, channels=2)
    lower = transpose(tone, 2.0 ** (-3 / 12))
    assert lower.shape[0] == 2
    assert lower.shape[1] == pytest.approx(RATE * 2 ** (3 / 12), abs=2)
    assert np.sqrt(np.mean(lower[:, 1000:-1000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_shape_leaves_the_recording_itself_alone():
    tone = signals.tone(440.0, 4410)
    before = tone.copy()
    shape(tone, 0.05, 0.02)
    assert np.array_equal(tone, before)


def test_a_drum_gets_louder_with_velocity_and_never_repeats_a_take(material):
    drum = RecordedDrum(material, material.select("kit", "snare"), 0.0)
    rng = np.random.default_rng(1)
    assert np.abs(drum.strike(1.0, rng)).max() == pytest.approx(1.0, rel=0.15)
    assert np.abs(drum.strike(0.15, rng)).max() < 0.35
    takes = [float(np.abs(drum.strike(0.62, rng)).sum()) for _ in range(6)]
    assert all(before != after for before, after in itertools.pairwise(takes))


def test_a_closed_hi_hat_chokes_an_open_one(material):
    drum = RecordedDrum(material, material.select("kit", "hihat-open"), 0.0)
    rng = np.random.default_rng(2)
    assert drum.strike(1.0, rng).shape[1] == 2 * RATE
    choked = drum.strike(1.0, rng, 0.25)
    assert choked.shape[1] < 0.3 * RATE
    assert abs(choked[0, -1]) < 1e-3


def test_the_drummer_chokes_at_the_next_hi_hat_and_plays_machines_straight():
    class Straight:
        def seconds(self, beat):
            return 0.5 * beat

    hits = (Hit(0.0, "open", 0.8), Hit(0.5, "kick", 0.8), Hit(1.0, "hat", 0.8), Hit(2.0, "open", 0.8))
    part = Part("drums", "drums", hits, {"family": "909"})
    played = _performance(part, Straight(), np.random.default_rng(3))
    assert played[0][2] == pytest.approx(0.5, abs=0.005)
    assert played[-1][2] > 10
    assert all(abs(start - 0.5 * hit.beat) < 0.002 for hit, start, _ in played)
