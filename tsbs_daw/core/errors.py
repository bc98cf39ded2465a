"""Exception tree of the program, and the wording of messages.

    TsbsDawError
    ├── UsageError                 the user's request is invalid; exit code 2
    │   ├── DocumentError          invalid YAML file; has file, line and column
    │   │   ├── SettingsError      invalid watch folders, recipe or environment variable
    │   │   └── PresetError        invalid preset
    │   ├── UnknownModel           the model is neither registered nor a file
    │   └── JobFormatError         the job file violates the contract or has another schema version
    ├── AudioError                 the song itself cannot be processed; trying again will not help
    │   ├── UnreadableAudio        not audio, damaged, or malicious
    │   │   ├── DecoderKilled      the decoder was killed: memory ran short, or it sent nothing; retried once
    │   │   └── SourceUnavailable  the disk or share does not provide the file at the moment; retryable
    │   ├── TruncatedAudio         shorter than its header states
    │   ├── NonFiniteAudio         NaN or infinity in the samples
    │   ├── UnsupportedAudio       audio of a kind that cannot be separated
    │   └── SourceChanged          the file was modified or replaced while it was read; retryable
    ├── ModelError                 a problem with the weights of a model
    │   ├── CheckpointError        wrong hash, names, shapes or format
    │   └── DownloadError          the download failed; retryable
    ├── DeviceError                the accelerator is absent, unusable or out of memory
    │   ├── DeviceLost             the device failed; this process cannot compute on it any more
    │   └── ClusterUnavailable     no other machine is available now; the job waits without using up an attempt
    ├── EffectError                an effect chain or plug-in failed
    ├── OutputError                stems could not be written
    │   ├── NoSpaceLeft            the disk is full; retryable
    │   └── OutputUnavailable      the disk or share does not accept the file at the moment; retryable
    ├── AnalysisError              a song cannot be analysed
    ├── TrainingError              training cannot continue
    │   ├── DatasetError           songs are missing, damaged or unsuitable; names each one
    │   └── NonFiniteLoss          the loss became NaN or infinite; the batch is saved
    ├── DaemonError                a daemon is already running, or none is running
    ├── JobCancelled               the user cancelled the job; not a failure
    └── LeaseLost                  this worker's job was given to another worker; its result is dropped

A message is one sentence: what happened, to which file, what to do. Values that fail validation are described by
`first_problem`, which maps pydantic's error types to our wording. Every validated document uses it, so a user reads the
same message whether the value came from the command line, a preset, a job of a DAW or a recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


def printable(text: str) -> str:
    """Return any text as one line that every file, database and terminal accepts."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(path: Path | str) -> str:
    """Return a path as it appears in messages: quoted, in one line, and printable whatever bytes the name has."""
    return f"'{printable(str(path))}'"


def described(error: BaseException) -> str:
    """Describe an exception in one line of at most 300 characters: its class, then its message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return `"; did you mean 'x'?"` with the closest known name, or `""`. Case is ignored."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


class TsbsDawError(Exception):
    """Base class of all errors.

    Attributes:
        retryable: Whether the same job may succeed later without any change.
        exit_code: Exit code of a program that this error ends.
    """

    retryable = False
    exit_code = 1


class UsageError(TsbsDawError):
    exit_code = 2


class DocumentError(UsageError):
    """An invalid file that a user wrote. The message starts with `file:line:column:`, as far as these are known."""

    def __init__(self, message: str, path: Path | str = "", line: int = 0, column: int = 0):
        self.path, self.line, self.column = str(path), line, column
        place = ":".join(str(part) for part in (path, line or "", column or "") if part != "")
        super().__init__(f"{place}: {message}" if place else message)


class SettingsError(DocumentError):
    pass


class PresetError(DocumentError):
    pass


class UnknownModel(UsageError):
    pass


class JobFormatError(UsageError):
    pass


class AudioError(TsbsDawError):
    pass


class UnreadableAudio(AudioError):
    pass


class DecoderKilled(UnreadableAudio):
    retryable = True


class TruncatedAudio(AudioError):
    pass


class NonFiniteAudio(AudioError):
    pass


class UnsupportedAudio(AudioError):
    pass


class SourceChanged(AudioError):
    retryable = True


class SourceUnavailable(UnreadableAudio):
    retryable = True


class ModelError(TsbsDawError):
    pass


class CheckpointError(ModelError):
    pass


class DownloadError(ModelError):
    retryable = True


class DeviceError(TsbsDawError):
    pass


class DeviceLost(DeviceError):
    pass


class ClusterUnavailable(DeviceError):
    retryable = True


class EffectError(TsbsDawError):
    pass


class OutputError(TsbsDawError):
    pass


class NoSpaceLeft(OutputError):
    retryable = True


class OutputUnavailable(OutputError):
    retryable = True


class AnalysisError(TsbsDawError):
    pass


class TrainingError(TsbsDawError):
    pass


class DatasetError(TrainingError):
    pass


class NonFiniteLoss(TrainingError):
    pass


class DaemonError(TsbsDawError):
    pass


class JobCancelled(TsbsDawError):
    pass


class LeaseLost(TsbsDawError):
    pass


# ---- values that fail validation -------------------------------------------------------------------------------------

_LONGEST_VALUE = 40

# By pydantic's error type; fields in braces come from the error's context. A type without an entry uses that of the
# longest prefix of its name; see `_family`.
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
    "string": "must be text",
    "bytes": "must be text",
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
    """The first problem of a document.

    Attributes:
        steps: Path to the value: names, and indices in lists.
        kind: "missing", "unknown" or "wrong"; "own" if a validator of this project wrote the message.
        requirement: What the value must be, to follow its name in a sentence: "must be at most 5, not 6".
    """

    steps: tuple[str | int, ...]
    kind: str
    requirement: str

    @property
    def where(self) -> str:
        """Path to the value as text: `folders.0.preset`."""
        return ".".join(str(step) for step in self.steps) or "the document"

    @property
    def clause(self) -> str:
        """The problem in words, without a full stop: `loudness must be at most -5, not 3`."""
        return f"{self.where}{':' if self.kind == 'own' else ''} {self.requirement}"


def first_problem(error: ValidationError) -> Problem:
    """Return the first problem of a validation error, which is the one that messages name."""
    details = error.errors(include_url=False)[0]
    name, context = details["type"], details.get("ctx", {})
    kind = {"missing": "missing", "extra_forbidden": "unknown", "value_error": "own", "assertion_error": "own"}
    rule = str(context["error"]) if kind.get(name) == "own" else _rule(name, context)
    value = _short_value(details["input"]) if rule.startswith("must ") else ""
    return Problem(tuple(details["loc"]), kind.get(name, "wrong"), f"{rule}, not {value}" if value else rule)


def _rule(name: str, context: Mapping[str, Any]) -> str:
    rule = _RULES.get(name) or _RULES.get(_family(name), "is not allowed")
    values = {field: f"{value:g}" if isinstance(value, float) else value for field, value in context.items()}
    said = rule.format_map(values)
    if said.endswith(("at least 1 characters", "at least 1 entries")):
        return "must not be empty"
    return said.replace(" 1 characters", " 1 character").replace(" 1 entries", " 1 entry")


def _family(name: str) -> str:
    """Return the key of the rule for an error type, `int_parsing` -> `int`; pydantic has several for a wrong type."""
    return max((known for known in _RULES if name.startswith(f"{known}_")), key=len, default="")


def _short_value(value: Any) -> str:
    """Return a plain value as one short line; empty for any other value."""
    if value is None or not isinstance(value, (str, int, float)):
        return ""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
