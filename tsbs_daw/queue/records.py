"""Records of jobs and watched files in the database, and of a new job in its folder.

For a watched file, intake.json lies beside job.json. It records which file the copy in the folder was made from and the
hash of its content, so the queue can be rebuilt from the folders alone. It is ASCII; bytes that are not valid UTF-8 are
escaped. The outcome for each watched file is stored, so a restart neither repeats nor loses work. Paths are stored as
bytes, because not every file name is valid UTF-8.
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
    settings_hash TEXT NOT NULL,    -- fingerprint of preset and options that applied
    input_hash TEXT,                -- SHA-256 of the content; NULL if ignored
    job_id TEXT,
    reason TEXT,                    -- why it was ignored; NULL if it was not
    PRIMARY KEY (root, relative)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_job ON files (job_id);
"""

ERRAND_TABLES = """
CREATE TABLE IF NOT EXISTS errands (
    job_id TEXT PRIMARY KEY,
    event_id TEXT NOT NULL,         -- the same for every attempt
    root BLOB NOT NULL,             -- the watched file, as in `files`
    relative BLOB NOT NULL,
    state TEXT NOT NULL,
    input_hash TEXT,
    tell INTEGER NOT NULL,          -- whether a hook is still to be called
    pending INTEGER NOT NULL,
    note TEXT NOT NULL              -- the outcome so far, for the user
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class SeenFile:
    """A file of a watch folder and its outcome: a job, or the reason it was ignored.

    Attributes:
        root: The watch folder.
        relative: Path below `root`.
        state: Device, inode, size and times, as `scan.file_state` returns them.
        settings_hash: Fingerprint of the preset and options that applied; empty if the file was ignored.
        input_hash: SHA-256 of the content; None if the file was ignored.
        job_id: Id of its job; None if the file was ignored.
        reason: Why the file was ignored, as a sentence; None if it was not.
    """

    root: str
    relative: str
    state: str
    settings_hash: str = ""
    input_hash: str | None = None
    job_id: str | None = None
    reason: str | None = None


def remember(connection: sqlite3.Connection, file: SeenFile) -> None:
    """Store the outcome for a file, replacing its previous record."""
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
    """Return the record of a file, or None if there is none."""
    row = connection.execute(
        "SELECT * FROM files WHERE root = ? AND relative = ?", (os.fsencode(root), os.fsencode(relative))
    ).fetchone()
    return _from_row(row) if row else None


def files_of(database: Database, root: str) -> dict[str, SeenFile]:
    """Return the records of all files of a watch folder, by relative path."""
    rows = database.read("SELECT * FROM files WHERE root = ?", (os.fsencode(root),))
    return {file.relative: file for file in map(_from_row, rows)}


def running_of_roots(database: Database) -> dict[str, int]:
    """Return the number of running jobs of each watch folder that has any."""
    sql = "SELECT root, COUNT(*) FROM files JOIN jobs ON jobs.id = job_id WHERE jobs.state = 'running' GROUP BY root"
    return {os.fsdecode(root): count for root, count in database.read(sql)}


def ignored_files(database: Database) -> list[SeenFile]:
    """Return the records of all ignored files, from every watch folder."""
    return [_from_row(row) for row in database.read("SELECT * FROM files WHERE reason IS NOT NULL")]


def _from_row(row: sqlite3.Row) -> SeenFile:
    root, relative, *rest = row
    return SeenFile(os.fsdecode(root), os.fsdecode(relative), *rest)


@dataclass(frozen=True)
class JobRow:
    """A row of the table `jobs`.

    Attributes:
        seq: Order of arrival; `JobStore.move` renumbers waiting jobs.
        id: Id of the job, and the name of its folder.
        state: Current state.
        priority: 0 for interactive jobs, 1 for batch jobs; lower values run first.
        attempts: How often a worker started the job.
        retries: How many attempts ended in an error that may be temporary.
        crashes: How many attempts ended because the worker died or hung.
        fence: Number of the latest lease; results of earlier leases are dropped.
        owner: The run of the daemon that holds the lease; empty if there is no lease.
        lease_until: When the lease expires, in seconds of the owner's monotonic clock, so that changes of the wall
            clock do not affect it. The next run resets it.
        not_before: Earliest start of the next attempt, on the same clock. The next run resets it.
        cancel_requested: Empty, or the state that the job should end in: "cancelled" or "superseded".
        progress: Completed fraction, 0 to 1.
        message: Latest progress message.
        error: Latest error, as a sentence for the user.
        source_key: Path of the source file, for display and for superseding; bytes that are not UTF-8 are escaped.
        song: Name of the song.
        origin: What submitted the job, such as "watch".
        input_hash: SHA-256 of a watched file's content; None for other jobs, or if the result has been deleted.
        preset_hash: Fingerprint of preset and options; None for jobs that do not come from a watch folder.
        model_hash: Fingerprint of the model; None for jobs that do not come from a watch folder.
        source_bytes: Size of the source's copy in the spool; 0 if there is no copy.
        created_unix_s: When the job was enqueued.
        finished_unix_s: When the job ended; 0 if it has not.
        job_json: The request; empty if it could not be read.
        result_json: The result; None if there is none.
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
        """Convert a row of the database.

        Raises:
            JobFormatError: This version does not know the job's state.
        """
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
    """A job that is not in the queue yet.

    Attributes:
        job: The request.
        source_key: Path of the source file, for display and for superseding; empty: the path in `job`.
        file: The watched file it was made from; `input_hash` is the hash of the copy in the spool.
        model_hash: Fingerprint of the model; preset and options are covered by `file.settings_hash`.
        source_bytes: Size of the copy in the spool; 0 if there is no copy.
    """

    job: Job
    source_key: str = ""
    file: SeenFile | None = None
    model_hash: str = ""
    source_bytes: int = 0


