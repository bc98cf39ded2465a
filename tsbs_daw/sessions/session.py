"""What a DAW session of one song holds, in no DAW's own terms. The writers beside this file turn it into projects.

Places inside a song (`at_samples`) are counted from the song's first sample, wherever the song sits on the timeline.
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
    """`text` without what would end a line, without what UTF-8 or XML cannot hold, and without space around it."""
    return holdable(text).strip()


def holdable(text: str) -> str:
    """The same with the space around it. A file's name that this changes cannot stand in a session file."""
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            parts.append(" ")
        else:
            parts.append("\ufffd" if category == "Cs" or character in _NONCHARACTERS else character)
    return "".join(parts)


def can_be_named(file: str) -> bool:
    """Whether every kind of session can name this file: REAPER has three kinds of quotes and no way to escape one."""
    return holdable(file) == file and not all(mark in file for mark in "\"'`")


def is_absolute(file: str) -> bool:
    """Whether a file is named from the root, on whatever system it was named."""
    return PurePosixPath(file).is_absolute() or PureWindowsPath(file).is_absolute()


def below(folder: str, file: str) -> str:
    """`file`, relative to `folder`, as it is named from where `folder` is; an absolute one stays as it is."""
    return file if is_absolute(file) else posixpath.normpath(posixpath.join(folder, file))


def number(value: Fraction | float) -> str:
    """Plain decimals, without an exponent; 1e-12 s is a millionth of a sample at any rate. value: not negative"""
    whole, part = divmod(round(Fraction(value) * 10**12), 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


log = logging.getLogger(__name__)

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

# A group's tracks lie in a folder of this colour. Other group names may be used; theirs is the last colour.
GROUP_COLORS = {"drums": "#4c8f57", "music": "#b08a3c", "vocals": "#a3485a", "": "#5a5a5a"}

_GROUPS = {"drums": "drums", "percussion": "drums", "vocals": "vocals", "lead": "vocals", "backing": "vocals"}


def usual_group(stem: str) -> str:
    """The group that a stem of this name belongs to: drums, vocals, or music for everything else."""
    return _GROUPS.get(stem.lower(), "music")


@dataclass(frozen=True)
class SessionTrack:
    """One track with one item on it.

    name:    what the track is called
    file:    the audio, relative to the folder that the session file is in, with forward slashes
    color:   #rrggbb
    muted:   a dry stem beside its processed version, or the source for reference
    group:   the folder that the track lies in, beside others of the same group; "": none
    outside: the file may be anywhere, also by an absolute path: the source, where it was not copied. A session shows it
             only if it can name it, since its folder is not ours to rename
    """

    name: str
    file: str
    color: str
    muted: bool = False
    group: str = ""
    outside: bool = False

    def __post_init__(self) -> None:
        outside = is_absolute(self.file) or ".." in PurePosixPath(self.file).parts
        assert self.file, f"no file: {self.name}"
        assert self.outside or not outside, f"not inside the session: {self.file}"
        assert _COLOR.fullmatch(self.color), f"not a colour: {self.color}"


@dataclass(frozen=True)
class TempoChange:
    """From here on the song goes at `bpm` quarter notes a minute, in one step.

    beats_per_bar: a bar of so many quarter notes begins here; None: nothing is known of bars, the beat goes on
    """

    at_samples: int
    bpm: float
    beats_per_bar: int | None = None

    def __post_init__(self) -> None:
        assert self.at_samples >= 0 and self.bpm > 0 and math.isfinite(self.bpm), f"not a tempo: {self}"
        assert self.beats_per_bar is None or 1 <= self.beats_per_bar <= 255, f"not a bar: {self}"


@dataclass(frozen=True)
class Marker:
    """A place in the song with a name: a section's beginning, or a bar's."""

    at_samples: int
    name: str

    def __post_init__(self) -> None:
        assert self.at_samples >= 0, f"before the song: {self}"


@dataclass(frozen=True)
class About:
    """What is known of the song, as it is shown; "": not known.

    tempo, key: as the song's files carry them in their names, a doubtful one marked: `128.0 BPM`, `~8A`
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
    """A song's tracks, in order, all starting together and equally long.

    song:          the name of the folder track and of the region
    sample_rate:   Hz, of the project and of every file
    start_samples: where the audio sits on the timeline; the source's time reference
    samples:       the length of every file
    channels:      of every file
    tempo:         the tempo map, in order; empty: the song has no tempo that can be trusted
    markers:       in order
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
        """Where on the timeline a place in the song is."""
        return (self.start_samples + samples) / self.sample_rate

    @cached_property
    def shown(self) -> tuple[SessionTrack, ...]:
        """The tracks without a file outside that has a name no session can hold."""
        found = tuple(track for track in self.tracks if not track.outside or can_be_named(track.file))
        if len(found) < len(self.tracks):
            log.warning("the session of %r shows no source: a session cannot hold its file name", self.song)
        return found

    @property
    def groups(self) -> tuple[tuple[str, tuple[SessionTrack, ...]], ...]:
        """The tracks by group. A group stands where its first track is; a track of none stands alone, under ""."""
        found: list[tuple[str, list[SessionTrack]]] = []
        for track in self.shown:
            members = next((tracks for name, tracks in found if track.group and name == track.group), None)
            if members is None:
                found.append((track.group, [track]))
            else:
                members.append(track)
        return tuple((name, tuple(tracks)) for name, tracks in found)
