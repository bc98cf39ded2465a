"""File names from a preset's template: `{artist} - {title} [{bpm} BPM {camelot}] {stem}`.

An unknown field is omitted, together with the text after it up to the next field or bracket; empty brackets are
removed, too: `Title [8A] vocals`, `Title vocals`.

`SongInfo` has the values of the fields, which tags and sessions use as well: artist, title, tempo, key.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsbs_daw.contracts.analysis import Analysis, Key
from tsbs_daw.core.filenames import safe_name

DOUBTFUL = "~"  # before a figure that may be wrong
_SPACED_DASH = re.compile(r"\s+[-\u2013\u2014]\s+")


@dataclass(frozen=True)
class SongInfo:
    """Facts about a song for names, tags and sessions.

    Attributes:
        song: Name of the song.
        artist: From the tags; "" if unknown.
        title: From the tags; the song's name if unknown.
        analysis: None if the song was not analysed.
    """

    song: str
    artist: str
    title: str
    analysis: Analysis | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a name template except the stem; "" for an unknown value."""
        bpm = key = camelot = ""
        if self.analysis is not None:
            tempo, found = self.analysis.tempo, self.analysis.key
            if tempo.bpm is not None:
                bpm = f"{DOUBTFUL if tempo.doubtful else ''}{tempo.bpm:.1f}"
            if found is not None:
                mark = DOUBTFUL if found.doubtful else ""
                key, camelot = mark + short_key(found), mark + found.camelot
        known = {"artist": self.artist, "title": self.title, "song": self.song}
        return {**known, "bpm": bpm, "key": key, "camelot": camelot}

    @property
    def sure_bpm(self) -> float | None:
        """The tempo in BPM, unless it is unknown or doubtful."""
        tempo = self.analysis.tempo if self.analysis else None
        return tempo.bpm if tempo and not tempo.doubtful else None

    @property
    def sure_key(self) -> Key | None:
        """The key, unless it is unknown or doubtful."""
        key = self.analysis.key if self.analysis else None
        return key if key and not key.doubtful else None


def song_info(song: str, artist: str, title: str) -> SongInfo:
    """Return a SongInfo from the tags, or from a name like `Artist - Title` if they have no title.

    Args:
        song: Name of the song.
        artist: From the tags, or "".
        title: From the tags, or "".
    """
    artist, title = artist.strip(), title.strip()
    parts = _SPACED_DASH.split(song, maxsplit=1)
    named = len(parts) == 2 and all(re.search(r"[^\W\d_]", part) for part in parts)  # not `01 - Title`
    if not title and named and artist.casefold() in ("", parts[0].casefold()):
        artist, title = artist or parts[0], parts[1]
    return SongInfo(song, artist, title or song)


def short_key(key: Key) -> str:
    """Return the key in short notation, such as `Am` or `Db`, for tags and file names."""
    return key.tonic + ("m" if key.mode == "minor" else "")


# Together with the folder's name, this keeps within the length of a path on Windows.
FILE_BYTES = 160
_TEXTS = ("artist", "title", "song")  # fields that may be shortened; figures and stems are not
_ANY = 100_000

_BRACKET = re.compile(r"[\[\]()]")
_EMPTY = re.compile(r"\[[\s_-]*\]|\([\s_-]*\)")


def file_names(template: str, fields: Mapping[str, str], stems: Sequence[str], ending: str) -> list[str]:
    """Return a file name for every stem. The names are valid on every system and unique even when case is ignored.

    Args:
        template: Name template with `{stem}`.
        fields: All fields except `stem`; "" or missing if unknown.
        stems: Names of the stems.
        ending: File extension with its dot.
    """
    names: list[str] = []
    taken: set[str] = set()
    for stem in stems:
        name = _fitting(template, {**fields, "stem": stem}, FILE_BYTES - len(ending.encode()))
        different, number = name, 2
        while _key(different) in taken:
            different, number = f"{name} {number}", number + 1
        taken.add(_key(different))
        names.append(different + ending)
    return names


def song_name(template: str, fields: Mapping[str, str], fallback: str) -> str:
    """Return the common part of the names of a song's files: the template without its stem."""
    named = filled(template, {**fields, "stem": ""})
    return _fitting(template, {**fields, "stem": ""}, FILE_BYTES) if named else safe_name(fallback)


def filled(template: str, fields: Mapping[str, str]) -> str:
    """Return the template with its fields filled in, not yet a safe file name. Unknown fields: see the module."""
    parts: list[str] = []
    missing = some_missing = False
    for text, field, _, _ in string.Formatter().parse(template):
        if missing:
            bracket = _BRACKET.search(text)
            text = text[bracket.start() :] if bracket else ""
        parts.append(text)
        if field is not None:
            value = fields.get(field, "")
            missing = not value
            some_missing |= missing
            parts.append(value)
    name = "".join(parts)
    if some_missing:
        name = _EMPTY.sub(" ", name)
        name = re.sub(r"\s+(?=[\])])", "", re.sub(r"(?<=[\[(])\s+", "", name)).strip(" -_")
    return " ".join(name.split())


def _fitting(template: str, fields: Mapping[str, str], limit_bytes: int) -> str:
    """Return the filled template as a file name; if it is too long, shorten all texts in it to the same length."""

    def at_most(cap: int) -> str | None:
        cut = {name: _cut(value, cap) if name in _TEXTS else value for name, value in fields.items()}
        name = safe_name(filled(template, cut), limit_bytes=_ANY)
        return name if len(name.encode()) <= limit_bytes else None

    if name := at_most(limit_bytes):
        return name
    best, low, high = at_most(0) or safe_name(fields["stem"], limit_bytes=limit_bytes), 0, limit_bytes
    while high - low > 1:
        cap = (low + high) // 2
        if name := at_most(cap):
            best, low = name, cap
        else:
            high = cap
    return best


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore").strip()


def _key(name: str) -> str:
    """Return a key that is equal for names that a file system may treat as the same."""
    return unicodedata.normalize("NFKC", name).casefold()
