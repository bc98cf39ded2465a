from __future__ import annotations

import numpy as np
import pytest
from analysis.listening import analyse_sounds
from signals import RATE, chords, drum_kit, silence

from tsbs_daw.analysis.features import PITCH_STEPS, PitchStream, fold
from tsbs_daw.analysis.key_and_sections import KEYS, TONICS, camelot

MAJOR, MINOR = (0, 4, 7), (0, 3, 7)
# I IV V I and i iv V i: root above the tonic, and the triad on it
CADENCES = {
    "major": ((0, MAJOR), (5, MAJOR), (7, MAJOR), (0, MAJOR)),
    "minor": ((0, MINOR), (5, MINOR), (7, MAJOR), (0, MINOR)),
}
WHEEL = {
    "B major": "1B", "F# major": "2B", "Db major": "3B", "Ab major": "4B", "Eb major": "5B", "Bb major": "6B",
    "F major": "7B", "C major": "8B", "G major": "9B", "D major": "10B", "A major": "11B", "E major": "12B",
    "G# minor": "1A", "Eb minor": "2A", "Bb minor": "3A", "F minor": "4A", "C minor": "5A", "G minor": "6A",
    "D minor": "7A", "A minor": "8A", "E minor": "9A", "B minor": "10A", "F# minor": "11A", "C# minor": "12A",
}  # fmt: skip


def cadence(tonic: int, mode: str, cents: float = 0.0) -> dict[str, np.ndarray]:
    """Stems of a cadence that is played again and again."""
    triads = [[48 + tonic + root + step for step in triad] for root, triad in CADENCES[mode]]
    other = chords(triads, 2.0, 24.0, cents=cents)
    bass = chords([[pitches[0] - 12] for pitches in triads], 2.0, 24.0, cents=cents)
    return {"other": other, "bass": bass, "vocals": silence(other.shape[1])}


@pytest.mark.parametrize(("tonic", "mode"), [(0, "major"), (6, "major"), (10, "major"), (9, "minor"), (3, "minor")])
@pytest.mark.parametrize("cents", [0.0, 35.0])
def test_a_cadence_is_in_its_key_whatever_it_is_tuned_to(tonic, mode, cents):
    stems = cadence(tonic, mode, cents)
    key = analyse_sounds(sum(stems.values()), **stems).key
    assert (key.tonic, key.mode) == (TONICS[mode][tonic], mode)
    assert 0 <= key.confidence <= 1


def test_drums_do_not_move_the_key():
    stems = cadence(7, "major")
    drums = 2 * drum_kit(np.arange(0.1, 24, 0.5), 24.0)
    key = analyse_sounds(sum(stems.values()) + drums, drums=drums, **stems).key
    assert key.name == "G major"


def test_what_has_no_pitch_has_no_key():
    drums = drum_kit(np.arange(0.1, 12, 0.5), 12.0)
    found = analyse_sounds(drums, drums=drums, other=silence(drums.shape[1]), vocals=silence(drums.shape[1]))
    assert found.key is None
    assert "Nothing is pitched, so there is no key." in found.notes


def test_the_camelot_wheel_is_the_known_one():
    assert {f"{TONICS[mode][tonic]} {mode}": camelot(tonic, mode) for tonic, mode in KEYS} == WHEEL


def test_a_fifth_up_is_one_hour_on_and_the_relative_is_the_same_hour():
    for tonic in range(12):
        hour = int(camelot(tonic, "major")[:-1])
        assert int(camelot((tonic + 7) % 12, "major")[:-1]) == hour % 12 + 1
        assert camelot((tonic + 9) % 12, "minor") == f"{hour}A"


@pytest.mark.parametrize("pitch", [45, 57, 60, 64, 71, 82])
def test_a_tone_is_heard_as_its_own_pitch_class(pitch):
    at = np.arange(RATE) / 22_050
    wave = 0.3 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * at)
    pitches = PitchStream(1).add(wave[None].astype(np.float32), last=True)[0]
    assert pitches.shape[0] == PITCH_STEPS
    chroma = fold(pitches).sum(axis=1)
    assert chroma.argmax() == pitch % 12
    assert chroma.max() > 0.9 * chroma.sum()


@pytest.mark.parametrize("pitch", [38, 45, 52])
def test_overtones_are_not_taken_for_notes(pitch):
    at = np.arange(RATE) / 22_050
    partials = ((1, 1.0), (2, 0.6), (3, 0.5), (4, 0.4), (5, 0.3), (6, 0.3), (7, 0.2))
    wave = sum(loud * np.sin(2 * np.pi * times * 440 * 2 ** ((pitch - 69) / 12) * at) for times, loud in partials)
    both = PitchStream(1).add(0.2 * wave[None].astype(np.float32), last=True)
    for pitches in both:
        chroma = fold(pitches).sum(axis=1)
        assert chroma.argmax() == pitch % 12
        assert chroma.max() > 0.85 * chroma.sum()


def test_the_lowest_notes_are_heard_apart_from_the_others():
    at = np.arange(RATE) / 22_050
    low, high = (0.3 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * at) for pitch in (36, 64))
    every, lowest = PitchStream(1).add((low + high)[None].astype(np.float32), last=True)
    assert fold(lowest).sum(axis=1).argmax() == 0
    assert fold(every).sum(axis=1)[4] > 0.4 * fold(every).sum()
