"""State changes and listings of jobs, which exist both in the store and in the spool.

`JobLifecycle` keeps the two in step. It ends a job in the store, writes result.json, moves the folder to done/, and
notifies the listener. The store is always updated first, so the next start can repair a crash between two steps.
Everything the daemon does for a single job runs inside `JobLifecycle.confine`: an error there ends only that job, with
a sentence in its result.

`list_jobs` lists jobs for the user, on the command line and on the web page. Requests that no daemon has claimed yet
are in the spool's inbox, all other jobs in the store. A finished job that waits for a retry is in both and is listed as
a request.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import DaemonError, JobFormatError, NoSpaceLeft, TsbsDawError, described, printable
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.records import JobRow, song_name
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """An event that the program running the daemon may show.

    Attributes:
        kind: Of a job: "queued", "started", "progress", "retrying", or the state that it ended in. Of a watch folder:
            "ignored", "waiting", "left", "offline", "online", "held". Of the file of a finished song: "after",
            "kept", "hook". Of the daemon: "paused", "resumed", "worker".
        id: Id of the job; empty if the event is not about a job.
        song: Name of the song, or path of a file below its watch folder; may be empty.
        file: Path of the source file; may be empty.
        fraction: Completed fraction of the job, 0 to 1.
        message: A phrase or a sentence.
        result: Result of a job that has ended.
    """

    kind: str
    id: str = ""
    song: str = ""
    file: str = ""
    fraction: float = 0.0
    message: str = ""
    result: Result | None = None


Listener = Callable[[Event], None]


class JobLifecycle:
    """Changes the states of jobs in the store and the spool, and reports the changes.

    Attributes:
        store: The store.
        spool: The spool.
        ended: Number of jobs that ended since the start, by state.
    """

    def __init__(self, store: JobStore, spool: Spool, listener: Listener | None = None):
        self.store, self.spool = store, spool
        self.ended: Counter[State] = Counter()
        self._listener = listener
        self._unsettled: dict[str, Result] = {}

    def emit(self, kind: str, row: JobRow | None = None, *, fraction: float = 0.0, message: str = "") -> None:
        event = Event(kind, id=row.id, song=row.song, file=row.source_key) if row else Event(kind)
        self.publish(replace(event, fraction=fraction, message=message))

    @contextlib.contextmanager
    def confine(self, job_id: str) -> Iterator[None]:
        """Context in which an error ends the given job instead of propagating.

        Raises:
            NoSpaceLeft: The disk of the queue is full.
            DaemonError: The daemon cannot continue.
            sqlite3.DatabaseError: The database failed.
            OSError: The spool is not writable, or the output pipe is closed.
            MemoryError: The process is out of memory.
        """
        try:
            yield
        except Exception as error:
            if self.affects_all_jobs(error):
                raise
            log.exception("job %s: unexpected error", job_id)
            self._fail_job(job_id, error)

    def affects_all_jobs(self, error: Exception) -> bool:
        """Whether an error concerns the queue, the spool or this process instead of a single job."""
        if isinstance(error, OSError):
            return isinstance(error, BrokenPipeError) or not self.spool.usable  # the reader of our output is gone
        if isinstance(error, sqlite3.DatabaseError):  # errors in a single row's values have their own subclasses
            return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError
        return isinstance(error, (NoSpaceLeft, DaemonError, MemoryError))

    def _fail_job(self, job_id: str, error: Exception) -> None:
        """Fail a job after an error; if that fails too, abandon the job in the store."""
        sentence = str(error) if isinstance(error, TsbsDawError) else _unexpected(job_id, error)
        try:
            row = self.store.get(job_id)
            if row is not None and not row.state.finished:
                self.finish(row, State.FAILED, fence=row.fence if row.state is State.RUNNING else None, error=sentence)
        except (TsbsDawError, ValueError, OSError) as second:
            if self.affects_all_jobs(second):
                raise
            log.exception("job %s: cannot write its result; abandoning it", job_id)
            self.store.abandon(job_id, printable(sentence))

    def finish(
        self,
        row: JobRow,
        state: State,
        *,
        fence: int | None = None,
        error: str | None = None,
        retryable: bool = False,
        result: Result | None = None,
    ) -> bool:
        """End a job.

        Args:
            row: The job.
            state: State that the job ends in.
            fence: Number of the lease to end; None for a waiting job.
            error: The error as a sentence for the user; None if there is none.
            retryable: Whether the error may be temporary.
            result: Result of the worker or of an equal job; its id, state and time are replaced.

        Returns:
            False if the lease is no longer the current one; nothing has changed then.
        """
        error = printable(_in_the_words_of_the_user(row, error)) if error else None
        deliver = _deliver_of(row)
        changes: dict[str, Any] = {
            "id": row.id,
            "state": state,
            "error": error,
            "retryable": retryable,
            "deliver": deliver,
        }
        changes["finished_unix_s"] = time.time()
        changes["schema_"] = _schema_of(row)  # an equal job's request may use another schema
        final = (result or Result(id=row.id, state=state)).model_copy(update=changes)
        if not self.store.finish(final, fence):
            log.warning("job %s: dropping the result of lease %s, which is not the current one", row.id, fence)
            return False
        self.settle(final)
        self.announce(final, row.song, row.source_key)
        return True

    def announce(self, result: Result, song: str = "", file: str = "") -> None:
        """Count and report a job that has ended in the store."""
        self.ended[result.state] += 1
        level = logging.WARNING if result.state in (State.FAILED, State.DEAD) else logging.INFO
        detail = f" -> {result.folder}" if result.folder else f": {result.error}" if result.error else ""
        log.log(level, "job %s %s: %s%s", result.id, result.state.value, song, detail)
        fraction = 1.0 if result.state is State.DONE else 0.0
        self.publish(Event(result.state.value, result.id, song, file, fraction, result.error or "", result))

    def settle(self, result: Result) -> None:
        """Write the result to done/. If that fails, as on a full disk, keep it for `settle_unsettled`."""
        try:
            self.spool.settle(result.id, result)
            self._unsettled.pop(result.id, None)
        except OSError as error:
            if result.id not in self._unsettled:
                log.error("job %s: cannot write the result yet: %s", result.id, error)
            self._unsettled[result.id] = result

    def settle_unsettled(self) -> None:
        for result in list(self._unsettled.values()):
            self.settle(result)

    @property
    def all_settled(self) -> bool:
        return not self._unsettled

    def publish(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)


def _in_the_words_of_the_user(row: JobRow, error: str) -> str:
    """Replace the path of a watched file's copy in the spool with the path that the user knows."""
    if not row.from_watch_folder:
        return error
    try:
        return error.replace(str(row.job.source.path), row.source_key)
    except JobFormatError:  # written by another version
        return error


