"""Extract features, loudness and levels from a file in one pass.

Loudness follows EBU R 128: integrated, range and true peak. The range is defined over windows of three seconds, so a
shorter signal has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tsbs_daw.analysis.features import PITCH_STEPS, RATE_HZ, AttackStream, Features, LevelStream, PitchStream
from tsbs_daw.audio.measure import Meter
from tsbs_daw.audio.read import open_audio
from tsbs_daw.audio.resample import Resampler
from tsbs_daw.contracts.analysis import Loudness

RANGE_NEEDS_S = 3.0


class LoudnessMeter:
    """Measures the loudness of a stream: `add` blocks of shape (channels, samples), then ask for `loudness` once."""

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
        has_range = levels.loudness_lufs is not None and levels.samples >= self._needed
        return Loudness(
            integrated_lufs=_rounded(levels.loudness_lufs),
            range_lu=_rounded(self._range_of(self._state)) if has_range else None,
            true_peak_db=_rounded(levels.true_peak_db),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def extract(path: Path, *, pitches: bool = True, low_pitches: bool = True) -> tuple[Features, Loudness]:
    """Extract the features and the loudness of a file.

    Args:
        path: of the file
        pitches: extract `Features.pitches`; otherwise they have no frames
        low_pitches: extract `Features.low_pitches`; otherwise they have no frames

    Raises:
        AudioError: the file cannot be read
    """
    with open_audio(path) as reader:
        info = reader.info
        return extract_stream(
            reader.blocks(), info.sample_rate, info.channels, pitches=pitches, low_pitches=low_pitches
        )  # fmt: skip


def extract_stream(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
    *,
    pitches: bool = True,
    low_pitches: bool = True,
) -> tuple[Features, Loudness]:
    """Extract the features and the loudness of a stream; see `extract`.

    Shape:
        blocks: (channels, n) each, n > 0
    """
    resampler = Resampler(sample_rate, RATE_HZ, channels)
    attacks, pitched, levels = AttackStream(channels), PitchStream(channels), LevelStream(sample_rate)
    wanted = np.asarray([pitches, low_pitches])
    meter = LoudnessMeter(sample_rate, channels)
    rows: tuple[list[np.ndarray], ...] = ([], [], [])
    samples = 0

    def take(block: np.ndarray, last: bool) -> None:
        slow = resampler.process(block, last)
        rows[0].append(attacks.add(slow, last))
        if wanted.any():
            rows[1].append(pitched.add(slow, last)[wanted])
        rows[2].append(levels.add(block, last))

    for block in blocks:
        samples += block.shape[1]
        meter.add(block)
        take(block, False)
    take(np.zeros((channels, 0), np.float32), True)
    extracted = iter(np.concatenate(rows[1], axis=2) if wanted.any() else ())
    features = Features(
        np.concatenate(rows[0], axis=1),
        *(next(extracted) if want else np.zeros((PITCH_STEPS, 0), np.float32) for want in wanted),
        np.concatenate(rows[2]),
        levels.frame_samples / sample_rate,
        samples / sample_rate,
    )
    return features, meter.loudness()
