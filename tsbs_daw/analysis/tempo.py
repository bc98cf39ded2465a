"""Tempo and phase: the possible pulses of a song, each with its likelihood.

Candidates are the periods at which the attacks repeat. Beats are tracked at each, and features state how well drums,
bass and chords fit each pulse, its half and double tempo, and its off-beats. Listeners disagree about octaves of tempo,
so the result has a confidence.

Beats are tracked where attacks rise fastest, but the grid belongs where they begin. A spectrum blurs an attack over its
window, by up to a hundredth of a second and by a different amount for each sound. Beats near clear attacks are
therefore aligned with the level of the signal in steps of a millisecond. Otherwise a loop would start after its first
kick and end with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsbs_daw.analysis.beats import Pulse, best_bar, describe_bars, track
from tsbs_daw.analysis.features import ATTACK_S, Features, likelihoods
from tsbs_daw.analysis.rhythm_features import (
    FASTEST_BPM,
    REPEATS_S,
    SLACK_FRAMES,
    SLOWEST_BPM,
    STEP_S,
    TEMPI_BPM,
    RhythmFeatures,
    heard_at,
    repetition,
    share_heard,
)  # fmt: skip

WINDOW_S = 12.0
USUAL_BPM = 112.0
PEAKS = 4
ROWS = (
    "low", "mid", "high", "bass", "other", "vocals", "chords", "changes", "entries", "mixture low", "mixture high",
)  # fmt: skip
TURNS = ((2, ("low", "mid", "chords")), (4, ("low", "mid", "chords")), (3, ("low", "chords")))  # period in beats, rows
REPEATING = ("drums", "low", "mid", "bass", "other")  # and the pulse
SHIFTS = (0.0, 0.25, 0.5, 0.75)
# Strength of kick and snare between the beats of a slow pulse, in standard deviations. Measured on generated songs: if
# the pulse is right, the weaker of the two is at most 0.9 and their sum at most 2.0; if the song is twice as fast, they
# are at least 1.1 and 3.1.
SLOW_BPM, BETWEEN, BETWEEN_BOTH = 92.0, 1.0, 2.6
# A leap: the local tempo is stable for KEPT windows on either side, and both parts of the song last at least PART_S.
KEPT, PART_S, MOST_LEAPS = 3, 6.0, 4
MOSTLY = 0.75  # a window gives the tempo if beats are heard in more than this share of it
DRIFT = 0.04  # relative; a larger difference counts as a tempo change
# Search for the beginning of an attack in the level of the signal.
QUIET_S, BEFORE_S, AFTER_S, LOUD_S = 0.045, 0.02, 0.012, 0.03
CLEAR_DB = 6.0  # a clear attack is at least this much louder than the sound before it
BEGUN = 0.1  # an attack begins at this fraction of its rise in power
EARLY_S = 0.0005  # the grid lies this much before the attacks, not within them
FEWEST_CLEAR = 8  # clear attacks needed to align the grid with them
UNCLEAR_S = 0.006  # by how much the grid moves earlier if too few attacks are clear (measured on generated songs)
AGREE_S, FEWEST_OF_LINE = 0.004, 24  # tolerance and fewest attacks for fitting a line through them
SILENT_SHARE, PLAYED_SHARE = 0.05, 0.6  # share of beats with a clear attack: at most, at least


@dataclass(frozen=True)
class PulseCandidate:
    """A possible pulse of a song.

    Attributes:
        pulse: The beat grid.
        likelihood: Likelihood of tempo and phase.
        clarity: How clearly the attacks repeat at its period, 0 to 1.
    """

    pulse: Pulse
    likelihood: float
    clarity: float


@dataclass(frozen=True)
class Described:
    """A pulse and its features.

    Attributes:
        pulse: The beat grid.
        features: (features,), those of the pulse.
        bars: (bars, features), those of its possible bars.
        clarity: How clearly the attacks repeat at its period, 0 to 1.
    """

    pulse: Pulse
    features: np.ndarray
    bars: np.ndarray
    clarity: float


def find_pulses(rhythm: RhythmFeatures) -> list[PulseCandidate]:
    """Find the possible pulses, likeliest first; empty if nothing repeats."""
    if not rhythm.heard.any():
        return []
    ranked = _ranked(rhythm)
    stepped = _stepped(rhythm) if ranked and not ranked[0].pulse.steady else None
    return [stepped, *ranked] if stepped else ranked


def _stepped(rhythm: RhythmFeatures) -> PulseCandidate | None:
    """Return the pulse of a song that jumps from one steady tempo to another; None if it does not."""
    for at_s in _leaps(rhythm):
        parts = [rhythm.part(0.0, at_s), rhythm.part(at_s, rhythm.duration_s)]
        (before, after), begin_s = (find_pulses(part) for part, _ in parts), parts[1][1]
        if not before or not after or not before[0].pulse.steady:
            continue
        first, then = before[0], after[0]
        octaves = float(np.log2(then.pulse.bpm / first.pulse.bpm))
        if not first.pulse.steady or abs(octaves - round(octaves)) < DRIFT or not then.pulse.steady:
            continue
        joined = first.pulse.then(then.pulse.later(begin_s), rhythm.pulse, at_s)
        return PulseCandidate(joined, min(first.likelihood, then.likelihood), min(first.clarity, then.clarity))
    return None


def _leaps(rhythm: RhythmFeatures) -> list[float]:
    """Return the times in seconds at which the local tempo leaps from one stable value to another."""
    if rhythm.duration_s < 2 * PART_S:
        return []
    local = repetition(rhythm.pulse, REPEATS_S)
    weights = share_heard(rhythm.heard, len(local), REPEATS_S)[:, None]
    path = np.log(_tempo_path(local * weights, 0.12 * np.square(np.log2(TEMPI_BPM / USUAL_BPM)) * weights))
    leaps_s = []
    for index in np.flatnonzero(np.abs(np.diff(path)) > DRIFT) + 1:
        sides = path[max(index - KEPT, 0) : index], path[index : index + KEPT]
        if all(len(side) >= KEPT - 1 and np.ptp(side) < DRIFT for side in sides):
            leaps_s.append(float(round(index * STEP_S + REPEATS_S / 2)))
    return [at_s for at_s in leaps_s if PART_S <= at_s <= rhythm.duration_s - PART_S][:MOST_LEAPS]


def _ranked(rhythm: RhythmFeatures) -> list[PulseCandidate]:
    """Return the candidates for a song whose tempo is constant or changes slowly, likeliest first."""
    core, start_s = rhythm.core()
    described = describe_pulses(core)
    if not described:
        return []
    likely = likelihoods("pulse", with_bars(described)).tolist()
    candidates = [
        PulseCandidate(each.pulse.later(start_s), likelihood, each.clarity)
        for each, likelihood in zip(described, likely, strict=True)
    ]
    order = sorted(range(len(candidates)), key=lambda index: -candidates[index].likelihood)
    ranked = [candidates[index] for index in order]
    return _doubled(ranked) if _drummed_between(described[order[0]]) else ranked


def _drummed_between(described: Described) -> bool:
    """Tell whether kick and snare are so strong between the beats that the pulse must be half the song's tempo."""
    between = described.features[len(ROWS) :][[ROWS.index("low"), ROWS.index("mid")]]
    return described.pulse.bpm < SLOW_BPM and between.min() > BETWEEN and between.sum() > BETWEEN_BOTH


