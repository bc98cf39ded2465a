"""Where the grid lies: beats are tracked where attacks rise fastest, and the grid belongs where they begin.

A spectrum blurs an attack over its window, by up to a hundredth of a second and by more for one sound than for another.
So the beats near clear attacks are compared with the level of the sound itself, millisecond by millisecond. Otherwise a
loop would begin after its first kick and end with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tsbs_daw.analysis.beats import Pulse
from tsbs_daw.analysis.features import Features
from tsbs_daw.analysis.rhythm_features import RhythmFeatures

QUIET_S, BEFORE_S, AFTER_S, LOUD_S = 0.045, 0.02, 0.012, 0.03
CLEAR_DB = 6.0  # an attack is at least this much louder than what was there before it
BEGUN = 0.1  # of the rise in power
EARLY_S = 0.0005  # rather before an attack than within it
FEWEST = 8  # clear attacks from which the grid follows them
UNCLEAR_S = 0.006  # how much earlier attacks begin where none is clear (measured on generated songs)
AGREE_S, FEWEST_OF_LINE = 0.004, 24  # attacks that a line is drawn through
SILENT_SHARE, PLAYED_SHARE = 0.05, 0.6  # of the beats with a clear attack, at most and at least


def aligned(pulse: Pulse, rhythm: RhythmFeatures, song: Features, stems: Mapping[str, Features]) -> Pulse:
    """Move a pulse to where attacks begin, and a steady one to their exact tempo.

    Args:
        pulse: as tracked in the rhythm features
        rhythm: the features that it was tracked in
        song: the features of the mixture
        stems: of the drums, if there are any
    """
    numbers = _numbers_heard(pulse, rhythm)
    times_s = pulse.at(numbers)
    found = [attack_starts(part, times_s) for part in (song, stems.get("drums")) if part is not None]
    starts_s = max(found, key=lambda each: np.isfinite(each).sum())
    clear = np.isfinite(starts_s)
    if clear.sum() < FEWEST:
        return pulse.later(-UNCLEAR_S)
    offset_s = float(np.median(starts_s[clear] - times_s[clear]))
    moved = pulse.later(offset_s - EARLY_S)
    near = clear & (np.abs(starts_s - times_s - offset_s) < AGREE_S)
    if not pulse.steady or near.sum() < max(FEWEST_OF_LINE, clear.sum() / 2):
        return moved
    period, start = np.polyfit(numbers[near], starts_s[near] - EARLY_S, 1)
    return Pulse(moved.numbers_at_knots, start + period * moved.numbers_at_knots)


def on_the_attacks(pulse: Pulse, rhythm: RhythmFeatures, song: Features) -> Pulse:
    """Move a pulse by half a beat if the attacks lie between its beats and none on them.

    Beats and off-beats are told apart by what plays on each. A metronome plays nothing on one of them.
    """
    between = pulse.moved(-0.5)
    on_beats, off_beats = (
        np.isfinite(attack_starts(song, each.at(_numbers_heard(each, rhythm)))) for each in (pulse, between)
    )
    if off_beats.sum() < FEWEST or on_beats.mean() > SILENT_SHARE or off_beats.mean() < PLAYED_SHARE:
        return pulse
    return between


def _numbers_heard(pulse: Pulse, rhythm: RhythmFeatures) -> np.ndarray:
    numbers = pulse.numbers(rhythm.duration_s)
    return numbers[rhythm.beats_heard(pulse.at(numbers))]


def attack_starts(part: Features, times_s: np.ndarray) -> np.ndarray:
    """Where the attack near each time begins, in seconds; NaN where none is clear.

    Shape:
        times_s, returns: (times,)
    """
    power = 10 ** (part.fine_db.astype(np.float64) / 10)
    quiet, before, after, loud = (round(span / part.fine_s) for span in (QUIET_S, BEFORE_S, AFTER_S, LOUD_S))
    starts_s = np.full(len(times_s), np.nan)
    for index, middle in enumerate(np.round(times_s / part.fine_s).astype(int)):
        if middle < quiet or middle + loud > len(power):
            continue
        background = power[middle - quiet : middle - before].mean()
        peak = power[middle - before : middle + loud].max()
        if peak < 10 ** (CLEAR_DB / 10) * background:
            continue
        threshold = background + BEGUN * (peak - background)
        over = np.flatnonzero(power[middle - before : middle + after] >= threshold)
        if len(over) and over[0] > 0:
            first = middle - before + int(over[0])
            low, high = power[first - 1], power[first]
            starts_s[index] = (first - 0.5 + (threshold - low) / (high - low)) * part.fine_s
    return starts_s
