"""What is still to be done once a job of a watch folder has ended: its source file, and whoever wants to be told.

An errand is written down in the transaction that ends its job, so that a crash costs none; and it names the file as it
was when it was copied and hashed. What is to be done is not written down: the folder's rules of the moment count.
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
    """One job's.

    Attributes:
        job_id: Of the job.
        event_id: The same however often the errand is tried.
        file: The watched file, as it was when it was copied.
        tell: Whether hooks are due as well; not for a file that came back unchanged, and not once they were told.
        note: What is known of it by now, for people.
    """

    job_id: str
    event_id: str
    file: SeenFile
    tell: bool
    note: str = ""


def note(connection: sqlite3.Connection, job_id: str, state: State, roots: Collection[str], *, tell: bool) -> None:
    """Write an errand down, if the job is about a file in one of these folders and ended in a way that matters."""
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
    """A song that is done was put there again: it is dealt with as its folder asks, and nobody is told."""
    known = recall(connection, file.root, file.relative)
    if known is not None and known.job_id is not None:
        row = connection.execute("SELECT state FROM jobs WHERE id = ?", (known.job_id,)).fetchone()
        note(connection, known.job_id, State(row["state"]), roots, tell=False)


def pending(database: Database, roots: Collection[str], limit: int) -> list[Errand]:
    """Errands of these folders that are still to be done."""
    marks = ", ".join("?" * len(roots))
    sql = f"SELECT * FROM errands WHERE pending AND root IN ({marks}) ORDER BY job_id LIMIT {int(limit)}"
    return [_from_row(row) for row in database.read(sql, tuple(map(os.fsencode, roots)))]


def write_note(database: Database, errand: Errand, text: str, *, done: bool, told: bool = False) -> None:
    """Note how an errand went. One that was asked for anew meanwhile stays pending. Args: told: no hook is due now"""
    database.write(
        lambda connection: connection.execute(
            "UPDATE errands SET note = ?, pending = ?, tell = tell AND ? "
            "WHERE job_id = ? AND event_id = ? AND state = ?",
            (text, int(not done), int(not told), errand.job_id, errand.event_id, errand.file.state),
        )
    )


def notes(database: Database, job_ids: Collection[str]) -> dict[str, list[str]]:
    """What came of jobs' errands, for people; one line each. Jobs without an errand are left out."""
    if not job_ids or not database.read("SELECT 1 FROM sqlite_master WHERE name = 'errands'"):
        return {}
    marks = ", ".join("?" * len(job_ids))
    found = database.read(f"SELECT job_id, note FROM errands WHERE job_id IN ({marks})", tuple(job_ids))
    return {row["job_id"]: row["note"].splitlines() for row in found}


def _from_row(row: sqlite3.Row) -> Errand:
    root, relative = os.fsdecode(row["root"]), os.fsdecode(row["relative"])
    file = SeenFile(root, relative, row["state"], input_hash=row["input_hash"], job_id=row["job_id"])
    return Errand(row["job_id"], row["event_id"], file, bool(row["tell"]), row["note"])
