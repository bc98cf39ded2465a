"""Settings of a watch folder besides the treatment of its songs: small values, most of them parsed from a text.

After      what to do with a song's file after its stems are published
Hours      when songs of the folder may start
Patterns   which files are songs of the folder
Subfolder  overrides for songs in a subfolder
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tsbs_daw.contracts.job import Treatment

LEFT_OUT = "It is left out"  # start of the reason for a file that the patterns exclude; stored in the database

_DAY_MIN = 24 * 60
_SPAN = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_LONGEST_PATTERN = 200


@dataclass(frozen=True)
class After:
    """What to do with a song's file after its stems are published and verified.

    Attributes:
        kind: The action.
        folder: Target of "move", in which the file keeps its subfolders; absolute. None for the other kinds.
    """

    kind: Literal["keep", "move", "delete"] = "keep"
    folder: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.folder is None else f"move {self.folder}"

    @classmethod
    def parse(cls, text: str, base: Path) -> After:
        """Parse `keep`, `move PATH` or `delete`.

        Args:
            text: The user's text.
            base: Folder that relative paths start at.

        Raises:
            ValueError: The text is none of the three. The message is a clause.
        """
        word, place = (*text.strip().split(None, 1), "", "")[:2]
        if word == "move" and not place:
            raise ValueError("`move` needs the folder to move songs to, as in `move ~/Music/done`")
        if word not in ("keep", "move", "delete") or (place and word != "move"):
            raise ValueError(f"{text.strip()[:80]!r} is not `keep`, `move PATH` or `delete`")
        if word == "move":
            return cls("move", base / Path(place).expanduser())
        return cls("delete" if word == "delete" else "keep")


KEEP = After()


@dataclass(frozen=True)
class Hours:
    """The hours of the day in which songs may start, in local time.

    When daylight saving time starts or ends, the displayed time counts: a skipped hour does not occur, and a repeated
    hour counts twice.

    Attributes:
        spans: First and last minute of the day; the last is exclusive. A span that ends before it starts runs past
            midnight.
    """

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Parse `22:00-06:00`, or several spans separated by commas.

        Raises:
            ValueError: The text is not a list of spans. The message is a clause.
        """
        return cls(tuple(_span(part.strip(), text) for part in text.split(",")))

    def open_at(self, unix_s: float) -> bool:
        """Whether songs may start at this time."""
        minute = _minute_of_day(unix_s)
        return any(
            start <= minute < end if start < end else minute >= start or minute < end for start, end in self.spans
        )

    def __str__(self) -> str:
        return ", ".join("-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in span) for span in self.spans)

    def next_start(self, unix_s: float) -> str:
        """Return the local time at which the next span starts, such as `22:00`."""
        minute = _minute_of_day(unix_s)
        start = min((start for start, _ in self.spans), key=lambda start: (start - minute - 1) % _DAY_MIN)
        return f"{start // 60:02}:{start % 60:02}"


def _minute_of_day(unix_s: float) -> int:
    clock = time.localtime(unix_s)
    return clock.tm_hour * 60 + clock.tm_min


def _span(part: str, text: str) -> tuple[int, int]:
    match = _SPAN.fullmatch(part)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a span of the day such as 22:00-06:00")
    hour, minute, end_hour, end_minute = map(int, match.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    if max(minute, end_minute) > 59 or start >= _DAY_MIN or end > _DAY_MIN:
        raise ValueError(f"{part!r} has an invalid time; use 00:00 to 24:00")
    if start == end % _DAY_MIN:
        raise ValueError(f"{part!r} covers the whole day; omit `hours` instead")
    return start, end


@dataclass(frozen=True)
class Patterns:
    """Patterns for the files of a watch folder; case-insensitive.

    A pattern without a slash is matched against the name of the file and of each folder that contains it. A pattern
    with a slash is matched against the path below the watch folder. A match of a folder covers everything in it.

    Attributes:
        include: Files must match one of these; empty: every file is included.
        exclude: Files must match none of these. Takes precedence over `include`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def reason(self, relative: str) -> str | None:
        """Return why a file is excluded, as a sentence; None if it is included."""
        steps = _steps(relative)
        for pattern in self.exclude:
            if _matches(steps, pattern):
                return f"{LEFT_OUT} by `exclude: {pattern}`."
        if self.include and not any(_matches(steps, pattern) for pattern in self.include):
            return f"{LEFT_OUT}, because no pattern of `include` matches it."
        return None

    def excludes(self, folder: str) -> bool:
        """Whether a whole folder is excluded."""
        steps = _steps(folder)
        return any(_matches(steps, pattern) for pattern in self.exclude)


EVERYTHING = Patterns()


def check_pattern(pattern: str) -> str:
    """Return a pattern unchanged if it can match anything.

    Raises:
        ValueError: The pattern is empty, too long, or leads out of the folder. The message is a clause.
    """
    parts = pattern.replace(os.sep, "/").split("/")
    if not pattern.strip() or len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"a pattern has 1 to {_LONGEST_PATTERN} characters, such as *.wav")
    if parts[0] in ("", "~") or ".." in parts:
        raise ValueError(f"the pattern {pattern!r} leads out of the folder; use one below it, such as demos/*")
    return pattern


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _steps(relative: str) -> list[str]:
    return _plain(relative.replace(os.sep, "/")).split("/")


def _matches(steps: list[str], pattern: str) -> bool:
    """Whether a pattern matches a path or one of its parent folders."""
    wanted = _plain(pattern.replace(os.sep, "/")).rstrip("/").split("/")
    if len(wanted) == 1 and wanted != ["**"]:
        return any(fnmatch.fnmatchcase(step, wanted[0]) for step in steps)
    places = _skip_stars({0}, wanted)  # numbers of pattern parts that may have been matched so far
    for step in steps:
        if len(wanted) in places:
            return True
        stars = {place for place in places if wanted[place] == "**"}
        fitting = {place + 1 for place in places - stars if fnmatch.fnmatchcase(step, wanted[place])}
        places = _skip_stars(stars | fitting, wanted)
    return len(wanted) in places


def _skip_stars(places: set[int], wanted: list[str]) -> set[int]:
    """Add the places after each `**`, which also matches no folder at all."""
    for place, part in enumerate(wanted):
        if place in places and part == "**":
            places = places | {place + 1}
    return places


@dataclass(frozen=True)
class Subfolder:
    """A rule for the songs in a subfolder of a watch folder.

    Attributes:
        path: Path below the watch folder, with forward slashes; empty for the watch folder itself.
        treatment: How the songs are treated, including inherited settings.
        after: What to do with the songs' files, including the inherited setting.
    """

    path: str
    treatment: Treatment
    after: After


def subfolder_key(path: str) -> tuple[str, ...]:
    """Return the names on the path to a subfolder, normalized for comparison.

    Raises:
        ValueError: The path does not lead to a subfolder. The message is a clause.
    """
    parts = PurePosixPath(path.replace(os.sep, "/")).parts
    if not parts or parts[0] in ("/", "~") or ".." in parts or re.match(r"[A-Za-z]:", parts[0]):
        raise ValueError(f"{path[:80]!r} is not a subfolder; write its path relative to the folder, such as karaoke")
    return tuple(unicodedata.normalize("NFC", os.path.normcase(part)) for part in parts)
