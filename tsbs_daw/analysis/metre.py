"""Which beats begin a bar, in threes or fours: by what kick, bass and chords do on one beat of a bar, not on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.classifier import likelihoods, weighed
from tsbs_daw.analysis.rhythm_features import Evidence

METERS = (4, 3)
ROWS = ("low", "mid", "high", "bass", "other", "vocals", "chords", "mixture", "changes", "entries")
FEWEST_BARS = 3


@dataclass(frozen=True)
class Bars:
    """beats_per_bar; first: index of the first downbeat; likelihood: of both being right; of_meter: of beats_per_bar"""

    beats_per_bar: int
    first: int
    likelihood: float
    of_meter: float


def find_bars(evidence: Evidence, beats_s: np.ndarray) -> Bars | None:
    """None with fewer beats than make three bars."""
    candidates, features = describe_bars(evidence, beats_s)
    if not candidates:
        return None
    likely = likelihoods("bar", features)
    best = int(likely.argmax())
    beats_per_bar, first = candidates[best]
    same = [number for number, candidate in enumerate(candidates) if candidate[0] == beats_per_bar]
    return Bars(beats_per_bar, first, float(likely[best]), float(likely[same].sum()))


def best_bar(features: np.ndarray) -> float:
    """How much speaks for the likeliest of the bars that `describe_bars` describes; 0 where there are none."""
    return float(weighed("bar", features).max()) if len(features) else 0.0


def describe_bars(evidence: Evidence, beats_s: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Candidates (beats per bar, first downbeat), and what speaks for each, (candidates, features)."""
    if len(beats_s) < FEWEST_BARS * max(METERS):
        return [], np.zeros((0, 0))
    strengths = _at_beats(evidence, beats_s)
    candidates, features = [], []
    for beats_per_bar in METERS:
        usable = len(beats_s) // beats_per_bar * beats_per_bar
        bars = strengths[:, :usable].reshape(len(ROWS), -1, beats_per_bar)
        typical = bars.mean(axis=1)
        # How alike a row's bars are to its typical bar: large where the rows do repeat every so many beats.
        alike = typical.std(axis=1)
        for first in range(beats_per_bar):
            bar = np.roll(typical, -first, axis=1)
            third = bar[:, 2] if beats_per_bar == 4 else (bar[:, 1] + bar[:, 2]) / 2
            is_four = np.asarray([float(beats_per_bar == 4)])
            features.append(np.concatenate((bar[:, 0], third[:3], bar[:3, 1], alike, is_four)))
            candidates.append((beats_per_bar, first))
    return candidates, np.asarray(features)


def _at_beats(evidence: Evidence, beats_s: np.ndarray) -> np.ndarray:
    """(rows of ROWS, beats), standardised over the beats."""
    at = np.log1p(evidence.near(ROWS, beats_s))
    return (at - at.mean(axis=1, keepdims=True)) / (at.std(axis=1, keepdims=True) + 0.05)
