"""Chroma: how much of each of the twelve pitch classes is heard, whatever the song is tuned to."""

from __future__ import annotations

import numpy as np

from tsbs_daw.analysis.features import PITCH_STEPS

THIRDS = PITCH_STEPS // 12


def fold(pitches: np.ndarray) -> np.ndarray:
    """(36, F) thirds of semitones from A -> (12, F) semitones from C, around the pitch that the song is tuned to."""
    total = pitches.sum(axis=1).reshape(12, THIRDS).sum(axis=0)
    turn = np.angle(np.sum(total * np.exp(2j * np.pi * np.arange(THIRDS) / THIRDS))) / (2 * np.pi)
    middle = round(turn * THIRDS)  # of each group, in thirds of a semitone: -1, 0, 1
    grouped = np.roll(pitches, 1 - middle, axis=0).reshape(12, THIRDS, -1).sum(axis=1)
    return np.roll(grouped, -3, axis=0)
