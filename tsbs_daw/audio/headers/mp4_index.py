"""The boxes of an MP4 (ISO 14496-12), and its index `moov`, which describes the file, its tracks and their frames."""

from __future__ import annotations

import bisect
import itertools
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from tsbs_daw.audio.headers.common import MAX_CHUNKS, Refused, bytes_at, unpack_at
from tsbs_daw.core.errors import UnreadableAudio

MAX_TRACKS, MAX_PARENTS = 32, 16  # more than any real file has; a hostile file could nest boxes without end
MAX_ENTRIES = 1 << 22  # per table; a day of AAC
MAX_USER_DATA_BYTES = 32 << 20
ITUNES_COUNT = re.compile(rb"iTunSMPB.{0,64}? [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{16})", re.DOTALL)
SLACK_SAMPLES = 4096  # two frames; encoders disagree by no more
SHORTEST_FRAME_BYTES = 16  # a shorter frame may be all zeros, such as Opus in silence


@dataclass(frozen=True)
class Box:
    """A box of an MP4.

    Attributes:
        name: Four bytes.
        body: Offset at which its body starts.
        end: Offset at which its body ends.
    """

    name: bytes
    body: int
    end: int


def boxes(file: BinaryIO, position: int, end: int, most: int = MAX_CHUNKS) -> Iterator[Box]:
    """Yield at most `most` boxes of an MP4 from `position` to `end`; the last one may claim to end after `end`."""
    for _ in range(most):
        if position + 8 > end:
            return
        length, name = unpack_at(file, position, ">I4s")
        head = 8
        if length == 1 and position + 16 <= end:
            length, head = unpack_at(file, position + 8, ">Q")[0], 16
        elif length == 0:
            length = end - position
        if length < head or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            return
        yield Box(name, position + head, position + length)
        position += length


@dataclass
class Track:
    """An audio track.

    Attributes:
        number: Number by which fragments refer to it.
        kind: Sample format, such as `mp4a`.
        rate_hz: Ticks of the media clock per second.
        times: Runs of coded frames, in order: (number of frames, duration of each in ticks).
        edits: Edit list: (length in ticks of the movie clock, start in ticks of the media clock).
        frames: Number of coded frames that have a size; None without a table of sizes.
        sizes: Size of each frame in bytes, or one size for all frames.
        chunks: Offset in the file of each chunk of frames.
        runs: Runs of chunks: (number of the first chunk, counted from 1, frames in each), up to the next entry.
    """

    number: int = 0
    kind: bytes = b""
    rate_hz: int = 0
    times: tuple[tuple[int, int], ...] = ()
    edits: tuple[tuple[int, int], ...] = ()
    frames: int | None = None
    sizes: Sequence[int] = ()
    chunks: Sequence[int] = ()
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def ticks(self) -> int:
        """Duration of all coded frames, in ticks of the media clock."""
        return sum(number * duration for number, duration in self.times)

    @property
    def timed(self) -> int:
        """Number of coded frames that have a duration."""
        return sum(number for number, _ in self.times)

    def at_s(self, frame: int) -> float:
        """Return when a frame begins, in seconds."""
        ticks, left = 0, frame
        for number, duration in self.times:
            ticks += min(number, left) * duration
            left -= min(number, left)
        return ticks / self.rate_hz if self.rate_hz else 0.0


@dataclass(frozen=True)
class GaplessTag:
    """iTunes' gapless tag.

    Attributes:
        delay: The encoder's delay in samples.
        padding: Samples of padding in the last frame.
        count: Samples of the song itself.
    """

    delay: int
    padding: int
    count: int

    def fits(self, track: Track) -> bool:
        """Whether the tag describes this audio; tags are copied along when songs are cut or joined."""
        return abs(self.delay + self.count + self.padding - track.ticks) <= SLACK_SAMPLES


@dataclass
class Movie:
    """What the index says about the whole file.

    Attributes:
        hz: Ticks of the movie clock per second.
        tracks: The audio tracks.
        all_tracks: Number of tracks of any kind.
        tag: iTunes' gapless tag, if there is one.
    """

    hz: int = 0
    tracks: list[Track] = field(default_factory=list)
    all_tracks: int = 0
    tag: GaplessTag | None = None


def read_index(file: BinaryIO, index: Box) -> Movie:
    """Read a `moov` box.

    Raises:
        Refused: The box is damaged.
    """
    movie = Movie()
    for box in boxes(file, index.body, index.end):
        if box.name == b"mvhd":
            long = bytes_at(file, box.body, 1) == b"\1"
            movie.hz = unpack_at(file, box.body + (20 if long else 12), ">I")[0]
        elif box.name == b"trak" and movie.all_tracks < MAX_TRACKS:
            track = _track(file, box)
            movie.tracks += [track] if track else []
            movie.all_tracks += 1
        elif box.name == b"udta":
            found = ITUNES_COUNT.search(bytes_at(file, box.body, min(box.end - box.body, MAX_USER_DATA_BYTES)))
            if found:
                movie.tag = GaplessTag(*(int(number, 16) for number in found.groups()))
    return movie