def _doubled(ranked: list[PulseCandidate]) -> list[PulseCandidate]:
    """Move the candidates at twice the best one's tempo to the front, and give them the likelihood of its tempo."""
    rates = [each.pulse.bpm / ranked[0].pulse.bpm for each in ranked]
    double = [each for each, rate in zip(ranked, rates, strict=True) if abs(rate / 2 - 1) < DRIFT]
    if not double:
        return ranked
    half = [each for each, rate in zip(ranked, rates, strict=True) if abs(rate - 1) < DRIFT]
    rest = [each for each, rate in zip(ranked, rates, strict=True) if min(abs(rate / 2 - 1), abs(rate - 1)) >= DRIFT]
    gain = sum(each.likelihood for each in half) / max(sum(each.likelihood for each in double), 1e-9)
    raised = [replace(each, likelihood=each.likelihood * (1 + gain)) for each in double]
    return raised + [replace(each, likelihood=0.0) for each in half] + rest


def with_bars(described: Sequence[Described]) -> np.ndarray:
    """Return the features of pulses, (pulses, features); the last one is how well bars fit, by the weights in use."""
    return np.asarray([np.append(each.features, best_bar(each.bars)) for each in described])


def describe_pulses(rhythm: RhythmFeatures) -> list[Described]:
    """Track the possible pulses of a song and return each with its features."""
    if not rhythm.pulse.any() or len(rhythm.pulse) * ATTACK_S < 1.5:
        return []
    tempi, clarity = _tempi(rhythm)
    repeating = [*(_mean(rhythm, repetition(rhythm.rows[name], WINDOW_S)) for name in REPEATING), clarity]
    usual, described = _usual(rhythm), []
    for tracked in _tracked(rhythm, tempi):
        repeats = [float(np.interp(tracked.bpm, TEMPI_BPM, row)) for row in repeating]
        octave = float(np.log2(tracked.bpm / USUAL_BPM))
        for shift in SHIFTS:
            pulse = tracked.moved(shift)
            features = np.concatenate((_fit(rhythm, usual, pulse), repeats, (-octave * octave, octave)))
            _, bars = describe_bars(rhythm, pulse.at(pulse.numbers(rhythm.duration_s)))
            described.append(Described(pulse, features, bars, repeats[-1]))
    return described


