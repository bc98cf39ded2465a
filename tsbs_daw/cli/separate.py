"""`tsbs-daw separate`: separate files in this process. `tsbs-daw submit`: enqueue them for the daemon.

`Request` and `job_for` make a job from a file and the options that both commands share.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.console import contents, decibels, duration, one_line
from tsbs_daw.cli.options import Excerpt, Treatment, absolute, invalid_option, output_folder
from tsbs_daw.cli.progress import job_progress
from tsbs_daw.core.errors import AudioError, UnreadableAudio, UsageError, shown
from tsbs_daw.core.filenames import source_name

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Job, Result
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import TsbsDawError


@options.grouped
def command(
    files: options.Files,
    *,
    out: options.Out = Path(options.DEFAULT_OUT),
    treatment: options.Treatment,
    excerpt: options.Excerpt,
    compute: options.Compute,
    as_json: options.Json = False,
    changes: options.Changes,
) -> int:
    """Separate files now, in this process.

    Each song gets a folder with its stems, a REAPER session and a manifest. Running the same command again reuses the
    result.

    Example: tsbs-daw separate song.wav --out stems --preset karaoke --null
    """
    from tsbs_daw.contracts.job import new_job_id
    from tsbs_daw.core.errors import TsbsDawError, UsageError
    from tsbs_daw.pipeline.publish import remove_stale

    request = Request.checked(out, treatment, excerpt)
    delivery = changes.options()
    settings = compute.settings()
    remove_stale(request.out, running=lambda job, fence: None)  # only folders untouched for a day
    failed = 0
    for file in files:
        job_id = new_job_id()
        try:
            job = job_for(file, request, id=job_id, origin="cli", priority="interactive", delivery=delivery)
            result, took_s, settings = _separate_somehow(job, settings, quiet=as_json)
        except (UsageError, KeyboardInterrupt):
            raise
        except TsbsDawError as error:
            failed += 1
            typer.echo(_json_line(file, failure(job_id, error)) if as_json else str(error), err=not as_json)
        else:
            typer.echo(_json_line(file, result) if as_json else _summary(file, result, took_s))
    if failed and len(files) > 1 and not as_json:
        typer.echo(f"{failed} of {len(files)} files failed.", err=True)
    return 1 if failed else 0


def _separate_somehow(job: Job, settings: Settings, *, quiet: bool) -> tuple[Result, float, Settings]:
    """Run a job on the device, or on the CPU if the device is lost, because this process cannot recover it.

    Returns:
        The result, the seconds it took, and the settings for the next song.
    """
    from tsbs_daw.core.errors import DeviceLost

    try:
        return *_separate(job, settings, quiet=quiet), settings
    except DeviceLost as error:
        typer.echo(f"{error} Continuing on the CPU.", err=True)
    on_cpu = replace(settings, device="cpu")
    return *_separate(job, on_cpu, quiet=quiet), on_cpu


def _separate(job: Job, settings: Settings, *, quiet: bool) -> tuple[Result, float]:
    from tsbs_daw.pipeline.run import run_job

    started_s = time.monotonic()
    with job_progress(job.song or job.source.path.name, quiet=quiet) as report:
        result = run_job(
            job,
            settings=settings,
            fence=1,
            attempt=1,
            progress=report,
            cancelled=lambda: False,
        )
    return result, time.monotonic() - started_s


def failure(job_id: str, error: TsbsDawError) -> Result:
    """Build the result of a file that could not be separated, with the same fields as any other."""
    from tsbs_daw.contracts.job import Result, State

    finished_s = time.time()
    return Result(
        id=job_id, state=State.FAILED, error=str(error), retryable=error.retryable, finished_unix_s=finished_s
    )  # fmt: skip


def _json_line(file: Path, result: Result) -> str:
    return json.dumps({"file": source_name(file), **result.model_dump(mode="json", by_alias=True)})


def _summary(file: Path, result: Result, took_s: float) -> str:
    from tsbs_daw.contracts.manifest import read_manifest

    assert result.folder is not None
    manifest = read_manifest(result.folder)
    assert manifest is not None, "only complete folders are delivered"
    when = f"in {duration(took_s)}" if manifest.job == result.id else "already there from an identical run"
    lines = [
        one_line(f"{source_name(file.name)} -> {result.folder}"),
        f"  {contents(manifest)}; {when}; null-test residual {decibels(manifest.residual_db)}",
    ]
    lines += [f"  note: {one_line(warning)}" for warning in result.warnings]
    return "\n".join(lines)


@options.grouped
def submit(
    files: options.Files,
    *,
    out: options.Out = Path(options.DEFAULT_OUT),
    treatment: options.Treatment,
    excerpt: options.Excerpt,
    first: Annotated[bool, typer.Option("--first", help="Run before the jobs of watch folders and batches.")] = False,
    as_json: options.Json = False,
    changes: options.Changes,
) -> int:
    """Enqueue files for the running daemon.

    The jobs are stored on disk when this command returns. If no daemon is running, they wait for the next one.

    Example: tsbs-daw submit song.wav --out stems --preset karaoke
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.queue import spool

    settings = Settings.from_environment()
    request = Request.checked(out, treatment, excerpt)
    delivery = changes.options()
    failed = False
    heartbeat = spool.living_daemon(settings.spool)
    alive = heartbeat is not None
    for file in files:
        try:
            priority = "interactive" if first else "batch"
            job = job_for(file, request, origin="cli", priority=priority, delivery=delivery)
            job = _submittable(job)
        except AudioError as error:
            failed = True
            line = {"file": source_name(file), "id": None, "folder": None, "daemon": alive, "error": str(error)}
            typer.echo(json.dumps(line) if as_json else str(error), err=not as_json)
            continue
        folder = spool.submit(settings.spool, job)
        if as_json:
            line = {"file": source_name(file), "id": job.id, "folder": str(folder), "daemon": alive, "error": None}
            typer.echo(json.dumps(line))
        else:
            typer.echo(f"{job.id}  {file.name}")
    if not as_json:
        typer.echo(
            f"A daemon is running (process {heartbeat.pid}). `tsbs-daw jobs list` shows its progress."
            if heartbeat
            else "No daemon is running. The jobs wait until you start `tsbs-daw watch`."
        )
    return 1 if failed else 0


