"""MP4 and QuickTime (ISO 14496-12): completeness, and the exact duration of the audio.

AAC encoders put about a thousand samples of silence before the audio and pad the last frame. An edit list says what to
skip. The decoder applies its start; the end is computed here, from three sources in order of exactness: iTunes' sample
count, the durations of the coded frames, and the edit list.

The index says where each coded frame lies. A decoder silently drops frames where the tables of the index contradict
each other, so this module compares the tables with each other and with the file.

A fragmented file (section 8.8) may lack fragments. Each fragment states when it begins and how long its frames are. A
decoder simply plays the fragments that are present, so a missing one becomes a silent cut. The number of fragments
follows from an index of segments (`sidx`) or a total duration (`mehd`), if the file has either.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Fault, Header, Refused, bytes_at, cut, joined, unpack_at
from tsbs_daw.audio.headers.mp4_index import (
    SLACK_SAMPLES,
    Box,
    FramePlaces,
    Movie,
    Track,
    boxes,
    chunks_of,
    read_index,
    whole_frames,
)
from tsbs_daw.core.errors import TruncatedAudio, UnreadableAudio, UnsupportedAudio

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
PROTECTED = (b"drms", b"enca")
MAX_BOXES = 1 << 18  # at the top level; a day of one-second fragments
COMPRESSED = (b"mp4a", b"alac", b"Opus", b"fLaC", b"ac-3", b"ec-3", b".mp3")  # their frames are never all zeros
LEAST_GAP_S, LEAST_CUT_S = 0.001, 0.5  # anything shorter is the rounding of a coarse clock, or an encoder's padding
LATE = "does not state its encoder delay; its audio may start 1000 to 2100 samples late"


def looks_like_mp4(magic: bytes) -> bool:
    return magic[4:8] in FIRST_BOXES


def read_mp4(file: BinaryIO, size: int) -> Header:
    """Read the header of an MP4 or QuickTime file of `size` bytes.

    Raises:
        Refused: The file has no index, no audio or a damaged header, or is copy-protected.
    """
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
    movie = read_index(file, index)
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
            f"has a tag (iTunSMPB) that counts {tag.count} samples, which does not fit its {track.ticks}; it is ignored"
        )
        tag = None
    if track.kind == b"mp4a" and not track.edits and not tag:
        warnings.append(LATE)
    fragmented = any(box.name == b"moof" for box in top)
    contradiction = None if fragmented else _contradiction(track)
    missing = None if contradiction else _missing(file, size, index, track)
    if fragmented and not second:
        whole = Fragments(file, size, top, index, track.number, track.rate_hz, movie.hz, track.ticks)
        missing, fragment_warnings = missing_fragments(whole)
        warnings += () if fault else fragment_warnings
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
    """Return the fault of an index whose tables disagree on the number of frames; a decoder would take the smallest."""
    if track.frames is None or not track.chunks or (track.runs and not track.times):
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
    """Return the fault of a file that lacks frames its index lists, with the first place; None if it has them all."""
    if not track.frames or not track.chunks:
        return None
    first, frames = None, 0
    for begin, number, offset in chunks_of(track):
        lies_in_index = index.body - 8 <= offset < index.end
        whole = 0 if lies_in_index else whole_frames(track, begin, number, size - offset)
        if whole < number:
            first = begin + whole if first is None else min(first, begin + whole)
            frames += number - whole
    if first is not None:
        lost_s = frames * track.at_s(track.frames) / track.frames
        what = f"is cut short at {track.at_s(first):.1f} s: {lost_s:.2f} s of its audio is missing from the file"
        return Fault(TruncatedAudio, what)
    if track.kind not in COMPRESSED or len(track.sizes) < track.frames:
        return None
    places = FramePlaces(track)
    last = next((frame for frame in reversed(range(track.frames)) if places.tells(frame)), None)
    if last is None or not places.is_empty(file, last):
        return None
    empty = bisect.bisect_left(range(last), True, key=lambda frame: places.is_empty(file, frame))
    return Fault(
        TruncatedAudio,
        f"is cut short at {track.at_s(empty):.1f} s: the rest of its audio is zeros",
        "copy it again once it is complete",
    )


def _left_out(track: Track, movie: Movie) -> list[str]:
    """Return warnings about what an edit list skips, or inserts before the audio."""
    movie_hz = movie.hz
    sounding = [(length, start) for length, start in track.edits if start >= 0]
    if not movie_hz or not track.rate_hz or not sounding:
        return []
    warnings = []
    gap_s = sum(length for length, _ in itertools.takewhile(lambda edit: edit[1] < 0, track.edits)) / movie_hz
    if gap_s >= LEAST_GAP_S and movie.all_tracks == 1:  # beside a video, the decoder reports the delay
        warnings.append(f"has an edit list that starts its audio {gap_s:.3f} s late; the gap is left out")
    held_s = track.ticks / track.rate_hz
    played_s = sum(length or held_s * movie_hz for length, _ in sounding) / movie_hz
    if held_s - played_s > LEAST_CUT_S:
        what = f"skips {held_s - played_s:.1f} of its {held_s:.1f} s"
        warnings.append(f"has an edit list that {what}; that part is left out, as in any player")
    return warnings


def _length_s(track: Track, movie_hz: int, count: int) -> Fraction | None:
    """Return the duration of the song; None if only decoding can tell."""
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


# ---- fragments -------------------------------------------------------------------------------------------------------

PADDING_BYTES = 4096  # tags and padding that other programs put at the end
SLACK_S = 0.1  # recorders' clocks drift a little
MAX_FRAMES = 1 << 16  # per run
# Optional fields of a fragment's header before its default duration, and of a run before its frames.
BASE_OFFSET, DESCRIPTION, DEFAULT_DURATION = 1, 2, 8
DATA_OFFSET, FIRST_FLAGS, DURATIONS, SIZES, FLAGS, COMPOSITION = 1, 4, 0x100, 0x200, 0x400, 0x800
REFERENCE = 12  # bytes of a segment's entry in `sidx`
SIZE_BITS = 0x7FFFFFFF  # the topmost bit of an entry's size says that another index follows
LAST_OF_ALL = b"lmsg"  # the brand of the last segment
NO_END = "does not state how many fragments it has, so fragments may be missing at its end"


@dataclass(frozen=True)
class Fragments:
    """The audio track of a fragmented file.

    Attributes:
        file: The file.
        size: Size of the file in bytes.
        boxes: Its top-level boxes, in order.
        index: The `moov` box.
        track: Number of the track.
        rate_hz: Ticks of the track's clock per second.
        movie_hz: Ticks of the movie's clock per second.
        before_ticks: Duration of the frames that the index itself lists.
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
    """Return the fault of a file that lacks fragments, with the first place and how much is lost, and warnings.

    A broadcast states no end. If nothing else proves that the file is complete either, a warning says so.
    """
    if not movie.rate_hz:
        return None, ()
    between, end = _missing_between(movie)
    if between:
        return between, ()
    if movie.size - movie.boxes[-1].end > PADDING_BYTES:
        at = f" at {end:.1f} s" if end is not None else ""
        what = f"is damaged{at}: unknown data follows its fragment number {_count(movie, b'moof')}"
        return Fault(UnreadableAudio, what), ()
    stated, fault = _missing_at_the_end(movie, end)
    return fault, () if stated or _says_that_it_ends(movie) else (NO_END,)


