"""Change the sample rate of a stream, with soxr's best quality.

Sample 0 stays sample 0: the filters have linear phase and their delay is taken out, so there and back again lines up.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

QUALITY = "VHQ"


def resampled_length(samples: int, from_hz: int, to_hz: int) -> int:
    """How many samples `Resampler` makes of `samples`: rounded up, so that a way there and back never falls short."""
    return -(-samples * to_hz // from_hz)


class Resampler:
    """Resample a stream block by block; the result does not depend on how the stream is cut.

    `resampled_length(samples given in all)` samples come out in all, the last of them with `last=True`.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int):
        self.from_hz, self.to_hz, self.channels = from_hz, to_hz, channels
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, channels, "float32", QUALITY)
        self._taken = self._given = 0

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The samples that are ready, which may be none.

        Args:    block: (channels, samples), samples may be 0
                 last: no more will come
        Returns: (channels, n)
        """
        if self._stream is None:
            return block
        self._taken += block.shape[1]
        made = [self._run(block, False)]
        self._given += made[0].shape[1]
        if last:
            due = resampled_length(self._taken, self.from_hz, self.to_hz)
            # Silence follows the end, as it would inside soxr; given here, it also yields the sample that soxr's own
            # rounding of the length leaves out.
            tail = np.zeros((self.channels, 2 * self.from_hz // self.to_hz + 2), np.float32)
            made.append(self._run(tail, True)[:, : due - self._given])
            if made[0].shape[1] and due < self._given:
                made[0] = made[0][:, : due - self._given]
            self._given = due
        return made[0] if len(made) == 1 else np.concatenate(made, axis=1)

    def _run(self, block: np.ndarray, last: bool) -> np.ndarray:
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(frames, last).T)


def fit_length(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The same stream with exactly `samples` samples: cut at its end, or followed by silence.

    The source is always read to its end, where it may have something to say: that it was cut short, for example.

    Args: blocks: (..., n) arrays that agree in all but their last axis; at least one if `samples` is not 0
    """
    left, shape, dtype = samples, (), np.float32
    for block in blocks:
        shape, dtype = block.shape[:-1], block.dtype
        part = block[..., :left]
        left -= part.shape[-1]
        if part.shape[-1]:
            yield part
    while left:
        part = min(left, 65536)
        left -= part
        yield np.zeros((*shape, part), dtype)
