"""Base class of the audio writers, and the writer for WAV files with their position in the session (BWF).

Writers take audio block by block, leave no partial file on failure, and verify the file after close. `encoders` has the
writer for the other formats. Layout of a WAV file:

    RIFF/RF64  size    WAVE
    JUNK/ds64  28      room for 64-bit sizes; above 4 GB, JUNK becomes ds64 and RIFF becomes RF64 (EBU Tech 3306)
    fmt        16/40   format 3, IEEE float; 40 bytes (extensible) for more than two channels
    fact       4       samples per channel
    bext       602     EBU Tech 3285 version 1; time reference in samples since midnight
    ...                chunks from the caller: `acid`, `smpl`
    data       ...

Float samples above 1.0 are written unchanged. No date is written, so that the same audio gives the same bytes.

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

RIFF_LIMIT_BYTES = (1 << 32) - 1  # RIFF states its size in 32 bits

# subtype: format tag, bytes per sample
SUBTYPES = {"FLOAT": (3, 4), "PCM_16": (1, 2), "PCM_24": (1, 3)}

Some = TypeVar("Some", bound="Writer")


class Writer(ABC):
    """Base class of the audio writers. A context manager; removes the file if writing fails.

    Args:
        path: File to write.
        channels: Number of channels.

    Attributes:
        sample_rate: Sample rate of the file, in Hz.
        samples: Samples per channel written so far, at the sample rate of the blocks.
        finished: Whether the file is closed or discarded.
        sha256: SHA-256 of the finished file; None if it was not computed while the file was open.
        label_problem: Why labels could not be written; None if they could.
    """

    sample_rate: int

    def __init__(self, path: Path | str, channels: int):
        self.path, self.channels, self.samples, self.finished = Path(path), channels, 0, False
        self.sha256: str | None = None
        self.label_problem: str | None = None

    def write(self, block: np.ndarray) -> None:
        """Append a block.

        Args:
            block: Samples at the sample rate that the writer was opened with; written as float32.

        Shape:
            block: (channels, samples)

        Raises:
            OutputError: The block contains NaN or infinity or has a different number of channels, or the file is closed
                or too long for the format.
            NoSpaceLeft: The disk is full.
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
        """Finish the file, sync it to disk, and verify its length. May be called more than once.

        Raises:
            OutputError: The file on disk is incomplete.
            OutputUnavailable: The file was removed while it was written.
            NoSpaceLeft: The disk is full.
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
        """One sentence for each property of the audio that the format could not hold."""
        clipped = self.clipped_samples
        count = f"{clipped} samples" if clipped > 1 else "1 sample"
        warning = f"{shown(self.path)} clips: {count} beyond full scale. Lower the level, or use wav32f."
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
        """Encode a block of at least one sample. Raises the same errors as `write`."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file and close it. Raises the same errors as `close`."""

    def _label(self) -> None:  # noqa: B027
        """Write labels into the closed file, if its format holds them at the end.

        Raises:
            OutputError: The labels cannot be written.
        """

    @abstractmethod
    def _stored_samples(self) -> int:
        """Samples per channel in the file on disk.

        Raises:
            OutputError: The file is missing or incomplete.
        """

    @abstractmethod
    def _remove(self) -> None:
        """Close and remove a partial file."""


class AudioWriter(Writer):
    """Writes a WAV file.

    Args:
        path: File to write.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        subtype: "FLOAT", "PCM_16" or "PCM_24". PCM rounds, and clips beyond full scale.
        time_reference_samples: Start of the audio in its session.
        description: Text of the `bext` chunk, converted to ASCII and cut to 256 characters.
        dither_seed: Seed of the dither for PCM; None to round without dither.
        chunks: Function that returns additional header chunks for a number of samples. Their length must not depend on
            that number.
        riff_limit_bytes: Largest size of a RIFF; a larger file becomes an RF64.
        labels: Tags, tempo and key to write to the file.

    Raises:
        NoSpaceLeft: The disk is full.
        OutputError: The subtype is unknown, or the file cannot be written for another reason.
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
        """Bytes of one sample of all channels."""
        return self.channels * SUBTYPES[self.subtype][1]

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None, "__init__ opens the file or raises"
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
        """Build everything before the samples, for the current number of samples. The size of the head is constant."""
        tag, width = SUBTYPES[self.subtype]
        data_bytes = self.samples * self.frame_bytes
        rate_bytes = self.sample_rate * self.frame_bytes
        if self.channels > 2:  # extensible; mask 0: no speaker positions
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
        """Convert samples to the bytes of the subtype.

        Shape:
            frames: (samples, channels)
        """
        if self.subtype == "FLOAT":
            return frames.astype("<f4", copy=False).data.cast("B")
        width = SUBTYPES[self.subtype][1]
        whole = self._quantiser.quantise(frames).astype("<i4")
        return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, :width]).data.cast("B")

    @contextlib.contextmanager
    def _guarded(self):
        """Translate an OSError into an OutputError, and remove the partial file."""
        try:
            yield
        except OSError as error:
            self._discard()
            raise write_error(self.path, error) from error

    def _remove(self) -> None:
        if self._file is None:  # the file could not be opened
            return
        regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        with contextlib.suppress(OSError):  # closing flushes, which may have been what failed
            self._file.close()
        if regular:  # never remove a device
            self.path.unlink(missing_ok=True)


def file_samples(path: Path | str) -> int:
    """Read the number of samples per channel from the header of a WAV file, and check it against the file's size.

    Raises:
        OutputError: The file is missing or incomplete.
    """
    try:
        samples = inspect(Path(path)).samples
    except AudioError as error:
        raise OutputError(f"{shown(path)} is not intact after writing: {error}") from error
    if samples is None:
        raise OutputError(f"{shown(path)} does not state its length.")
    return samples


def _bext(time_reference_samples: int, description: str) -> bytes:
    """Build the body of the `bext` chunk."""
    # The standard requires ASCII: letters lose their accents, and other characters become question marks.
    plain = "".join(c for c in unicodedata.normalize("NFKD", description) if not unicodedata.combining(c))
    text = plain.encode("ascii", "replace")[:256]
    #      description, originator, reference, date and time, time reference, version, UMID, reserved
    return struct.pack("<256s32s32s18sQH64s190s", text, b"tsbs-daw", b"", b"", time_reference_samples, 1, b"", b"")
