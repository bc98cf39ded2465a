"""`tsbs-daw separate`: separate files in this process, without a daemon."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tsbs_daw.cli import delivery, request
from tsbs_daw.cli.formatting import decibels, duration, one_line
from tsbs_daw.cli.option_groups import grouped
from tsbs_daw.cli.progress import reporting

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Job, Result
    from tsbs_daw.core.config import Settings


@grouped
def command(
    files: request.Files,
    *,
    out: request.Out = Path(request.DEFAULT_OUT),
    treatment: request.Treatment,
    excerpt: request.Excerpt,
    compute: request.Compute,
    as_json: request.Json = False,
    changes: delivery.Changes,
) -> int:
    """Separate files here and now.

    Every song gets a folder with its stems, a REAPER session and a manifest. The same run again is recognised.

    Example: tsbs-daw separate song.wav --out stems --preset karaoke --null
    """
    from tsbs_daw.core.errors import TsbsDawError, UsageError
    from tsbs_daw.pipeline.publish import remove_stale

    options = request.Options.checked(out, treatment, excerpt)
    delivered = changes.options()
    settings = compute.settings()
    remove_stale(options.out, running=lambda job, fence: None)  # only what nobody has touched for a day
    failed = 0
    for file in files:
        try:
            job = request.job_for(file, options, origin="cli", priority="interactive", delivery=delivered)
            result, took_s = _separate(job, settings, quiet=as_json)
        except (UsageError, KeyboardInterrupt):
            raise
        except TsbsDawError as error:
            failed += 1
            typer.echo(json.dumps({"file": str(file), "error": str(error)}) if as_json else str(error), err=not as_json)
        else:
            typer.echo(result.model_dump_json(by_alias=True) if as_json else _summary(result, took_s))
    if failed and len(files) > 1 and not as_json:
        typer.echo(f"{failed} of {len(files)} files could not be separated.", err=True)
    return 1 if failed else 0


def _separate(job: Job, settings: Settings, *, quiet: bool) -> tuple[Result, float]:
    from tsbs_daw.pipeline.run import run_job

    begun_s = time.monotonic()
    with reporting(job.song or job.source.path.name, quiet=quiet) as report:
        result = run_job(
            job,
            settings=settings,
            fence=1,
            attempt=1,
            progress=report,
            cancelled=lambda: False,
        )
    return result, time.monotonic() - begun_s


def _summary(result: Result, took_s: float) -> str:
    from tsbs_daw.contracts.manifest import read_manifest

    assert result.folder is not None
    manifest = read_manifest(result.folder)
    assert manifest is not None, "only complete folders are delivered"
    made = f"{len(result.stems)} files in {duration(took_s)}"
    if manifest.job != result.id:
        made = f"{len(result.stems)} files, there already from an equal run"
    lines = [one_line(str(result.folder)), f"  {made}; residual of the null test {decibels(manifest.residual_db)}"]
    lines += [f"  note: {one_line(warning)}" for warning in result.warnings]
    return "\n".join(lines)
