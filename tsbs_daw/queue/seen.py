"""The memory of the watch folders: which file, in which state, has already been dealt with, and how.

It outlives the daemon, so that a restart neither repeats nor forgets anything. Paths are kept as bytes, because not
every file name is text.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass

from tsbs_daw.queue.database import Database

TABLES = """
CREATE TABLE IF NOT EXISTS files (
    root BLOB NOT NULL,             -- the watch folder
    relative BLOB NOT NULL,         -- the file in it
    state TEXT NOT NULL,            -- device:inode:size:mtime_ns:ctime_ns
    settings_hash TEXT NOT NULL,    -- preset and model with which it was dealt with
    input_hash TEXT,                -- SHA-256 of the content; NULL when it was ignored
    job_id TEXT,
    reason TEXT,                    -- why it was ignored
    PRIMARY KEY (root, relative)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class SeenFile:
    """One file of a watch folder, and what became of it: a job, or a reason why not."""

    root: str
    relative: str
    state: str
    settings_hash: str = ""
    input_hash: str | None = None
    job_id: str | None = None
    reason: str | None = None


def remember(connection: sqlite3.Connection, file: SeenFile) -> None:
    """Note what became of a file, in place of what was known of it."""
    connection.execute(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            os.fsencode(file.root),
            os.fsencode(file.relative),
            file.state,
            file.settings_hash,
            file.input_hash,
            file.job_id,
            file.reason,
        ),
    )


def recall(connection: sqlite3.Connection, root: str, relative: str) -> SeenFile | None:
    """What is known of a file."""
    row = connection.execute(
        "SELECT * FROM files WHERE root = ? AND relative = ?", (os.fsencode(root), os.fsencode(relative))
    ).fetchone()
    return _from_row(row) if row else None


def files_of(database: Database, root: str) -> dict[str, SeenFile]:
    """All that is known of one watch folder, by relative path."""
    rows = database.read("SELECT * FROM files WHERE root = ?", (os.fsencode(root),))
    return {file.relative: file for file in map(_from_row, rows)}


def ignored_files(database: Database) -> list[SeenFile]:
    """Those of all watch folders that are no jobs."""
    return [_from_row(row) for row in database.read("SELECT * FROM files WHERE reason IS NOT NULL")]


def _from_row(row: sqlite3.Row) -> SeenFile:
    root, relative, *rest = row
    return SeenFile(os.fsdecode(root), os.fsdecode(relative), *rest)
