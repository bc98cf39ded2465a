"""Metre: which beats begin a bar of three or four, by what kick, bass and chords do on one beat and not on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.classifier import likelihoods, weighted_sums
from tsbs_daw.analysis.rhythm_features import RhythmFeatures

METERS = (4, 3)
ROWS = ("low", "mid", "high", "bass", "other", "vocals", "chords", "mixture", "changes", "entries")
FEWEST_BARS = 3


@dataclass(frozen=True)
class Bars:
    """The bars of a song.

    Attributes:
        beats_per_bar: 3 or 4
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
    likely = likelihoods("bar", features)
    best = int(likely.argmax())
    beats_per_bar, first = candidates[best]
    same_metre = [number for number, candidate in enumerate(candidates) if candidate[0] == beats_per_bar]
    return Bars(beats_per_bar, first, float(likely[best]), float(likely[same_metre].sum()))


def best_bar(features: np.ndarray) -> float:
    """The weighted sum of the likeliest candidate of `describe_bars`; 0 if there is none."""
    return float(weighted_sums("bar", features).max()) if len(features) else 0.0


def describe_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Candidates (beats per bar, first downbeat), and their features, (candidates, features)."""
    if len(beats_s) < FEWEST_BARS * max(METERS):
        return [], np.zeros((0, 0))
    strengths = _at_beats(rhythm, beats_s)
    candidates, features = [], []
    for beats_per_bar in METERS:
        usable = len(beats_s) // beats_per_bar * beats_per_bar
        bars = strengths[:, :usable].reshape(len(ROWS), -1, beats_per_bar)
        typical = bars.mean(axis=1)
        # How strongly a row varies within its typical bar: large if the row repeats with this number of beats.
        alike = typical.std(axis=1)
        for first in range(beats_per_bar):
            bar = np.roll(typical, -first, axis=1)
            third = bar[:, 2] if beats_per_bar == 4 else (bar[:, 1] + bar[:, 2]) / 2
            is_four = np.asarray([float(beats_per_bar == 4)])
            features.append(np.concatenate((bar[:, 0], third[:3], bar[:3, 1], alike, is_four)))
            candidates.append((beats_per_bar, first))
    return candidates, np.asarray(features)


def _at_beats(rhythm: RhythmFeatures, beats_s: np.ndarray) -> np.ndarray:
    """Strength of each of ROWS at the beats, standardised over the beats: (rows, beats)."""
    at = np.log1p(rhythm.near(ROWS, beats_s))
    return (at - at.mean(axis=1, keepdims=True)) / (at.std(axis=1, keepdims=True) + 0.05)
