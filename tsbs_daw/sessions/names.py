"""Names, files and numbers as session files can hold them."""

from __future__ import annotations

import posixpath
import unicodedata
from fractions import Fraction
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
