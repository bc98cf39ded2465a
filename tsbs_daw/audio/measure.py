"""How loud a sound is: peaks, RMS, loudness (EBU R 128), block by block.

Axes: (channels, samples), float32. Levels are in dB of full scale; silence has no level, and None says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOUDNESS_FLOOR_LUFS = -70.0  # the absolute gate of ITU-R BS.1770; nothing below it counts


@dataclass(frozen=True)
class Levels:
    """sample_peak_db, true_peak_db, rms_db: None for silence
    loudness_lufs: integrated; None when nothing passes the gate, or the sound is shorter than its 400 ms
    samples: per channel
    """

    sample_peak_db: float | None
    true_peak_db: float | None
    rms_db: float | None
    loudness_lufs: float | None
    samples: int


def db(ratio: float) -> float | None:
    """An amplitude ratio in decibels; None for 0, whose level has no number."""
    return 20 * math.log10(ratio) if ratio > 0 else None


def gain(level_db: float) -> float:
    """Decibels as an amplitude ratio."""
    return 10.0 ** (level_db / 20)


class Meter:
    """Measure a stream. More than five channels: loudness counts the first five (L R C, and two surround)."""

    def __init__(self, sample_rate: int, channels: int):
        import pyebur128

        self._library = pyebur128
        mode = pyebur128.MeasurementMode
        self._state = pyebur128.R128State(
            channels, sample_rate, mode.MODE_I | mode.MODE_TRUE_PEAK | mode.MODE_SAMPLE_PEAK
        )
        self.channels = channels
        self._samples, self._energy = 0, 0.0

    def add(self, block: np.ndarray) -> None:
        """Take in a block, (channels, samples)."""
        if not block.shape[1]:
            return
        frames = np.ascontiguousarray(block.T, np.float32).reshape(-1)
        self._state.add_frames(frames, block.shape[1])
        self._samples += block.shape[1]
        self._energy += float(np.dot(frames.astype(np.float64), frames))

    def levels(self) -> Levels:
        """Of all that was added so far."""
        peak = max(self._library.get_sample_peak(self._state, channel) for channel in range(self.channels))
        true = max(self._library.get_true_peak(self._state, channel) for channel in range(self.channels))
        loudness = self._library.get_loudness_global(self._state)
        rms = math.sqrt(self._energy / (self._samples * self.channels)) if self._samples else 0.0
        return Levels(
            db(peak),
            db(max(true, peak)),
            db(rms),
            loudness if loudness > LOUDNESS_FLOOR_LUFS else None,
            self._samples,
        )
