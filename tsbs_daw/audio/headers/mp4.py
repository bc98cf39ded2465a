"""MP4 and QuickTime (ISO 14496-12): completeness, and the exact duration of the audio.

AAC encoders put about a thousand samples of silence before the audio and pad the last frame. An edit list says what to
leave out. The decoder applies its start; the end is computed here, from three sources in order of exactness: iTunes'
count of samples, the durations of the coded frames, and the edit list.

The index says where each coded frame lies. A decoder leaves out frames without a word where its tables contradict each
other, so they are compared here, with each other and with the file.
"""

from __future__ import annotations

import bisect
import itertools
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Box, Fault, Header, Refused, boxes, bytes_at, cut, joined, unpack_at
from tsbs_daw.audio.headers.fragments import Fragments, missing_fragments
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
PROTECTED = (b"drms", b"enca")
MAX_TRACKS, MAX_PARENTS = 32, 16  # more than any file has; a hostile file would nest them without end
MAX_BOXES = 1 << 18  # of the top level; a day of fragments of a second
MAX_ENTRIES = 1 << 22  # per table; a day of AAC
MAX_USER_DATA_BYTES = 32 << 20
ITUNES_COUNT = re.compile(rb"iTunSMPB.{0,64}? [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{16})", re.DOTALL)
SLACK_SAMPLES = 4096  # two frames, the most that encoders disagree by
COMPRESSED = (b"mp4a", b"alac", b"Opus", b"fLaC", b"ac-3", b"ec-3", b".mp3")  # no frame of them is nothing but zeros
LEAST_GAP_S, LEAST_CUT_S = 0.001, 0.5  # below them, clocks merely count coarsely, and encoders pad
SHORTEST_FRAME_BYTES = 16  # shorter ones may be zeros, as where Opus sends nothing
LATE = "does not state its encoder delay; its audio may start 1000 to 2100 samples late"


