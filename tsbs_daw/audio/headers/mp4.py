"""MP4 and QuickTime (ISO 14496-12): completeness, and the exact duration of the audio.

AAC encoders put about a thousand samples of silence before the audio and pad the last frame. An edit list says what to
leave out. The decoder applies its start; the end is computed here, from three sources in order of exactness: iTunes'
count of samples, the durations of the coded frames, and the edit list.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from tsbs_daw.audio.headers.common import MAX_CHUNKS, Header, Refused, bytes_at, cut, joined, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
PROTECTED = (b"drms", b"enca")
MAX_TRACKS, MAX_PARENTS = 32, 16  # more than any file has; a hostile file would nest them without end
MAX_ENTRIES = 1 << 20  # per table
MAX_USER_DATA_BYTES = 32 << 20
ITUNES_COUNT = re.compile(rb"iTunSMPB.{0,64}? [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{16})", re.DOTALL)
SLACK_SAMPLES = 4096  # two frames, the most that encoders disagree by
LATE = "does not state its encoder delay; its audio may start 1000 to 2100 samples late"


@dataclass(frozen=True)
class Box:
    """A box: its name, and the offsets at which its body starts and ends."""

    name: bytes
    body: int
    end: int


@dataclass
class Track:
    """An audio track.

    Attributes:
        kind: sample format, such as `mp4a`
        rate_hz: ticks of the media clock per second
        ticks: duration of all coded frames
        edits: (length in ticks of the movie clock, start in ticks of the media clock)
    """

    kind: bytes = b""
    rate_hz: int = 0
    ticks: int = 0
    edits: tuple[tuple[int, int], ...] = ()


def boxes(file: BinaryIO, position: int, end: int) -> Iterator[Box]:
    """Walk the boxes from `position` to `end`; the last one may claim to end after `end`."""
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
    """Read the header of an MP4 or QuickTime file of `size` bytes. Raises: Refused"""
    index, fault, fragmented, has_audio = None, None, False, False
    for box in boxes(file, 0, size):
        if box.name in (b"ftyp", b"moov") and index and has_audio:
            fault = joined("MP4s")
            break
        has_audio |= box.name in (b"mdat", b"moof")
        if box.name == b"moov" and box.end <= size:
            index = box
        fragmented |= box.name == b"moof"
        if box.end > size:
            fault = cut(box.end - box.body, size - box.body)
    if index is None:
        raise Refused(TruncatedAudio, "is an MP4 without an index (`moov`): the copy or the recording is incomplete")
    movie_hz, tracks, count = _index(file, index)
    if not tracks:
        raise Refused(UnreadableAudio, "is a video without audio")
    track = tracks[0]
    if track.kind in PROTECTED:
        raise Refused(UnsupportedAudio, "is copy-protected; use a copy without protection")
    warnings = []
    if len(tracks) > 1:
        warnings.append(f"has {len(tracks)} audio tracks; the first is used")
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


def _index(file: BinaryIO, index: Box) -> tuple[int, list[Track], int]:
    """The movie clock in Hz, the audio tracks, and iTunes' count of samples (0 without one)."""
    tracks: list[Track] = []
    movie_hz, count = 0, 0
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
    """The entries of a box that consists of a version, the number of entries, and the entries."""
    count, width = unpack_at(file, box.body + 4, ">I")[0], struct.calcsize(layout)
    if count > MAX_ENTRIES or box.body + 8 + count * width > box.end:
        raise Refused(UnreadableAudio, "has a damaged index (a table does not fit); copy it again")
    return struct.iter_unpack(layout, bytes_at(file, box.body + 8, count * width))
