"""Jobs and watched files as the queue stores them, and a new job in its folder.

For a watched file, intake.json lies beside job.json: which file the copy in the folder was made from, and the hash of
its content. With it, the queue can be rebuilt from the folders alone. It is ASCII; bytes that are not text are escaped.
What was done with each watched file outlives the daemon, so that a restart neither repeats nor forgets anything. Paths
are stored as bytes, because not every file name is text.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tsbs_daw.contracts.job import Job, Result, Source, State
from tsbs_daw.core.errors import JobFormatError, printable, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import read_small, write_atomically, write_synced
from tsbs_daw.queue.database import Database
from tsbs_daw.queue.spool import REQUEST_BYTES, SOURCE

FILE_TABLES = """
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
CREATE INDEX IF NOT EXISTS files_by_job ON files (job_id);
"""

ERRAND_TABLES = """
CREATE TABLE IF NOT EXISTS errands (
    job_id TEXT PRIMARY KEY,
    event_id TEXT NOT NULL,         -- the same however often it is tried
    root BLOB NOT NULL,             -- the watched file, as in `files`
    relative BLOB NOT NULL,
    state TEXT NOT NULL,
    input_hash TEXT,
    tell INTEGER NOT NULL,          -- whether hooks are due
    pending INTEGER NOT NULL,
    note TEXT NOT NULL              -- what came of it, for people
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


def running_of_roots(database: Database) -> dict[str, int]:
    """How many jobs of each watch folder run now."""
    sql = "SELECT root, COUNT(*) FROM files JOIN jobs ON jobs.id = job_id WHERE jobs.state = 'running' GROUP BY root"
    return {os.fsdecode(root): count for root, count in database.read(sql)}


def ignored_files(database: Database) -> list[SeenFile]:
    """Those of all watch folders that are no jobs."""
    return [_from_row(row) for row in database.read("SELECT * FROM files WHERE reason IS NOT NULL")]


def _from_row(row: sqlite3.Row) -> SeenFile:
    root, relative, *rest = row
    return SeenFile(os.fsdecode(root), os.fsdecode(relative), *rest)


@dataclass(frozen=True)
class JobRow:
    """A row of the table `jobs`.

    seq:              order of arrival
    attempts:         how often a worker took it up; retries: how often in vain, for a reason that may pass;
    crashes:          how often the worker died of it
    fence:            number of the latest lease; a result of an earlier one is dropped
    owner:            the daemon's run that holds the lease
    lease_until, not_before: seconds of the monotonic clock of that run, so that no wall clock can end them;
                      another run knows neither, and starts without
    cancel_requested: empty, or the state that the job shall end in: "cancelled" or "superseded"
    source_key:       the file it is about, for people and for superseding; escaped where it is not text
    job_json:         empty when the request could not be read
    source_bytes:     size of the copy of the source that lies in the spool; 0 without a copy
    """

    seq: int
    id: str
    state: State
    priority: int
    attempts: int
    retries: int
    crashes: int
    fence: int
    owner: str
    lease_until: float
    not_before: float
    cancel_requested: str
    progress: float
    message: str
    error: str | None
    source_key: str
    song: str
    origin: str
    input_hash: str | None
    preset_hash: str | None
    model_hash: str | None
    source_bytes: int
    created_unix_s: float
    finished_unix_s: float
    job_json: str
    result_json: str | None

    @property
    def job(self) -> Job:
        return Job.from_json(self.job_json, f"job {self.id}")

    @property
    def result(self) -> Result | None:
        return Result.from_json(self.result_json, f"the result of job {self.id}") if self.result_json else None

    @property
    def from_watch_folder(self) -> bool:
        return self.input_hash is not None

    @classmethod
    def from_sql(cls, row: sqlite3.Row) -> JobRow:
        """Raises: JobFormatError: the state is one that this version does not know"""
        values = {name.name: row[name.name] for name in fields(cls)}
        try:
            values["state"] = State(values["state"])
        except ValueError as error:
            raise JobFormatError(
                f"The job {values['id']} is in the state {values['state']!r}, which this version of tsbs-daw does not "
                "know; update tsbs-daw."
            ) from error
        return cls(**values)


@dataclass(frozen=True)
class NewJob:
    """A job on its way into the queue.

    file:         the watched file it came from; its `input_hash` is that of the copy in the spool
    source_bytes: size of that copy
    model_hash:   fingerprint of the model; that of the preset and the folder's options is in `file.settings_hash`
    """

    job: Job
    source_key: str = ""
    file: SeenFile | None = None
    model_hash: str = ""
    source_bytes: int = 0


@dataclass
class Enqueued:
    """What a batch of arrivals came to, by job id.

    unchanged:  nothing to do: the same content is already queued or done under the same name
    superseded: waiting jobs that a newer version of their file has ended
    """

    queued: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)


VERSION = 1

