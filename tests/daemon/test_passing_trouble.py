"""What comes and goes: the disk of the queue or of the results. It is told, waited for, and charged to nobody."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
from harness.runners import RUNNER
from harness.stage import (
    QUICK,
    DaemonThread,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    row_of,
    rows,
    settings_in,
    until,
)

from tsbs_daw.contracts.job import State
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.daemon import worker
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.daemon.worker_handle import WorkerProcess
from tsbs_daw.queue.spool import Spool, submit
from tsbs_daw.queue.store import JobStore


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return settings_in(tmp_path)


def told_kinds(told: list) -> list[str]:
    return [event.kind for event in told if event.kind != "progress"]


def test_a_database_that_cannot_be_written_to_pauses_the_daemon(tmp_path, settings):
    job, told = job_for(tmp_path, "Song"), []
    with Daemon(settings, options=QUICK, listener=told.append) as daemon:
        daemon.store.database.read("PRAGMA query_only=ON")  # SQLite itself now says what it says of a read-only disk
        submit(settings.spool, job)
        until(lambda: told, daemon=daemon)
        assert told_kinds(told) == ["paused"]
        daemon.store.database.read("PRAGMA query_only=OFF")
        until(lambda: result_of(settings, job), daemon=daemon)
    assert told_kinds(told) == ["paused", "resumed", "queued", "started", "done"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("enqueue", "disk I/O error"),
        ("live_count", "unable to open database file"),
        ("next", "disk I/O error"),
        ("lease", "attempt to write a readonly database"),
        ("finish", "disk I/O error"),
        ("waiting_after", "unable to open database file"),
    ],
)
def test_whatever_sqlite_says_of_its_disk_pauses_the_daemon_at_any_step(tmp_path, settings, monkeypatch, step, words):
    job = job_for(tmp_path, "Song")
    submit(settings.spool, job)
    failing = [step]
    real = getattr(JobStore, step)

    def trouble(self: JobStore, *positional: object, **named: object) -> object:
        if failing and threading.current_thread() is not threading.main_thread():
            raise sqlite3.OperationalError(words)
        return real(self, *positional, **named)

    monkeypatch.setattr(JobStore, step, trouble)
    with DaemonThread(settings, once=True) as daemon:
        until(lambda: "paused" in daemon.kinds())
        failing.clear()
        daemon.wait()
    assert result_of(settings, job).state is State.DONE
    assert row_of(settings, job).retries == 0


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("waiting", errno.EACCES),
        ("waiting", errno.EMFILE),
        ("claim", errno.EROFS),
        ("claim", errno.EIO),
        ("write_fence", errno.ESTALE),
        ("cancel_wanted", errno.EIO),
    ],
)
def test_trouble_of_the_spool_pauses_the_daemon_at_any_step(tmp_path, settings, monkeypatch, step, number):
    job = job_for(tmp_path, "Song")
    submit(settings.spool, job)
    failing = [step]
    real = getattr(Spool, step)

    def trouble(self: Spool, *positional: object) -> object:
        if failing:
            raise OSError(number, os.strerror(number))
        return real(self, *positional)

    monkeypatch.setattr(Spool, step, trouble)
    usable = Spool.usable.fget
    monkeypatch.setattr(Spool, "usable", property(lambda self: not failing and usable(self)))
    with DaemonThread(settings, once=True) as daemon:
        told = ("paused", "retrying")
        until(lambda: any(kind in daemon.kinds() for kind in told))
        failing.clear()
        daemon.wait()
    assert result_of(settings, job).state is State.DONE


def test_a_database_that_fails_while_the_daemon_ends_is_no_bug(tmp_path, settings, monkeypatch):
    submit(settings.spool, job_for(tmp_path, "hang"))
    with Daemon(settings, options=QUICK) as daemon:
        until(lambda: rows(settings, State.RUNNING), daemon=daemon)

        def broken(self: JobStore, *_: object, **__: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(JobStore, "requeue", broken)
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", python_path())
    with Daemon(settings, options=QUICK):
        assert [row.state for row in rows(settings)] == [State.QUEUED]


@pytest.mark.parametrize("column", ["source_bytes", "priority", "not_before"])
def test_tables_of_another_version_are_refused_with_both_versions(tmp_path, settings, column):
    with Daemon(settings, options=QUICK):
        pass
    with sqlite3.connect(settings.store) as connection:
        connection.execute("DROP INDEX IF EXISTS next_first")
        connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    connection.close()
    for open_it in (JobStore.open, JobStore.open_for_reading, lambda path: Daemon(settings).__enter__()):
        with pytest.raises(DaemonError, match=rf"tables 1.*lacks {column}"):
            open_it(settings.store)


def test_a_database_that_is_gone_is_built_again_from_what_is_done(tmp_path, settings):
    job = job_for(tmp_path, "Song")
    submit(settings.spool, job)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    settings.store.unlink()
    with Daemon(settings, options=QUICK):
        pass
    assert [(row.id, row.state) for row in rows(settings)] == [(job.id, State.DONE)]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENOSPC])
def test_an_error_that_may_pass_is_retried_whatever_raises_it(tmp_path, number):
    sent = []
    assignment = worker.Assignment(
        {
            "job": job_for(tmp_path, "Song").model_dump(mode="json", by_alias=True),
            **{"folder": str(tmp_path), "fence": 1, "attempt": 1},
            "settings": {name: str(value) for name, value in vars(settings_in(tmp_path)).items()},
        },
        type("Channel", (), {"send": lambda self, event, **values: sent.append((event, values))})(),
        set(),
    )

    def runner(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/mnt/nas/stems")

    worker.run_assignment(assignment, runner)
    ((event, values),) = sent
    assert (event, values["retryable"]) == ("failed", True)
    assert "unexpected" not in values["error"]


def test_a_worker_that_reads_nothing_holds_up_neither_the_daemon_nor_its_end(tmp_path, settings):
    process = WorkerProcess(["--runner", RUNNER, "--songs", "1"], tmp_path / "worker.log", lambda: None)
    until(lambda: any(event["event"] == "ready" for event in process.events()))
    os.kill(process.pid, signal.SIGSTOP)
    for _ in range(3):
        process.send({"drop": "x" * 1_000_000, "fence": 1})  # far more than a pipe holds
    process.close(0.2)
    assert process.dead
    assert process.exit_text == "signal SIGKILL"


def test_what_the_asker_alone_needs_is_not_sent_to_the_worker_and_comes_back(tmp_path, settings, monkeypatch):
    orders = []
    real = WorkerProcess.send
    monkeypatch.setattr(WorkerProcess, "send", lambda self, order: (orders.append(order), real(self, order)))
    job = job_for(tmp_path, "Song", deliver={"notes": "x" * 200_000})
    submit(settings.spool, job)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    assert orders[0]["job"]["deliver"] == {}
    assert result_of(settings, job).deliver == job.deliver


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for the pipeline is found through PYTHONPATH alone")
def test_a_song_whose_cluster_is_away_waits_at_no_cost_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    settings, job = settings_in(tmp_path), job_for(tmp_path, "wait")
    submit(settings.spool, job)
    with DaemonThread(settings) as daemon:
        until(lambda: len(lines(settings, "runs.log")) > QUICK.retry_limit)
        row = row_of(settings, job)
        assert (row.retries, row.crashes) == (0, 0) and row.attempts <= 1
        until(lambda: "has no node" in (row_of(settings, job).error or ""))
        let_go(settings, job.song)
        until(lambda: result_of(settings, job))
    assert result_of(settings, job).state is State.DONE
    assert "retrying" not in daemon.kinds()
