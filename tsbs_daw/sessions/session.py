"""A DAW session of one song, independent of any DAW: its tracks, its tempo map, and what session files can hold.

Positions in a song (`at_samples`) are counted from the first sample of the song, wherever it lies on the timeline.
Positions on a timeline are exact fractions, in seconds and quarter notes.

If the timeline starts before the song, the song rarely begins on a bar line. There are two solutions, for two kinds of
DAWs: the last bar before the song is cut short (`steps` marks it), or that bar gets a length and a tempo of its own, so
that it ends where the song's first bar begins (`fitted`).
"""

from __future__ import annotations

import logging
import math
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath

_NONCHARACTERS = {chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)}


def one_line(text: str) -> str:
    """Return `text` without line breaks, characters that UTF-8 or XML cannot hold, and surrounding space."""
    return holdable(text).strip()


def holdable(text: str) -> str:
    """Like `one_line`, but keep surrounding space. A session file cannot hold a file name that this changes."""
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            parts.append(" ")
        else:
            parts.append("\ufffd" if category == "Cs" or character in _NONCHARACTERS else character)
    return "".join(parts)


def can_be_named(file: str) -> bool:
    """Whether every session format can hold this file name; REAPER has three kinds of quotes and no escaping."""
    return holdable(file) == file and not all(mark in file for mark in "\"'`")


def is_absolute(file: str) -> bool:
    """Whether a path is absolute on any system."""
    return PurePosixPath(file).is_absolute() or PureWindowsPath(file).is_absolute()


def below(folder: str, file: str) -> str:
    """Return the path of `file`, given relative to `folder`, from the parent of `folder`. Absolute paths stay."""
    return file if is_absolute(file) else posixpath.normpath(posixpath.join(folder, file))


