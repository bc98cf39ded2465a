"""A DAW session of one song, independent of any DAW, and the names and numbers that session files can hold.

Positions in a song (`at_samples`) are counted from the first sample of the song, wherever it lies on the timeline.
"""

from __future__ import annotations

import logging
import math
import posixpath
import re
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath

_NONCHARACTERS = {chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)}


def one_line(text: str) -> str:
    """`text` without line breaks, without what UTF-8 or XML cannot hold, and without surrounding space."""
    return holdable(text).strip()


def holdable(text: str) -> str:
    """Like `one_line`, but with surrounding space. A session file cannot hold a file name that this changes."""
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            parts.append(" ")
        else:
            parts.append("\ufffd" if category == "Cs" or character in _NONCHARACTERS else character)
    return "".join(parts)


def can_be_named(file: str) -> bool:
    """Whether every session format can hold this file name: REAPER has three kinds of quotes and no escape."""
    return holdable(file) == file and not all(mark in file for mark in "\"'`")


def is_absolute(file: str) -> bool:
    """Whether a path is absolute on any system."""
    return PurePosixPath(file).is_absolute() or PureWindowsPath(file).is_absolute()


def below(folder: str, file: str) -> str:
    """The path of `file`, which is relative to `folder`, seen from the parent of `folder`. Absolute paths stay."""
    return file if is_absolute(file) else posixpath.normpath(posixpath.join(folder, file))


def number(value: Fraction | float) -> str:
    """A non-negative number as plain decimal without exponent, exact to 1e-12 (in s: a millionth of a sample)."""
    whole, part = divmod(round(Fraction(value) * 10**12), 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


log = logging.getLogger(__name__)

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

# Colours of group folders. Other group names are allowed and get the last colour.
GROUP_COLORS = {"drums": "#4c8f57", "music": "#b08a3c", "vocals": "#a3485a", "": "#5a5a5a"}

_GROUPS = {"drums": "drums", "percussion": "drums", "vocals": "vocals", "lead": "vocals", "backing": "vocals"}


def usual_group(stem: str) -> str:
    """The group of a stem: drums, vocals, or music for everything else."""
    return _GROUPS.get(stem.lower(), "music")


@dataclass(frozen=True)
class SessionTrack:
    """One track with one item on it.

    Attributes:
        name: of the track
        file: the audio, relative to the folder of the session file, with forward slashes
        color: #rrggbb
        muted: for a dry stem beside its processed version, or for the source
        group: the folder that holds the track with others of the same group; "": none
        folders: the folders inside that one, outermost first, down to the track
        outside: the file may be outside the folder, or absolute: a source that was not copied. A session leaves it out
            if it cannot hold its name
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
        """All folders that it lies in, outermost first."""
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
        at_samples: position in the song
        bpm: quarter notes per minute from here
        beats_per_bar: length in quarter notes of the bar that begins here; None: bars are unknown
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
        tempo, key: as in the song's file names, with a mark if they are doubtful: `128.0 BPM`, `~8A`
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
        song: name of the folder track and of the region
        sample_rate: of the project and of every file, in Hz
        start_samples: position of the audio on the timeline; the time reference of the source
        samples: length of every file
        channels: of every file
        tempo: the tempo map, in order; empty if the song has no reliable tempo
        markers: in order
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
        """The position on the timeline, in seconds, of a position in the song."""
        return (self.start_samples + samples) / self.sample_rate

    @cached_property
    def shown(self) -> tuple[SessionTrack, ...]:
        """The tracks, except a source whose file name no session can hold."""
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
