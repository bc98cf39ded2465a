"""Quantisation: floating point to integers with TPDF dither, rounding and counted clipping.

Dither is the sum of two independent uniform random numbers of one step each: triangular, two steps (LSB) from peak to
peak, white. It makes the mean and the power of the rounding error independent of the signal (Lipshitz, Wannamaker,
Vanderkooy,
"Quantization and Dither", JAES 1992), at 4.8 dB more noise than rounding alone: its RMS, with the rounding, is half a
step, at 16 bits 2^-16 or -96.3 dB.

Where every channel is exactly 0 no dither is added: digital silence stays digital silence, as in mastering tools
("auto-blank"). The rule looks at one sample at a time, so the result does not depend on how the stream is cut into
blocks.

Axes: (samples, channels).
"""

from __future__ import annotations

import numpy as np


class Quantiser:
    """Quantises a stream.

    Args:
        bits: of the integers
        seed: of the dither; None: no dither. Equal seeds give equal dither: each file of a song needs its own, or their
            noise would add up coherently when they are mixed
    """

    def __init__(self, bits: int, *, seed: int | None = None):
        self.bits = bits
        self.clipped_samples = 0
        self._random = None if seed is None else np.random.Generator(np.random.SFC64(seed))

    def quantise(self, frames: np.ndarray) -> np.ndarray:
        """Quantise a block to integers from -2^(bits-1) to 2^(bits-1) - 1.

        Args:
            frames: 1.0 is full scale

        Returns:
            int32

        Shape:
            frames: (samples, channels)
            returns: (samples, channels)
        """
        full = 1 << (self.bits - 1)
        scaled = frames.astype(np.float64) * full
        whole = np.rint(scaled)
        self.clipped_samples += int(((whole < -full) | (whole > full - 1)).sum())
        if self._random is not None:
            pairs = self._random.random((*frames.shape, 2), dtype=np.float32)
            sounding = frames.any(axis=1, keepdims=True)
            scaled += (pairs[..., 0] - pairs[..., 1]) * sounding
            whole = np.rint(scaled)
        return np.clip(whole, -full, full - 1).astype(np.int32)
