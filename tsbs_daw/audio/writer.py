"""Audio writers: what all of them share, and the one for WAV, which states its place in the session (BWF).

Blocks go in, no partial file is left on failure, and what was written is verified after close. `encoders` has the
writer for the other formats. A WAV:

    RIFF/RF64  size    WAVE
    JUNK/ds64  28      room for 64-bit sizes; becomes ds64, and RIFF RF64, beyond 4 GB (EBU Tech 3306)
    fmt        16/40   format 3, IEEE float; 40 bytes (extensible) for more than two channels
    fact       4       samples per channel
    bext       602     EBU Tech 3285 version 1; time reference in samples since midnight
    ...                chunks from the caller: `acid`, `smpl`
    data       ...

Float samples above 1.0 stay above 1.0. No date is written: the same audio gives the same bytes.

Axes: (channels, samples), float32.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from tsbs_daw.audio.dsp import Quantiser
from tsbs_daw.audio.headers.common import UNKNOWN_32
from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.riff import build_chunk
from tsbs_daw.audio.tags import Labels, write_tags
from tsbs_daw.core.errors import AudioError, NoSpaceLeft, OutputError, OutputUnavailable, shown
from tsbs_daw.core.files import write_error

log = logging.getLogger(__name__)

RIFF_LIMIT_BYTES = (1 << 32) - 1  # the largest size that RIFF can state in 32 bits

# subtype: format tag, bytes per sample
SUBTYPES = {"FLOAT": (3, 4), "PCM_16": (1, 2), "PCM_24": (1, 3)}

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


class AudioWriter(Writer):
    """Writes a WAV file.

    Args:
        path: of the file
        sample_rate: in Hz
        channels: number of channels
        subtype: "FLOAT", "PCM_16" or "PCM_24"; PCM rounds, and clips beyond full scale
        time_reference_samples: start of the audio in its session
        description: for the `bext` chunk: ASCII, at most 256 characters
        dither_seed: for PCM; None: plain rounding
        chunks: returns more header chunks for a number of samples; their length must not depend on it
        riff_limit_bytes: the largest RIFF; a larger file becomes an RF64
        labels: what the file says of itself

    Raises:
        NoSpaceLeft: the disk is full
        OutputError: the file cannot be written for another reason
    """

    def __init__(
        self,
        path: Path | str,
        sample_rate: int,
        channels: int,
        *,
        subtype: str = "FLOAT",
        time_reference_samples: int = 0,
        description: str = "",
        dither_seed: int | None = None,
        chunks: Callable[[int], bytes] = lambda samples: b"",
        riff_limit_bytes: int = RIFF_LIMIT_BYTES,
        labels: Labels | None = None,
    ):
        if subtype not in SUBTYPES:
            raise OutputError(f"{shown(path)} cannot be written as {subtype}; choose one of {', '.join(SUBTYPES)}.")
        super().__init__(path, channels)
        self.sample_rate, self.subtype = sample_rate, subtype
        self._quantiser = Quantiser(8 * SUBTYPES[subtype][1], seed=dither_seed)
        self._riff_limit, self._chunks, self._labels = riff_limit_bytes, chunks, labels or Labels()
        self._bext = _bext(time_reference_samples, description)
        self._file: BinaryIO | None = None
        with self._guarded():
            self._file = self.path.open("wb")
            self._file.write(self._head())

    @property
    def clipped_samples(self) -> int:
        """Number of samples that were clipped; 0 for a float file."""
        return self._quantiser.clipped_samples

    @property
    def frame_bytes(self) -> int:
        return self.channels * SUBTYPES[self.subtype][1]

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None, "a writer without a file was never made"
        return self._file

    def _append(self, block: np.ndarray) -> None:
        with self._guarded():
            self._opened.write(self._encode(np.ascontiguousarray(block.T)))

    def _finish(self) -> None:
        with self._guarded():
            if self.samples * self.frame_bytes % 2:
                self._opened.write(b"\0")
            self._opened.seek(0)
            self._opened.write(self._head())
            self._opened.flush()
            os.fsync(self._opened.fileno())
            self._opened.close()

    def _label(self) -> None:
        try:
            write_tags(self.path, self._labels.tags, bpm=self._labels.bpm, key=self._labels.key)
        except NoSpaceLeft:
            raise
        except OutputError as error:
            self.label_problem = str(error)

    def _stored_samples(self) -> int:
        return file_samples(self.path)

    def _head(self) -> bytes:
        """Everything before the samples, for the current length. Its own length never changes."""
        tag, width = SUBTYPES[self.subtype]
        data_bytes = self.samples * self.frame_bytes
        rate_bytes = self.sample_rate * self.frame_bytes
        if self.channels > 2:  # extensible; mask 0: channels without speaker positions
            layout = (0xFFFE, self.channels, self.sample_rate, rate_bytes, self.frame_bytes, 8 * width)
            guid = struct.pack("<HHIQ", tag, 0, 0x00100000, 0x719B3800AA000080)
            fmt = struct.pack("<HHIIHH", *layout) + struct.pack("<HHI", 22, 8 * width, 0) + guid
        else:
            fmt = struct.pack("<HHIIHH", tag, self.channels, self.sample_rate, rate_bytes, self.frame_bytes, 8 * width)
        middle = b"WAVE", build_chunk(b"fmt ", fmt), build_chunk(b"bext", self._bext) + self._chunks(self.samples)
        fixed = 12 + 36 + 12 + len(middle[1]) + len(middle[2]) + 8
        file_bytes = fixed + data_bytes + data_bytes % 2
        if file_bytes - 8 <= self._riff_limit:
            head, sizes, data = (
                struct.pack("<4sI", b"RIFF", file_bytes - 8),
                build_chunk(b"JUNK", bytes(28)),
                data_bytes,
            )
        else:
            head, data = struct.pack("<4sI", b"RF64", UNKNOWN_32), UNKNOWN_32
            sizes = build_chunk(b"ds64", struct.pack("<QQQI", file_bytes - 8, data_bytes, self.samples, 0))
        fact = build_chunk(b"fact", struct.pack("<I", min(self.samples, UNKNOWN_32)))
        return b"".join((head, middle[0], sizes, middle[1], fact, middle[2], struct.pack("<4sI", b"data", data)))

    def _encode(self, frames: np.ndarray) -> memoryview:
        """The bytes of frames, (samples, channels)."""
        if self.subtype == "FLOAT":
            return frames.astype("<f4", copy=False).data.cast("B")
        width = SUBTYPES[self.subtype][1]
        whole = self._quantiser.quantise(frames).astype("<i4")
        return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, :width]).data.cast("B")

    @contextlib.contextmanager
    def _guarded(self):
        """Translate OSError, and remove the partial file."""
        try:
            yield
        except OSError as error:
            self._discard()
            raise write_error(self.path, error) from error

    def _remove(self) -> None:
        if self._file is None:  # it could not be opened
            return
        regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        with contextlib.suppress(OSError):  # it flushes, which is what may have failed
            self._file.close()
        if regular:  # never remove a device
            self.path.unlink(missing_ok=True)


def file_samples(path: Path | str) -> int:
    """Samples per channel of a WAV file, from its header, which must agree with its size.

    Raises:
        OutputError: the file is missing or incomplete
    """
    try:
        samples = inspect(Path(path)).samples
    except AudioError as error:
        raise OutputError(f"{shown(path)} is not intact after writing: {error}") from error
    if samples is None:
        raise OutputError(f"{shown(path)} does not state its length.")
    return samples


def _bext(time_reference_samples: int, description: str) -> bytes:
    # The standard demands ASCII: letters lose their accents, other characters become question marks.
    plain = "".join(c for c in unicodedata.normalize("NFKD", description) if not unicodedata.combining(c))
    text = plain.encode("ascii", "replace")[:256]
    #      description, originator, reference, date and time, time reference, version, UMID, reserved
    return struct.pack("<256s32s32s18sQH64s190s", text, b"tsbs-daw", b"", b"", time_reference_samples, 1, b"", b"")
