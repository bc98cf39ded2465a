"""`tsbs-daw jobs`: show the queue, and ask the daemon to retry, move or cancel jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, ago, print_json, song_label, table

if TYPE_CHECKING:
    from tsbs_daw.core.config import Settings

app = typer.Typer(help="List, show, retry, move and cancel jobs.\n\nExample: tsbs-daw jobs list", no_args_is_help=True)

_MATCHES_SHOWN = 5
_ID_HELP = "The first or last few characters are enough."

Ids = Annotated[list[str], typer.Argument(help=f"Job ids. {_ID_HELP}", metavar="ID")]


@app.command("list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="List only jobs in this state. May be repeated.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of jobs to list; 0 for all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    Example: tsbs-daw jobs list --state failed
    """
    from tsbs_daw.core.config import Settings

    settings = Settings.from_environment()
    found = _everything(settings, _states(state or []), limit if limit > 0 else -1)
    found = [job for job in found if not state or job["state"] in state]
    found = found[:limit] if limit > 0 else found
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("There are no jobs." if not state else f"There are no {' or '.join(state)} jobs.")
        return
    rows = (
        [job["id"], _state(job), ago(job["created_unix_s"]), song_label(job["song"], job["source"]), _note(job)]
        for job in found
    )
    typer.echo(table(["ID", "STATE", "SINCE", "SONG", ""], rows))


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(help=f"Job id. {_ID_HELP}", metavar="ID")],
    as_json: AsJson = False,
) -> None:
    """Show everything about one job.

    Example: tsbs-daw jobs show 3f9a
    """
    from tsbs_daw.core.config import Settings

    settings = Settings.from_environment()
    (full_id,) = _full_ids(settings, [job_id])
    job = next(job for job in _everything(settings, _states([]), -1) if job["id"] == full_id)
    afterwards = _notes(settings, job["id"])
    if as_json:
        print_json({**job, "afterwards": afterwards})
        return
    result = job.pop("result") or {}
    request = job.pop("request") or {}
    lines = {
        "job": job["id"],
        "state": _state(job),
        "song": job["song"],
        "source": job["source"],
        "preset, model": f"{request.get('preset', '?')}, {request.get('model', '?')}",
        "submitted": f"{ago(job['created_unix_s'])}, from {job['origin']}",
        "attempts": str(job["attempts"]),
        "error": job["error"],
        "folder": result.get("folder"),
        "session": result.get("session"),
        "files": ", ".join(stem["name"] for stem in result.get("stems", ())),
    }
    lines |= {f"afterwards {number}": note for number, note in enumerate(afterwards, start=1)}
    lines |= {f"warning {number}": warning for number, warning in enumerate(result.get("warnings", ()), start=1)}
    shown = [[name, value] for name, value in lines.items() if value]
    typer.echo(table(["", ""], shown).strip("\n"))


