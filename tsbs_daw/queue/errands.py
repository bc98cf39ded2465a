"""Errands: the work that remains after a job of a watch folder has ended, on its source file and for its hooks.

An errand is stored in the transaction that ends its job, so a crash cannot lose it. It records the file as it was when
it was copied and hashed, but not what to do: that depends on the folder's rules at the time the errand runs.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from tsbs_daw.contracts.job import State
from tsbs_daw.queue.database import Database
from tsbs_daw.queue.records import SeenFile, recall

_ENDED_WELL = (State.DONE, State.DUPLICATE)
_NOTED = (*_ENDED_WELL, State.FAILED, State.DEAD)


@dataclass(frozen=True)
class Errand:
    """The errand of a job.

    Attributes:
        job_id: Id of the job.
        event_id: Id of the event for hooks; the same for every attempt.
        file: The watched file as it was when it was copied.
        tell: Whether to call a hook. False for a file that came back unchanged, and once the hook has been called.
        note: The outcome so far, for the user.
    """

    job_id: str
    event_id: str
    file: SeenFile
    tell: bool
    note: str = ""


def note(connection: sqlite3.Connection, job_id: str, state: State, roots: Collection[str], *, tell: bool) -> None:
    """Store an errand for a job that has ended, if its file is in one of `roots` and its state requires one.

    Args:
        connection: Connection with an open transaction.
        job_id: Id of the job.
        state: State in which the job ended.
        roots: Watch folders whose jobs have errands.
        tell: Whether to call a hook.
    """
    if not roots or state not in _NOTED or not (tell or state in _ENDED_WELL):
        return
    marks = ", ".join("?" * len(roots))
    select = f"SELECT root, relative, state, input_hash FROM files WHERE job_id = ? AND root IN ({marks})"
    for row in connection.execute(select, (job_id, *map(os.fsencode, roots))).fetchall():
        connection.execute(
            "INSERT INTO errands (job_id, event_id, root, relative, state, input_hash, tell, pending, note) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 1, '') ON CONFLICT (job_id) DO UPDATE SET "
            "event_id = CASE WHEN pending AND tell AND NOT excluded.tell THEN event_id ELSE excluded.event_id END, "
            "root = excluded.root, relative = excluded.relative, state = excluded.state, "
            "input_hash = excluded.input_hash, tell = excluded.tell OR (tell AND pending), pending = 1",
            (job_id, uuid.uuid4().hex, *row, int(tell)),
        )


def note_return(connection: sqlite3.Connection, file: SeenFile, roots: Collection[str]) -> None:
    """Store an errand without a hook for a finished song whose file was put into its folder again."""
    known = recall(connection, file.root, file.relative)
    if known is not None and known.job_id is not None:
        row = connection.execute("SELECT state FROM jobs WHERE id = ?", (known.job_id,)).fetchone()
        note(connection, known.job_id, State(row["state"]), roots, tell=False)


def pending(database: Database, roots: Collection[str], limit: int) -> list[Errand]:
    """Return at most `limit` pending errands of these watch folders."""
    marks = ", ".join("?" * len(roots))
    sql = f"SELECT * FROM errands WHERE pending AND root IN ({marks}) ORDER BY job_id LIMIT {int(limit)}"
    return [_from_row(row) for row in database.read(sql, tuple(map(os.fsencode, roots)))]


def write_note(database: Database, errand: Errand, text: str, *, done: bool, told: bool = False) -> None:
    """Record the outcome of an errand. An errand that was requested again in the meantime stays pending.

    Args:
        database: The queue's database.
        errand: The errand.
        text: Lines for the user.
        done: Whether the errand is finished.
        told: Whether its hook has been called or is not needed.
    """
    database.write(
        lambda connection: connection.execute(
            "UPDATE errands SET note = ?, pending = ?, tell = tell AND ? "
            "WHERE job_id = ? AND event_id = ? AND state = ?",
            (text, int(not done), int(not told), errand.job_id, errand.event_id, errand.file.state),
        )
    )


def notes(database: Database, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the outcomes of jobs' errands as lines for the user. Jobs without an errand are omitted."""
    if not job_ids or not database.read("SELECT 1 FROM sqlite_master WHERE name = 'errands'"):
        return {}
    marks = ", ".join("?" * len(job_ids))
    found = database.read(f"SELECT job_id, note FROM errands WHERE job_id IN ({marks})", tuple(job_ids))
    return {row["job_id"]: row["note"].splitlines() for row in found}


def _from_row(row: sqlite3.Row) -> Errand:
    root, relative = os.fsdecode(row["root"]), os.fsdecode(row["relative"])
    file = SeenFile(root, relative, row["state"], input_hash=row["input_hash"], job_id=row["job_id"])
    return Errand(row["job_id"], row["event_id"], file, bool(row["tell"]), row["note"])
