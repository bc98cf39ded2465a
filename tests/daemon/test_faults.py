"""Faults of processes, disks and clocks, by the rows of the reliability table. Those of files: test_fault_files.py.

| row | case | test |
|---|---|---|
| 1 | kill -9 the worker | test_a_killed_worker_costs_nothing_but_time |
| 2 | kill -9 the daemon | test_a_killed_daemon_resumes_and_publishes_everything_once; test_end_to_end.py |
| 2 | ... between any two steps | test_recovery.py |
| 3 | kill at a failpoint | test_a_worker_that_dies_at_a_failpoint_leaves_nothing_behind; test_delivery.py |
| 4 | SIGTERM | test_a_daemon_that_is_told_to_end_finishes_its_job, ..._releases_its_job, test_all_that_ending_... |
| 5, 6 | power cut, fsync fails | test_delivery.py |
| 7 | disk full, outputs | test_a_full_disk_is_tried_again_and_leaves_no_temporary_folder |
| 8 | disk full, database | test_daemon.py, test_database.py |
| 9 | database locked | test_database.py |
| 10 | database corrupt | test_a_damaged_database_is_built_again; test_database.py |
| 11 | clock jumps a day | test_a_clock_that_jumps_ends_no_lease |
| 12 | a stalled worker | test_a_stalled_worker_loses_its_job |
| 12 | ... returns | test_a_worker_that_returns_after_its_daemon_died_is_fenced_out; test_store.py, test_worker.py |
| 13 | always crashes | test_a_job_that_always_crashes_is_dead_after_three_and_the_others_run |
| 14 | cancel while running | test_a_running_job_can_be_cancelled |
| 15 - 25 | files | test_fault_files.py |
| 26, 27 | share gone, names | test_watcher.py |
| 46 | two daemons | test_a_second_daemon_refuses |
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from harness.repeats import repeated, rounds
from harness.stage import (
    QUICK,
    DaemonProcess,
    DaemonThread,
    children_of,
    is_beating,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    row_of,
    rows,
    settings_in,
    state_of,
    until,
    write_song,
)
from timeouts import PATIENCE_S

from tsbs_daw.contracts.job import State
from tsbs_daw.core.config import FAILPOINTS, DaemonOptions
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.core.locks import FOLDER_LOCK
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.queue.spool import living_daemon, request_cancel, submit
from tsbs_daw.watch.folders import WatchFolder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these faults are made with POSIX signals")


@pytest.fixture(autouse=True)
def _workers_find_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


@repeated(200)
def test_a_killed_worker_costs_nothing_but_time(tmp_path, tally, times):
    settings = settings_in(tmp_path)
    with DaemonThread(settings) as daemon:
        for folder in rounds(tmp_path, times):
            job = job_for(folder, f"held in {folder.name}")
            submit(settings.spool, job)
            until(lambda job=job: any(line.startswith(job.id) for line in lines(settings, "runs.log")))
            os.kill(daemon.daemon.worker_pids[0], signal.SIGKILL)
            let_go(settings, job.song)
            until(lambda job=job: result_of(settings, job))
            assert result_of(settings, job).state is State.DONE
            assert row_of(settings, job).crashes == 1
            tally.faults += 1
            tally.count_output(folder / "out", [job.song])
    tally.count_home(settings)


@repeated(200, short=4)
def test_a_killed_daemon_resumes_and_publishes_everything_once(tmp_path, tally, times):
    settings, generator = settings_in(tmp_path), random.Random(2)
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    for number in range(times):
        write_song(tmp_path / "in" / f"Song {number}.wav", number)
        submit(settings.spool, job_for(tmp_path, f"brief {number}", seed=1000 + number))
        with DaemonProcess(settings, (folder,)) as daemon:
            until(lambda daemon=daemon: is_beating(settings, daemon))
            time.sleep(generator.uniform(0.0, 1.5))
            daemon.kill()
        tally.faults += 1
    with DaemonProcess(settings, (folder,), once=True) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    tally.count(
        settings, tmp_path / "out", [f"{kind} {number}" for kind in ("Song", "brief") for number in range(times)]
    )
    assert Counter(row.state for row in rows(settings)) == {State.DONE: 2 * times}
    assert all(row.crashes == 0 for row in rows(settings))
    assert list((settings.spool / "jobs").iterdir()) == []


@pytest.mark.parametrize("failpoint", FAILPOINTS)
@repeated(20)
def test_a_worker_that_dies_at_a_failpoint_leaves_nothing_behind(tmp_path, monkeypatch, tally, failpoint, times):
    for folder in rounds(tmp_path, times):
        monkeypatch.setenv("TSBS_DAW_FAILPOINT", f"{failpoint}@{folder / 'reached'}")
        settings = settings_in(folder)
        job = job_for(folder, "Song")
        submit(settings.spool, job)
        with DaemonThread(settings, once=True) as daemon:
            daemon.wait()
        assert (folder / "reached").exists()
        assert result_of(settings, job).state is State.DONE
        tally.faults += 1
        tally.count(settings, folder / "out", ["Song"])


@repeated(50)
def test_a_daemon_that_is_told_to_end_finishes_its_job(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings, job = settings_in(folder), job_for(folder, "held")
        submit(settings.spool, job)
        with DaemonProcess(settings, options=replace(QUICK, finish_s=PATIENCE_S)) as daemon:
            until(lambda settings=settings: lines(settings, "runs.log"))
            daemon.process.send_signal(signal.SIGTERM)
            until(lambda daemon=daemon: ": stopping" in daemon.log.read_text())
            let_go(settings, job.song)
            assert daemon.wait() == 0
        assert result_of(settings, job).state is State.DONE
        tally.faults += 1
        tally.count(settings, folder / "out", ["held"])


@repeated(50)
@pytest.mark.parametrize("song", ["hang", "deaf"])
def test_a_daemon_that_is_told_to_end_releases_its_job(tmp_path, tally, song, times):
    for folder in rounds(tmp_path, times):
        settings, job = settings_in(folder), job_for(folder, song)
        submit(settings.spool, job)
        with DaemonProcess(settings) as daemon:
            until(lambda settings=settings: lines(settings, "runs.log"))
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.wait() == 0
        row = row_of(settings, job)
        assert (row.state, row.attempts, row.crashes) == (State.QUEUED, 0, 0)
        tally.faults += 1
        tally.count(settings, folder / "out", [])


def test_all_that_ending_may_take_is_less_than_a_system_grants():
    options = DaemonOptions()
    assert options.finish_s + options.release_s < 10.0


@repeated(20)
def test_a_full_disk_is_tried_again_and_leaves_no_temporary_folder(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings, job = settings_in(folder), job_for(folder, "full")
        submit(settings.spool, job)
        with DaemonThread(settings, once=True) as daemon:
            daemon.wait()
        assert daemon.kinds() == ["queued", "started", "retrying", "started", "retrying", "started", "done"]
        assert "became full" in next(event.message for event in daemon.events if event.kind == "retrying")
        tally.faults += 2
        tally.count(settings, folder / "out", ["full"])


def test_a_disk_that_stays_full_fails_the_job_in_the_end(tmp_path):
    settings, job = settings_in(tmp_path), job_for(tmp_path, "full")
    submit(settings.spool, job)
    with DaemonThread(settings, options=replace(QUICK, retry_limit=2), once=True) as daemon:
        daemon.wait()
    result = result_of(settings, job)
    assert (result.state, result.retryable) == (State.FAILED, True)
    assert "became full" in result.error


@repeated(10)
def test_a_damaged_database_is_built_again(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings, watched = settings_in(folder), WatchFolder(folder / "in", folder / "out")
        write_song(folder / "in" / "Seen.wav", 1)
        done, waiting = job_for(folder, "Done", seed=2), job_for(folder, "Waiting", seed=3)
        submit(settings.spool, done)
        with DaemonProcess(settings, (watched,), once=True) as daemon:
            assert daemon.wait() == 0
        submit(settings.spool, waiting)
        with Daemon(settings, options=QUICK) as stopped:
            stopped.tick(time.monotonic())  # takes the job in, and then its database is lost
        settings.store.write_bytes(b"\0" * 1000 + settings.store.read_bytes()[1000:])
        with DaemonProcess(settings, (watched,), once=True) as daemon:
            assert daemon.wait() == 0, daemon.log.read_text()
        assert Counter(row.state for row in rows(settings)) == {State.DONE: 3}
        songs = sorted(line.split(" ", 2)[2] for line in lines(settings, "runs.log"))
        assert songs == ["Done", "Seen", "Waiting"]
        assert len(list(settings.home.glob("jobs.sqlite3.damaged-*"))) >= 1
        tally.faults += 1
        tally.count(settings, folder / "out", songs)


@repeated(20)
@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_ends_no_lease(tmp_path, monkeypatch, tally, jump_s, times):
    real = time.time
    for folder in rounds(tmp_path, times):
        settings, job = settings_in(folder), job_for(folder, "held")
        submit(settings.spool, job)
        with DaemonThread(settings) as daemon, monkeypatch.context() as patch:
            until(lambda settings=settings: lines(settings, "runs.log"))
            patch.setattr(time, "time", lambda: real() + jump_s)
            until(lambda settings=settings: living_daemon(settings.spool))  # its heart beats in the new time
            let_go(settings, job.song)
            until(lambda settings=settings, job=job: result_of(settings, job))
        assert daemon.kinds() == ["queued", "started", "done"]
        assert len(lines(settings, "runs.log")) == 1
        tally.faults += 1
        tally.count(settings, folder / "out", ["held"])


@repeated(100)
def test_a_stalled_worker_loses_its_job(tmp_path, tally, times):
    at_once = min(times, 5)  # leases run out side by side; one after the other, a hundred take 20 minutes
    for folder in rounds(tmp_path, times // at_once):
        settings = settings_in(folder)
        jobs = [job_for(folder, f"stop {number}", seed=number) for number in range(at_once)]
        for job in jobs:
            submit(settings.spool, job)
        with DaemonThread(settings, options=replace(QUICK, lease_s=10.0, workers=at_once), once=True) as daemon:
            daemon.wait()
        for job in jobs:
            assert result_of(settings, job).state is State.DONE
            row = row_of(settings, job)
            assert (row.attempts, row.crashes, row.fence) == (2, 1, 2)
        tally.faults += at_once
        tally.count(settings, folder / "out", [job.song for job in jobs])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@repeated(100)
def test_a_worker_that_returns_after_its_daemon_died_is_fenced_out(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings, job = settings_in(folder), job_for(folder, "stop")
        submit(settings.spool, job)
        with DaemonProcess(settings) as daemon:
            until(lambda settings=settings: lines(settings, "runs.log"))
            (worker,) = children_of(daemon.process.pid)
            until(lambda worker=worker: state_of(worker) == "T")
            daemon.kill()
        with DaemonProcess(settings, once=True) as daemon:
            assert daemon.wait() == 0
        os.kill(worker, signal.SIGCONT)
        until(lambda worker=worker: state_of(worker) in ("", "Z"))
        tally.faults += 1
        tally.count(settings, folder / "out", ["stop"])


@repeated(10)
def test_a_job_that_always_crashes_is_dead_after_three_and_the_others_run(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings = settings_in(folder)
        bad, good = job_for(folder, "crash"), job_for(folder, "Good")
        submit(settings.spool, bad)
        submit(settings.spool, good)
        with DaemonThread(settings, once=True) as daemon:
            daemon.wait()
        result = result_of(settings, bad)
        assert result.state is State.DEAD
        assert "3 times" in result.error
        assert "SIGKILL" in result.error
        assert result_of(settings, good).state is State.DONE
        assert Counter(line.split(" ", 2)[2] for line in lines(settings, "runs.log")) == {"crash": 3, "Good": 1}
        tally.faults += 3
        tally.count(settings, folder / "out", ["Good"])


@repeated(50)
@pytest.mark.parametrize("song", ["hang", "deaf"])
def test_a_running_job_can_be_cancelled(tmp_path, tally, song, times):
    settings = settings_in(tmp_path)
    with DaemonThread(settings) as daemon:
        for folder in rounds(tmp_path, times):
            job, following = job_for(folder, song), job_for(folder, "Following")
            submit(settings.spool, job)
            until(lambda job=job: any(line.startswith(job.id) for line in lines(settings, "runs.log")))
            request_cancel(settings.spool, job.id)
            submit(settings.spool, following)
            until(lambda job=job: result_of(settings, job))
            assert result_of(settings, job).state is State.CANCELLED
            assert row_of(settings, job).crashes == 0
            until(lambda following=following: result_of(settings, following))
            tally.faults += 1
            tally.count_output(folder / "out", ["Following"])
        assert "dead" not in daemon.kinds()
    tally.count_home(settings)


@repeated(50)
def test_a_second_daemon_refuses(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        (folder / "in").mkdir()
        watched = WatchFolder(folder / "in", folder / "out")
        first, other = settings_in(folder), settings_in(folder / "other")
        with DaemonThread(first, (watched,)):
            for settings, folders in ((first, ()), (other, (watched,))):
                with pytest.raises(DaemonError, match=f"process {os.getpid()}.*already") as refused:
                    Daemon(settings, folders, options=QUICK).__enter__()
                assert "\n" not in str(refused.value)
            with DaemonProcess(other, (watched,)) as second:
                assert second.wait() == 1
                assert f"process {os.getpid()}" in second.log.read_text()
        with Daemon(other, (watched,), options=QUICK):
            assert (folder / "in" / FOLDER_LOCK).exists()
        tally.faults += 3
        tally.count_home(first)
        tally.count_home(other)


def test_a_killed_daemon_does_not_lock_out_the_next(tmp_path):
    settings = settings_in(tmp_path)
    (tmp_path / "in").mkdir()
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    with DaemonProcess(settings, (folder,)) as daemon:
        until(lambda: (settings.spool / "heartbeat.json").exists())
        daemon.kill()
    with Daemon(settings, (folder,), options=QUICK) as daemon:
        daemon.tick(time.monotonic())
