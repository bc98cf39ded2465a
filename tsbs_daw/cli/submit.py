"""`tsbs-daw submit`: hand files to the daemon and come back at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tsbs_daw.cli import delivery, request
from tsbs_daw.cli.option_groups import grouped


@grouped
def command(
    files: request.Files,
    *,
    out: request.Out = Path(request.DEFAULT_OUT),
    treatment: request.Treatment,
    excerpt: request.Excerpt,
    first: Annotated[bool, typer.Option("--first", help="Go before the jobs of watch folders and batches.")] = False,
    as_json: request.Json = False,
    changes: delivery.Changes,
) -> int:
    """Hand files to the daemon, which separates them in their turn.

    The jobs are safe once this returns, whether a daemon is running or not.

    Example: tsbs-daw submit song.wav --out stems --preset karaoke
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import AudioError
    from tsbs_daw.queue.spool import living_daemon, submit

    settings = Settings.from_environment()
    options = request.Options.checked(out, treatment, excerpt)
    delivered = changes.options()
    failed = False
    alive = living_daemon(settings.spool)
    for file in files:
        try:
            priority = "interactive" if first else "batch"
            job = request.job_for(file, options, origin="cli", priority=priority, delivery=delivered)
            job = request.submittable(job)
        except AudioError as error:
            failed = True
            typer.echo(json.dumps({"file": str(file), "error": str(error)}) if as_json else f"{error}", err=not as_json)
            continue
        folder = submit(settings.spool, job)
        if as_json:
            typer.echo(
                json.dumps({"file": str(file), "id": job.id, "folder": str(folder), "daemon": alive is not None})
            )
        else:
            typer.echo(f"{job.id}  {file.name}")
    if not as_json:
        typer.echo(
            f"A daemon (process {alive.pid}) is at work; `tsbs-daw jobs list` shows how far it is."
            if alive
            else "No daemon is running: the jobs wait until `tsbs-daw watch` is started."
        )
    return 1 if failed else 0
