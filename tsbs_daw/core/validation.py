"""The sentences for values that fail validation: one table from pydantic's kinds of errors to ours.

Whoever validates a document asks here, so that a user reads the same words whether the value came from the command
line, a preset, a job of a DAW or a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST_VALUE = 40

# By pydantic's name of the error; fields are those of its context. What a name begins with counts where it is missing.
_RULES = {
    "extra_forbidden": "is unknown",
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_unicode": "must be valid Unicode text",
    "string": "must be a text",
    "bytes": "must be a text",
    "path": "must be a path",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "list": "must be a list",
    "tuple": "must be a list",
    "set": "must be a list",
    "frozen_set": "must be a list",
    "dict": "must be a mapping of names to values",
    "mapping": "must be a mapping of names to values",
    "model": "must be a mapping of names to values",
    "none_required": "must be empty",
    "datetime": "must be a date and time, such as 2026-01-31T12:00:00Z",
    "timezone": "must have a time zone",
}


@dataclass(frozen=True)
class Problem:
    """The first thing wrong with a document.

    Attributes:
        steps: The way to the value: names, and numbers of entries.
        kind: "missing", "unknown" or "wrong"; "own" where a validator of ours wrote the sentence.
        requirement: What the value must be, as the rest of a sentence about it: "must be at most 5, not 6".
    """

    steps: tuple[str | int, ...]
    kind: str
    requirement: str

    @property
    def where(self) -> str:
        """`folders.0.preset`."""
        return ".".join(str(step) for step in self.steps) or "the document"

    @property
    def clause(self) -> str:
        """`loudness must be at most -5, not 3`, without a full stop."""
        return f"{self.where}{':' if self.kind == 'own' else ''} {self.requirement}"


def first_problem(error: ValidationError) -> Problem:
    """What a message names of an error: its first problem."""
    details = error.errors(include_url=False)[0]
    name, context = details["type"], details.get("ctx", {})
    kind = {"missing": "missing", "extra_forbidden": "unknown", "value_error": "own", "assertion_error": "own"}
    rule = str(context["error"]) if kind.get(name) == "own" else _rule(name, context)
    value = _shown(details["input"]) if rule.startswith("must ") else ""
    return Problem(tuple(details["loc"]), kind.get(name, "wrong"), f"{rule}, not {value}" if value else rule)


def _rule(name: str, context: Mapping[str, Any]) -> str:
    rule = _RULES.get(name) or _RULES.get(_family(name), "is not allowed")
    values = {field: f"{value:g}" if isinstance(value, float) else value for field, value in context.items()}
    said = rule.format_map(values)
    if said.endswith(("at least 1 characters", "at least 1 entries")):
        return "must not be empty"
    return said.replace(" 1 characters", " 1 character").replace(" 1 entries", " 1 entry")


def _family(name: str) -> str:
    """`int_parsing` -> `int`: pydantic has several names for a wrong type."""
    return max((known for known in _RULES if name.startswith(f"{known}_")), key=len, default="")


def _shown(value: Any) -> str:
    """A plain value in one short line; empty for anything else."""
    if value is None or not isinstance(value, (str, int, float)):
        return ""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
