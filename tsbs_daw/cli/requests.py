"""The job that a command's options make of a file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsbs_daw.cli.options import Excerpt, Treatment, absolute, invalid_option, output_folder
from tsbs_daw.core.errors import AudioError, UnreadableAudio, UsageError, shown

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Job

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Request:
    """What the user chose, checked; the same for every file of one call."""

    out: Path
    treatment: Treatment
    salvage: bool
    start_s: float
    length_s: float | None
    song: str | None

    @classmethod
    def checked(cls, out: Path, treatment: Treatment, excerpt: Excerpt) -> Request:
        """Raises: UsageError: a value is not allowed, or nothing can be written to `out`"""
        treatment = treatment.checked()
        length_s = seconds(excerpt.length, "--length") if excerpt.length else None
        if length_s is not None and length_s <= 0:
            raise UsageError("--length must be greater than zero. Omit it to separate to the end.")
        start_s = seconds(excerpt.start, "--start") if excerpt.start else 0.0
        return cls(output_folder(out), treatment, excerpt.salvage, start_s, length_s, excerpt.song or None)


def seconds(text: str, option: str) -> float:
    """`90`, `90.5`, `1:30` or `1:02:03` in seconds. Raises: UsageError"""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"Invalid {option} {text!r}. Write seconds (90.5) or minutes and seconds (1:30.5).")
    hours, minutes, rest = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def job_for(file: Path, request: Request, **fields: Any) -> Job:
    """The job that separates `file`.

    Raises: AudioError: no such file; with a portion, also when the file cannot be read
            UsageError: a name that is not allowed
    """
    from pydantic import ValidationError

    from tsbs_daw.contracts.job import Job, Source

    path = absolute(file)
    _check_is_a_file(path)
    start, length = _portion(path, request)
    try:
        return Job(
            source=Source(path=path, start_samples=start, length_samples=length),
            output=request.out,
            song=request.song,
            salvage=request.salvage,
            **vars(request.treatment),
            **fields,
        )
    except ValidationError as error:
        raise invalid_option(error) from error


def _check_is_a_file(path: Path) -> None:
    """Raises: UnreadableAudio"""
    try:
        path.stat()
    except PermissionError as error:
        raise UnreadableAudio(f"Cannot read {shown(path)} ({error.strerror}). Check its permissions.") from error
    except OSError:
        pass
    if os.path.isdir(path):  # noqa: PTH112 -- a Path's own raises for names that are too long
        raise UnreadableAudio(
            f"{shown(path)} is a folder. Use `tsbs-daw batch` or `tsbs-daw watch` to separate a folder of songs."
        )
    if not os.path.isfile(path):  # noqa: PTH113
        raise UnreadableAudio(f"{shown(path)} does not exist. Check its name.")


def submittable(job: Job) -> Job:
    """Raises: UnreadableAudio: the file's name cannot be written in a request, which is JSON"""
    try:
        str(job.source.path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableAudio(
            f"The name of {shown(job.source.path)} is not valid UTF-8, so that it cannot be sent to the daemon. "
            "Rename the file, or use `tsbs-daw separate`."
        ) from error
    return job


def _portion(path: Path, request: Request) -> tuple[int, int | None]:
    """(start, length) in samples. The file is opened only when a portion was asked for."""
    if request.start_s == 0 and request.length_s is None:
        return 0, None
    from tsbs_daw.audio.read import probe

    info = probe(path, salvage=request.salvage)
    start = round(request.start_s * info.sample_rate)
    length = None if request.length_s is None else max(round(request.length_s * info.sample_rate), 1)
    if info.samples is not None and start >= info.samples:
        raise AudioError(f"--start is past the end of {shown(path)} ({info.samples / info.sample_rate:.1f} s).")
    return start, length
