"""Listen to a file once, in a stream: features, loudness and levels together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tsbs_daw.analysis.document import Loudness
from tsbs_daw.analysis.features import RATE_HZ, AttackStream, Features, LevelStream, PitchStream
from tsbs_daw.analysis.loudness import LoudnessMeter
from tsbs_daw.audio.read import open_audio
from tsbs_daw.audio.resample import Resampler


def listen(path: Path) -> tuple[Features, Loudness]:
    """All that is to be known of a file.

    Raises: AudioError: the file cannot be read
    """
    with open_audio(path) as reader:
        return listen_to(reader.blocks(), reader.info.sample_rate, reader.info.channels)


def listen_to(blocks: Iterator[np.ndarray], sample_rate: int, channels: int) -> tuple[Features, Loudness]:
    """The same of a stream, (channels, n) at a time, n > 0."""
    resampler = Resampler(sample_rate, RATE_HZ, channels)
    attacks, pitches, levels = AttackStream(channels), PitchStream(channels), LevelStream(sample_rate)
    meter = LoudnessMeter(sample_rate, channels)
    rows: tuple[list[np.ndarray], ...] = ([], [], [])
    samples = 0

    def take(block: np.ndarray, last: bool) -> None:
        slow = resampler.process(block, last)
        rows[0].append(attacks.add(slow, last))
        rows[1].append(pitches.add(slow, last))
        rows[2].append(levels.add(block, last))

    for block in blocks:
        samples += block.shape[1]
        meter.add(block)
        take(block, False)
    take(np.zeros((channels, 0), np.float32), True)
    features = Features(
        np.concatenate(rows[0], axis=1),
        *np.concatenate(rows[1], axis=2),
        np.concatenate(rows[2]),
        levels.frame_samples / sample_rate,
        samples / sample_rate,
    )
    return features, meter.loudness()