@app.command()
def retry(
    job_ids: Annotated[list[str] | None, typer.Argument(help=f"Job ids. {_ID_HELP}", metavar="ID")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry all jobs that failed or crashed.")] = False,
) -> None:
    """Run finished jobs again.

    Example: tsbs-daw jobs retry --failed
    """
    from tsbs_daw.contracts.job import State
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.queue.spool import request_retry

    settings = Settings.from_environment()
    chosen = _full_ids(settings, job_ids or [])
    if failed:
        unhappy = _everything(settings, (State.FAILED, State.DEAD), -1)
        chosen += [job["id"] for job in unhappy if job["state"] != "submitted" and job["id"] not in chosen]
    elif not chosen:
        raise UsageError("Specify the jobs to retry, or use --failed to retry all that failed.")
    for job_id in chosen:
        request_retry(settings.spool, job_id)
        typer.echo(f"Retrying {job_id}.")
    if not chosen:
        typer.echo("There are no failed jobs.")
    _warn_without_daemon(settings)


@app.command()
def move(
    job_ids: Ids,
    first: Annotated[bool, typer.Option("--first", help="Run them before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Run them after all others.")] = False,
) -> None:
    """Change the order in which waiting jobs run.

    Example: tsbs-daw jobs move 3f9a --first
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.queue.spool import request_move

    if first == last:
        raise UsageError("Specify where to move the jobs: --first or --last.")
    settings = Settings.from_environment()
    chosen = _full_ids(settings, job_ids)
    for job_id in reversed(chosen) if first else chosen:  # keeps their relative order
        request_move(settings.spool, job_id, "first" if first else "last")
        typer.echo(f"Moving {job_id}.")
    _warn_without_daemon(settings)


@app.command()
def cancel(job_ids: Ids) -> None:
    """Cancel waiting or running jobs.

    Example: tsbs-daw jobs cancel 3f9a
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.queue.spool import request_cancel

    settings = Settings.from_environment()
    for job_id in _full_ids(settings, job_ids):
        request_cancel(settings.spool, job_id)
        typer.echo(f"Cancelling {job_id}.")
    _warn_without_daemon(settings)


def _states(names: list[str]) -> tuple[Any, ...]:
    from tsbs_daw.contracts.job import State
    from tsbs_daw.core.errors import UsageError

    known = {state.value: state for state in State}
    for name in names:
        if name not in known and name != "submitted":
            raise UsageError(f"Unknown state {name!r}. The states are {', '.join(known)} and submitted.")
    return tuple(known[name] for name in names if name in known) if names else tuple(State)


def _everything(settings: Settings, states: tuple[Any, ...], limit: int) -> list[dict[str, Any]]:
    from tsbs_daw.queue.jobs import list_jobs
    from tsbs_daw.queue.spool import Spool
    from tsbs_daw.queue.store import JobStore

    store = JobStore.open_for_reading(settings.store)
    try:
        return list_jobs(store, Spool(settings.spool), states, limit)
    finally:
        if store is not None:
            store.close()


def _notes(settings: Settings, job_id: str) -> list[str]:
    """Read the notes on what happened to the song's file after the job, and on the hooks."""
    from tsbs_daw.queue.errands import notes
    from tsbs_daw.queue.store import JobStore

    store = JobStore.open_for_reading(settings.store)
    if store is None:
        return []
    try:
        return notes(store.database, [job_id]).get(job_id, [])
    finally:
        store.close()


def _full_ids(settings: Settings, wanted: list[str]) -> list[str]:
    """Complete abbreviated job ids.

    Raises:
        UsageError: No job or several jobs have an id that equals, starts with or ends with one of these.
    """
    from tsbs_daw.core.errors import UsageError

    known = [job["id"] for job in _everything(settings, _states([]), -1)] if wanted else []
    full = []
    for job_id in wanted:
        matches = [one for one in known if one == job_id] or [one for one in known if one.startswith(job_id)]
        matches = matches or [one for one in known if one.endswith(job_id)]
        if not job_id or not matches:
            raise UsageError(f"There is no job {job_id!r}. `tsbs-daw jobs list` shows all jobs.")
        if len(matches) > 1:
            several = ", ".join(matches[:_MATCHES_SHOWN]) + (", ..." if len(matches) > _MATCHES_SHOWN else "")
            raise UsageError(f"{job_id!r} stands for {len(matches)} jobs: {several}. Enter more of the id.")
        full += matches
    return list(dict.fromkeys(full))


def _state(job: dict[str, Any]) -> str:
    return f"{job['state']} {job['fraction']:.0%}" if job["state"] == "running" else job["state"]


def _note(job: dict[str, Any]) -> str:
    return job["error"] or ((job["result"] or {}).get("folder") or job["message"] or "")


def _warn_without_daemon(settings: Settings) -> None:
    from tsbs_daw.queue.spool import living_daemon

    if living_daemon(settings.spool) is None:
        typer.echo("No daemon is running. This takes effect when you start `tsbs-daw watch`.")
