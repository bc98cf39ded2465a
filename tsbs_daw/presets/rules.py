"""The valid values of delivery options: formats, sessions, markers, limits, and templates of file names.

The help texts of the command line need only this module, so it imports nothing heavy.
"""

from __future__ import annotations

import re
import string

from tsbs_daw.audio.formats import DELIVERY_FORMATS
from tsbs_daw.core.errors import did_you_mean

FORMATS = tuple(DELIVERY_FORMATS)
SESSIONS = ("rpp", "dawproject")
MARKERS = ("sections", "bars", "none")
SOURCES = ("none", "reference", "copy")
RESIDUALS = ("share", "separate", "drop")
QUALITIES = ("fast", "normal", "best")
REST = "rest"  # stands for the sum of the stems that are not named

FIELDS = ("artist", "title", "song", "bpm", "key", "camelot", "stem")
MEASURED_FIELDS = frozenset({"bpm", "key", "camelot"})
LONGEST_TEMPLATE = 200

QUIETEST_LUFS, LOUDEST_LUFS = -40.0, -5.0
FEWEST_BARS, MOST_BARS = 1, 64

_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def template_fields(template: str) -> tuple[str, ...]:
    """Return the fields of a valid template, in order."""
    return tuple(field for _, field, _, _ in string.Formatter().parse(template) if field is not None)


def template_problem(template: str) -> str | None:
    """Return why a template is invalid, as the predicate of a sentence; None if it is valid."""
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
