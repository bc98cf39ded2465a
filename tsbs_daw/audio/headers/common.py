"""What every header reader returns, and how the readers read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

from tsbs_daw.core.errors import AudioError, TruncatedAudio

MAX_CHUNKS = 10_000  # a real file has a dozen; an endless row of empty ones would take for ever to walk
UNKNOWN_32 = 0xFFFFFFFF  # the size of a chunk whose real size is in `ds64`
LONGEST_REFERENCE_S = 7 * 86400  # BWF counts from midnight; more than a week is an uninitialised field


class Refused(Exception):
    """A header that cannot be used.

    Args:
        kind: the error to raise
        what: the rest of a sentence that starts with the file's name
    """

    def __init__(self, kind: type[AudioError], what: str):
        self.kind, self.what = kind, what
        super().__init__(what)


@dataclass(frozen=True)
class Fault:
    """A defect that `salvage` tolerates. `kind` and `what` as in `Refused`; `remedy` is what the user can do."""

    kind: type[AudioError]
    what: str
    remedy: str = "copy it again"


@dataclass(frozen=True)
class Window:
    """What the decoder reads instead of the whole file: `prefix`, then the file's bytes from `start` to `end`.

    With `pipe` the decoder gets a stream without a length, so that it cannot guess one.
    """

    start: int
    end: int
    prefix: bytes = b""
    pipe: bool = False


@dataclass(frozen=True)
class Header:
    """What a file's header says, checked against the file's size.

    container:     "WAV", "RF64", ...
    channels, sample_rate: None if only the decoder can tell
    samples:       per channel, as many as the file really holds; None if only the decoder can tell
    seekable:      every sample has a fixed place, so that seeking is exact
    slack_samples: how many samples may be missing before the file counts as cut
    warnings:      each the rest of a sentence that starts with the file's name
    demuxer:       FFmpeg's name for the container if FFmpeg decodes it; None: libsndfile does
    length_s:      the duration, if the sample rate after decoding is not known yet
    """

    container: str
    channels: int | None = None
    sample_rate: int | None = None
    samples: int | None = None
    seekable: bool = True
    slack_samples: int = 0
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()
    fault: Fault | None = None
    window: Window | None = None
    demuxer: str | None = None
    length_s: Fraction | None = None


def bytes_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`.

    Raises:
        Refused: the file ends before that
    """
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    return data


def unpack_at(file: BinaryIO, offset: int, layout: str) -> tuple[Any, ...]:
    """Read the values at `offset` by a `struct` layout.

    Raises:
        Refused: the file ends before that
    """
    return struct.unpack(layout, bytes_at(file, offset, struct.calcsize(layout)))


def cut(promised_bytes: int, present_bytes: int) -> Fault:
    """The fault of a file whose audio ends too early."""
    return Fault(
        TruncatedAudio,
        f"is cut short: its header promises {promised_bytes} bytes of audio and the file has {present_bytes}",
    )


@dataclass(frozen=True)
class Chunk:
    """A RIFF or IFF chunk in a file: its name, the offset of its 8-byte header, and the size of its body in bytes."""

    name: bytes
    start: int
    size: int

    @property
    def body(self) -> int:
        return self.start + 8

    @property
    def end(self) -> int:
        """The offset of the next chunk: bodies are padded to an even length."""
        return self.body + self.size + self.size % 2


def riff_chunks(file: BinaryIO, size: int, order: str = "<") -> Iterator[Chunk]:
    """Walk the chunks of a RIFF, RIFX, RF64, BW64 or IFF file; the last one may claim to end after the file does.

    The size of `data` in a 64-bit file is taken from `ds64`.

    Args:
        size: of the file, in bytes
        order: byte order as in `struct`, ">" for RIFX and IFF

    Raises:
        Refused: the file ends inside a chunk's header
    """
    position, data_bytes = 12, None
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            return
        name, length = unpack_at(file, position, f"{order}4sI")
        if name == b"ds64" and length >= 24:
            data_bytes = unpack_at(file, position + 8, "<QQQ")[1]
        elif name == b"data" and length == UNKNOWN_32 and data_bytes is not None:
            length = data_bytes
        found = Chunk(name, position, length)
        yield found
        position = found.end