def number(value: Fraction | float) -> str:
    """Format a non-negative number as a decimal without exponent, exact to 1e-12 (in s: a millionth of a sample)."""
    whole, part = divmod(round(Fraction(value) * 10**12), 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


log = logging.getLogger(__name__)

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

# Colours of group folders. Other group names are allowed and get the last colour.
GROUP_COLORS = {"drums": "#4c8f57", "music": "#b08a3c", "vocals": "#a3485a", "": "#5a5a5a"}

_GROUPS = {"drums": "drums", "percussion": "drums", "vocals": "vocals", "lead": "vocals", "backing": "vocals"}


def usual_group(stem: str) -> str:
    """Return the group of a stem: drums, vocals, or music for everything else."""
    return _GROUPS.get(stem.lower(), "music")


@dataclass(frozen=True)
class SessionTrack:
    """One track with one item on it.

    Attributes:
        name: Name of the track.
        file: The audio, relative to the folder of the session file, with forward slashes.
        color: As #rrggbb.
        muted: For a dry stem beside its processed version, or for the source.
        group: The folder that holds the tracks of this group; "": none.
        outside: The file may be outside the session's folder, or absolute: a source that was not copied. The session
            omits the track if it cannot hold the file name.
        folders: Folders inside the group's, outermost first, down to the track.
    """

    name: str
    file: str
    color: str
    muted: bool = False
    group: str = ""
    outside: bool = False
    folders: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """All folders that contain the track, outermost first."""
        return (self.group, *self.folders) if self.group else self.folders

    def __post_init__(self) -> None:
        outside = is_absolute(self.file) or ".." in PurePosixPath(self.file).parts
        assert self.file, f"no file: {self.name}"
        assert self.outside or not outside, f"not inside the session: {self.file}"
        assert _COLOR.fullmatch(self.color), f"not a colour: {self.color}"


@dataclass(frozen=True)
class TempoChange:
    """A tempo change in a song, without a ramp.

    Attributes:
        at_samples: Position in the song.
        bpm: Quarter notes per minute from here.
        beats_per_bar: Length in quarter notes of the bar that begins here; None: bars are unknown.
    """

    at_samples: int
    bpm: float
    beats_per_bar: int | None = None

    def __post_init__(self) -> None:
        assert self.at_samples >= 0 and self.bpm > 0 and math.isfinite(self.bpm), f"not a tempo: {self}"
        assert self.beats_per_bar is None or 1 <= self.beats_per_bar <= 255, f"not a bar: {self}"


@dataclass(frozen=True)
class Marker:
    """A named position in the song: the beginning of a section or a bar."""

    at_samples: int
    name: str

    def __post_init__(self) -> None:
        assert self.at_samples >= 0, f"before the song: {self}"


@dataclass(frozen=True)
class About:
    """Metadata of the song for display; "" if unknown.

    Attributes:
        tempo: As in the song's file names, with a `~` if it is doubtful: `128.0 BPM`.
        key: As in the song's file names, with a `~` if it is doubtful: `~8A`.
    """

    title: str = ""
    artist: str = ""
    album: str = ""
    genre: str = ""
    year: str = ""
    comment: str = ""
    tempo: str = ""
    key: str = ""


@dataclass(frozen=True)
class Session:
    """The tracks of a song, in order, of equal start and length.

    Attributes:
        song: Name of the folder track and of the region.
        sample_rate: Sample rate of the project and of every file, in Hz.
        start_samples: Position of the audio on the timeline: the time reference of the source.
        samples: Length of every file.
        channels: Channels of every file.
        tracks: In order.
        tempo: The tempo map, in order; empty if the song has no reliable tempo.
        markers: In order.
        about: Metadata for display.
    """

    song: str
    sample_rate: int
    start_samples: int
    samples: int
    channels: int
    tracks: tuple[SessionTrack, ...]
    tempo: tuple[TempoChange, ...] = ()
    markers: tuple[Marker, ...] = ()
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        changes = [change.at_samples for change in self.tempo]
        assert changes == sorted(set(changes)), "tempo changes out of order, or two at one place"
        places = [marker.at_samples for marker in self.markers]
        assert places == sorted(places), "markers out of order"
        assert all(place <= self.samples for place in changes + places), "a tempo or a marker after the song's end"

    @property
    def start_s(self) -> float:
        return self.start_samples / self.sample_rate

    @property
    def length_s(self) -> float:
        return self.samples / self.sample_rate

    @property
    def end_s(self) -> float:
        return (self.start_samples + self.samples) / self.sample_rate

    def at_s(self, samples: int) -> float:
        """Convert a position in the song to a position on the timeline, in seconds."""
        return (self.start_samples + samples) / self.sample_rate

    @cached_property
    def shown(self) -> tuple[SessionTrack, ...]:
        """The tracks, except a source whose file name not every session format can hold."""
        found = tuple(track for track in self.tracks if not track.outside or can_be_named(track.file))
        if len(found) < len(self.tracks):
            log.warning("the session of %r omits the source: a session cannot hold its file name", self.song)
        return found

    @property
    def groups(self) -> tuple[tuple[str, tuple[SessionTrack, ...]], ...]:
        """The tracks by group, in the order of their first tracks; a track without a group stands alone, under ""."""
        found: list[tuple[str, list[SessionTrack]]] = []
        for track in self.shown:
            members = next((tracks for name, tracks in found if track.group and name == track.group), None)
            if members is None:
                found.append((track.group, [track]))
            else:
                members.append(track)
        return tuple((name, tuple(tracks)) for name, tracks in found)


# ---- the tempo map on a timeline ------------------------------------------------------------------------------------

DEFAULT_BPM, DEFAULT_BEATS = 120, 4  # the defaults of a new project in any DAW

_SLOWEST, _FASTEST = 20, 666  # tempi in BPM that every DAW accepts
_UNITS = (4, 8, 16)  # denominators of time signatures
SCRAP_S = Fraction(60, _UNITS[-1] // 4 * _FASTEST)  # the shortest possible bar
_CLOSE = Fraction(1, 1000)  # in quarter notes; neither audible nor visible


@dataclass(frozen=True)
class TimelineChange:
    """A tempo change on a timeline.

    Attributes:
        at_s: Position in seconds.
        bpm: Quarter notes per minute from here.
        bar: Time signature (numerator, denominator) of the bar that begins here; None: bars continue.
        quarters: Position in quarter notes, set by `steps`.
        cut: Length of the bar that this change cuts short, in quarter notes, set by `steps`; 0: none.
    """

    at_s: Fraction
    bpm: Fraction
    bar: tuple[int, int] | None = None
    quarters: Fraction = Fraction(0)
    cut: Fraction = Fraction(0)


def changes_of(session: Session, at_s: Fraction) -> list[TimelineChange]:
    """Return the tempo map of a song that begins at `at_s`; empty if its tempo is unknown.

    The grid must pass through the first change, so a bar begins there, of four beats unless the analysis says
    otherwise.
    """
    found: list[TimelineChange] = []
    for change in session.tempo:
        bar = (change.beats_per_bar, 4) if change.beats_per_bar else None
        if not found:
            bar = bar or (DEFAULT_BEATS, 4)
        at = at_s + Fraction(change.at_samples, session.sample_rate)
        found.append(TimelineChange(at, Fraction(change.bpm), bar))
    return found


def with_lead_in(
    changes: Sequence[TimelineChange], at_s: Fraction, shortest_s: Fraction = Fraction(1, 2000)
) -> list[TimelineChange]:
    """Extend the first tempo and bar back to `at_s`. A lead-in below `shortest_s` becomes part of the first bar."""
    if not changes or changes[0].at_s == at_s:
        return list(changes)
    earlier = replace(changes[0], at_s=at_s)
    return [earlier, *changes[1 if changes[0].at_s - at_s < shortest_s else 0 :]]


def steps(changes: Sequence[TimelineChange]) -> list[TimelineChange]:
    """Add positions in quarter notes to tempo changes, the first of which is at the start of the timeline."""
    found: list[TimelineChange] = []
    bar_at, bar_length = Fraction(0), Fraction(DEFAULT_BEATS)
    for change in changes:
        quarters, cut = Fraction(0), Fraction(0)
        if found:
            last = found[-1]
            quarters = last.quarters + (change.at_s - last.at_s) * last.bpm / 60
        if change.bar is not None:
            into = (quarters - bar_at) % bar_length
            cut = into if min(into, bar_length - into) > _CLOSE else cut
            bar_at, bar_length = quarters, Fraction(change.bar[0] * 4, change.bar[1])
        found.append(replace(change, quarters=quarters, cut=cut))
    return found


def bars_before(changes: Sequence[TimelineChange]) -> int:
    """Count the bars in a lead-in, the last of which may be cut short.

    Args:
        changes: The two ends of the lead-in, from `steps`.
    """
    start, first = changes
    assert start.bar is not None
    length = Fraction(start.bar[0] * 4, start.bar[1])
    return round((first.quarters - start.quarters - first.cut) / length) + (first.cut > 0)


def fitted(changes: Sequence[TimelineChange]) -> list[TimelineChange]:
    """Return tempo changes from 0 on that cut no bar: the bar before a cut gets a time signature of its real length.

    That bar is counted in quarters, or in shorter notes if necessary, at the tempo nearest to the song's that makes it
    end on time. If there is none (a tempo change inside that bar, or only a few milliseconds), the bar stays cut.

    Args:
        changes: Changes of one song, from `changes_of`.
    """
    found: list[TimelineChange] = []
    bar_length = Fraction(0)
    for step in steps(_from_zero(changes)):
        if step.cut:
            bar = _last_bar(found[-1], step, bar_length)
            if bar is not None and bar.at_s == found[-1].at_s:
                found.pop()
            found += [bar] if bar else []
        if step.bar is not None:
            bar_length = Fraction(step.bar[0] * 4, step.bar[1])
        found.append(TimelineChange(step.at_s, step.bpm, step.bar))
    return found


def _from_zero(changes: Sequence[TimelineChange]) -> list[TimelineChange]:
    """Add a lead-in from 0. If it is too short for a bar, it becomes part of the song's first bar, which slows down."""
    bar = changes[0].bar if changes else None
    if bar is None or not 0 < changes[0].at_s < SCRAP_S:
        return with_lead_in(changes, Fraction(0))
    first, rest = changes[0], changes[1:]
    quarters = Fraction(bar[0] * 4, bar[1])
    end_s = first.at_s + quarters * 60 / first.bpm
    if rest and rest[0].at_s < end_s:
        return with_lead_in(changes, Fraction(0), SCRAP_S)
    whole = TimelineChange(Fraction(0), quarters * 60 / end_s, first.bar)
    return [whole, *([] if rest and rest[0].at_s == end_s else [TimelineChange(end_s, first.bpm)]), *rest]


def _last_bar(last: TimelineChange, step: TimelineChange, bar_length: Fraction) -> TimelineChange | None:
    """Return the bar that ends at `step`; a remainder of less than half a beat is added to the bar before.

    Returns:
        None if no acceptable tempo makes the bar end on time.
    """
    lengths = [step.cut, step.cut + bar_length] if step.cut >= Fraction(1, 2) else [step.cut + bar_length, step.cut]
    for length in lengths:
        start_s = step.at_s - length * 60 / last.bpm
        for unit in _UNITS:
            exact = length * unit / 4
            count = max(1, round(exact))
            bpm = last.bpm * count / exact
            near = Fraction(4, 5) <= count / exact <= Fraction(5, 4) or unit == _UNITS[-1]
            if start_s >= last.at_s and near and _SLOWEST <= bpm <= _FASTEST:
                return TimelineChange(start_s, bpm, (count, unit))
    return None