@dataclass
class Track:
    """An audio track.

    Attributes:
        number: by which fragments name it
        kind: sample format, such as `mp4a`
        rate_hz: ticks of the media clock per second
        times: (number, duration of each in ticks) of the coded frames, in order
        edits: (length in ticks of the movie clock, start in ticks of the media clock)
        frames: number of coded frames that have a size; None without a table of sizes
        sizes: of each frame in bytes, or one for all
        chunks: offset of each run of frames in the file
        runs: (number of the first chunk, counted from 1, frames in each) up to the next entry
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
        """Duration of all coded frames."""
        return sum(number * duration for number, duration in self.times)

    @property
    def timed(self) -> int:
        """Number of coded frames that have a duration."""
        return sum(number for number, _ in self.times)

    def at_s(self, frame: int) -> float:
        """When a frame begins."""
        ticks, left = 0, frame
        for number, duration in self.times:
            ticks += min(number, left) * duration
            left -= min(number, left)
        return ticks / self.rate_hz if self.rate_hz else 0.0


def looks_like_mp4(magic: bytes) -> bool:
    return magic[4:8] in FIRST_BOXES


def read_mp4(file: BinaryIO, size: int) -> Header:
    """Read the header of an MP4 or QuickTime file of `size` bytes. Raises: Refused"""
    index, fault, second, has_audio = None, None, None, False
    top: list[Box] = []
    for box in boxes(file, 0, size, MAX_BOXES):
        if box.name in (b"ftyp", b"moov") and index and has_audio:
            second = joined("MP4s")
            break
        has_audio |= box.name in (b"mdat", b"moof")
        if box.name == b"moov" and box.end <= size:
            index = box
        top.append(box)
        if box.end > size:
            fault = cut(box.end - box.body, size - box.body)
    if index is None:
        raise Refused(TruncatedAudio, "is an MP4 without an index (`moov`): the copy or the recording is incomplete")
    movie = _index(file, index)
    tracks, tag = movie.tracks, movie.tag
    if not tracks:
        raise Refused(UnreadableAudio, "is a video without audio")
    track = tracks[0]
    if track.kind in PROTECTED:
        raise Refused(UnsupportedAudio, "is copy-protected; use a copy without protection")
    warnings = []
    if len(tracks) > 1:
        warnings.append(f"has {len(tracks)} audio tracks; the first is used")
    if tag and not tag.fits(track):
        warnings.append(
            f"has a tag (iTunSMPB) that counts {tag.count} samples, which its {track.ticks} do not fit; it is ignored"
        )
        tag = None
    if track.kind == b"mp4a" and not track.edits and not tag:
        warnings.append(LATE)
    fragmented = any(box.name == b"moof" for box in top)
    contradiction = None if fragmented else _contradiction(track)
    missing = None if contradiction else _missing(file, size, index, track)
    if fragmented and not second:
        whole = Fragments(file, size, top, index, track.number, track.rate_hz, movie.hz, track.ticks)
        missing, told = missing_fragments(whole)
        warnings += () if fault else told
    if not fragmented:
        warnings += _left_out(track, movie)
    return Header(
        "MP4",
        seekable=False,
        slack_samples=SLACK_SAMPLES,
        warnings=tuple(warnings),
        fault=contradiction or missing or second or fault,
        demuxer="mov",
        length_s=None if fragmented or contradiction else _length_s(track, movie.hz, tag.count if tag else 0),
    )


def _contradiction(track: Track) -> Fault | None:
    """The fault of an index whose tables count different numbers of frames; a decoder would take the smallest."""
    if track.frames is None or not track.chunks or not track.times:
        return None
    placed, last_run = 0, 0
    for (first, per_chunk), (following, _) in itertools.pairwise((*track.runs, (len(track.chunks) + 1, 0))):
        placed += max(min(following, len(track.chunks) + 1) - first, 0) * per_chunk
        last_run = per_chunk
    fits = track.frames <= placed < track.frames + max(last_run, 1)  # the last chunk may be partly filled
    if fits and abs(track.timed - track.frames) <= 1:
        return None
    counts = f"{track.frames} frames have a size, {track.timed} a duration and {placed} a place"
    return Fault(UnreadableAudio, f"has an index that contradicts itself ({counts})", "export it again")


def _missing(file: BinaryIO, size: int, index: Box, track: Track) -> Fault | None:
    """The fault of a file in which frames are missing that its index lists, with the first place."""
    if not track.frames or not track.chunks:
        return None
    first, frames = None, 0
    for begin, number, offset in _chunks(track):
        lies_in_index = index.body - 8 <= offset < index.end
        whole = 0 if lies_in_index else _whole_frames(track, begin, number, size - offset)
        if whole < number:
            first = begin + whole if first is None else min(first, begin + whole)
            frames += number - whole
    if first is not None:
        lost_s = frames * track.at_s(track.frames) / track.frames
        what = f"is cut short at {track.at_s(first):.1f} s: {lost_s:.2f} s of its audio lies outside the file"
        return Fault(TruncatedAudio, what)
    if track.kind not in COMPRESSED or len(track.sizes) < track.frames:
        return None
    places = _Places(track)
    last = next((frame for frame in reversed(range(track.frames)) if places.tells(frame)), None)
    if last is None or not places.is_empty(file, last):
        return None
    empty = bisect.bisect_left(range(last), True, key=lambda frame: places.is_empty(file, frame))
    return Fault(
        TruncatedAudio,
        f"is cut short at {track.at_s(empty):.1f} s: zeros stand in the place of the rest of its audio",
        "copy it again once it is complete",
    )


def _chunks(track: Track) -> Iterator[tuple[int, int, int]]:
    """Number of the first frame, number of frames, and offset of each chunk."""
    begin, run = 0, 0
    for number, offset in enumerate(track.chunks, 1):
        while run + 1 < len(track.runs) and track.runs[run + 1][0] <= number:
            run += 1
        count = min(track.runs[run][1], (track.frames or 0) - begin)
        yield begin, count, offset
        begin += count


def _whole_frames(track: Track, begin: int, number: int, room_bytes: int) -> int:
    """How many of a chunk's frames, which start at the chunk's first byte, fit into the rest of the file."""
    if len(track.sizes) == 1:
        return min(max(room_bytes, 0) // max(track.sizes[0], 1), number)
    ends = list(itertools.accumulate(track.sizes[begin : begin + number]))
    return bisect.bisect_right(ends, room_bytes)


class _Places:
    """Where each frame of a track lies in the file."""

    def __init__(self, track: Track):
        self._track = track
        self._chunks = list(_chunks(track))
        self._begins = [begin for begin, _, _ in self._chunks]

    def tells(self, frame: int) -> bool:
        """Whether zeros in the place of a frame mean that it is missing."""
        return self._track.sizes[frame] >= SHORTEST_FRAME_BYTES

    def is_empty(self, file: BinaryIO, frame: int) -> bool:
        """Whether nothing but zeros is in the place of a frame, or of the next that tells."""
        while not self.tells(frame):
            frame += 1
        begin, _, offset = self._chunks[bisect.bisect_right(self._begins, frame) - 1]
        file.seek(offset + sum(self._track.sizes[begin:frame]))
        return not any(file.read(self._track.sizes[frame]))


def _left_out(track: Track, movie: Movie) -> list[str]:
    """What an edit list leaves out, or puts before the audio, in words."""
    movie_hz = movie.hz
    sounding = [(length, start) for length, start in track.edits if start >= 0]
    if not movie_hz or not track.rate_hz or not sounding:
        return []
    warnings = []
    gap_s = sum(length for length, _ in itertools.takewhile(lambda edit: edit[1] < 0, track.edits)) / movie_hz
    if gap_s >= LEAST_GAP_S and movie.all_tracks == 1:  # the decoder tells how much later than a video
        warnings.append(f"has an edit list that starts its audio {gap_s:.3f} s late; the gap is left out")
    held_s = track.ticks / track.rate_hz
    played_s = sum(length or held_s * movie_hz for length, _ in sounding) / movie_hz
    if held_s - played_s > LEAST_CUT_S:
        what = f"leaves out {held_s - played_s:.1f} of its {held_s:.1f} s"
        warnings.append(f"has an edit list that {what}; they are left out as players do")
    return warnings


def _length_s(track: Track, movie_hz: int, count: int) -> Fraction | None:
    """The duration of the song; None if only decoding can tell."""
    sounding = [(length, start) for length, start in track.edits if start >= 0]
    if not track.rate_hz or not track.ticks or len(sounding) > 1:
        return None
    length, start = sounding[0] if sounding else (0, 0)
    frames = Fraction(track.ticks - start, track.rate_hz)
    if count and Fraction(count, track.rate_hz) <= frames:
        return Fraction(count, track.rate_hz)
    if not length or not movie_hz:
        return frames if frames > 0 else None
    edited = Fraction(length, movie_hz)
    # The movie clock is often coarse (600 or 1000 Hz): if the two agree within its tick, the frames are exact.
    return frames if edited >= frames - Fraction(1, movie_hz) else edited


@dataclass(frozen=True)
class GaplessTag:
    """What iTunes states in samples: the encoder's delay, the padding of the last frame, and the song itself."""

    delay: int
    padding: int
    count: int

    def fits(self, track: Track) -> bool:
        """Whether it is about this audio; tags are copied along where songs are cut or joined."""
        return abs(self.delay + self.count + self.padding - track.ticks) <= SLACK_SAMPLES


