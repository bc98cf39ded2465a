"""Fragments of an MP4 (ISO 14496-12, section 8.8): whether one of them is missing.

Each fragment states when it begins and how long its frames are, so that a decoder which simply plays what there is
leaves a piece out without a word where the next one begins later than the one before it ends. How many there are is
stated in an index of segments (`sidx`) or as a duration (`mehd`), if at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Box, Fault, boxes, bytes_at, unpack_at
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio

PADDING_BYTES = 4096  # tags and padding that other programs put at the end
SLACK_S = 0.1  # clocks of recorders drift a little
MAX_FRAMES = 1 << 16  # per run
# Optional fields of a fragment's header before its default duration, and of a run before its frames.
BASE_OFFSET, DESCRIPTION, DEFAULT_DURATION = 1, 2, 8
DATA_OFFSET, FIRST_FLAGS, DURATIONS, SIZES, FLAGS, COMPOSITION = 1, 4, 0x100, 0x200, 0x400, 0x800
REFERENCE = 12  # bytes of a segment's entry in `sidx`
SIZE_BITS = 0x7FFFFFFF  # the topmost bit of an entry's size says that another index follows
LAST_OF_ALL = b"lmsg"  # the brand of the last segment
NO_END = "does not state how many fragments it has; if it was cut between two of them, its end is missing"


@dataclass(frozen=True)
class Fragments:
    """The audio track of a fragmented file.

    Attributes:
        file: a reader of it
        size: of the file in bytes
        boxes: of its top level, in order
        index: `moov`
        track: number of the track
        rate_hz: ticks of the track's clock per second
        movie_hz: ticks of the movie's clock per second
        before_ticks: duration of the frames that the index itself lists
    """

    file: BinaryIO
    size: int
    boxes: Sequence[Box]
    index: Box
    track: int
    rate_hz: int
    movie_hz: int
    before_ticks: int


def missing_fragments(movie: Fragments) -> tuple[Fault | None, tuple[str, ...]]:
    """The fault of a file in which fragments are missing, with the first place and what is lost, and warnings.

    A broadcast states no end. Where nothing else shows that the file is whole either, the warning says so.
    """
    if not movie.rate_hz:
        return None, ()
    between, end = _missing_between(movie)
    if between:
        return between, ()
    if movie.size - movie.boxes[-1].end > PADDING_BYTES:
        at = f" at {end:.1f} s" if end is not None else ""
        what = f"is damaged{at}: what follows its fragment number {_count(movie, b'moof')} is no fragment"
        return Fault(UnreadableAudio, what), ()
    stated, fault = _missing_at_the_end(movie, end)
    return fault, () if stated or _says_that_it_ends(movie) else (NO_END,)


def _missing_between(movie: Fragments) -> tuple[Fault | None, float | None]:
    """The fault of fragments that do not follow each other, and when the last one ends in seconds, if that is known."""
    rate_hz, lost, first = movie.rate_hz, 0, None
    expected = movie.before_ticks or None  # a piece of a broadcast begins at any time
    for begin, duration in _times(movie):
        if begin is not None and expected is not None and begin - expected > SLACK_S * rate_hz:
            first = expected if first is None else first
            lost += begin - expected
        if duration is None:  # it leaves its frames' durations to the codec
            return None, None
        expected = ((expected or 0) if begin is None else begin) + duration
    if first is None:
        return None, (expected or 0) / rate_hz
    lost_s = f"{lost / rate_hz:.2f} s of its audio"
    return Fault(
        UnreadableAudio, f"is damaged at {first / rate_hz:.1f} s: {lost_s} is missing between its fragments"
    ), None


def _missing_at_the_end(movie: Fragments, end_s: float | None) -> tuple[bool, Fault | None]:
    """Whether the file states where its fragments end, and the fault of one that ends before that."""
    cuts = [cut_s for box in movie.boxes if box.name == b"sidx" for cut_s in _beyond(movie, box)]
    stated_s = _stated_duration_s(movie)
    if stated_s and end_s is not None and stated_s - end_s > SLACK_S:
        cuts.append((end_s, stated_s - end_s))
    if cuts:
        at_s, lost_s = cuts[0]
        what = f"is cut short at {at_s:.1f} s: the fragments of the {lost_s:.2f} s after that are missing"
        return True, Fault(TruncatedAudio, what, "copy it again once it is complete")
    covers_all = _count(movie, b"sidx") == 1 < _count(movie, b"moof")  # otherwise, each is of one segment
    return bool(stated_s) or covers_all, None


def _count(movie: Fragments, name: bytes) -> int:
    return sum(box.name == name for box in movie.boxes)


def _beyond(movie: Fragments, box: Box) -> Iterator[tuple[float, float]]:
    """Where the segments that an index lists leave the file, and the duration of the rest; both in seconds."""
    wide = unpack_at(movie.file, box.body, ">B")[0] > 0
    clock_hz, *_ = unpack_at(movie.file, box.body + 8, ">I")
    first_s, offset = unpack_at(movie.file, box.body + 12, ">QQ" if wide else ">II")
    entries = box.body + (28 if wide else 20) + 4
    count = unpack_at(movie.file, entries - 2, ">H")[0]
    if not clock_hz or entries + count * REFERENCE > box.end:
        return
    place, at, lost = box.end + offset, first_s, 0
    for number in range(count):
        size, duration = unpack_at(movie.file, entries + number * REFERENCE, ">II")
        place += size & SIZE_BITS
        if lost or place > movie.size:
            lost += duration
        else:
            at += duration
    if lost:
        yield at / clock_hz, lost / clock_hz


def _says_that_it_ends(movie: Fragments) -> bool:
    """Whether a writer has put what comes last: an index for random access (`mfra`), or the brand of a last segment."""
    for box in reversed(movie.boxes):
        if box.name == b"mfra":
            return True
        if box.name == b"styp":
            return LAST_OF_ALL in bytes_at(movie.file, box.body, min(box.end - box.body, 256))
    return False


def _stated_duration_s(movie: Fragments) -> float:
    """Of the whole movie, from `mehd`; 0 if it states none."""
    for box in _parts(movie, b"mehd"):
        wide = unpack_at(movie.file, box.body, ">B")[0] == 1
        duration = unpack_at(movie.file, box.body + 4, ">Q" if wide else ">I")[0]
        return duration / movie.movie_hz if movie.movie_hz else 0.0
    return 0.0


def _parts(movie: Fragments, name: bytes) -> Iterator[Box]:
    """What `mvex` has under a name."""
    for extends in boxes(movie.file, movie.index.body, movie.index.end):
        if extends.name == b"mvex":
            yield from (box for box in boxes(movie.file, extends.body, extends.end) if box.name == name)


def _times(movie: Fragments) -> Iterator[tuple[int | None, int | None]]:
    """When each fragment of the track begins, and how long it is, in ticks; None where it does not say."""
    default = _default_duration(movie)
    for fragment in movie.boxes:
        if fragment.name != b"moof":
            continue
        for part in boxes(movie.file, fragment.body, fragment.end):
            if part.name == b"traf":
                found = _fragment(movie.file, part, movie.track, default)
                if found:
                    yield found


def _fragment(file: BinaryIO, part: Box, track: int, default: int) -> tuple[int | None, int | None] | None:
    """When a track's part of a fragment begins, and its duration; None if it is another track's."""
    begin: int | None = None
    duration: int | None = 0
    for box in boxes(file, part.body, part.end):
        if box.name == b"tfhd":
            flags, number = unpack_at(file, box.body, ">II")
            if number != track:
                return None
            if flags & DEFAULT_DURATION:
                skipped = 8 * bool(flags & BASE_OFFSET) + 4 * bool(flags & DESCRIPTION)
                default = unpack_at(file, box.body + 8 + skipped, ">I")[0]
        elif box.name == b"tfdt":
            long = unpack_at(file, box.body, ">B")[0] == 1
            begin = unpack_at(file, box.body + 4, ">Q" if long else ">I")[0]
        elif box.name == b"trun" and duration is not None:
            run = _run_duration(file, box, default)
            duration = None if run is None else duration + run
    return begin, duration


def _run_duration(file: BinaryIO, box: Box, default: int) -> int | None:
    flags, count = unpack_at(file, box.body, ">II")
    flags &= 0xFFFFFF
    if not flags & DURATIONS:
        return count * default if default else None
    width = sum(bool(flags & field) for field in (DURATIONS, SIZES, FLAGS, COMPOSITION))
    position = box.body + 8 + 4 * bool(flags & DATA_OFFSET) + 4 * bool(flags & FIRST_FLAGS)
    if count > MAX_FRAMES or position + 4 * width * count > box.end:
        return None
    numbers: tuple[int, ...] = unpack_at(file, position, f">{width * count}I")
    return sum(numbers[::width])


def _default_duration(movie: Fragments) -> int:
    """Of the track's frames, from `mvex`; 0 if it states none."""
    for box in _parts(movie, b"trex"):
        number, _, duration = unpack_at(movie.file, box.body + 4, ">III")
        if number == movie.track:
            return int(duration)
    return 0
