"""Sample rate conversion of a stream, at soxr's best quality.

Sample 0 stays sample 0: the filters have linear phase and their delay is compensated, so a round trip lines up.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

QUALITY = "VHQ"


def resampled_length(samples: int, from_hz: int, to_hz: int) -> int:
    """Number of samples that `Resampler` makes of `samples`: rounded up, so that a round trip never falls short."""
    return -(-samples * to_hz // from_hz)


class Resampler:
    """Resamples a stream block by block; the result does not depend on how the stream is cut into blocks.

    In total it returns `resampled_length` samples, the last of them with `last=True`.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int):
        self.from_hz, self.to_hz, self.channels = from_hz, to_hz, channels
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, channels, "float32", QUALITY)
        self._taken = self._given = 0

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Add a block and return the samples that are ready.

        Args:
            block: may be empty
            last: no more blocks follow

        Shape:
            block: (channels, samples)
            returns: (channels, n), n may be 0
        """
        if self._stream is None:
            return block
        self._taken += block.shape[1]
        made = [self._run(block, False)]
        self._given += made[0].shape[1]
        if last:
            due = resampled_length(self._taken, self.from_hz, self.to_hz)
            # Append silence, as soxr does internally; done here, it also yields the sample that soxr's rounding of the
            # length leaves out.
            tail = np.zeros((self.channels, 2 * self.from_hz // self.to_hz + 2), np.float32)
            made.append(self._run(tail, True)[:, : due - self._given])
            if made[0].shape[1] and due < self._given:
                made[0] = made[0][:, : due - self._given]
            self._given = due
        return made[0] if len(made) == 1 else np.concatenate(made, axis=1)

    def _run(self, block: np.ndarray, last: bool) -> np.ndarray:
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        assert self._stream is not None, "equal rates are passed through"
        return np.ascontiguousarray(self._stream.resample_chunk(frames, last).T)


def fit_length(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Cut a stream to exactly `samples` samples, or pad it with silence.

    The source is always read to its end, because it may raise there, for example if it is cut short.

    Args:
        blocks: at least one if `samples` is not 0
        samples: length of the result

    Shape:
        blocks: (..., n), equal in all axes except the last
    """
    left, shape, dtype = samples, tuple[int, ...](), np.dtype(np.float32)
    for block in blocks:
        shape, dtype = block.shape[:-1], block.dtype
        part = block[..., :left]
        left -= part.shape[-1]
        if part.shape[-1]:
            yield part
    while left:
        count = min(left, 65536)
        left -= count
        yield np.zeros((*shape, count), dtype)