@dataclass
class Enqueued:
    """Outcome of enqueuing a batch of new jobs, as job ids.

    Attributes:
        queued: Jobs that are in the queue.
        unchanged: Jobs that were not enqueued: the same content is already queued or done under the same name.
        superseded: Waiting jobs to end, because a newer version of their file was enqueued.
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
    """Return the name of a job's song; bytes that are not UTF-8 are escaped."""
    return source_name(job.song if job.song is not None else job.source.path.stem)


def columns_of(new_job: NewJob) -> dict[str, object]:
    """Return the columns of a newly queued job that differ from the table's defaults."""
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
    """Write intake.json and job.json, synced; job.json comes last, because it marks the folder as complete."""
    if new_job.file is not None:
        note = {"schema": SCHEMA, "file": asdict(new_job.file)}
        note |= {"model_hash": new_job.model_hash, "source_bytes": new_job.source_bytes}
        write_synced(folder / INTAKE, json.dumps(note, indent=2))
    write_atomically(folder / "job.json", new_job.job.to_json())


def read_new_job(folder: Path, job: Job, *, finished: bool = False) -> NewJob:
    """Read the intake.json of a job's folder.

    Args:
        folder: The job's folder.
        job: The job, as read from its job.json.
        finished: Whether the job is finished and therefore does not need its source.

    Returns:
        The new job; for one without intake.json, just the request.

    Raises:
        JobFormatError: intake.json is damaged, or both the source and its copy are missing.
    """
    path = folder / INTAKE
    if not os.path.lexists(path):
        return NewJob(job)
    try:
        new_job = _new_job_of(job, json.loads(read_small(path, REQUEST_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = printable(getattr(error, "strerror", None) or str(error))[:300]
        raise JobFormatError(f"{shown(path)} is damaged ({why}). Drop the song into its watch folder again.") from error
    if finished or (folder / SOURCE / job.source.path.name).is_file():
        return new_job
    return _from_original(new_job)


def _new_job_of(job: Job, note: Any) -> NewJob:
    """Convert the content of intake.json.

    Raises:
        KeyError: A key is missing.
        TypeError: A value has the wrong type.
        ValueError: A value is invalid.
    """
    file = SeenFile(**note["file"])
    for column in fields(file):
        value = getattr(file, column.name)
        if not isinstance(value, str) and (value is not None or column.default is not None):
            raise TypeError(f"{column.name} is not a text")
        # Only paths may hold surrogates, which stand for bytes that are not UTF-8.
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
    """Use the watched file itself, whatever its current content: its copy was deleted after an earlier run.

    Raises:
        JobFormatError: The file is missing.
    """
    assert new_job.file is not None, "only files of watch folders are copied"
    original = Path(new_job.file.root, new_job.file.relative)
    try:
        original.stat()
        source = Source(**(new_job.job.source.model_dump() | {"path": original}))
    except (OSError, ValueError) as error:
        raise JobFormatError(f"{shown(new_job.source_key)} is missing, so its job cannot run. Put it back.") from error
    return NewJob(new_job.job.model_copy(update={"source": source}), source_key=new_job.source_key)
