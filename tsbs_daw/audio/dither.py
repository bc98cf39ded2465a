"""Floating point to integers: TPDF dither, rounding, clipping, with a count of what was cut off.

Dither is the sum of two independent uniform random numbers of one step each: triangular, two steps (LSB) from peak to
peak, white. It makes the rounding error's mean and power independent of the sound (Lipshitz, Wannamaker, Vanderkooy,
"Quantization and Dither", JAES 1992), at 4.8 dB more noise than rounding alone: its RMS, with the rounding, is half a
step, at 16 bits 2^-16 or -96.3 dB.

A moment in which every channel is exactly 0 gets none: digital silence stays digital silence, as mastering tools keep
it ("auto-blank"). The rule looks at one moment at a time, so that it does not matter how a sound is cut into blocks.

Axes: (samples, channels).
"""

from __future__ import annotations

import numpy as np


class Quantiser:
    """A stream of floating point to integers.

    Args:   bits: of the integers
            seed: of the dither, None for none. Equal seeds give equal dither: each file of a song needs its own, or
                  their noise would add up in step when they are mixed
    """

    def __init__(self, bits: int, *, seed: int | None = None):
        self.bits = bits
        self.clipped_samples = 0
        self._random = None if seed is None else np.random.Generator(np.random.SFC64(seed))

    def quantise(self, frames: np.ndarray) -> np.ndarray:
        """Integers from -2^(bits-1) to 2^(bits-1) - 1.

        Args:    frames: (samples, channels), 1.0 is full scale
        Returns: (samples, channels) int32
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
