"""What all audio writers share: quantisation, block-wise input, no partial file on failure, verification after close.

Floating point becomes integers with TPDF dither, rounding and counted clipping. Dither is the sum of two independent
uniform random numbers of one step each: triangular, two steps (LSB) from peak to peak, white. It makes the mean and the
power of the rounding error independent of the signal (Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither", JAES
1992), at 4.8 dB more noise than rounding alone: its RMS, with the rounding, is half a step, at 16 bits 2^-16 or
-96.3 dB.

Where every channel is exactly 0 no dither is added: digital silence stays digital silence, as in mastering tools
("auto-blank"). The rule looks at one sample at a time, so the result does not depend on how the stream is cut into
blocks.

Axes: (samples, channels).
"""

from __future__ import annotations

import errno
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TypeVar

import numpy as np

from tsbs_daw.core.errors import NoSpaceLeft, OutputError, OutputUnavailable, shown
from tsbs_daw.core.files import may_pass


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


log = logging.getLogger(__name__)

Some = TypeVar("Some", bound="Writer")


class Writer(ABC):
    """An audio file being written. A context manager; removes the file if writing fails.

    Attributes:
        sample_rate: of the file, in Hz
        samples: per channel, written so far, at the sample rate of the blocks
        finished: whether the file is closed or discarded
        sha256: of the finished file, if it was computed while the file was open
        label_problem: why the finished file has no labels; None if it has
    """

    sample_rate: int

    def __init__(self, path: Path | str, channels: int):
        self.path, self.channels, self.samples, self.finished = Path(path), channels, 0, False
        self.sha256: str | None = None
        self.label_problem: str | None = None

    def write(self, block: np.ndarray) -> None:
        """Append a block.

        Args:
            block: float32, at the sample rate that the writer was opened with

        Shape:
            block: (channels, samples)

        Raises:
            OutputError: NaN or infinity, a different number of channels, or too long for the format
            NoSpaceLeft: the disk is full
        """
        if self.finished:
            raise OutputError(f"{shown(self.path)} is already closed.")
        if block.ndim != 2 or block.shape[0] != self.channels:
            self._discard()
            raise OutputError(
                f"{shown(self.path)} takes {self.channels} channels, not an array of shape {block.shape}."
            )
        if not np.isfinite(block).all():
            self._discard()
            raise OutputError(f"{shown(self.path)} was not written: the audio contains NaN or infinity.")
        if block.shape[1]:
            self._append(np.asarray(block, np.float32))
            self.samples += block.shape[1]

    def close(self) -> None:
        """Finish the file, make it durable, and verify its length. May be called again.

        Raises:
            OutputError: the file on disk does not hold what was written
            NoSpaceLeft: the disk is full
        """
        if self.finished:
            return
        self._finish()
        self.finished = True
        if not self.path.exists():
            raise OutputUnavailable(f"{shown(self.path)} was removed while it was written; try again.")
        try:
            self._label()
            stored, expected = self._stored_samples(), self._expected_samples()
            if stored != expected:
                raise OutputError(
                    f"{shown(self.path)} holds {stored} samples, but {expected} were written. Check the disk."
                )
        except OutputError:
            if self.path.is_file():
                self.path.unlink()
            raise
        for warning in self.warnings:
            log.warning("%s", warning)

    def __enter__(self: Some) -> Some:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    @property
    @abstractmethod
    def clipped_samples(self) -> int:
        """Number of samples beyond full scale; 0 if the format has no full scale."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each thing that the format could not hold."""
        clipped = self.clipped_samples
        many = f"{clipped} samples" if clipped > 1 else "1 sample"
        warning = f"{shown(self.path)} clips: {many} beyond full scale. Lower the level, or use wav32f."
        return (warning,) if clipped else ()

    def _discard(self) -> None:
        """Close and remove the file, unless it is complete."""
        if not self.finished:
            self.finished = True
            self._remove()

    def _expected_samples(self) -> int:
        """Samples per channel that the file should hold."""
        return self.samples

    @abstractmethod
    def _append(self, block: np.ndarray) -> None:
        """Encode a block of at least one sample. Raises what `write` raises."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file and close it. Raises what `close` raises."""

    def _label(self) -> None:  # noqa: B027
        """Write labels into the closed file, where the format is one that takes them at the end. Raises: OutputError"""

    @abstractmethod
    def _stored_samples(self) -> int:
        """Samples per channel that the file on disk holds. Raises: OutputError"""

    @abstractmethod
    def _remove(self) -> None:
        """Close and remove a partial file."""


def write_error(path: Path, error: OSError) -> OutputError:
    """Translate an OSError from writing `path` into an OutputError or NoSpaceLeft."""
    name = shown(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceLeft(f"Cannot write {name}: the disk is full. Free some space and try again.")
    if error.errno == errno.EFBIG:
        return OutputError(f"{name} is too large for the file system of this disk. Use another disk.")
    kind = OutputUnavailable if may_pass(error) else OutputError
    return kind(f"Cannot write {name}: {error.strerror or error}.")
