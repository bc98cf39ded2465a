"""`tsbs-daw separate`: separate files in this process, without a daemon."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tsbs_daw.cli import options, requests
from tsbs_daw.cli.console import contents, decibels, duration, job_progress, one_line
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

    request = requests.Request.checked(out, treatment, excerpt)
    delivery = changes.options()
    settings = compute.settings()
    remove_stale(request.out, running=lambda job, fence: None)  # only what nobody has touched for a day
    failed = 0
    for file in files:
        job_id = new_job_id()
        try:
            job = requests.job_for(file, request, id=job_id, origin="cli", priority="interactive", delivery=delivery)
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
    """On the device, or on the CPU once the device is lost: this process cannot have it back.

    Returns: the result, the seconds it took, and the settings for the next song
    """
    from tsbs_daw.core.errors import DeviceLost

    try:
        return *_separate(job, settings, quiet=quiet), settings
    except DeviceLost as error:
        typer.echo(f"{error} Going on with the CPU.", err=True)
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
    """The result of a file that could not be separated, with the same fields as any other."""
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
