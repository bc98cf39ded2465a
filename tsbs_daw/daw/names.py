"""Names and paths as session files can hold them."""

from __future__ import annotations

import posixpath
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

_NONCHARACTERS = {chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)}


def one_line(text: str) -> str:
    """`text` without what would end a line, and without what UTF-8 or XML cannot hold."""
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            parts.append(" ")
        else:
            parts.append("\ufffd" if category == "Cs" or character in _NONCHARACTERS else character)
    return "".join(parts).strip()


def is_absolute(file: str) -> bool:
    """Whether a file is named from the root, on whatever system it was named."""
    return PurePosixPath(file).is_absolute() or PureWindowsPath(file).is_absolute()


def below(folder: str, file: str) -> str:
    """`file`, relative to `folder`, as it is named from where `folder` is; an absolute one stays as it is."""
    return file if is_absolute(file) else posixpath.normpath(posixpath.join(folder, file))
