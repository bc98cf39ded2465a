"""The delivery options of a song: format, file names, level, sessions and extras. Plain values.

By default a song is delivered as 32-bit float WAV files named after their stems, with one REAPER session and no
analysis.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from tsbs_daw.audio.formats import DELIVERY_FORMATS
from tsbs_daw.core.errors import did_you_mean

FORMATS = tuple(DELIVERY_FORMATS)
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
    """How a song is delivered.

    Attributes:
        format: one of FORMATS
        names: template of FIELDS for file names, without ending; None: the stem's name
        loudness_lufs: target loudness of the mixture, reached by one gain for all files; None: the level stays
        sessions: DAW sessions to write, in order; a result names the first
        analysis: write tempo, beats, key, sections and the levels of every stem to analysis.json
        loops: lengths in bars; the stems are cut at bar lines into loops of each length
        stem_mp4: also write a .stem.mp4 file, for Traktor and others
        markers: what the markers of a session show, if there is an analysis
        source: add the song to the session as a muted track: referenced in place, or copied beside the stems
        embed: put the audio into a .dawproject, so that it can be mailed and opens in DAWs that read no external files
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
    embed: bool = True

    @property
    def plain(self) -> bool:
        """Whether all options have their defaults."""
        return self == PLAIN

    @property
    def analyses(self) -> bool:
        """Whether an option needs the analysis."""
        return self.analysis or bool(self.loops) or bool(MEASURED_FIELDS & set(template_fields(self.names or "")))

    @property
    def needs_mixture(self) -> bool:
        """Whether an option needs the mixture itself."""
        return self.analyses or self.source == "copy" or self.stem_mp4 or self.loudness_lufs is not None

    def problem(self) -> str | None:
        """Which options contradict each other, as a sentence without its full stop; None if none do."""
        if self.format == "mp3" and self.loops:
            return "MP3 cannot be cut into sample-exact loops; choose another format, or no loops"
        if self.format == "mp3" and self.stem_mp4:
            return "a .stem.mp4 made from MP3 files would be compressed twice; choose another format"
        return None


PLAIN = Delivery()


def template_fields(template: str) -> tuple[str, ...]:
    """The fields of a valid template, in order."""
    return tuple(field for _, field, _, _ in string.Formatter().parse(template) if field is not None)


def template_problem(template: str) -> str | None:
    """Why a template is invalid, as the rest of a sentence about it; None if it is valid."""
    if len(template) > LONGEST_TEMPLATE:
        return f"is longer than {LONGEST_TEMPLATE} characters"
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError:
        return "has an unmatched brace; a field is written like {stem}"
    for text, field, form, conversion in pieces:
        if unsafe := _UNSAFE.search(text):
            return f"has the character {unsafe.group()!r}, which file names cannot contain"
        if "{" in text or "}" in text:
            return "has a brace outside a field; a field is written like {stem}"
        if field is None:
            continue
        if field not in FIELDS:
            return f"has no field {field!r}" + (did_you_mean(field, list(FIELDS)) or f"; there are {', '.join(FIELDS)}")
        if form or conversion:
            return f"has {field!r} with a format specification; write {{{field}}}"
    if "stem" not in (field for _, field, _, _ in pieces):
        return "has no {stem}, so all files would have the same name; add it"
    return None
