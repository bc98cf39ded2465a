"""Walk a stream of self-describing frames (MPEG audio, ADTS) from end to end.

Only the frames tell what such a stream holds: a header that counts them may cover only the beginning, and a decoder
silently stops where the number of channels or the sample rate changes. The walk finds how long the audio is, where it
changes, and where something that is not audio interrupts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tsbs_daw.audio.headers.common import ByteSource, id3v2_bytes

BLOCK_BYTES = 1 << 20
CHAIN = 4  # frames that must follow each other before a place found by searching counts as audio
MAX_SEARCH_BYTES = 64 << 20  # searched for frames in one file, so that a hostile file costs bounded time
MAX_CANDIDATES = 500_000
MAX_PARTS = 1000
HEADER_BYTES = 64  # of a frame; more than its side information and the name of a Xing header after it
MAX_LYRICS_BYTES = 1 << 16
MAX_FRAMES = 4_000_000  # a day
MOST_PADDING_BYTES = 4096  # zeros that taggers and encoders leave between frames; longer runs have replaced audio


@dataclass(frozen=True)
class Frame:
    """The header of a frame.

    Attributes:
        kind: Equal for all frames of a stream that one decoder can play.
        rate_hz: Sample rate.
        channels: Number of channels.
        bytes: Length of the whole frame; 0 for a free bit rate, whose frames do not state their length.
        samples: Samples per channel.
    """

    kind: tuple[int, ...]
    rate_hz: int
    channels: int
    bytes: int
    samples: int


@dataclass(frozen=True)
class Damage:
    """Bytes between frames that are neither frames nor tags nor padding.

    Attributes:
        at_bytes: Offset in the file.
        bytes: How many.
        at_samples: Samples of audio before them.
    """

    at_bytes: int
    bytes: int
    at_samples: int


@dataclass
class Walk:
    """What a walk found.

    Attributes:
        rate_hz: Sample rate of the first frame.
        parts: The bytes of the frames, (start, end).
        frames: Number of frames in those parts, without those that carry no audio.
        samples: Samples per channel in those frames.
        headers: Number of frames that only count others.
        damages: Interruptions in which audio may have been lost.
        change: First frame of another kind, where the walk ended; None if there is none.
        end: Where the last part ends.
        is_cut: The file ends inside a frame.
        trailing_bytes: Bytes between the last frame and the end or the change that are neither frames nor tags nor
            padding.
        trailing_zeros: Zeros between the last frame and the end, if there is nothing else.
    """

    rate_hz: int
    parts: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    samples: int = 0
    headers: int = 0
    damages: list[Damage] = field(default_factory=list)
    change: Frame | None = None
    end: int = 0
    is_cut: bool = False
    trailing_bytes: int = 0
    trailing_zeros: int = 0


class FrameReader:
    """Reads the frames of a file by offset, in large blocks.

    Args:
        file: The file.
        end: Offset at which the frames end.
        parse: Returns the frame that starts with these bytes, or None.
        head_bytes: How many bytes `parse` needs.
    """

    def __init__(self, file: ByteSource, end: int, parse: Callable[[bytes], Frame | None], head_bytes: int):
        self.end, self._file, self._parse, self._head_bytes = end, file, parse, head_bytes
        self._start, self._block = 0, b""
        self._searched_bytes, self._candidates = 0, 0

    def at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes at `offset`."""
        inside = offset - self._start
        if inside < 0 or inside + count > len(self._block):
            self._file.seek(offset)
            self._start, inside = offset, 0
            self._block = self._file.read(max(min(BLOCK_BYTES, self.end - offset), 0))
        return self._block[inside : inside + count]

    def frame(self, offset: int) -> Frame | None:
        """Return the frame whose header is at `offset`; it may be of any kind, and may end after the file does."""
        return self._parse(self.at(offset, self._head_bytes))

    def starts_chain(self, offset: int, length: int = CHAIN) -> bool:
        """Whether `length` frames of one kind follow each other at `offset`, or fewer that end where the audio ends."""
        first = self.frame(offset)
        if first is None or not first.bytes:
            return False
        position = offset + first.bytes
        for _ in range(length - 1):
            if position == self.end:
                return True
            found = self.frame(position)
            if found is None or found.kind != first.kind or not found.bytes:
                return False
            position += found.bytes
        return position <= self.end

    def next_chain(self, offset: int, limit: int | None = None) -> int | None:
        """Return the first offset, at or after `offset`, at which a chain of frames starts.

        Returns:
            None if no chain starts before `limit`, or the limits on searching are reached.
        """
        stop = self.end if limit is None else min(limit, self.end)
        while offset < stop and self._searched_bytes < MAX_SEARCH_BYTES and self._candidates < MAX_CANDIDATES:
            block = self.at(offset, min(BLOCK_BYTES, stop - offset))
            sync = block.find(b"\xff")
            self._searched_bytes += len(block) if sync < 0 else sync + 1
            if sync < 0:
                offset += len(block)
                continue
            offset += sync
            self._candidates += 1
            if self.frame(offset) and self.starts_chain(offset):
                return offset
            offset += 1
        return None