def _mean(rhythm: RhythmFeatures, local: np.ndarray) -> np.ndarray:
    """Return the mean over the windows that have beats."""
    weights = share_heard(rhythm.heard, len(local), WINDOW_S)
    weights = np.where(weights > MOSTLY, 1.0, 0.0) if (weights > MOSTLY).any() else weights
    return np.average(local.astype(np.float64), axis=0, weights=weights + 1e-6)


def _tempi(rhythm: RhythmFeatures) -> tuple[list[float] | list[np.ndarray], np.ndarray]:
    """Return possible tempi in BPM, of the song or of each window, and how strongly the song repeats at PERIODS_S."""
    usual = 0.12 * np.square(np.log2(TEMPI_BPM / USUAL_BPM))
    local = repetition(rhythm.pulse, WINDOW_S)
    weights = share_heard(rhythm.heard, len(local), WINDOW_S)[:, None]
    mean, path = _mean(rhythm, local), _tempo_path(local * weights, usual * weights)
    heard = path[weights[:, 0] > MOSTLY] if (weights > MOSTLY).any() else path
    if heard.max() / heard.min() > 1 + DRIFT:
        rates = (rate for rate in (1.0, 2.0, 0.5) if SLOWEST_BPM < np.median(heard) * rate < FASTEST_BPM)
        return [path * rate for rate in rates], mean
    return _peaks(mean - usual), mean


def _tracked(rhythm: RhythmFeatures, tempi: Sequence[float | np.ndarray]) -> list[Pulse]:
    """Track a pulse at each of the tempi; drop those whose tempo is out of range or already found."""
    tracked: list[Pulse] = []
    for tempo in tempi:
        pulse = track(rhythm, tempo)
        if pulse is None or not SLOWEST_BPM <= pulse.bpm <= FASTEST_BPM:
            continue
        if all(abs(np.log(pulse.bpm / other.bpm)) > 0.02 for other in tracked):
            tracked.append(pulse)
    return tracked


def _peaks(score: np.ndarray) -> list[float]:
    """Return the tempi at which the score peaks, best first, with their doubles and halves."""
    inner = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1
    tempi: list[float] = []
    for index in sorted(inner, key=lambda index: -score[index])[:PEAKS]:
        for rate in (1.0, 2.0, 0.5):
            tempo = float(TEMPI_BPM[index] * rate)
            if SLOWEST_BPM < tempo < FASTEST_BPM and all(abs(np.log(tempo / other)) > 0.03 for other in tempi):
                tempi.append(tempo)
    return tempi


def _tempo_path(score: np.ndarray, cost: np.ndarray, stiffness: float = 30.0, reach: int = 12) -> np.ndarray:
    """Return the likeliest tempo of each window in BPM, with a penalty for changes (Viterbi).

    Shape:
        score: (windows, tempi)
        cost: (windows, tempi)
        returns: (windows,)
    """
    windows, tempi = score.shape
    best, came_from = score[0] - cost[0], np.zeros((windows, tempi), np.int16)
    jump = 0.6  # the gain that a sudden change to any tempo must bring
    moves = np.arange(-reach, reach + 1)
    costs = stiffness * np.square(moves * 0.004)
    for window in range(1, windows):
        padded = np.pad(best, reach, constant_values=-np.inf)
        choices = np.stack([padded[reach + move : reach + move + tempi] for move in moves]) - costs[:, None]
        move = choices.argmax(axis=0)
        near, top = choices[move, np.arange(tempi)], int(best.argmax())
        leap = best[top] - jump > near
        came_from[window] = np.where(leap, top, np.arange(tempi) + moves[move])
        best = np.where(leap, best[top] - jump, near) + score[window] - cost[window]
    index, path = int(best.argmax()), np.zeros(windows)
    for window in range(windows - 1, -1, -1):
        path[window] = TEMPI_BPM[index]
        index = int(came_from[window, index])
    return path


