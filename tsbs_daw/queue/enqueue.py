"""How a job comes into the queue's table: new, again, instead of an older version, or not at all."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from tsbs_daw.contracts.job import Job, State
from tsbs_daw.queue import seen
from tsbs_daw.queue.records import Arrival, Enqueued

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
    + seen.TABLES
)


def source_name(path: Path | str) -> str:
    """A path as text that any file can hold: what is not UTF-8 in it is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def enqueue_one(connection: sqlite3.Connection, arrival: Arrival, outcome: Enqueued) -> None:
    """A job that is known runs again if it is finished, and is left alone if it is not."""
    job, file = arrival.job, arrival.file
    known = connection.execute("SELECT state FROM jobs WHERE id = ?", (job.id,)).fetchone()
    if known is not None:
        if State(known["state"]).finished:
            _run_again(connection, columns_of(arrival))
        outcome.queued.append(job.id)
        return
    if file is not None:
        before = seen.recall(connection, file.root, file.relative)
        if before and _dealt_with(connection, before, file):
            seen.remember(connection, replace(file, job_id=before.job_id))
            outcome.unchanged.append(job.id)
            return
        seen.remember(connection, file)
        outcome.superseded += _supersede(connection, arrival)
    insert(connection, "INSERT", columns_of(arrival))
    outcome.queued.append(job.id)


def _dealt_with(connection: sqlite3.Connection, before: seen.SeenFile, file: seen.SeenFile) -> bool:
    """Whether the file only looks new: touched, linked, or its rights changed, and its job is well."""
    if (before.input_hash, before.settings_hash) != (file.input_hash, file.settings_hash):
        return False
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (before.job_id,)).fetchone()
    return row is not None and State(row["state"]) in (State.QUEUED, State.RUNNING, State.DONE, State.DUPLICATE)


def _supersede(connection: sqlite3.Connection, arrival: Arrival) -> list[str]:
    """End waiting jobs about an older version of the file; ask running ones to end. Returns those that waited."""
    older = (arrival.source_key, arrival.job.id)
    where = "source_key = ? AND id != ? AND input_hash IS NOT NULL AND cancel_requested = ''"
    connection.execute(
        f"UPDATE jobs SET cancel_requested = 'superseded' WHERE {where} AND state IN ('queued', 'running')", older
    )
    found = connection.execute(
        "SELECT id FROM jobs WHERE source_key = ? AND id != ? AND state = 'queued' AND cancel_requested = 'superseded'",
        older,
    )
    return [row["id"] for row in found]


def columns_of(arrival: Arrival) -> dict[str, object]:
    """A queued job's columns, as far as they are not the table's defaults."""
    job, file = arrival.job, arrival.file
    return {
        "id": job.id,
        "state": State.QUEUED.value,
        "priority": 0 if job.priority == "interactive" else 1,
        "source_key": arrival.source_key or source_name(job.source.path),
        "song": song_name(job),
        "origin": job.origin,
        "input_hash": file.input_hash if file else None,
        "preset_hash": file.settings_hash if file else None,
        "model_hash": arrival.model_hash if file else None,
        "source_bytes": arrival.source_bytes,
        "created_unix_s": time.time(),
        "job_json": job.to_json(),
    }


def song_name(job: Job) -> str:
    """What the job's song is called, as text that any file can hold."""
    return source_name(job.song if job.song is not None else job.source.path.stem)


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
