"""Loudness as broadcasters measure it (EBU R 128), block by block: integrated, range, true peak.

The range is defined over windows of three seconds; a shorter sound has none.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.audio.measure import Meter
from tsbs_daw.contracts.analysis import Loudness

RANGE_NEEDS_S = 3.0


class LoudnessMeter:
    """`add` blocks, (channels, samples); `loudness` ends the sound."""

    def __init__(self, sample_rate: int, channels: int):
        import pyebur128

        self._meter = Meter(sample_rate, channels)
        self._range_of = pyebur128.get_loudness_range
        mode = pyebur128.MeasurementMode
        self._state = pyebur128.R128State(channels, sample_rate, mode.MODE_LRA | mode.MODE_HISTOGRAM)
        self._needed = RANGE_NEEDS_S * sample_rate

    def add(self, block: np.ndarray) -> None:
        if block.shape[1]:
            self._meter.add(block)
            self._state.add_frames(np.ascontiguousarray(block.T, np.float32).reshape(-1), block.shape[1])

    def loudness(self) -> Loudness:
        levels = self._meter.levels()
        heard = levels.loudness_lufs is not None and levels.samples >= self._needed
        return Loudness(
            integrated_lufs=_rounded(levels.loudness_lufs),
            range_lu=_rounded(self._range_of(self._state)) if heard else None,
            true_peak_db=_rounded(levels.true_peak_db),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
