"""`tsbs-daw submit`: enqueue files for the daemon and return at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tsbs_daw.cli import options, separate


@options.grouped
def command(
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
    from tsbs_daw.core.errors import AudioError
    from tsbs_daw.core.filenames import source_name
    from tsbs_daw.queue.spool import living_daemon, submit

    settings = Settings.from_environment()
    request = separate.Request.checked(out, treatment, excerpt)
    delivery = changes.options()
    failed = False
    heartbeat = living_daemon(settings.spool)
    alive = heartbeat is not None
    for file in files:
        try:
            priority = "interactive" if first else "batch"
            job = separate.job_for(file, request, origin="cli", priority=priority, delivery=delivery)
            job = separate.submittable(job)
        except AudioError as error:
            failed = True
            line = {"file": source_name(file), "id": None, "folder": None, "daemon": alive, "error": str(error)}
            typer.echo(json.dumps(line) if as_json else str(error), err=not as_json)
            continue
        folder = submit(settings.spool, job)
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