def _schema_of(row: JobRow) -> int:
    """Return the schema version of the request, or 1 if the request cannot be read."""
    try:
        return row.job.schema_ if row.job_json else 1
    except JobFormatError:
        return 1


def _deliver_of(row: JobRow) -> dict[str, Any]:
    """Return the client's `deliver` keys, even if the request needs another version of tsbs-daw."""
    try:
        return row.job.deliver if row.job_json else {}
    except JobFormatError:
        pass
    try:
        deliver = json.loads(row.job_json)["deliver"]
        return Result(id=row.id, state=State.FAILED, deliver=deliver).checked().deliver
    except (ValueError, KeyError, TypeError, RecursionError, JobFormatError):
        return {}


def _unexpected(job_id: str, error: Exception) -> str:
    return (
        f"Unexpected error in job {job_id} ({described(error)}). "
        "See the daemon's log for details; `tsbs-daw jobs retry` runs the job again."
    )


# ---- listings for the user -------------------------------------------------------------------------------------------

SUBMITTED = "submitted"


def list_jobs(
    store: JobStore | None, spool: Spool, states: Iterable[State] = tuple(State), limit: int = -1
) -> list[dict[str, Any]]:
    """List requests, then at most `limit` jobs in these states, newest first, in the form of `describe`.

    Args:
        store: The store; None if no daemon has ever run.
        spool: The spool.
        states: States of the jobs to list.
        limit: Maximum number of jobs; negative for all.
    """
    requests = unclaimed(spool)
    requested = {job["id"] for job in requests}
    stored = [describe(row) for row in store.rows(states, limit)] if store is not None else []
    return requests + [job for job in stored if job["id"] not in requested]


def describe(row: JobRow) -> dict[str, Any]:
    """Return a job of the store as a dictionary for JSON."""
    return {
        "id": row.id,
        "state": row.state.value,
        "song": row.song,
        "source": row.source_key,
        "origin": row.origin,
        "fraction": row.progress,
        "message": row.message,
        "error": row.error,
        "attempts": row.attempts,
        "created_unix_s": row.created_unix_s,
        "finished_unix_s": row.finished_unix_s or None,
        "request": json.loads(row.job_json) if row.job_json else None,
        "result": json.loads(row.result_json) if row.result_json else None,
    }


def unclaimed(spool: Spool, limit: int = -1) -> list[dict[str, Any]]:
    """Return the newest `limit` unclaimed requests in the form of `describe`, newest first."""
    if not spool.inbox.is_dir():
        return []
    folders = spool.waiting()[::-1]
    found = []
    for folder in folders[:limit] if limit >= 0 else folders:
        entry: dict[str, Any] = dict.fromkeys(("song", "source", "origin", "message", "request", "result", "error"))
        entry |= {"id": folder.name, "state": SUBMITTED, "fraction": 0.0, "attempts": 0, "finished_unix_s": None}
        try:
            entry["created_unix_s"] = (folder / "job.json").lstat().st_mtime
            job = spool.read_request(folder)
        except OSError:
            continue  # claimed in the meantime, so the store has it
        except JobFormatError as error:
            entry |= {"song": "?", "source": "?", "origin": "?", "error": str(error)}
        else:
            entry |= {"song": song_name(job), "source": source_name(job.source.path), "origin": job.origin}
            entry["request"] = json.loads(job.to_json())
        found.append(entry)
    return found
