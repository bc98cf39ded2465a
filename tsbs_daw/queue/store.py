"""The durable queue: one SQLite table, one writer, every change a transaction.

    queued ──lease──> running ──finish──> done, failed, cancelled, superseded
      ^                  │
      └──── requeue ─────┘   after a crash, a retryable error, or the end of the daemon
    queued ──finish──> cancelled, superseded, duplicate, dead

Every lease has a number (`fence`); updates that carry an old number are rejected. Order: interactive jobs before batch
jobs, then jobs with fewer attempts, so that a job that keeps failing does not delay the others, then by arrival.

`enqueue_one` decides whether a new job is inserted, runs again, replaces an older version, or is not needed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.queue import errands
from tsbs_daw.queue.database import Database
from tsbs_daw.queue.records import (
    COLUMNS,
    TABLES,
    VERSION,
    Enqueued,
    JobRow,
    NewJob,
    SeenFile,
    columns_of,
    files_of,
    ignored_files,
    recall,
    remember,
    running_of_roots,
)


def enqueue_one(connection: sqlite3.Connection, new_job: NewJob, outcome: Enqueued) -> None:
    """Enqueue a job. A finished job with the same id runs again; a live one is left unchanged."""
    job, file = new_job.job, new_job.file
    known = connection.execute("SELECT state FROM jobs WHERE id = ?", (job.id,)).fetchone()
    if known is not None:
        if State(known["state"]).finished:
            _run_again(connection, columns_of(new_job))
        outcome.queued.append(job.id)
        return
    if file is not None:
        before = recall(connection, file.root, file.relative)
        if before and _is_unchanged(connection, before, file):
            remember(connection, replace(file, job_id=before.job_id))
            outcome.unchanged.append(job.id)
            return
        remember(connection, file)
        outcome.superseded += _supersede(connection, new_job)
    insert(connection, "INSERT", columns_of(new_job))
    outcome.queued.append(job.id)


def _is_unchanged(connection: sqlite3.Connection, before: SeenFile, file: SeenFile) -> bool:
    """Whether content and settings are the same as for an earlier job that is live or done."""
    if (before.input_hash, before.settings_hash) != (file.input_hash, file.settings_hash):
        return False
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (before.job_id,)).fetchone()
    return row is not None and State(row["state"]) in (State.QUEUED, State.RUNNING, State.DONE, State.DUPLICATE)


def _supersede(connection: sqlite3.Connection, new_job: NewJob) -> list[str]:
    """Request the end of live jobs for older versions of the file. Return the ids of those that are waiting."""
    older = (new_job.source_key, new_job.job.id)
    where = "source_key = ? AND id != ? AND input_hash IS NOT NULL AND cancel_requested = ''"
    connection.execute(
        f"UPDATE jobs SET cancel_requested = 'superseded' WHERE {where} AND state IN ('queued', 'running')", older
    )
    found = connection.execute(
        "SELECT id FROM jobs WHERE source_key = ? AND id != ? AND state = 'queued' AND cancel_requested = 'superseded'",
        older,
    )
    return [row["id"] for row in found]


def _run_again(connection: sqlite3.Connection, columns: dict[str, object]) -> None:
    """Queue a finished job again with all its counters reset, except `fence`, which keeps increasing."""
    fresh = {
        "attempts": 0,
        "retries": 0,
        "crashes": 0,
        "not_before": 0,
        "cancel_requested": "",
        "progress": 0,
        "message": "",
    }
    fresh |= {"error": None, "result_json": None, "finished_unix_s": 0} | columns
    changes = ", ".join(f"{name} = :{name}" for name in fresh if name != "id")
    connection.execute(f"UPDATE jobs SET {changes} WHERE id = :id", fresh)


def insert(connection: sqlite3.Connection, verb: str, columns: dict[str, object]) -> None:
    """Add a row to `jobs`; `verb` is INSERT or INSERT OR IGNORE."""
    names = ", ".join(columns)
    connection.execute(f"{verb} INTO jobs ({names}) VALUES ({', '.join(':' + name for name in columns)})", columns)


_NEXT = """
SELECT * FROM jobs WHERE state = 'queued' AND not_before <= ? AND NOT EXISTS (
    SELECT 1 FROM jobs AS other WHERE other.state = 'running' AND other.input_hash = jobs.input_hash
    AND other.preset_hash = jobs.preset_hash AND other.model_hash = jobs.model_hash)
