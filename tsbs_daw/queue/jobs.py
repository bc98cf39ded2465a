"""Jobs as a whole: each lies both in the store and in the spool, which are kept in step and read together here.

`JobLifecycle` changes the state of a job: the store first, then result.json, then the folder's move to done/; then it
tells the listener. The store is always updated first, so the next start repairs a crash between two steps. Everything
the daemon does about one job runs inside `JobLifecycle.confine`: an error there ends that job, with a sentence in its
result, and nothing else.

`list_jobs` reads jobs as they are shown to people, on the command line and on the web page. Requests that no daemon has
claimed yet lie in the spool's inbox, everything else in the store. A finished job that waits for a retry is in both;
then it is listed as a request.
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
    """Something that the program running the daemon may want to show.

    kind: "queued", "started", "progress", "retrying", or the state that a job ended in;
          about watch folders: "ignored", "waiting", "left", "offline", "online", "held";
          about a song's file afterwards: "after", "kept", "hook";
          about the daemon: "paused", "resumed", "worker"
    id, song, file: of the job, `file` being the path of its source; empty for events about something else
    message:  one phrase or sentence
    result:   of a job that has ended
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
    """Through which the daemon's parts change the state of a job and report it.

    ended: how many jobs ended in which state since the start
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
        """Let an error about one job end that job, and not its caller.

        Raises:
            NoSpaceLeft, DaemonError, sqlite3.DatabaseError, OSError: the trouble is that of the queue or of the spool,
                and so not this job's; MemoryError
        """
        try:
            yield
        except Exception as error:
            if self.affects_all_jobs(error):
                raise
            log.exception("job %s: unexpected error", job_id)
            self._fail_job(job_id, error)

    def affects_all_jobs(self, error: Exception) -> bool:
        """Whether an error is that of the queue, the spool or this process, and so no single job's."""
        if isinstance(error, OSError):
            return isinstance(error, BrokenPipeError) or not self.spool.usable  # nobody reads our output any more
        if isinstance(error, sqlite3.DatabaseError):  # what is wrong with one row's values has classes of its own
            return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError
        return isinstance(error, (NoSpaceLeft, DaemonError, MemoryError))

    def _fail_job(self, job_id: str, error: Exception) -> None:
        """Fail a job after an unexpected error; if even that fails, abandon it in the store."""
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

        Args:    fence: of the lease that is ended; None for a job that waits
                 result: what a worker, or an equal job, delivered; its id, state and time are set here
        Returns: False when the lease was another's: nothing has changed
        """
        error = printable(_in_the_words_of_the_user(row, error)) if error else None
        deliver = _deliver_of(row)
        known: dict[str, Any] = {
            "id": row.id,
            "state": state,
            "error": error,
            "retryable": retryable,
            "deliver": deliver,
        }
        known["finished_unix_s"] = time.time()
        known["schema_"] = _schema_of(row)  # an equal job may have asked in another one
        final = (result or Result(id=row.id, state=state)).model_copy(update=known)
        if not self.store.finish(final, fence):
            log.warning("job %s: the result of lease %s is dropped: it is not the current one", row.id, fence)
            return False
        self.settle(final)
        self.announce(final, row.song, row.source_key)
        return True

    def announce(self, result: Result, song: str = "", file: str = "") -> None:
        """Count and report an ending that the store knows."""
        self.ended[result.state] += 1
        level = logging.WARNING if result.state in (State.FAILED, State.DEAD) else logging.INFO
        detail = f" -> {result.folder}" if result.folder else f": {result.error}" if result.error else ""
        log.log(level, "job %s %s: %s%s", result.id, result.state.value, song, detail)
        fraction = 1.0 if result.state is State.DONE else 0.0
        self.publish(Event(result.state.value, result.id, song, file, fraction, result.error or "", result))

    def settle(self, result: Result) -> None:
        """Let the result appear in done/; on a full disk, later."""
        try:
            self.spool.settle(result.id, result)
            self._unsettled.pop(result.id, None)
        except OSError as error:
            if result.id not in self._unsettled:
                log.error("job %s: its result cannot be written yet: %s", result.id, error)
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
    """A watched file is read from its copy in the spool; the user knows it by its own path."""
    if not row.from_watch_folder:
        return error
    try:
        return error.replace(str(row.job.source.path), row.source_key)
    except JobFormatError:  # written by another version
        return error


def _schema_of(row: JobRow) -> int:
    """The schema that the request was written in; 1 for one that cannot be read."""
    try:
        return row.job.schema_ if row.job_json else 1
    except JobFormatError:
        return 1


def _deliver_of(row: JobRow) -> dict[str, Any]:
    """The client's own `deliver` keys, even of a request that only another version understands."""
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


# ---- jobs as they are shown to people --------------------------------------------------------------------------------

SUBMITTED = "submitted"


def list_jobs(
    store: JobStore | None, spool: Spool, states: Iterable[State] = tuple(State), limit: int = -1
) -> list[dict[str, Any]]:
    """Requests, then at most `limit` jobs in these states; newest first. store: None when no daemon has ever run."""
    requests = unclaimed(spool)
    again = {job["id"] for job in requests}
    stored = [describe(row) for row in store.rows(states, limit)] if store is not None else []
    return requests + [job for job in stored if job["id"] not in again]


def describe(row: JobRow) -> dict[str, Any]:
    """A job of the store, ready for JSON."""
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
    """The newest `limit` requests that no daemon has claimed yet, in the form of `describe`; newest first."""
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
            continue  # claimed in the meantime; the store has it now
        except JobFormatError as error:
            entry |= {"song": "?", "source": "?", "origin": "?", "error": str(error)}
        else:
            entry |= {"song": song_name(job), "source": source_name(job.source.path), "origin": job.origin}
            entry["request"] = json.loads(job.to_json())
        found.append(entry)
    return found
