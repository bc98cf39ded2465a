"""What a preset asks of the delivered files: format, names, level, sessions, what is made beside them. Plain values.

Without a `delivery:` section a song's files are 32-bit float WAVs under the names of their stems, with one REAPER
session; nothing is analysed.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from tsbs_daw.core.errors import did_you_mean

FORMATS = ("wav32f", "wav24", "wav16", "flac24", "flac16", "aiff24", "aiff16", "mp3")
SESSIONS = ("rpp", "dawproject")
MARKERS = ("sections", "bars", "none")
SOURCES = ("none", "reference", "copy")

FIELDS = ("artist", "title", "song", "bpm", "key", "camelot", "stem")
MEASURED_FIELDS = frozenset({"bpm", "key", "camelot"})
LONGEST_TEMPLATE = 200

QUIETEST_LUFS, LOUDEST_LUFS = -40.0, -5.0
FEWEST_BARS, MOST_BARS = 1, 64

_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


@dataclass(frozen=True)
class Delivery:
    """How a song's files are delivered.

    format:        one of FORMATS
    names:         a template of FIELDS for the files' names, without ending; None: the stem's name
    loudness_lufs: one gain for all files of the song takes the mixture there; None: the level stays
    sessions:      which DAW sessions are written, in order; the first is the one that a result names
    analysis:      tempo, beats, key, sections, and levels of every stem, written to analysis.json
    loops:         lengths in bars; the stems are cut at bars into loops of each length
    stem_mp4:      a .stem.mp4 beside the files, which Traktor and others open
    markers:       what a session's markers stand for, where there is an analysis
    source:        the song itself as a muted track of the session: where it is, or copied beside the stems
    """

    format: str = "wav32f"
    names: str | None = None
    loudness_lufs: float | None = None
    sessions: tuple[str, ...] = ("rpp",)
    analysis: bool = False
    loops: tuple[int, ...] = ()
    stem_mp4: bool = False
    markers: str = "sections"
    source: str = "none"

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for but what every song gets."""
        return self == PLAIN

    @property
    def analyses(self) -> bool:
        """Whether something of it cannot be had without an analysis."""
        return self.analysis or bool(self.loops) or bool(MEASURED_FIELDS & set(template_fields(self.names or "")))

    @property
    def needs_mixture(self) -> bool:
        """Whether something of it is made or measured of the song itself."""
        return self.analyses or self.source == "copy" or self.stem_mp4 or self.loudness_lufs is not None

    def problem(self) -> str | None:
        """What of it does not go together, as a whole sentence without its full stop."""
        if self.format == "mp3" and self.loops:
            return "MP3 cannot be cut into loops to the sample; choose another format, or no loops"
        if self.format == "mp3" and self.stem_mp4:
            return "a .stem.mp4 made from MP3 files would be compressed twice; choose another format"
        return None


PLAIN = Delivery()


def template_fields(template: str) -> tuple[str, ...]:
    """The fields of a template that `template_problem` has nothing against, in order."""
    return tuple(field for _, field, _, _ in string.Formatter().parse(template) if field is not None)


def template_problem(template: str) -> str | None:
    """Why a template cannot name files, as the end of a sentence about it; None when it can."""
    if len(template) > LONGEST_TEMPLATE:
        return f"is longer than {LONGEST_TEMPLATE} characters"
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError:
        return "has a brace without its partner; a field is written like {stem}"
    for text, field, form, conversion in pieces:
        if unsafe := _UNSAFE.search(text):
            return f"has the character {unsafe.group()!r}, which a file name cannot have"
        if "{" in text or "}" in text:
            return "has a brace that belongs to no field; a field is written like {stem}"
        if field is None:
            continue
        if field not in FIELDS:
            return f"has no field {field!r}" + (did_you_mean(field, list(FIELDS)) or f"; there are {', '.join(FIELDS)}")
        if form or conversion:
            return f"has {field!r} with a format of its own; write {{{field}}}"
    if "stem" not in (field for _, field, _, _ in pieces):
        return "has no {stem}, so that all files would have one name; add it"
    return None
