"""Fragments of an MP4 (ISO 14496-12, section 8.8): whether one of them is missing.

Each fragment states when it begins and how long its frames are, so that a decoder which simply plays what there is
leaves a piece out without a word where the next one begins later than the one before it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Box, Fault, boxes, unpack_at
from tsbs_daw.core.errors import UnreadableAudio

SLACK_S = 0.1  # clocks of recorders drift a little
MAX_RUNS = 1000  # per fragment
MAX_FRAMES = 1 << 16  # per run
# Optional fields of a fragment's header before its default duration, and of a run before its frames.
BASE_OFFSET, DESCRIPTION, DEFAULT_DURATION = 1, 2, 8
DATA_OFFSET, FIRST_FLAGS, DURATIONS, SIZES, FLAGS, COMPOSITION = 1, 4, 0x100, 0x200, 0x400, 0x800


def missing_fragments(
    file: BinaryIO, index: Box, fragments: Sequence[Box], track: int, rate_hz: int, before_ticks: int
) -> Fault | None:
    """The fault of a file in which fragments are missing between others, with the first place and what is lost.

    Args:
        index: `moov`
        fragments: `moof`, in the order of the file
        track: its number
        rate_hz: ticks of its clock per second
        before_ticks: duration of the frames that the index itself lists
    """
    if not rate_hz:
        return None
    lost, first = 0, None
    expected = before_ticks or None  # a piece of a broadcast begins at any time
    default = _default_duration(file, index, track)
    for begin, duration in _times(file, fragments, track, default):
        if begin is not None and expected is not None and begin - expected > SLACK_S * rate_hz:
            first = expected if first is None else first
            lost += begin - expected
        if duration is None:  # it leaves its frames' durations to the codec
            return None
        expected = ((expected or 0) if begin is None else begin) + duration
    if first is None:
        return None
    what = (
        f"is damaged at {first / rate_hz:.1f} s: {lost / rate_hz:.2f} s of its audio is missing between its fragments"
    )
    return Fault(UnreadableAudio, what)


def _times(
    file: BinaryIO, fragments: Sequence[Box], track: int, default: int
) -> Iterator[tuple[int | None, int | None]]:
    """When each fragment of the track begins, and how long it is, in ticks; None where it does not say."""
    for fragment in fragments:
        for part in boxes(file, fragment.body, fragment.end):
            if part.name == b"traf":
                found = _fragment(file, part, track, default)
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


def _default_duration(file: BinaryIO, index: Box, track: int) -> int:
    """Of the track's frames, from `mvex`; 0 if it states none."""
    for extends in boxes(file, index.body, index.end):
        if extends.name != b"mvex":
            continue
        for box in boxes(file, extends.body, extends.end):
            if box.name == b"trex":
                number, _, duration = unpack_at(file, box.body + 4, ">III")
                if number == track:
                    return int(duration)
    return 0
