"""Types and byte-level helpers that all header readers share."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnsupportedAudio

MAX_CHUNKS = 10_000  # a real file has a dozen; walking an endless row of empty chunks would never finish
UNKNOWN_32 = 0xFFFFFFFF  # the size of a chunk whose real size is in `ds64`
KNOWN_CHUNKS = re.compile(
    rb"fmt |fact|data|ds64|LIST|bext|iXML|id3 |ID3 |axml|cue |smpl|inst|acid|PEAK|JUNK|junk|PAD |FLLR|chna|umid|cart"
    rb"|_PMX|RIFF|RF64|FORM|COMM|SSND|FVER|MARK|INST|NAME|AUTH|ANNO|\(c\) |APPL|AESD|CHAN|COMT"
)
EMPTY_TAIL_BYTES = 1 << 16  # coded audio never ends in this many zeros; a file preallocated by an unfinished copy does
LONGEST_REFERENCE_S = 7 * 86400  # BWF counts from midnight; more than a week is an uninitialised field


class Refused(Exception):
    """A header that cannot be used.

    Args:
        kind: Class of the error to raise.
        what: Rest of a sentence that starts with the file's name.
    """

    def __init__(self, kind: type[AudioError], what: str):
        self.kind, self.what = kind, what
        super().__init__(what)


@dataclass(frozen=True)
class Fault:
    """A defect that `salvage` tolerates.

    Attributes:
        kind: As in `Refused`.
        what: As in `Refused`.
        remedy: What the user can do about it.
    """

    kind: type[AudioError]
    what: str
    remedy: str = "copy it again"


@dataclass(frozen=True)
class Window:
    """What the decoder reads instead of the whole file.

    Attributes:
        parts: Parts of the file, (start, end) in bytes.
        prefix: Bytes to put before the parts.
        pipe: Feed the decoder a stream without a length, so that it cannot guess one.
    """

    parts: tuple[tuple[int, int], ...]
    prefix: bytes = b""
    pipe: bool = False

    def to_plan(self) -> dict[str, Any]:
        """Return the window in the form that the decoder's plan uses."""
        return {"parts": self.parts, "prefix": self.prefix.hex(), "pipe": self.pipe}

    def shifted(self, by: int) -> Window:
        """Return the same window for a file with `by` more bytes at its start."""
        return replace(self, parts=tuple((start + by, end + by) for start, end in self.parts))


@dataclass(frozen=True)
class Header:
    """What a file's header says, checked against the file's size.

    Attributes:
        container: "WAV", "RF64", ...
        channels: None if only the decoder can tell.
        sample_rate: In Hz; None if only the decoder can tell.
        samples: Samples per channel that the file really holds; None if only the decoder can tell.
        seekable: Every sample has a fixed position, so seeking is exact.
        slack_samples: How many samples may be missing before the file counts as cut short.
        length_samples: Where the audio ends, if the codec pads its last block.
        least_s: Minimum duration of the compressed frames; a decoder that delivers less has failed.
        time_reference_samples: BWF time reference: where the audio starts in its session.
        warnings: Each the rest of a sentence that starts with the file's name.
        fault: The defect, if there is one that `salvage` tolerates.
        window: What to decode; None for the whole file.
        resume: Maps the number of samples before a decoding error to where decoding resumes: the first sample, and a
            window.
        demuxer: FFmpeg's name for the container; None if libsndfile decodes it.
        length_s: Duration, if the sample rate after decoding is not known yet.
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
    """Source of header bytes: a file, or a `Section` of one."""

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def read(self, count: int = ..., /) -> bytes: ...


class Section(io.RawIOBase):
    """A part of a file that reads like a file of its own; bytes before `start` and after `end` are hidden."""

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
        Refused: The file ends before that.
    """
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise Refused(TruncatedAudio, "ends inside its header; copy it again")
    return data


def unpack_at(file: ByteSource, offset: int, layout: str) -> tuple[Any, ...]:
    """Unpack the values at `offset` with a `struct` layout.

    Raises:
        Refused: The file ends before that.
    """
    return struct.unpack(layout, bytes_at(file, offset, struct.calcsize(layout)))


def cut(promised_bytes: int, present_bytes: int) -> Fault:
    """Return the fault of a file whose audio is shorter than its header promises."""
    return Fault(
        TruncatedAudio,
        f"is cut short: its header promises {promised_bytes} bytes of audio and the file has {present_bytes}",
    )


def id3v2_bytes(head: bytes) -> int:
    """Return the length in bytes of the ID3v2 tag that starts with these ten bytes; 0 if they are not an ID3v2 tag."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + footer


def joined(name: str, seconds: float | None = None) -> Fault:
    """Return the fault of several files end to end; a decoder would silently read only the first."""
    place = "" if seconds is None else f", the second at {seconds:.1f} s"
    return Fault(
        UnsupportedAudio, f"consists of several {name} end to end{place}; only the first is read", "convert it to WAV"
    )


@dataclass(frozen=True)
class Chunk:
    """A RIFF or IFF chunk in a file.

    Attributes:
        name: Four bytes.
        start: Offset of the chunk's 8-byte header.
        size: Size of its body in bytes.
        padded: The body is padded to an even length, as it should be; some programs forget that.
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
        file: The file.
        size: Size of the file in bytes.
        order: Byte order as in `struct`, ">" for RIFX and IFF.

    Yields:
        The chunks in order.

    Raises:
        Refused: The file ends inside a chunk's header.
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
        chunk = Chunk(name, position, length, padded)
        yield chunk
        position = chunk.end


def _is_padded(file: ByteSource, size: int, end: int, order: str) -> bool:
    """Whether a pad byte follows a chunk that ends at the odd offset `end`.

    A pad byte is zero and no chunk name starts with a zero, so a zero is a pad byte. Any other byte counts as one
    unless a chunk more likely starts with that byte than after it.
    """
    if end >= size:
        return True
    file.seek(end)
    if file.read(1) == b"\0":
        return True
    return _likelihood(file, size, end + 1, order) >= _likelihood(file, size, end, order)


def _likelihood(file: ByteSource, size: int, position: int, order: str) -> int:
    """Rate how likely a chunk starts at `position`: 0 not at all, 1 a printable name and it fits, 2 a known name."""
    file.seek(position)
    head = file.read(8)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return 0
    if position + 8 + struct.unpack(f"{order}I", head[4:])[0] > size + 1:
        return 0
    return 2 if KNOWN_CHUNKS.match(head) else 1
