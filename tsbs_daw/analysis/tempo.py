"""Tempo and phase: the possible pulses of a song, each with its likelihood.

Candidates are the periods at which the attacks repeat. Beats are tracked at each, and features state how well drums,
bass and chords fit each pulse, its half and double tempo, and its off-beats. Listeners disagree about octaves of tempo,
so the result has a confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.beats import Pulse, track
from tsbs_daw.analysis.classifier import likelihoods
from tsbs_daw.analysis.features import ATTACK_S
from tsbs_daw.analysis.metre import best_bar, describe_bars
from tsbs_daw.analysis.rhythm_features import SLACK_FRAMES, RhythmFeatures

SLOWEST_BPM, FASTEST_BPM = 45.0, 220.0
TEMPI_BPM = np.exp(np.arange(np.log(SLOWEST_BPM), np.log(FASTEST_BPM), 0.004))
PERIODS_S = 60.0 / TEMPI_BPM
WINDOW_S, STEP_S = 12.0, 1.0
USUAL_BPM = 112.0
PEAKS = 4
ROWS = (
    "low", "mid", "high", "bass", "other", "vocals", "chords", "changes", "entries", "mixture low", "mixture high",
)  # fmt: skip
TURNS = ((2, ("low", "mid", "chords")), (4, ("low", "mid", "chords")), (3, ("low", "chords")))  # beats, and rows
REPEATING = ("drums", "low", "mid", "bass", "other")  # and the pulse
SHIFTS = (0.0, 0.25, 0.5, 0.75)
DRIFT = 0.04  # of the tempo; more counts as a tempo change


@dataclass(frozen=True)
class PulseCandidate:
    """A pulse, its likelihood, and its clarity: how clearly the attacks repeat at its period, 0 to 1."""

    pulse: Pulse
    likelihood: float
    clarity: float


@dataclass(frozen=True)
class Described:
    """A pulse with its features, (features,), and those of its possible bars, (bars, features)."""

    pulse: Pulse
    features: np.ndarray
    bars: np.ndarray
    clarity: float


def find_pulses(rhythm: RhythmFeatures) -> list[PulseCandidate]:
    """The candidates, likeliest first; empty if nothing repeats."""
    described = describe_pulses(rhythm)
    if not described:
        return []
    likely = likelihoods("pulse", with_bars(described)).tolist()
    found = [PulseCandidate(one.pulse, chance, one.clarity) for one, chance in zip(described, likely, strict=True)]
    return sorted(found, key=lambda candidate: -candidate.likelihood)


def with_bars(described: Sequence[Described]) -> np.ndarray:
    """The features of pulses, (pulses, features); the last is how well bars fit, by the weights in use."""
    return np.asarray([np.append(one.features, best_bar(one.bars)) for one in described])


def describe_pulses(rhythm: RhythmFeatures) -> list[Described]:
    if not rhythm.pulse.any() or len(rhythm.pulse) * ATTACK_S < 1.5:
        return []
    tempi, clarity = _tempi(rhythm.pulse)
    repeating = [*(_mean(repetition(rhythm.rows[name])) for name in REPEATING), clarity]
    usual, found = _usual(rhythm), []
    for tracked in _tracked(rhythm, tempi):
        repeats = [float(np.interp(tracked.bpm, TEMPI_BPM, row)) for row in repeating]
        octave = float(np.log2(tracked.bpm / USUAL_BPM))
        for shift in SHIFTS:
            pulse = tracked.moved(shift)
            features = np.concatenate((_fit(rhythm, usual, pulse), repeats, (-octave * octave, octave)))
            _, bars = describe_bars(rhythm, pulse.at(pulse.numbers(rhythm.duration_s)))
            found.append(Described(pulse, features, bars, repeats[-1]))
    return found


def repetition(row: np.ndarray) -> np.ndarray:
    """How strongly a row repeats at each of PERIODS_S, in windows STEP_S apart, (windows, periods) float32."""
    from librosa.core import autocorrelate
    from scipy.ndimage import maximum_filter1d

    length = min(round(WINDOW_S / ATTACK_S), len(row))
    starts = range(0, len(row) - length + 1, round(STEP_S / ATTACK_S))
    overlap = length / (length - np.arange(length))
    found = np.zeros((len(starts), len(TEMPI_BPM)), np.float32)
    for number, start in enumerate(starts):
        window = row[start : start + length].astype(np.float64)
        window -= window.mean()
        similar = autocorrelate(window) * overlap
        if similar[0] > 1e-9:
            similar = maximum_filter1d(similar / similar[0], 3)
            lags = np.arange(length)
            at = [np.interp(times * PERIODS_S / ATTACK_S, lags, similar, right=0.0) for times in range(1, 5)]
            found[number] = (at[0] + at[1] + 0.5 * at[2] + at[3]) / 3.5
    return found


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0, dtype=np.float64)


def _tempi(pulse: np.ndarray) -> tuple[list[float] | list[np.ndarray], np.ndarray]:
    """Possible tempi in BPM, of the song or of each window, and how strongly the song repeats at PERIODS_S."""
    usual = 0.12 * np.square(np.log2(TEMPI_BPM / USUAL_BPM))
    local = repetition(pulse)
    mean, path = _mean(local), _tempo_path(local, usual)
    if path.max() / path.min() > 1 + DRIFT:
        rates = (rate for rate in (1.0, 2.0, 0.5) if SLOWEST_BPM < np.median(path) * rate < FASTEST_BPM)
        return [path * rate for rate in rates], mean
    return _peaks(mean - usual), mean


def _tracked(rhythm: RhythmFeatures, tempi: Sequence[float | np.ndarray]) -> list[Pulse]:
    """The pulses tracked at each of the tempi."""
    found: list[Pulse] = []
    for tempo in tempi:
        pulse = track(rhythm.pulse, tempo, rhythm.duration_s, STEP_S)
        if pulse is None or not SLOWEST_BPM <= pulse.bpm <= FASTEST_BPM:
            continue
        if all(abs(np.log(pulse.bpm / other.bpm)) > 0.02 for other in found):
            found.append(pulse)
    return found


def _peaks(score: np.ndarray) -> list[float]:
    """The tempi at which the score peaks, best first, with their doubles and halves."""
    inner = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1
    tempi: list[float] = []
    for index in sorted(inner, key=lambda index: -score[index])[:PEAKS]:
        for rate in (1.0, 2.0, 0.5):
            tempo = float(TEMPI_BPM[index] * rate)
            if SLOWEST_BPM < tempo < FASTEST_BPM and all(abs(np.log(tempo / other)) > 0.03 for other in tempi):
                tempi.append(tempo)
    return tempi


def _tempo_path(score: np.ndarray, cost: np.ndarray, stiffness: float = 30.0, reach: int = 12) -> np.ndarray:
    """The likeliest tempo of each window in BPM, with a penalty for changes (Viterbi).

    Shape:
        score: (windows, tempi)
        cost: (tempi,)
        returns: (windows,)
    """
    windows, tempi = score.shape
    best, came_from = score[0] - cost, np.zeros((windows, tempi), np.int16)
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
        best = np.where(leap, best[top] - jump, near) + score[window] - cost
    index, path = int(best.argmax()), np.zeros(windows)
    for window in range(windows - 1, -1, -1):
        path[window] = TEMPI_BPM[index]
        index = int(came_from[window, index])
    return path


def _usual(rhythm: RhythmFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the strongest attacks near each moment, (rows, 1) each."""
    from scipy.ndimage import maximum_filter1d

    found = []
    for name in ROWS:
        strongest = maximum_filter1d(rhythm.rows[name], SLACK_FRAMES)
        found.append((strongest.mean() + 0.05, strongest.std() + 0.05))
    mean, spread = np.asarray(found, np.float32).T[..., None]
    return mean, spread


def _fit(rhythm: RhythmFeatures, usual: tuple[np.ndarray, np.ndarray], pulse: Pulse) -> np.ndarray:
    """How strong the rows are on the beats and between them, and whether they alternate every 2, 3 or 4 beats."""
    numbers, (mean, spread) = pulse.numbers(rhythm.duration_s), usual
    if len(numbers) < 2:
        return np.zeros(3 * len(ROWS) + sum(len(rows) for _, rows in TURNS))
    on, after, off, before = (
        (rhythm.near(ROWS, pulse.at(numbers + shift)) - mean) / spread for shift in (0, 0.25, 0.5, 0.75)
    )
    turns = []
    for beats, rows in TURNS:
        turn = np.exp(-2j * np.pi * np.arange(len(numbers)) / beats)
        turns += np.abs((on[[ROWS.index(row) for row in rows]] * turn).mean(axis=1)).tolist()
    return np.concatenate((on.mean(axis=1), off.mean(axis=1), (after.mean(axis=1) + before.mean(axis=1)) / 2, turns))
