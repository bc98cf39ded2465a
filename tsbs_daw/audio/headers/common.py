"""What every header reader returns, and how the readers read."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnsupportedAudio

MAX_CHUNKS = 10_000  # a real file has a dozen; an endless row of empty ones would take for ever to walk
UNKNOWN_32 = 0xFFFFFFFF  # the size of a chunk whose real size is in `ds64`
KNOWN_CHUNKS = re.compile(
    rb"fmt |fact|data|ds64|LIST|bext|iXML|id3 |ID3 |axml|cue |smpl|inst|acid|PEAK|JUNK|junk|PAD |FLLR|chna|umid|cart"
    rb"|_PMX|RIFF|RF64|FORM|COMM|SSND|FVER|MARK|INST|NAME|AUTH|ANNO|\(c\) |APPL|AESD|CHAN|COMT"
)
EMPTY_TAIL_BYTES = 1 << 16  # no coded audio ends in so many zeros, but a file that is preallocated while it is copied
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
    """What the decoder reads instead of the whole file: `prefix`, then the `parts` of the file, (start, end) in bytes.

    With `pipe` the decoder gets a stream without a length, so that it cannot guess one.
    """

    parts: tuple[tuple[int, int], ...]
    prefix: bytes = b""
    pipe: bool = False

    def to_plan(self) -> dict[str, Any]:
        """The window as the decoder's plan has it."""
        return {"parts": self.parts, "prefix": self.prefix.hex(), "pipe": self.pipe}

    def shifted(self, by: int) -> Window:
        """The same window of a file that has `by` more bytes at its start."""
        return replace(self, parts=tuple((start + by, end + by) for start, end in self.parts))


@dataclass(frozen=True)
class Header:
    """What a file's header says, checked against the file's size.

    container:     "WAV", "RF64", ...
    channels, sample_rate: None if only the decoder can tell
    samples:       per channel, as many as the file really holds; None if only the decoder can tell
    seekable:      every sample has a fixed place, so that seeking is exact
    slack_samples: how many samples may be missing before the file counts as cut
    length_samples: where the audio ends, if the codec's last block is padded
    least_s:       duration that the compressed frames hold at least; a decoder that delivers less has failed
    warnings:      each the rest of a sentence that starts with the file's name
    demuxer:       FFmpeg's name for the container if FFmpeg decodes it; None: libsndfile does
    resume:        where to go on after a decoding error, from the samples before it: the first sample, and a window
    length_s:      the duration, if the sample rate after decoding is not known yet
    """

    container: str
    channels: int | None = None
    sample_rate: int | None = None
    samples: int | None = None
    seekable: bool = True
    slack_samples: int = 0
    length_samples: int | None = None
    least_s: Fraction | None = None
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()
    fault: Fault | None = None
    window: Window | None = None
    resume: Callable[[int], tuple[int, Window] | None] | None = None
    demuxer: str | None = None
    length_s: Fraction | None = None


class ByteSource(Protocol):
    """What headers are read from: a file, or a `Section` of one."""

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def read(self, count: int = ..., /) -> bytes: ...


class Section(io.RawIOBase):
    """A part of a file as a file of its own: what lies before `start` or after `end` does not exist."""

    def __init__(self, file: ByteSource, start: int, end: int):
        super().__init__()
        self._file, self._start, self.size, self._position = file, start, max(end - start, 0), 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        left = max(self.size - self._position, 0)
        self._file.seek(self._start + self._position)
        data = self._file.read(left if count < 0 else min(count, left))
        self._position += len(data)
        return data


def bytes_at(file: ByteSource, offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`.

    Raises:
        Refused: the file ends before that
    """
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    return data


def unpack_at(file: ByteSource, offset: int, layout: str) -> tuple[Any, ...]:
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


def id3v2_bytes(head: bytes) -> int:
    """The length of the ID3v2 tag that starts with these ten bytes; 0 if they start none."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + footer


def joined(name: str, seconds: float | None = None) -> Fault:
    """The fault of several files end to end, of which a decoder would read the first without a word."""
    place = "" if seconds is None else f", the second at {seconds:.1f} s"
    return Fault(
        UnsupportedAudio, f"consists of several {name} end to end{place}; only the first is read", "convert it to WAV"
    )


@dataclass(frozen=True)
class Chunk:
    """A RIFF or IFF chunk in a file: its name, the offset of its 8-byte header, and the size of its body in bytes.

    Bodies are padded to an even length. Some programs forget that; `padded` is False for such a chunk.
    """

    name: bytes
    start: int
    size: int
    padded: bool = True

    @property
    def body(self) -> int:
        return self.start + 8

    @property
    def end(self) -> int:
        """The offset of the next chunk."""
        return self.body + self.size + (self.size % 2 if self.padded else 0)


def riff_chunks(file: ByteSource, size: int, order: str = "<") -> Iterator[Chunk]:
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
        padded = length % 2 == 0 or _is_padded(file, size, position + 8 + length, order)
        found = Chunk(name, position, length, padded)
        yield found
        position = found.end


def _is_padded(file: ByteSource, size: int, end: int, order: str) -> bool:
    """Whether a pad byte follows a chunk that ends at the odd offset `end`.

    No chunk's name starts with the zero that pads, so a zero is a pad byte. Anything else is one only if what follows
    it looks more like a chunk than what starts with it.
    """
    if end >= size:
        return True
    file.seek(end)
    if file.read(1) == b"\0":
        return True
    return _likelihood(file, size, end + 1, order) >= _likelihood(file, size, end, order)


def _likelihood(file: ByteSource, size: int, position: int, order: str) -> int:
    """How likely a chunk starts at `position`: 0: not at all, 1: its name is printable and it fits, 2: it is known."""
    file.seek(position)
    head = file.read(8)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return 0
    if position + 8 + struct.unpack(f"{order}I", head[4:])[0] > size + 1:
        return 0
    return 2 if KNOWN_CHUNKS.match(head) else 1