TABLES = (
    """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    cancel_requested TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    error TEXT,
    source_key TEXT NOT NULL,
    song TEXT NOT NULL,
    origin TEXT NOT NULL,
    input_hash TEXT,
    preset_hash TEXT,
    model_hash TEXT,
    source_bytes INTEGER NOT NULL DEFAULT 0,
    created_unix_s REAL NOT NULL,
    finished_unix_s REAL NOT NULL DEFAULT 0,
    job_json TEXT NOT NULL,
    result_json TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS one_per_content ON jobs (input_hash, preset_hash, model_hash)
    WHERE state IN ('running', 'done') AND input_hash IS NOT NULL;
CREATE INDEX IF NOT EXISTS next_first ON jobs (state, priority, attempts, seq);
CREATE INDEX IF NOT EXISTS by_source ON jobs (source_key);
"""
    + FILE_TABLES
    + ERRAND_TABLES
)

COLUMNS = {
    "jobs": [column.name for column in fields(JobRow)],
    "files": [column.name for column in fields(SeenFile)],
}


def song_name(job: Job) -> str:
    """What the job's song is called, as text that any file can hold."""
    return source_name(job.song if job.song is not None else job.source.path.stem)


def columns_of(new_job: NewJob) -> dict[str, object]:
    """A queued job's columns, as far as they are not the table's defaults."""
    job, file = new_job.job, new_job.file
    return {
        "id": job.id,
        "state": State.QUEUED.value,
        "priority": 0 if job.priority == "interactive" else 1,
        "source_key": new_job.source_key or source_name(job.source.path),
        "song": song_name(job),
        "origin": job.origin,
        "input_hash": file.input_hash if file else None,
        "preset_hash": file.settings_hash if file else None,
        "model_hash": new_job.model_hash if file else None,
        "source_bytes": new_job.source_bytes,
        "created_unix_s": time.time(),
        "job_json": job.to_json(),
    }


INTAKE = "intake.json"
SCHEMA = 1


def write_new_job(folder: Path, new_job: NewJob) -> None:
    """Both notes, synced; job.json last, because it makes the folder complete."""
    if new_job.file is not None:
        note = {"schema": SCHEMA, "file": asdict(new_job.file)}
        note |= {"model_hash": new_job.model_hash, "source_bytes": new_job.source_bytes}
        write_synced(folder / INTAKE, json.dumps(note, indent=2))
    write_atomically(folder / "job.json", new_job.job.to_json())


def read_new_job(folder: Path, job: Job, *, finished: bool = False) -> NewJob:
    """What arrived in this folder, whose job.json has been read.

    Args:   finished: the job will not run, so it does not matter whether its source is still there
    Raises: JobFormatError: the note is damaged, or neither the copy of the source nor the source is there any more
    """
    path = folder / INTAKE
    if not os.path.lexists(path):
        return NewJob(job)
    try:
        new_job = _new_job_of(job, json.loads(read_small(path, REQUEST_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = printable(getattr(error, "strerror", None) or str(error))[:300]
        raise JobFormatError(f"{shown(path)} is damaged ({why}); drop the song into its folder again.") from error
    if finished or (folder / SOURCE / job.source.path.name).is_file():
        return new_job
    return _from_original(new_job)


def _new_job_of(job: Job, note: Any) -> NewJob:
    """Raises: KeyError, TypeError, ValueError: not a note of ours"""
    file = SeenFile(**note["file"])
    for column in fields(file):
        value = getattr(file, column.name)
        if not isinstance(value, str) and (value is not None or column.default is not None):
            raise TypeError(f"{column.name} is not a text")
        # Paths may hold what is not text, as the system hands it out; nothing else may.
        codec = os.fsencode if column.name in ("root", "relative") else str.encode
        if value is not None and b"\0" in codec(value):
            raise ValueError(f"{column.name} holds a NUL")
    model_hash, source_bytes = note["model_hash"], note["source_bytes"]
    if not isinstance(model_hash, str) or model_hash.encode() is None:
        raise TypeError("model_hash is not a text")
    if not isinstance(source_bytes, int) or not 0 <= source_bytes < 1 << 62:
        raise TypeError("source_bytes is not a size")
    return NewJob(job, source_name(Path(file.root, file.relative)), file, model_hash, source_bytes)


def _from_original(new_job: NewJob) -> NewJob:
    """The copy left with an earlier run: use the file itself, whatever is in it by now."""
    assert new_job.file is not None, "only files of watch folders are copied"
    original = Path(new_job.file.root, new_job.file.relative)
    try:
        original.stat()
        source = Source(**(new_job.job.source.model_dump() | {"path": original}))
    except (OSError, ValueError) as error:
        raise JobFormatError(f"{shown(new_job.source_key)} is gone, so it cannot run again; put it back.") from error
    return NewJob(new_job.job.model_copy(update={"source": source}), source_key=new_job.source_key)