def _submittable(job: Job) -> Job:
    """Check that a job can be submitted, and return it.

    Raises:
        UnreadableAudio: The file's name is not valid UTF-8, so it cannot be written to the request, which is JSON.
    """
    try:
        str(job.source.path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableAudio(
            f"The name of {shown(job.source.path)} is not valid UTF-8, so it cannot be sent to the daemon. "
            "Rename the file, or use `tsbs-daw separate`."
        ) from error
    return job


_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Request:
    """The user's options, checked; the same for every file of a command."""

    out: Path
    treatment: Treatment
    salvage: bool
    start_s: float
    length_s: float | None
    song: str | None

    @classmethod
    def checked(cls, out: Path, treatment: Treatment, excerpt: Excerpt) -> Request:
        """Check the options.

        Raises:
            UsageError: A value is invalid, or `out` cannot be written to.
        """
        treatment = treatment.checked()
        length_s = seconds(excerpt.length, "--length") if excerpt.length else None
        if length_s is not None and length_s <= 0:
            raise UsageError("--length must be greater than zero. Omit it to separate to the end.")
        start_s = seconds(excerpt.start, "--start") if excerpt.start else 0.0
        return cls(output_folder(out), treatment, excerpt.salvage, start_s, length_s, excerpt.song or None)


def seconds(text: str, option: str) -> float:
    """Convert `90`, `90.5`, `1:30` or `1:02:03` to seconds.

    Args:
        text: The time.
        option: Name of the option, for the error.

    Raises:
        UsageError: The time is invalid.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"Invalid {option} {text!r}. Write seconds (90.5) or minutes and seconds (1:30.5).")
    hours, minutes, rest = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def job_for(file: Path, request: Request, **fields: Any) -> Job:
    """Make the job that separates a file.

    Raises:
        AudioError: The file does not exist or, if only a portion is separated, cannot be read.
        UsageError: A name is invalid.
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
    """Check that a path is an existing file.

    Raises:
        UnreadableAudio: It is a folder, does not exist, or may not be accessed.
    """
    try:
        path.stat()
    except PermissionError as error:
        raise UnreadableAudio(f"Cannot read {shown(path)} ({error.strerror}). Check its permissions.") from error
    except OSError:
        pass
    if os.path.isdir(path):  # noqa: PTH112 -- Path.is_dir raises for names that are too long
        raise UnreadableAudio(
            f"{shown(path)} is a folder. Use `tsbs-daw batch` or `tsbs-daw watch` to separate a folder of songs."
        )
    if not os.path.isfile(path):  # noqa: PTH113
        raise UnreadableAudio(f"{shown(path)} does not exist. Check its name.")


def _portion(path: Path, request: Request) -> tuple[int, int | None]:
    """Return (start, length) in samples. The file is opened only if a portion was requested."""
    if request.start_s == 0 and request.length_s is None:
        return 0, None
    from tsbs_daw.audio.read import probe

    info = probe(path, salvage=request.salvage)
    start = round(request.start_s * info.sample_rate)
    length = None if request.length_s is None else max(round(request.length_s * info.sample_rate), 1)
    if info.samples is not None and start >= info.samples:
        raise AudioError(f"--start is past the end of {shown(path)} ({info.samples / info.sample_rate:.1f} s).")
    return start, length