def _track(file: BinaryIO, track_box: Box) -> Track | None:
    """Read the track in a `trak` box; None if it is not audio."""
    track, handler = Track(), b""
    waiting = [track_box]
    for _ in range(MAX_PARENTS):
        if not waiting:
            break
        parent = waiting.pop()
        for box in boxes(file, parent.body, parent.end):
            if box.end > parent.end:
                raise Refused(UnreadableAudio, "has a damaged index (a box exceeds its parent); copy it again")
            if box.name in (b"edts", b"mdia", b"minf", b"stbl"):
                waiting.append(box)
            elif box.name == b"hdlr" and parent.name == b"mdia":
                handler = bytes_at(file, box.body + 8, 4)
            elif box.name == b"tkhd":
                track.number = unpack_at(file, box.body + (20 if bytes_at(file, box.body, 1) == b"\1" else 12), ">I")[0]
            elif box.name == b"mdhd":
                long = bytes_at(file, box.body, 1) == b"\1"
                track.rate_hz = unpack_at(file, box.body + (20 if long else 12), ">I")[0]
            elif box.name == b"stsd":
                track.kind = bytes_at(file, box.body + 12, 4)
            elif box.name == b"stts":
                track.times = tuple((number, duration) for number, duration in _table(file, box, ">II"))
            elif box.name == b"stsz":
                track.frames, track.sizes = _sizes(file, box)
            elif box.name in (b"stco", b"co64"):
                track.chunks = _numbers(file, box, box.body + 4, "I" if box.name == b"stco" else "Q")
            elif box.name == b"stsc":
                track.runs = tuple((first, number) for first, number, _ in _table(file, box, ">III"))
            elif box.name == b"elst":
                long = bytes_at(file, box.body, 1) == b"\1"
                entries = _table(file, box, ">QqI" if long else ">IiI")
                track.edits = tuple((length, start) for length, start, _ in entries)
    return track if handler == b"soun" else None


def _table(file: BinaryIO, box: Box, layout: str) -> Iterator[tuple[int, ...]]:
    """Read the entries of a box that consists of a version, the number of entries, and the entries."""
    count, width = unpack_at(file, box.body + 4, ">I")[0], struct.calcsize(layout)
    if count > MAX_ENTRIES or box.body + 8 + count * width > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    return struct.iter_unpack(layout, bytes_at(file, box.body + 8, count * width))


def _sizes(file: BinaryIO, box: Box) -> tuple[int, Sequence[int]]:
    """Read the number of frames, and the size of each, or one size for all of them."""
    size, count = unpack_at(file, box.body + 4, ">II")
    return (count, (size,)) if size else (count, _numbers(file, box, box.body + 8, "I"))


def _numbers(file: BinaryIO, box: Box, at: int, kind: str) -> Sequence[int]:
    """Read the numbers of a table.

    Args:
        file: The file.
        box: The box that holds the table.
        at: Offset of the count, which the numbers follow.
        kind: Type code as in `array`, which sets their width.
    """
    numbers = array(kind)
    count = unpack_at(file, at, ">I")[0]
    if count > MAX_ENTRIES or at + 4 + count * numbers.itemsize > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    numbers.frombytes(bytes_at(file, at + 4, count * numbers.itemsize))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def chunks_of(track: Track) -> Iterator[tuple[int, int, int]]:
    """Yield the number of the first frame, the number of frames, and the offset of each chunk."""
    begin, run = 0, 0
    for number, offset in enumerate(track.chunks if track.runs else (), 1):
        while run + 1 < len(track.runs) and track.runs[run + 1][0] <= number:
            run += 1
        count = min(track.runs[run][1], (track.frames or 0) - begin)
        yield begin, count, offset
        begin += count


def whole_frames(track: Track, begin: int, number: int, room_bytes: int) -> int:
    """Count the frames of a chunk that fit into the rest of the file.

    Args:
        track: The track.
        begin: Number of the chunk's first frame.
        number: Number of frames in the chunk.
        room_bytes: Bytes from the chunk's first byte to the end of the file.
    """
    if len(track.sizes) == 1:
        return min(max(room_bytes, 0) // max(track.sizes[0], 1), number)
    ends = list(itertools.accumulate(track.sizes[begin : begin + number]))
    return bisect.bisect_right(ends, room_bytes)


class FramePlaces:
    """Finds the bytes of a track's frames in the file."""

    def __init__(self, track: Track):
        self._track = track
        self._chunks = list(chunks_of(track))
        self._begins = [begin for begin, _, _ in self._chunks]

    def tells(self, frame: int) -> bool:
        """Whether a frame is long enough that zeros in its place mean it is missing."""
        return self._track.sizes[frame] >= SHORTEST_FRAME_BYTES

    def is_empty(self, file: BinaryIO, frame: int) -> bool:
        """Whether a frame is all zeros in the file; a short frame is judged by the next one that `tells`."""
        while not self.tells(frame):
            frame += 1
        begin, _, offset = self._chunks[bisect.bisect_right(self._begins, frame) - 1]
        file.seek(offset + sum(self._track.sizes[begin:frame]))
        return not any(file.read(self._track.sizes[frame]))
