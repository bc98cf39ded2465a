"""Names of folders and files that every operating system accepts, derived from any song title."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# A name has at most 255 bytes on every common file system (143 on an encrypted one); a suffix must still fit.
SONG_BYTES = 120
PRESET_BYTES = 60

_FORBIDDEN = '<>:"/\\|?*'
# Invisible characters: direction marks, which can display a name reversed, and the byte order mark.
_INVISIBLE = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF}
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?= *(\.|$))", re.IGNORECASE)


def safe_name(text: str, *, fallback: str = "song", limit_bytes: int = SONG_BYTES) -> str:
    """Turn `text` into a name that Linux, macOS and Windows all accept: the same on all three, and never hidden.

    The name is in composed form (NFC) and has no control characters and none that Windows forbids or silently drops. It
    is not a Windows device (`NUL`, `com1.live`). `safe_name(safe_name(x)) == safe_name(x)`.

    Args:
        text: Any text.
        fallback: Name to use if nothing of the text is left.
        limit_bytes: Longest name, in bytes of UTF-8.
    """
    characters = "".join(_safe_character(character) for character in text)
    name = _trimmed(unicodedata.normalize("NFC", " ".join(characters.split())))
    name = _RESERVED.sub(lambda device: device.group() + "_", name, count=1) if _RESERVED.match(name) else name
    name = _trimmed(name.encode("utf-8")[:limit_bytes].decode("utf-8", "ignore"))
    return name or fallback


def _safe_character(character: str) -> str:
    if character in _FORBIDDEN:
        return "_"
    category = unicodedata.category(character)
    if category == "Cs":  # a lone surrogate: the file name is not valid UTF-8
        return "_"
    if category in ("Cc", "Zl", "Zp", "Zs"):
        return " "
    return "" if ord(character) in _INVISIBLE else character


def _trimmed(name: str) -> str:
    """Strip dots and spaces: Windows drops them at the end, and elsewhere a dot at the start hides the file."""
    return name.strip(" .")


def candidates(song: str, preset: str) -> Iterator[str]:
    """Yield `song`, `song (preset)`, `song (preset 2)`, ... without end."""
    song, preset = safe_name(song), safe_name(preset, fallback="preset", limit_bytes=PRESET_BYTES)
    yield song
    yield f"{song} ({preset})"
    number = 2
    while True:
        yield f"{song} ({preset} {number})"
        number += 1


def source_name(path: Path | str) -> str:
    """Return a path as valid UTF-8 text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