def _usual(rhythm: RhythmFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the strongest attacks near each moment, (rows, 1) each."""
    from scipy.ndimage import maximum_filter1d

    heard = heard_at(rhythm.heard, np.arange(len(rhythm.pulse)) * ATTACK_S)
    heard = heard if heard.any() else np.ones(len(heard), bool)
    found = []
    for name in ROWS:
        strongest = maximum_filter1d(rhythm.rows[name], SLACK_FRAMES)[heard]
        found.append((strongest.mean() + 0.05, strongest.std() + 0.05))
    mean, spread = np.asarray(found, np.float32).T[..., None]
    return mean, spread


def _fit(rhythm: RhythmFeatures, usual: tuple[np.ndarray, np.ndarray], pulse: Pulse) -> np.ndarray:
    """Return how strong the rows are on and between the beats, and how much they alternate every 2, 3 or 4 beats."""
    numbers, (mean, spread) = pulse.numbers(rhythm.duration_s), usual
    numbers = numbers[rhythm.beats_heard(pulse.at(numbers))]
    if len(numbers) < 2:
        return np.zeros(3 * len(ROWS) + sum(len(rows) for _, rows in TURNS))
    on, after, off, before = (
        (rhythm.near(ROWS, pulse.at(numbers + shift)) - mean) / spread for shift in (0, 0.25, 0.5, 0.75)
    )
    turns = []
    for beats, rows in TURNS:
        turn = np.exp(-2j * np.pi * (numbers - numbers[0]) / beats)
        turns += np.abs((on[[ROWS.index(row) for row in rows]] * turn).mean(axis=1)).tolist()
    return np.concatenate((on.mean(axis=1), off.mean(axis=1), (after.mean(axis=1) + before.mean(axis=1)) / 2, turns))


def aligned(pulse: Pulse, rhythm: RhythmFeatures, song: Features, stems: Mapping[str, Features]) -> Pulse:
    """Align a pulse with the beginnings of attacks; a steady pulse also takes on their exact tempo.

    Args:
        pulse: Pulse as tracked.
        rhythm: Rhythm features that it was tracked in.
        song: Features of the mixture.
        stems: Features of the stems, by name. The drums replace the mixture if they have more clear attacks.
    """
    numbers = _numbers_heard(pulse, rhythm)
    times_s = pulse.at(numbers)
    found = [attack_starts(part, times_s) for part in (song, stems.get("drums")) if part is not None]
    starts_s = max(found, key=lambda each: np.isfinite(each).sum())
    clear = np.isfinite(starts_s)
    if clear.sum() < FEWEST_CLEAR:
        return pulse.later(-UNCLEAR_S)
    offset_s = float(np.median(starts_s[clear] - times_s[clear]))
    moved = pulse.later(offset_s - EARLY_S)
    near = clear & (np.abs(starts_s - times_s - offset_s) < AGREE_S)
    if not pulse.steady or near.sum() < max(FEWEST_OF_LINE, clear.sum() / 2):
        return moved
    period, start = np.polyfit(numbers[near], starts_s[near] - EARLY_S, 1)
    return Pulse(moved.numbers_at_knots, start + period * moved.numbers_at_knots)


def on_the_attacks(pulse: Pulse, rhythm: RhythmFeatures, song: Features) -> Pulse:
    """Move a pulse by half a beat if the attacks lie between its beats and hardly any on them.

    Tracking distinguishes beats from off-beats by what plays on each. With a metronome, nothing plays on one of them.
    """
    between = pulse.moved(-0.5)
    on_beats, off_beats = (
        np.isfinite(attack_starts(song, each.at(_numbers_heard(each, rhythm)))) for each in (pulse, between)
    )
    if off_beats.sum() < FEWEST_CLEAR or on_beats.mean() > SILENT_SHARE or off_beats.mean() < PLAYED_SHARE:
        return pulse
    return between


def _numbers_heard(pulse: Pulse, rhythm: RhythmFeatures) -> np.ndarray:
    """Return the numbers of the beats of a pulse that are heard."""
    numbers = pulse.numbers(rhythm.duration_s)
    return numbers[rhythm.beats_heard(pulse.at(numbers))]


def attack_starts(part: Features, times_s: np.ndarray) -> np.ndarray:
    """Return when the attack near each time begins, in seconds; NaN if there is no clear attack.

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
