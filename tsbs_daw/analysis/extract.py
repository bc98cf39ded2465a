"""Listen to a file once, in a stream: features, loudness and levels together."""

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


def listen(path: Path, *, pitches: bool = True, low_pitches: bool = True) -> tuple[Features, Loudness]:
    """All that is to be known of a file.

    Args:   pitches, low_pitches: whether these are asked for; where they are not, there are none of any frame
    Raises: AudioError: the file cannot be read
    """
    with open_audio(path) as reader:
        info = reader.info
        return listen_to(
            reader.blocks(), info.sample_rate, info.channels, pitches=pitches, low_pitches=low_pitches
        )  # fmt: skip


def listen_to(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
    *,
    pitches: bool = True,
    low_pitches: bool = True,
) -> tuple[Features, Loudness]:
    """The same of a stream, (channels, n) at a time, n > 0."""
    resampler = Resampler(sample_rate, RATE_HZ, channels)
    attacks, pitched, levels = AttackStream(channels), PitchStream(channels), LevelStream(sample_rate)
    asked = np.asarray([pitches, low_pitches])
    meter = LoudnessMeter(sample_rate, channels)
    rows: tuple[list[np.ndarray], ...] = ([], [], [])
    samples = 0

    def take(block: np.ndarray, last: bool) -> None:
        slow = resampler.process(block, last)
        rows[0].append(attacks.add(slow, last))
        if asked.any():
            rows[1].append(pitched.add(slow, last)[asked])
        rows[2].append(levels.add(block, last))

    for block in blocks:
        samples += block.shape[1]
        meter.add(block)
        take(block, False)
    take(np.zeros((channels, 0), np.float32), True)
    heard = iter(np.concatenate(rows[1], axis=2) if asked.any() else ())
    features = Features(
        np.concatenate(rows[0], axis=1),
        *(next(heard) if one else np.zeros((PITCH_STEPS, 0), np.float32) for one in asked),
        np.concatenate(rows[2]),
        levels.frame_samples / sample_rate,
        samples / sample_rate,
    )
    return features, meter.loudness()