@dataclass
class Movie:
    """What the index says of the whole file.

    Attributes:
        hz: ticks of the movie clock per second
        tracks: those with audio
        all_tracks: number of tracks of any kind
        tag: what iTunes states
    """

    hz: int = 0
    tracks: list[Track] = field(default_factory=list)
    all_tracks: int = 0
    tag: GaplessTag | None = None


def _index(file: BinaryIO, index: Box) -> Movie:
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
    """The track in a `trak` box; None if it is not audio."""
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
    """The entries of a box that consists of a version, the number of entries, and the entries."""
    count, width = unpack_at(file, box.body + 4, ">I")[0], struct.calcsize(layout)
    if count > MAX_ENTRIES or box.body + 8 + count * width > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    return struct.iter_unpack(layout, bytes_at(file, box.body + 8, count * width))


def _sizes(file: BinaryIO, box: Box) -> tuple[int, Sequence[int]]:
    """The number of frames, and the size of each, or one for all of them."""
    size, count = unpack_at(file, box.body + 4, ">II")
    return (count, (size,)) if size else (count, _numbers(file, box, box.body + 8, "I"))


def _numbers(file: BinaryIO, box: Box, at: int, kind: str) -> Sequence[int]:
    """The numbers of a table whose count is at `at`. Args: kind: as in `array`, for the size"""
    numbers = array(kind)
    count = unpack_at(file, at, ">I")[0]
    if count > MAX_ENTRIES or at + 4 + count * numbers.itemsize > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    numbers.frombytes(bytes_at(file, at + 4, count * numbers.itemsize))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
