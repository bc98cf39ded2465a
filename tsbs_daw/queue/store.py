"""The durable queue: one SQLite table, one writer, every change a transaction.

    queued ──lease──> running ──finish──> done, failed, cancelled, superseded
      ^                  │
      └──── requeue ─────┘   after a crash, a retryable error, or a daemon that went away
    queued ──finish──> cancelled, superseded, duplicate, dead

A lease is numbered (`fence`); whoever comes back with an old number is not listened to. Order: interactive before
batch, then those with fewer attempts, so that a job which keeps failing does not hold up the others, then by arrival.

How a job comes into the queue's table: new, again, instead of an older version, or not at all.
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
    """A job that is known runs again if it is finished, and is left alone if it is not."""
    job, file = new_job.job, new_job.file
    known = connection.execute("SELECT state FROM jobs WHERE id = ?", (job.id,)).fetchone()
    if known is not None:
        if State(known["state"]).finished:
            _run_again(connection, columns_of(new_job))
        outcome.queued.append(job.id)
        return
    if file is not None:
        before = recall(connection, file.root, file.relative)
        if before and _dealt_with(connection, before, file):
            remember(connection, replace(file, job_id=before.job_id))
            outcome.unchanged.append(job.id)
            return
        remember(connection, file)
        outcome.superseded += _supersede(connection, new_job)
    insert(connection, "INSERT", columns_of(new_job))
    outcome.queued.append(job.id)


def _dealt_with(connection: sqlite3.Connection, before: SeenFile, file: SeenFile) -> bool:
    """Whether the file only looks new: touched, linked, or its rights changed, and its job is well."""
    if (before.input_hash, before.settings_hash) != (file.input_hash, file.settings_hash):
        return False
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (before.job_id,)).fetchone()
    return row is not None and State(row["state"]) in (State.QUEUED, State.RUNNING, State.DONE, State.DUPLICATE)


def _supersede(connection: sqlite3.Connection, new_job: NewJob) -> list[str]:
    """End waiting jobs about an older version of the file; ask running ones to end. Returns those that waited."""
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
    """A finished job is asked for once more: as new, but its number goes on counting."""
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
    """Add a row to `jobs`. Args: verb: INSERT, or INSERT OR IGNORE"""
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
    """Why a lease ended without a result, and therefore what it counts as."""

    RELEASED = "the daemon was asked to stop: as if it had not begun"
    RETRIED = "something that may pass by itself"
    CRASHED = "the worker died or hung"


class JobStore:
    """The queue. Only the daemon opens it for writing; everyone else uses `open_for_reading`.

    Attributes:
        attended, closed: Watch folders of whose jobs errands are written down, and those whose jobs wait for the hour.
        limits: How many jobs of a watch folder may run at once.
    """

    def __init__(self, database: Database):
        self.database = database
        self.attended: frozenset[str] = frozenset()
        self.closed: frozenset[str] = frozenset()
        self.limits: Mapping[str, int] = {}

    @classmethod
    def open(cls, path: Path) -> JobStore:
        """Raises: DaemonError, NoSpaceLeft; see `Database.open`"""
        return cls(Database.open(path, TABLES, VERSION, COLUMNS))

    @classmethod
    def open_for_reading(cls, path: Path) -> JobStore | None:
        """None when no daemon has ever run here."""
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
        """Jobs in these states, newest first."""
        names = tuple(state.value for state in states)
        return self._rows(f"state IN ({_marks(names)}) ORDER BY seq DESC LIMIT {int(limit)}", names)

    def counts(self) -> dict[State, int]:
        known = {state.value: state for state in State}  # a newer version may have more
        found = self.database.read("SELECT state, COUNT(*) FROM jobs GROUP BY 1")
        return {known[state]: count for state, count in found if state in known}

    def live(self) -> list[JobRow]:
        return self._rows("state IN ('queued', 'running') ORDER BY seq")

    def waiting_after(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """(seq, id) of jobs that wait, in order of arrival, beginning after `seq`."""
        sql = "SELECT seq, id FROM jobs WHERE state = 'queued' AND seq > ? ORDER BY seq LIMIT ?"
        return [tuple(row) for row in self.database.read(sql, (seq, limit))]

    def in_order(self, limit: int) -> list[JobRow]:
        """Running jobs, then those that wait, in the order in which they will run."""
        return self._rows(f"state IN ('running', 'queued') ORDER BY state != 'running', {_ORDER} LIMIT ?", (limit,))

    def live_count(self) -> int:
        return int(self.database.read("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')")[0][0])

    def live_source_bytes(self) -> int:
        """How much the copies of sources that still wait weigh."""
        sql = "SELECT TOTAL(source_bytes) FROM jobs WHERE state IN ('queued', 'running')"
        return int(self.database.read(sql)[0][0])

    def next(self, now: float) -> JobRow | None:
        """The job to run next; not one whose content is being computed under another name."""
        running = running_of_roots(self.database) if self.limits else {}
        held = (*self.closed, *(root for root, limit in self.limits.items() if running.get(root, 0) >= limit))
        found = self.database.read(_NEXT.format(order=_ORDER, held=_marks(held)), (now, *map(os.fsencode, held)))
        return JobRow.from_sql(found[0]) if found else None

    def done_duplicate(self, row: JobRow) -> JobRow | None:
        """The finished job with the same content, preset and model."""
        key = (row.input_hash, row.preset_hash, row.model_hash)
        found = self._rows("state = 'done' AND input_hash = ? AND preset_hash = ? AND model_hash = ?", key)
        return found[0] if found else None

    def ignored(self) -> list[SeenFile]:
        """Files of watch folders that are no jobs, and why."""
        return ignored_files(self.database)

    def files_of(self, root: str) -> dict[str, SeenFile]:
        """Files of a watch folder that have been dealt with, by relative path."""
        return files_of(self.database, root)

    def roots(self) -> list[str]:
        """Every folder that was ever watched."""
        return [os.fsdecode(row[0]) for row in self.database.read("SELECT DISTINCT root FROM files")]

    def outputs(self, origin: str) -> list[Path]:
        """The output folders of all jobs that came from `origin`."""
        sql = "SELECT DISTINCT json_extract(job_json, '$.output') FROM jobs WHERE origin = ? AND job_json != ''"
        return [Path(row[0]) for row in self.database.read(sql, (origin,)) if row[0]]

    def _rows(self, where: str, parameters: tuple[Any, ...] = ()) -> list[JobRow]:
        return [JobRow.from_sql(row) for row in self.database.read(f"SELECT * FROM jobs WHERE {where}", parameters)]

    # Arriving

    def enqueue(self, new_jobs: Iterable[NewJob]) -> Enqueued:
        """Take jobs into the queue, in one transaction with the memory of their files."""
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
        """Keep a job that ended elsewhere; None: its request could not be read. A known id is left alone."""
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
        """Give a queued job to a worker, under a new number. None when it is not queued any more."""
        changed = self._update(
            "state = 'running', owner = ?, lease_until = ?, fence = fence + 1, attempts = attempts + 1, "
            "progress = 0, message = '', error = NULL",
            (owner, until),
            "id = ? AND state = 'queued'",
            (row.id,),
        )
        return self.get(row.id) if changed else None

    def extend(self, job_id: str, fence: int, until: float, progress: float, message: str) -> bool:
        """The worker lives; note how far it is. False when the lease is another's by now."""
        return self._update(
            "lease_until = ?, progress = MAX(progress, ?), message = ?",
            (until, progress, message),
            "id = ? AND fence = ? AND state = 'running'",
            (job_id, fence),
        )

    def requeue(
        self, job_id: str, fence: int, why: Requeued, *, not_before: float = 0.0, error: str | None = None
    ) -> bool:
        """End a lease without a result. Args: not_before: when the job may run again; error: for people"""
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
        """End a job for good.

        Args:    fence: of the lease under which the result was made; None for a job that was not running
        Returns: False when that lease is not the current one, or the job is finished already: nothing has changed
        """
        live = "id = ? AND state = 'queued'" if fence is None else "id = ? AND state = 'running' AND fence = ?"
        changes = "state = ?, error = ?, result_json = ?, finished_unix_s = ?, owner = '', progress = ?"
        progress = 1.0 if result.state is State.DONE else 0.0
        said = (result.state.value, result.error, result.to_json(), result.finished_unix_s, progress)
        which = (result.id,) if fence is None else (result.id, fence)

        def work(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(f"UPDATE jobs SET {changes} WHERE {live}", (*said, *which)).rowcount > 0
            if changed:
                errands.note(connection, result.id, result.state, self.attended, tell=True)
            return changed

        return self.database.write(work)

    def abandon(self, job_id: str, error: str) -> None:
        """End a job whose result cannot be stored, so that it is never picked up again."""
        self._update(
            "state = 'failed', error = ?, result_json = NULL, owner = '', finished_unix_s = ?",
            (error, time.time()),
            "id = ?",
            (job_id,),
        )

    def request_cancel(self, job_id: str, end_as: State) -> bool:
        """Note that a live job shall end as `cancelled` or `superseded`. The first wish counts."""
        return self._update(
            "cancel_requested = ?",
            (end_as.value,),
            "id = ? AND cancel_requested = '' AND state IN ('queued', 'running')",
            (job_id,),
        )

    def move(self, job_id: str, where: str) -> bool:
        """Change a waiting job's place among those that wait.

        The job takes over the priority and the attempts of whose place it takes, and the numbers of arrival of all
        that wait are dealt out anew in the new order; so nothing else is needed to keep it, and what arrives later
        comes after it as ever.

        Args:    where: one of `spool.MOVES`
        Returns: False when the job does not wait
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
            for sign in (-1, 1):  # no two may have the same number, not even for a moment
                connection.executemany("UPDATE jobs SET seq = ? WHERE id = ?", [(sign * n, i) for n, i in renumbered])
            return True

        return self.database.write(work)

    def forget_content(self, job_id: str) -> None:
        """The result of this job is gone from the disk: the same content may be computed again."""
        self._update("input_hash = NULL", (), "id = ?", (job_id,))

    def take_over(self) -> list[str]:
        """At the start of a run: no other daemon lives, so what is running is not, and no time of its clock counts.

        Returns: the jobs that were interrupted. Their attempt counts, but not as a crash: it was not they who fell.
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
