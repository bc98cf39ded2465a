"""Metre: which beats begin a bar of three or four, by what kick, bass and chords do on one beat and not on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.classifier import likelihoods, weighted_sums
from tsbs_daw.analysis.rhythm_features import RhythmFeatures

METERS = (4, 3)
ROWS = ("low", "mid", "high", "bass", "other", "vocals", "chords", "mixture", "changes", "entries")
FEWEST_BARS = 3
ODD, LONGEST_LAG = (5, 7, 9, 11), 12
ODD_ROWS = ("low", "mid", "high", "bass", "chords")
# In generated songs of three and four beats, no odd distance is more alike than the usual ones; in odd bars it is 0.11
# at least.
ODD_LIKENESS, ODD_MARGIN, ODD_LIKELIHOOD = 0.2, 0.05, 0.4


@dataclass(frozen=True)
class Bars:
    """The bars of a song.

    Attributes:
        beats_per_bar: 3 or 4; 5, 7, 9 or 11 with a low likelihood
        first: index of the first downbeat
        likelihood: that both are right
        of_meter: likelihood of beats_per_bar alone
    """

    beats_per_bar: int
    first: int
    likelihood: float
    of_meter: float


def find_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> Bars | None:
    """Find the bars; None if the beats do not fill three bars."""
    candidates, features = describe_bars(rhythm, beats_s)
    if not candidates:
        return None
    if odd := _odd_bars(rhythm, beats_s):
        return odd
    likely = likelihoods("bar", features)
    best = int(likely.argmax())
    beats_per_bar, first = candidates[best]
    same_metre = [number for number, candidate in enumerate(candidates) if candidate[0] == beats_per_bar]
    return Bars(beats_per_bar, first, float(likely[best]), float(likely[same_metre].sum()))


def _odd_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> Bars | None:
    """Bars of 5, 7, 9 or 11 beats, where the beats are clearly more alike at that distance than at any usual one.

    The likelihood stays low: no song that the weights were fitted on has such bars.
    """
    heard = rhythm.beats_heard(beats_s)
    strengths = _at_beats(rhythm, beats_s, heard)[[ROWS.index(row) for row in ODD_ROWS]] * heard
    likeness = {}
    for lag in range(2, min(LONGEST_LAG, len(beats_s) // 2) + 1):
        pairs = int((heard[:-lag] & heard[lag:]).sum())
        likeness[lag] = float((strengths[:, :-lag] * strengths[:, lag:]).sum()) / max(pairs, 1) / len(ODD_ROWS)
    odd = max((lag for lag in ODD if lag in likeness), key=lambda lag: likeness[lag], default=None)
    if odd is None:
        return None
    usual = max(value for lag, value in likeness.items() if lag not in ODD and lag != 2 * odd)
    if likeness[odd] < ODD_LIKENESS or likeness[odd] < usual + ODD_MARGIN:
        return None
    phases = [strengths[:, first::odd].sum() for first in range(odd)]
    return Bars(odd, int(np.argmax(phases)), min(likeness[odd], ODD_LIKELIHOOD), 1.0)


def best_bar(features: np.ndarray) -> float:
    """The weighted sum of the likeliest candidate of `describe_bars`; 0 if there is none."""
    return float(weighted_sums("bar", features).max()) if len(features) else 0.0


def describe_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Candidates (beats per bar, first downbeat), and their features, (candidates, features)."""
    if len(beats_s) < FEWEST_BARS * max(METERS):
        return [], np.zeros((0, 0))
    heard = rhythm.beats_heard(beats_s)
    strengths = _at_beats(rhythm, beats_s, heard)
    candidates, features = [], []
    for beats_per_bar in METERS:
        usable = len(beats_s) // beats_per_bar * beats_per_bar
        bars = strengths[:, :usable].reshape(len(ROWS), -1, beats_per_bar)
        typical = np.average(bars, axis=1, weights=heard[:usable].reshape(-1, beats_per_bar).mean(axis=1) + 1e-6)
        # How strongly a row varies within its typical bar: large if the row repeats with this number of beats.
        alike = typical.std(axis=1)
        for first in range(beats_per_bar):
            bar = np.roll(typical, -first, axis=1)
            third = bar[:, 2] if beats_per_bar == 4 else (bar[:, 1] + bar[:, 2]) / 2
            is_four = np.asarray([float(beats_per_bar == 4)])
            features.append(np.concatenate((bar[:, 0], third[:3], bar[:3, 1], alike, is_four)))
            candidates.append((beats_per_bar, first))
    return candidates, np.asarray(features)


def _at_beats(rhythm: RhythmFeatures, beats_s: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Strength of each of ROWS at the beats, standardised over those that are heard: (rows, beats)."""
    at = np.log1p(rhythm.near(ROWS, beats_s))
    usual = at[:, heard]
    return (at - usual.mean(axis=1, keepdims=True)) / (usual.std(axis=1, keepdims=True) + 0.05)