def walk_frames(reader: FrameReader, start: int, is_header: Callable[[bytes], bool] = lambda head: False) -> Walk:
    """Walk the frames from `start` to the reader's end.

    Args:
        reader: Reads the frames.
        start: Offset of the first frame.
        is_header: Tells from a frame's first bytes whether it only counts others and carries no audio.
    """
    first = reader.frame(start)
    if first is None:
        return Walk(rate_hz=1, end=start)
    walk, kind = Walk(first.rate_hz, end=start), first.kind
    position = part = start
    last: tuple[int, int] | None = None  # offset and samples of the frame before `position`

    def close(end: int) -> None:
        if end > part:
            walk.parts.append((part, end))
            walk.end = end

    def goes_on(offset: int) -> bool:
        """Whether audio of the same stream follows, rather than a tag or the header of another stream."""
        frame = reader.frame(offset)
        if frame is None:
            return offset < reader.end and not _tag_bytes(reader, offset)
        return frame.kind == kind and not is_header(reader.at(offset, HEADER_BYTES))

    while position < reader.end and walk.frames < MAX_FRAMES and len(walk.parts) < MAX_PARTS:
        frame = reader.frame(position)
        if frame and frame.kind == kind and frame.bytes:
            if position + frame.bytes > reader.end:
                walk.is_cut = True
                break
            if is_header(reader.at(position, HEADER_BYTES)):
                close(position)
                walk.headers += 1
                position = part = position + frame.bytes
                last = None
                continue
            walk.frames, walk.samples = walk.frames + 1, walk.samples + frame.samples
            last, position = (position, frame.samples), position + frame.bytes
            continue
        if skipped := _padding(reader, position, goes_on) or _tag_bytes(reader, position):
            close(position)
            position = part = position + skipped
            last = None
            continue
        found = position if reader.starts_chain(position) else reader.next_chain(position + 1)
        if found is None:
            if frame and not frame.bytes:  # a free bit rate: such frames do not state where they end
                walk.change = frame
            break
        following = reader.frame(found)
        if following is not None and following.kind != kind:
            walk.change, walk.trailing_bytes = following, found - position
            break
        if last:  # what interrupts the frames may have overwritten the end of this one
            position, walk.frames, walk.samples = last[0], walk.frames - 1, walk.samples - last[1]
        close(position)
        walk.damages.append(Damage(position, found - position, walk.samples))
        position = part = found
        last = None
    close(position)
    if position < reader.end and not (walk.is_cut or walk.change):
        walk.trailing_bytes = reader.end - position
    zeros = _zeros(reader, walk.end)
    walk.trailing_zeros = zeros if walk.end + zeros >= reader.end else 0
    return walk


def _padding(reader: FrameReader, position: int, goes_on: Callable[[int], bool]) -> int:
    """Return the length of the padding at `position`: zeros, unless they are many and audio of this stream follows."""
    zeros = _zeros(reader, position)
    return zeros if zeros <= MOST_PADDING_BYTES or not goes_on(position + zeros) else 0


def _tag_bytes(reader: FrameReader, position: int) -> int:
    """Return the length of the tag at `position`; 0 if there is none. Tags can be skipped without losing audio."""
    head = reader.at(position, 32)
    if length := id3v2_bytes(head[:10]):
        return length
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:4] == b"TAG+":
        return 227
    if head[:3] == b"TAG":
        return 128
    if head[:11] == b"LYRICSBEGIN":
        found = reader.at(position, MAX_LYRICS_BYTES)
        ends = [found.find(end) + 9 for end in (b"LYRICS200", b"LYRICSEND") if end in found]
        return min(ends, default=0)
    return 0


def _zeros(reader: FrameReader, position: int) -> int:
    """Count the zeros in a row at `position`."""
    begin = position
    while position < reader.end:
        block = reader.at(position, min(BLOCK_BYTES, reader.end - position))
        zeros = len(block) - len(block.lstrip(b"\0"))
        position += zeros
        if not block or zeros < len(block):
            break
    return position - begin
