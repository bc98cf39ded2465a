"""MP4 and QuickTime (ISO 14496-12): is it all there, and where in its coded sound does the song begin and end?

Encoders of AAC put about a thousand samples of silence before the sound and fill up the last frame behind it. An edit
list says what to leave out; the decoder heeds its beginning, and what it says of the end is worked out here, from three
sources of falling exactness: iTunes' own count of samples, the durations of the coded frames, the edit list.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from tsbs_daw.audio.headers.common import MAX_CHUNKS, Header, Refused, bytes_at, cut, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
PROTECTED = (b"drms", b"enca")
MAX_TRACKS, MAX_PARENTS = 32, 16  # more than any file has; a hostile one would nest them without end
MAX_ENTRIES = 1 << 20  # of a table
MAX_USER_DATA_BYTES = 32 << 20
ITUNES_COUNT = re.compile(rb"iTunSMPB.{0,64}? [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{16})", re.DOTALL)
SLACK_SAMPLES = 4096  # two frames, the longest that encoders disagree by
LATE = "does not say how much silence its encoder put first; its sound may come some 1000 to 2100 samples late"


@dataclass(frozen=True)
class Box:
    name: bytes
    body: int
    end: int


@dataclass
class Track:
    """kind: of its samples; ticks: of the media's clock, rate_hz a second; edits: (length in movie ticks, start)"""

    kind: bytes = b""
    rate_hz: int = 0
    ticks: int = 0
    edits: tuple[tuple[int, int], ...] = ()


def boxes(file: BinaryIO, position: int, end: int) -> Iterator[Box]:
    """The boxes from `position` on. A last one may say that it ends behind `end`."""
    for _ in range(MAX_CHUNKS):
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


def looks_like_mp4(magic: bytes) -> bool:
    return magic[4:8] in FIRST_BOXES


def read_mp4(file: BinaryIO, size: int) -> Header:
    """The header of an MP4 or QuickTime file of `size` bytes. Raises: Refused"""
    index, fault, fragmented = None, None, False
    for box in boxes(file, 0, size):
        if box.name == b"moov" and box.end <= size:
            index = box
        fragmented |= box.name == b"moof"
        if box.end > size:
            fault = cut(box.end - box.body, size - box.body)
    if index is None:
        raise Refused(TruncatedAudio, "is an MP4 without its index (`moov`): it was not copied or recorded to its end")
    movie_hz, tracks, count = _index(file, index)
    if not tracks:
        raise Refused(UnreadableAudio, "is a video without sound")
    track = tracks[0]
    if track.kind in PROTECTED:
        raise Refused(UnsupportedAudio, "is copy-protected; use a copy without protection")
    warnings = []
    if len(tracks) > 1:
        warnings.append(f"has {len(tracks)} tracks of sound; the first is taken")
    if track.kind == b"mp4a" and not track.edits and not count:
        warnings.append(LATE)
    return Header(
        "MP4",
        seekable=False,
        slack_samples=SLACK_SAMPLES,
        warnings=tuple(warnings),
        fault=fault,
        demuxer="mov",
        length_s=None if fragmented else _length_s(track, movie_hz, count),
    )


def _length_s(track: Track, movie_hz: int, count: int) -> Fraction | None:
    """How long the song is, None where only decoding can tell."""
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
    # The movie's clock is often coarse (600 or 1000 Hz): where the two agree within its tick, the frames are exact.
    return frames if edited >= frames - Fraction(1, movie_hz) else edited


def _index(file: BinaryIO, index: Box) -> tuple[int, list[Track], int]:
    """The movie's clock in Hz, the tracks of sound, and iTunes' count of samples (0 without one)."""
    movie_hz, tracks, count = 0, [], 0
    for box in boxes(file, index.body, index.end):
        if box.name == b"mvhd":
            long = bytes_at(file, box.body, 1) == b"\1"
            movie_hz = unpack_at(file, box.body + (20 if long else 12), ">I")[0]
        elif box.name == b"trak" and len(tracks) < MAX_TRACKS:
            track = _track(file, box)
            tracks += [track] if track else []
        elif box.name == b"udta":
            found = ITUNES_COUNT.search(bytes_at(file, box.body, min(box.end - box.body, MAX_USER_DATA_BYTES)))
            count = int(found[3], 16) if found else count
    return movie_hz, tracks, count


def _track(file: BinaryIO, track_box: Box) -> Track | None:
    """A track, if it is one of sound."""
    track, handler = Track(), b""
    waiting = [track_box]
    for _ in range(MAX_PARENTS):
        if not waiting:
            break
        parent = waiting.pop()
        for box in boxes(file, parent.body, parent.end):
            if box.end > parent.end:
                raise Refused(UnreadableAudio, "has a damaged index (a box sticks out); copy it again")
            if box.name in (b"edts", b"mdia", b"minf", b"stbl"):
                waiting.append(box)
            elif box.name == b"hdlr" and parent.name == b"mdia":
                handler = bytes_at(file, box.body + 8, 4)
            elif box.name == b"mdhd":
                long = bytes_at(file, box.body, 1) == b"\1"
                track.rate_hz = unpack_at(file, box.body + (20 if long else 12), ">I")[0]
            elif box.name == b"stsd":
                track.kind = bytes_at(file, box.body + 12, 4)
            elif box.name == b"stts":
                track.ticks = sum(number * delta for number, delta in _table(file, box, ">II"))
            elif box.name == b"elst":
                long = bytes_at(file, box.body, 1) == b"\1"
                entries = _table(file, box, ">QqI" if long else ">IiI")
                track.edits = tuple((length, start) for length, start, _ in entries)
    return track if handler == b"soun" else None


def _table(file: BinaryIO, box: Box, layout: str) -> Iterator[tuple[int, ...]]:
    """The entries of a box that holds version, number of entries, and those."""
    count, width = unpack_at(file, box.body + 4, ">I")[0], struct.calcsize(layout)
    if count > MAX_ENTRIES or box.body + 8 + count * width > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    return struct.iter_unpack(layout, bytes_at(file, box.body + 8, count * width))
