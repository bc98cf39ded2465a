"""What is known of a song, as its files, tags and sessions say it: artist, title, tempo, key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tsbs_daw.contracts.analysis import Analysis, Key

DOUBTFUL = "~"  # before a figure that may be wrong
_SPACED_DASH = re.compile(r"\s+[-\u2013\u2014]\s+")


@dataclass(frozen=True)
class Facts:
    """artist, title: "" and the song's name if the file's tags do not say; analysis: None: there is none"""

    song: str
    artist: str
    title: str
    analysis: Analysis | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a name template, but for the stem; "" for what is not known."""
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
        """The tempo, where it can be relied on."""
        tempo = self.analysis.tempo if self.analysis else None
        return tempo.bpm if tempo and not tempo.doubtful else None

    @property
    def sure_key(self) -> Key | None:
        """The key, where it can be relied on."""
        key = self.analysis.key if self.analysis else None
        return key if key and not key.doubtful else None


def facts_of(song: str, artist: str, title: str) -> Facts:
    """Facts from tags. Without them, a name like `Artist - Title` says both.

    Args: artist, title: from the tags; ""
    """
    artist, title = artist.strip(), title.strip()
    parts = _SPACED_DASH.split(song, maxsplit=1)
    named = len(parts) == 2 and all(re.search(r"[^\W\d_]", part) for part in parts)  # not `01 - Title`
    if not title and named and artist.casefold() in ("", parts[0].casefold()):
        artist, title = artist or parts[0], parts[1]
    return Facts(song, artist, title or song)


def short_key(key: Key) -> str:
    """`Am`, `Db`: as tags and file names have it."""
    return key.tonic + ("m" if key.mode == "minor" else "")
