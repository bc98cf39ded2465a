"""Plain text for people: tables, durations, and how far something is."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart; the last one takes what it needs. Wide characters count double."""
    lines = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(headings))]
    padded = (
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(padded)


def one_line(text: str) -> str:
    """`text` without control characters: a file's name must not move the cursor of a terminal."""
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)


def counted(number: int, what: str) -> str:
    """`1 song`, `2 songs`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    """`7 s`, `3 min`, `5 h`, `2 d`."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def ago(unix_s: float) -> str:
    return f"{duration(time.time() - unix_s)} ago"


def decibels(level: float | None, what: str = "dB") -> str:
    """`-12.3 dB`; None is silence."""
    return f"-inf {what}" if level is None else f"{level:.1f} {what}"


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    flat = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) + wide - flat