def _missing_between(movie: Fragments) -> tuple[Fault | None, float | None]:
    """Return the fault of gaps between fragments, and the end of the last one in seconds, if that is known."""
    rate_hz, lost, first = movie.rate_hz, 0, None
    expected = movie.before_ticks or None  # None: an excerpt of a broadcast may begin at any time
    for begin, duration in _times(movie):
        if begin is not None and expected is not None and begin - expected > SLACK_S * rate_hz:
            first = expected if first is None else first
            lost += begin - expected
        if duration is None:  # the fragment leaves its frames' durations to the codec
            return None, None
        expected = ((expected or 0) if begin is None else begin) + duration
    if first is None:
        return None, (expected or 0) / rate_hz
    lost_s = f"{lost / rate_hz:.2f} s of its audio"
    return Fault(
        UnreadableAudio, f"is damaged at {first / rate_hz:.1f} s: {lost_s} is missing between its fragments"
    ), None


def _missing_at_the_end(movie: Fragments, end_s: float | None) -> tuple[bool, Fault | None]:
    """Return whether the file states where its fragments end, and the fault if it ends before that."""
    cuts = [cut_s for box in movie.boxes if box.name == b"sidx" for cut_s in _beyond(movie, box)]
    stated_s = _stated_duration_s(movie)
    if stated_s and end_s is not None and stated_s - end_s > SLACK_S:
        cuts.append((end_s, stated_s - end_s))
    if cuts:
        at_s, lost_s = cuts[0]
        what = f"is cut short at {at_s:.1f} s: the fragments of the {lost_s:.2f} s after that are missing"
        return True, Fault(TruncatedAudio, what, "copy it again once it is complete")
    covers_all = _count(movie, b"sidx") == 1 < _count(movie, b"moof")  # otherwise, each covers one segment
    return bool(stated_s) or covers_all, None


def _count(movie: Fragments, name: bytes) -> int:
    return sum(box.name == name for box in movie.boxes)


def _beyond(movie: Fragments, box: Box) -> Iterator[tuple[float, float]]:
    """Yield when the first listed segment beyond the file's end begins, and the duration from there, in seconds."""
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
    """Whether the file has what a writer puts last: an index for random access (`mfra`), or a last segment's brand."""
    for box in reversed(movie.boxes):
        if box.name == b"mfra":
            return True
        if box.name == b"styp":
            return LAST_OF_ALL in bytes_at(movie.file, box.body, min(box.end - box.body, 256))
    return False


def _stated_duration_s(movie: Fragments) -> float:
    """Return the duration of the whole movie from `mehd`; 0 if it is not stated."""
    for box in _parts(movie, b"mehd"):
        wide = unpack_at(movie.file, box.body, ">B")[0] == 1
        duration = unpack_at(movie.file, box.body + 4, ">Q" if wide else ">I")[0]
        return duration / movie.movie_hz if movie.movie_hz else 0.0
    return 0.0


def _parts(movie: Fragments, name: bytes) -> Iterator[Box]:
    """Yield the boxes of this name inside `mvex`."""
    for extends in boxes(movie.file, movie.index.body, movie.index.end):
        if extends.name == b"mvex":
            yield from (box for box in boxes(movie.file, extends.body, extends.end) if box.name == name)


def _times(movie: Fragments) -> Iterator[tuple[int | None, int | None]]:
    """Yield when each fragment of the track begins, and how long it is, in ticks; None for what it does not state."""
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
    """Return when a track's part of a fragment begins, and its duration; None if it belongs to another track."""
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
    """Return the default duration of the track's frames from `mvex`; 0 if it is not stated."""
    for box in _parts(movie, b"trex"):
        number, _, duration = unpack_at(movie.file, box.body + 4, ">III")
        if number == movie.track:
            return int(duration)
    return 0
