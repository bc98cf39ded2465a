"""What a watch folder may ask for beside the treatment of its songs: small values, each parsed from one text.

After      what becomes of a song's file once its stems are published
Hours      when songs of the folder may start
Patterns   which files are songs of the folder
Subfolder  what differs below a subfolder
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

LEFT_OUT = "It is left out"  # how the reason of a file that the patterns leave out begins

_DAY_MIN = 24 * 60
_SPAN = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_LONGEST_PATTERN = 200


@dataclass(frozen=True)
class After:
    """What becomes of a song's file once its stems are published and verified.

    Attributes:
        kind: What is done.
        folder: Where "move" moves it to, with the subfolders that it lay in; absolute.
    """

    kind: Literal["keep", "move", "delete"] = "keep"
    folder: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.folder is None else f"move {self.folder}"

    @classmethod
    def parse(cls, text: str, base: Path) -> After:
        """`keep`, `move PATH` or `delete`.

        Args:
            text: As the user wrote it.
            base: Where relative paths start.

        Raises:
            ValueError: It is none of the three; one clause.
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
    """The hours of the day in which songs may start, by the clock on the wall.

    Where clocks are put forward or back, the hours are those that the clock shows: one that is skipped does not come,
    one that is shown twice counts twice.

    Attributes:
        spans: Minutes of the day, from and to; the end is not included and may lie on the next day.
    """

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """`22:00-06:00`, or several with commas. Raises: ValueError: one clause"""
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
        """When the next span begins, as the clock will show it: `22:00`."""
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
        raise ValueError(f"{part!r} is the whole day; leave `hours` out for that")
    return start, end


@dataclass(frozen=True)
class Patterns:
    """Which files of a folder are left out. Capitals do not count.

    A pattern without a slash is compared with the name of the file and of every folder that it lies in; one with a
    slash with the path below the watch folder, and then it stands for everything in that place, too.

    Attributes:
        include: What one of them matches is a song of the folder; empty: everything is.
        exclude: What one of them matches is not, whatever `include` says.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def reason(self, relative: str) -> str | None:
        """Why a file is left out; None if it is not."""
        steps = _steps(relative)
        for pattern in self.exclude:
            if _matches(steps, pattern):
                return f"{LEFT_OUT} by `exclude: {pattern}`."
        if self.include and not any(_matches(steps, pattern) for pattern in self.include):
            return f"{LEFT_OUT}, because no pattern of `include` matches it."
        return None

    def excludes(self, folder: str) -> bool:
        """Whether everything in a folder is left out."""
        steps = _steps(folder)
        return any(_matches(steps, pattern) for pattern in self.exclude)


EVERYTHING = Patterns()


def check_pattern(pattern: str) -> str:
    """The pattern itself. Raises: ValueError: it cannot match anything; one clause"""
    parts = pattern.replace(os.sep, "/").split("/")
    if not pattern.strip() or len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"a pattern has 1 to {_LONGEST_PATTERN} characters, such as *.wav")
    if parts[0] in ("", "~") or ".." in parts:
        raise ValueError(f"the pattern {pattern!r} leads out of the folder; patterns start below it, such as demos/*")
    return pattern


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _steps(relative: str) -> list[str]:
    return _plain(relative.replace(os.sep, "/")).split("/")


def _matches(steps: list[str], pattern: str) -> bool:
    """Whether a pattern matches a path, or a folder that leads to it."""
    wanted = _plain(pattern.replace(os.sep, "/")).rstrip("/").split("/")
    if len(wanted) == 1 and wanted != ["**"]:
        return any(fnmatch.fnmatchcase(step, wanted[0]) for step in steps)
    places = _skip_stars({0}, wanted)  # how much of the pattern may be used up after each step
    for step in steps:
        if len(wanted) in places:
            return True
        stars = {place for place in places if wanted[place] == "**"}
        fitting = {place + 1 for place in places - stars if fnmatch.fnmatchcase(step, wanted[place])}
        places = _skip_stars(stars | fitting, wanted)
    return len(wanted) in places


def _skip_stars(places: set[int], wanted: list[str]) -> set[int]:
    """`**` also stands for no folder at all."""
    for place, part in enumerate(wanted):
        if place in places and part == "**":
            places = places | {place + 1}
    return places


@dataclass(frozen=True)
class Subfolder:
    """A place below a watch folder whose songs are treated in a way of their own.

    Attributes:
        path: Below the watch folder, with forward slashes.
        treatment, after: What holds for its songs, whether this rule says it or the one above.
    """

    path: str
    treatment: Treatment
    after: After


def subfolder_key(path: str) -> tuple[str, ...]:
    """The names that lead to a subfolder, in the form in which they are compared.

    Raises:
        ValueError: It is not a place below the folder; one clause.
    """
    parts = PurePosixPath(path.replace(os.sep, "/")).parts
    if not parts or parts[0] in ("/", "~") or ".." in parts or re.match(r"[A-Za-z]:", parts[0]):
        raise ValueError(f"{path[:80]!r} is not a subfolder; write its path below the folder, such as karaoke")
    return tuple(unicodedata.normalize("NFC", os.path.normcase(part)) for part in parts)