AND NOT EXISTS (SELECT 1 FROM files WHERE files.job_id = jobs.id AND files.root IN ({held}))
ORDER BY {order} LIMIT 1
"""
_ORDER = "priority, attempts, seq"
_UNREADABLE = {"priority": 1, "source_key": "", "song": "", "origin": "?", "job_json": ""}


class Requeued(Enum):
    """Why a lease ended without a result, which decides the counter that increases."""

    RELEASED = "the daemon was asked to stop; the attempt does not count"
    RETRIED = "a possibly temporary error"
    CRASHED = "the worker died or hung"


class JobStore:
    """The queue. Only the daemon opens it for writing; other processes use `open_for_reading`.

    Attributes:
        attended: Watch folders whose jobs have errands.
        closed: Watch folders outside their `hours`, whose jobs must wait.
        limits: Maximum number of concurrent jobs of a watch folder.
    """

    def __init__(self, database: Database):
        self.database = database
        self.attended: frozenset[str] = frozenset()
        self.closed: frozenset[str] = frozenset()
        self.limits: Mapping[str, int] = {}

    @classmethod
    def open(cls, path: Path) -> JobStore:
        """Open or create the queue. Raises DaemonError and NoSpaceLeft as `Database.open` does."""
        return cls(Database.open(path, TABLES, VERSION, COLUMNS))

    @classmethod
    def open_for_reading(cls, path: Path) -> JobStore | None:
        """Open the queue for reading, or return None if no daemon has ever run."""
        database = Database.open_for_reading(path, VERSION, COLUMNS)
        return cls(database) if database else None

    def close(self) -> None:
        self.database.close()

    # Reading

    def get(self, job_id: str) -> JobRow | None:
        return next(iter(self._rows("id = ?", (job_id,))), None)

    def of_ids(self, job_ids: Iterable[str]) -> list[JobRow]:
        names = list(job_ids)
        parts = (tuple(names[start : start + 500]) for start in range(0, len(names), 500))
        return [row for part in parts for row in self._rows(f"id IN ({_marks(part)})", part)]

    def rows(self, states: Iterable[State] = tuple(State), limit: int = -1) -> list[JobRow]:
        """Return jobs in these states, newest first."""
        names = tuple(state.value for state in states)
        return self._rows(f"state IN ({_marks(names)}) ORDER BY seq DESC LIMIT {int(limit)}", names)

    def counts(self) -> dict[State, int]:
        known = {state.value: state for state in State}  # a newer version may have written others
        found = self.database.read("SELECT state, COUNT(*) FROM jobs GROUP BY 1")
        return {known[state]: count for state, count in found if state in known}

    def live(self) -> list[JobRow]:
        return self._rows("state IN ('queued', 'running') ORDER BY seq")

    def waiting_after(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """Return (seq, id) of waiting jobs after `seq`, in order of arrival."""
        sql = "SELECT seq, id FROM jobs WHERE state = 'queued' AND seq > ? ORDER BY seq LIMIT ?"
        return [tuple(row) for row in self.database.read(sql, (seq, limit))]

    def in_order(self, limit: int) -> list[JobRow]:
        """Return running jobs, then waiting jobs in the order in which they will run."""
        return self._rows(f"state IN ('running', 'queued') ORDER BY state != 'running', {_ORDER} LIMIT ?", (limit,))

    def live_count(self) -> int:
        return int(self.database.read("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')")[0][0])

    def live_source_bytes(self) -> int:
        """Return the total size in bytes of the source copies of unfinished jobs."""
        sql = "SELECT TOTAL(source_bytes) FROM jobs WHERE state IN ('queued', 'running')"
        return int(self.database.read(sql)[0][0])

    def next(self, now: float) -> JobRow | None:
        """Return the job to run next, skipping held folders and content that another job is computing now."""
        running = running_of_roots(self.database) if self.limits else {}
        held = (*self.closed, *(root for root, limit in self.limits.items() if running.get(root, 0) >= limit))
        found = self.database.read(_NEXT.format(order=_ORDER, held=_marks(held)), (now, *map(os.fsencode, held)))
        return JobRow.from_sql(found[0]) if found else None

    def done_duplicate(self, row: JobRow) -> JobRow | None:
        """Return a finished job with the same content, preset and model, or None."""
        key = (row.input_hash, row.preset_hash, row.model_hash)
        found = self._rows("state = 'done' AND input_hash = ? AND preset_hash = ? AND model_hash = ?", key)
        return found[0] if found else None

    def ignored(self) -> list[SeenFile]:
        """Return the ignored files of all watch folders, with the reasons."""
        return ignored_files(self.database)

    def files_of(self, root: str) -> dict[str, SeenFile]:
        """Return the known files of a watch folder, by relative path."""
        return files_of(self.database, root)

    def roots(self) -> list[str]:
        """Return every watch folder that has known files."""
        return [os.fsdecode(row[0]) for row in self.database.read("SELECT DISTINCT root FROM files")]

    def outputs(self, origin: str) -> list[Path]:
        """Return the output folders of all jobs of an origin."""
        sql = "SELECT DISTINCT json_extract(job_json, '$.output') FROM jobs WHERE origin = ? AND job_json != ''"
        return [Path(row[0]) for row in self.database.read(sql, (origin,)) if row[0]]

    def _rows(self, where: str, parameters: tuple[Any, ...] = ()) -> list[JobRow]:
        return [JobRow.from_sql(row) for row in self.database.read(f"SELECT * FROM jobs WHERE {where}", parameters)]

    # Arriving

    def enqueue(self, new_jobs: Iterable[NewJob]) -> Enqueued:
        """Enqueue jobs and store the records of their files, in one transaction."""
        new_jobs = list(new_jobs)

        def work(connection: sqlite3.Connection) -> Enqueued:
            outcome = Enqueued()
            for new_job in new_jobs:
                enqueue_one(connection, new_job, outcome)
                if new_job.job.id in outcome.unchanged and new_job.file is not None:
                    errands.note_return(connection, new_job.file, self.attended)
            return outcome

        return self.database.write(work)

    def remember_files(self, files: Iterable[SeenFile]) -> None:
        files = list(files)

        def work(connection: sqlite3.Connection) -> None:
            for file in files:
                remember(connection, file)

        self.database.write(work)

    def record_finished(self, new_job: NewJob | None, result: Result) -> None:
        """Insert a finished job unless its id exists; `new_job` is None if the request could not be read."""
        columns = columns_of(new_job) if new_job else dict(_UNREADABLE, id=result.id, created_unix_s=time.time())
        columns |= {"state": result.state.value, "error": result.error, "result_json": result.to_json()}
        columns |= {"finished_unix_s": result.finished_unix_s, "source_bytes": 0}

        def work(connection: sqlite3.Connection) -> None:
            insert(connection, "INSERT OR IGNORE", columns)
            if new_job and new_job.file:
                remember(connection, new_job.file)

        self.database.write(work)

    # Running

    def lease(self, row: JobRow, owner: str, until: float) -> JobRow | None:
        """Lease a queued job to a worker under a new number. Return None if the job is no longer queued."""
        changed = self._update(
            "state = 'running', owner = ?, lease_until = ?, fence = fence + 1, attempts = attempts + 1, "
            "progress = 0, message = '', error = NULL",
            (owner, until),
            "id = ? AND state = 'queued'",
            (row.id,),
        )
        return self.get(row.id) if changed else None

    def extend(self, job_id: str, fence: int, until: float, progress: float, message: str) -> bool:
        """Extend a lease and store the progress. Return False if the lease is no longer the current one."""
        return self._update(
            "lease_until = ?, progress = MAX(progress, ?), message = ?",
            (until, progress, message),
            "id = ? AND fence = ? AND state = 'running'",
            (job_id, fence),
        )

    def requeue(
        self, job_id: str, fence: int, why: Requeued, *, not_before: float = 0.0, error: str | None = None
    ) -> bool:
        """End a lease without a result. The job may run again at `not_before`; `error` is for the user."""
        return self._update(
            "state = 'queued', owner = '', lease_until = 0, progress = 0, message = '', not_before = ?, error = ?, "
            "crashes = crashes + ?, retries = retries + ?, attempts = attempts - ?",
            (
                not_before,
                error,
                int(why is Requeued.CRASHED),
                int(why is Requeued.RETRIED),
                int(why is Requeued.RELEASED),
            ),
            "id = ? AND fence = ? AND state = 'running'",
            (job_id, fence),
        )

    def finish(self, result: Result, fence: int | None = None) -> bool:
        """End a job. `fence` is the number of the lease that the result belongs to, or None for a waiting job.

        Returns:
            False if the lease is not the current one or the job is already finished; nothing has changed then.
        """
        live = "id = ? AND state = 'queued'" if fence is None else "id = ? AND state = 'running' AND fence = ?"
        changes = "state = ?, error = ?, result_json = ?, finished_unix_s = ?, owner = '', progress = ?"
        progress = 1.0 if result.state is State.DONE else 0.0
        values = (result.state.value, result.error, result.to_json(), result.finished_unix_s, progress)
        which = (result.id,) if fence is None else (result.id, fence)

        def work(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(f"UPDATE jobs SET {changes} WHERE {live}", (*values, *which)).rowcount > 0
            if changed:
                errands.note(connection, result.id, result.state, self.attended, tell=True)
            return changed

        return self.database.write(work)

    def abandon(self, job_id: str, error: str) -> None:
        """Fail a job whose result cannot be written, so that it is never started again."""
        self._update(
            "state = 'failed', error = ?, result_json = NULL, owner = '', finished_unix_s = ?",
            (error, time.time()),
            "id = ?",
            (job_id,),
        )

    def request_cancel(self, job_id: str, end_as: State) -> bool:
        """Request that a live job end as `cancelled` or `superseded`. Only the first request counts."""
        return self._update(
            "cancel_requested = ?",
            (end_as.value,),
            "id = ? AND cancel_requested = '' AND state IN ('queued', 'running')",
            (job_id,),
        )

    def move(self, job_id: str, where: str) -> bool:
        """Change a waiting job's place in the queue to `where`, one of `spool.MOVES`.

        The job takes the priority and attempts of the job whose place it takes. The `seq` numbers of all waiting jobs
        are then reassigned in the new order, so that no separate order has to be stored.

        Returns:
            False if the job is not waiting.
        """

        def work(connection: sqlite3.Connection) -> bool:
            rows = connection.execute(f"SELECT id, {_ORDER} FROM jobs WHERE state = 'queued' ORDER BY {_ORDER}")
            waiting = [tuple(row) for row in rows]
            old = next((place for place, row in enumerate(waiting) if row[0] == job_id), None)
            if old is None:
                return False
            last = len(waiting) - 1
            new = {"first": 0, "earlier": max(old - 1, 0), "later": min(old + 1, last), "last": last}[where]
            _, priority, attempts, _ = waiting[new]
            order = waiting[:old] + waiting[old + 1 :]
            order.insert(new, waiting[old])
            change = "UPDATE jobs SET priority = ?, attempts = ? WHERE id = ?"
            connection.execute(change, (priority, attempts, job_id))
            numbers = sorted(row[3] for row in waiting)
            renumbered = [(number, row[0]) for number, row in zip(numbers, order, strict=True) if number != row[3]]
            for sign in (-1, 1):  # `seq` must be unique after every single update
                connection.executemany("UPDATE jobs SET seq = ? WHERE id = ?", [(sign * n, i) for n, i in renumbered])
            return True

        return self.database.write(work)

    def forget_content(self, job_id: str) -> None:
        """Clear a job's `input_hash`, so that its content can be computed again: its result has been deleted."""
        self._update("input_hash = NULL", (), "id = ?", (job_id,))

    def take_over(self) -> list[str]:
        """Requeue the running jobs of an earlier daemon and reset the times of its clock. Called once at the start.

        Returns:
            Ids of the interrupted jobs. Their attempt counts, but not as a crash, because they did not cause it.
        """
        interrupted = [row.id for row in self._rows("state = 'running'")]
        self._update("state = 'queued', owner = '', lease_until = 0, progress = 0", (), "state = 'running'", ())
        self._update("not_before = 0", (), "state = 'queued' AND not_before != 0", ())
        return interrupted

    def _update(self, changes: str, values: tuple[Any, ...], where: str, parameters: tuple[Any, ...]) -> bool:
        sql = f"UPDATE jobs SET {changes} WHERE {where}"
        return self.database.write(lambda connection: connection.execute(sql, values + parameters).rowcount > 0)


def _marks(values: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(values))
