"""Every error that the program raises on purpose, in one tree.

    TsbsDawError
    ├── UsageError                 the user asked for something that cannot be: exit code 2
    │   ├── DocumentError          a YAML file that cannot be used: carries file, line and column
    │   │   ├── SettingsError      watch folders, a recipe, or an environment variable
    │   │   └── PresetError        a preset
    │   ├── UnknownModel           a model that is neither registered nor a file
    │   └── JobFormatError         a job file that does not follow the contract, or another schema
    ├── AudioError                 the song itself: trying again will not help
    │   ├── UnreadableAudio        not audio, damaged, or hostile
    │   │   ├── DecoderKilled      by the system when memory is short, or for its silence; tried again once
    │   │   └── SourceUnavailable  the disk or share does not give the file now; retryable
    │   ├── TruncatedAudio         shorter than its header promises
    │   ├── NonFiniteAudio         NaN or infinity in the samples
    │   ├── UnsupportedAudio       audio, but not of a kind that can be separated
    │   └── SourceChanged          the file was written to or replaced while it was read; retryable
    ├── ModelError                 weights
    │   ├── CheckpointError        wrong hash, names, shapes, or format
    │   └── DownloadError          the network; retryable
    ├── DeviceError                the accelerator: absent, unusable, or out of memory
    │   ├── DeviceLost             it failed, and nothing can be computed on it in this process any more
    │   └── ClusterUnavailable     no other machine computes now; the job waits, at no cost
    ├── EffectError                an effect chain or plug-in failed
    ├── OutputError                stems could not be written
    │   ├── NoSpaceLeft            the disk is full; retryable
    │   └── OutputUnavailable      the disk or share does not take the file now; retryable
    ├── AnalysisError              a song cannot be listened to
    ├── TrainingError              training cannot go on
    │   ├── DatasetError           songs that are missing, damaged or unfit; names each one
    │   └── NonFiniteLoss          the loss became NaN or infinite; the batch is saved
    ├── DaemonError                a daemon is already there, or is not there
    ├── JobCancelled               not a failure: the user asked
    └── LeaseLost                  this worker's job was given to another; its result is dropped

A message is one sentence: what happened, to which file, what to do.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path


def printable(text: str) -> str:
    """`text` in one line that every file, database and terminal takes, whatever was in it."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(path: Path | str) -> str:
    """A path as a message may carry it: quoted, in one line, and printable whatever bytes the name has."""
    return f"'{printable(str(path))}'"


def described(error: BaseException) -> str:
    """What anything that was raised says, its class first, in one line for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`"; did you mean 'x'?"` with the closest known name, or `""`. Capitals do not count."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


class TsbsDawError(Exception):
    """Base of the tree.

    retryable: whether the same job may succeed later without a change
    exit_code: of a program that this error ends
    """

    retryable = False
    exit_code = 1


class UsageError(TsbsDawError):
    exit_code = 2


class DocumentError(UsageError):
    """A file that a user wrote; the message starts with `file:line:column:` where these are known."""

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
