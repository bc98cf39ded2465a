"""The daemon: requests become results, in order, whatever the worker does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness.stage import (
    QUICK,
    DaemonProcess,
    DaemonThread,
    is_beating,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    row_of,
    rows,
    settings_in,
    until,
    visible_sets,
    wav_bytes,
    write_song,
)

from tsbs_daw.contracts.job import State
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.models import registry
from tsbs_daw.queue.spool import (
    Spool,
    complete_request,
    living_daemon,
    read_progress,
    read_result,
    request_cancel,
    request_move,
    request_retry,
    submit,
)
from tsbs_daw.watch.folders import WatchFolder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return settings_in(tmp_path)


def run(settings: Settings, *jobs, **values) -> DaemonThread:
    """Submit, let a daemon do it all, and look at it afterwards."""
    for job in jobs:
        submit(settings.spool, job)
    with DaemonThread(settings, once=True, **values) as daemon:
        daemon.wait()
    return daemon


def songs_run(settings: Settings) -> list[str]:
    return [line.split(" ", 2)[2] for line in lines(settings, "runs.log")]


def test_a_submitted_job_is_separated_and_appears_in_done(tmp_path, settings):
    job = job_for(tmp_path, "Night Drive", deliver={"item": "{GUID}"})
    daemon = run(settings, job)
    result = result_of(settings, job)
    assert (result.state, result.error, result.deliver) == (State.DONE, None, {"item": "{GUID}"})
    assert (result.folder / "vocals.wav").read_bytes() == job.source.path.read_bytes()
    assert not (settings.spool / "inbox" / job.id).exists()
    assert not (settings.spool / "jobs" / job.id).exists()
    assert daemon.kinds() == ["queued", "started", "done"]
    assert daemon.daemon.lifecycle.ended == {State.DONE: 1}


def test_once_handles_a_watch_folder_and_ends(tmp_path, settings):
    for number in range(3):
        write_song(tmp_path / "in" / f"Song {number}.wav", number)
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    with DaemonProcess(settings, (folder,), once=True) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    assert [path.name for path in visible_sets(tmp_path / "out")] == ["Song 0", "Song 1", "Song 2"]
    assert len(lines(settings, "runs.log")) == 3
    assert not list(settings.spool.rglob("*.wav"))  # the copies have left with their jobs


@pytest.mark.parametrize("written", ["at once", "little by little"])
def test_an_idle_daemon_takes_a_request_without_its_next_regular_look(tmp_path, settings, written):
    job = job_for(tmp_path, "Song")
    with DaemonProcess(settings, options=replace(QUICK, idle_tick_s=1e6)) as daemon:
        until(lambda: is_beating(settings, daemon))
        if written == "at once":
            submit(settings.spool, job)
        else:  # as a DAW does that reads an item in the background
            folder = settings.spool / "inbox" / job.id
            (folder / "source").mkdir(parents=True)
            (folder / "source" / "take.wav").write_bytes(job.source.path.read_bytes())
            time.sleep(1.0)  # the system's word of all that has come and gone
            complete_request(folder, job)
        until(lambda: read_result(settings.spool, job.id))
    assert result_of(settings, job).state is State.DONE


def test_a_request_that_was_given_up_keeps_no_daemon_busy(tmp_path, settings):
    spool = Spool(settings.spool)
    spool.create()
    assert not spool.request_is_coming
    begun = spool.inbox / "20261128-120000-00000000"
    begun.mkdir()
    assert spool.request_is_coming
    os.utime(begun, (time.time() - 3600.0,) * 2)
    assert not spool.request_is_coming
    os.utime(begun)
    (begun / "job.json").write_text("{}")
    assert not spool.request_is_coming


def test_the_person_who_waits_goes_before_the_batch(tmp_path, settings):
    batch = [job_for(tmp_path, f"Batch {number}") for number in range(2)]
    hurried = job_for(tmp_path, "Hurried", priority="interactive")
    run(settings, *batch, hurried)
    assert songs_run(settings) == ["Hurried", "Batch 0", "Batch 1"]


def test_a_failure_is_a_sentence_and_does_not_stop_the_others(tmp_path, settings):
    bad, good = job_for(tmp_path, "refuse"), job_for(tmp_path, "Good")
    run(settings, bad, good)
    result = result_of(settings, bad)
    assert (result.state, result.retryable) == (State.FAILED, False)
    assert result.error == f"{bad.source.path} is not audio; give a sound file."
    assert result_of(settings, good).state is State.DONE


def test_a_watched_file_is_called_by_its_own_path_when_it_fails(tmp_path, settings):
    path = write_song(tmp_path / "in" / "refuse.wav")
    run(settings, folders=(WatchFolder(path.parent, tmp_path / "out"),))
    (row,) = rows(settings, State.FAILED)
    assert row.error == f"{path} is not audio; give a sound file."


def test_what_a_dead_job_left_in_its_output_folder_is_removed_by_the_daemon(tmp_path, settings):
    job = job_for(tmp_path, "refuse")
    left = tmp_path / "out" / f".tmp-{job.id}-1"
    left.mkdir(parents=True)
    run(settings, job)
    assert not left.exists(), "it is removed when the job ends"
    left.mkdir()
    with Daemon(settings):
        pass
    assert not left.exists(), "and when a daemon starts"


def test_an_unreadable_request_gets_its_answer(tmp_path, settings):
    good = job_for(tmp_path, "Good")
    folder = settings.spool / "inbox" / "broken one"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"schema": 1, "id": "x", "surprise": true}')
    run(settings, good)
    (row,) = rows(settings, State.FAILED)
    answer = json.loads((settings.spool / "done" / "broken one" / "result.json").read_text())
    assert answer["error"] == row.error
    assert "job.json" in row.error
    assert result_of(settings, good).state is State.DONE


def test_an_id_that_is_under_way_is_not_taken_twice(tmp_path, settings):
    job = job_for(tmp_path, "held")
    submit(settings.spool, job)
    with DaemonThread(settings) as daemon:
        until(lambda: songs_run(settings))
        submit(settings.spool, job)
        until(lambda: "failed" in daemon.kinds())
        let_go(settings, "held")
        until(lambda: "done" in daemon.kinds())
    refused, done = sorted(settings.spool.glob("done/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
    assert "already exists" in json.loads(refused.read_text())["error"]
    assert json.loads(done.read_text())["state"] == "done"
    assert songs_run(settings) == ["held"]


def test_progress_and_a_heartbeat_can_be_followed(tmp_path, settings):
    job = job_for(tmp_path, "hang")
    submit(settings.spool, job)
    with DaemonThread(settings):
        until(lambda: (heard := read_progress(settings.spool, job.id)) and heard.message)
        progress = read_progress(settings.spool, job.id)
        assert (progress.state, progress.fraction, progress.message) == (State.RUNNING, 0.1, "separating")
        until(lambda: living_daemon(settings.spool))
        row = row_of(settings, job)
        assert row.state is State.RUNNING
    assert living_daemon(settings.spool) is None


def test_a_waiting_job_that_is_moved_runs_first_and_an_unknown_place_is_nothing(tmp_path, settings):
    held, early, late = (job_for(tmp_path, song) for song in ("held", "early", "late"))
    for job in (held, early, late):
        submit(settings.spool, job)
    with DaemonThread(settings) as daemon:
        until(lambda: "held" in songs_run(settings))
        until(lambda: len(rows(settings)) == 3)
        request_move(settings.spool, early.id, "behind")
        request_move(settings.spool, late.id, "first")
        until(lambda: not (settings.spool / "jobs" / late.id / "move").exists())
        let_go(settings, "held")
        until(lambda: result_of(settings, early) and result_of(settings, late))
        assert daemon.error is None
    assert songs_run(settings) == ["held", "late", "early"]


def test_a_waiting_job_can_be_cancelled_and_a_finished_one_retried(tmp_path, settings):
    first, waiting = job_for(tmp_path, "held"), job_for(tmp_path, "Waiting")
    submit(settings.spool, first)
    submit(settings.spool, waiting)
    with DaemonThread(settings):
        until(lambda: songs_run(settings))
        request_cancel(settings.spool, waiting.id)
        until(lambda: result_of(settings, waiting))
        assert result_of(settings, waiting).state is State.CANCELLED
        let_go(settings, "held")
        until(lambda: result_of(settings, first))
        request_retry(settings.spool, waiting.id)
        until(lambda: result_of(settings, waiting))
        assert result_of(settings, waiting).state is State.DONE
    assert songs_run(settings) == ["held", "Waiting"]


def test_a_failed_watched_file_can_be_retried_from_its_copy(tmp_path, settings):
    path = write_song(tmp_path / "in" / "refuse.wav")
    run(settings, folders=(WatchFolder(path.parent, tmp_path / "out"),))
    (row,) = rows(settings)
    path.unlink()
    request_retry(settings.spool, row.id)
    run(settings)
    assert songs_run(settings) == ["refuse", "refuse"]
    assert [row.state for row in rows(settings)] == [State.FAILED]


def test_a_done_watched_file_is_retried_from_the_file_or_not_at_all(tmp_path, settings):
    path = write_song(tmp_path / "in" / "a.wav")
    run(settings, folders=(WatchFolder(path.parent, tmp_path / "out"),))
    (row,) = rows(settings)
    request_retry(settings.spool, row.id)
    run(settings)
    assert songs_run(settings) == ["a", "a"]
    assert len(visible_sets(tmp_path / "out")) == 1
    path.unlink()
    request_retry(settings.spool, row.id)
    run(settings)
    assert "is missing" in json.loads((settings.spool / "done" / row.id / "result.json").read_text())["error"]


def test_a_copy_whose_twin_was_separated_is_a_duplicate_with_the_same_stems(tmp_path, settings):
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    for name in ("a.wav", "b.wav"):
        write_song(tmp_path / "in" / name)
    run(settings, folders=(folder,))
    done, duplicate = rows(settings)
    assert (done.state, duplicate.state) == (State.DONE, State.DUPLICATE)
    assert duplicate.result.folder == done.result.folder
    (done.result.folder / "manifest.json").unlink()
    write_song(tmp_path / "in" / "c.wav")
    run(settings, folders=(folder,))
    assert rows(settings, State.DONE)[-1].source_key.endswith("c.wav")


def test_a_copy_is_no_duplicate_once_the_bundled_weights_are_others(tmp_path, settings, monkeypatch):
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    write_song(tmp_path / "in" / "a.wav")
    run(settings, folders=(folder,))
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "default.safetensors")
    registry.BUNDLED.write_bytes(b"the weights of a new release")
    write_song(tmp_path / "in" / "b.wav")
    run(settings, folders=(folder,))
    assert [row.state for row in rows(settings)] == [State.DONE, State.DONE]
    assert songs_run(settings) == ["a", "b"]


def test_a_worker_that_cannot_start_fails_once_and_leaves_the_jobs(tmp_path, settings):
    job = job_for(tmp_path, "Song")
    submit(settings.spool, job)
    options = replace(QUICK, runner="no_such_module:run")
    with (
        pytest.raises(DaemonError, match="no_such_module"),
        DaemonThread(settings, options=options, once=True) as daemon,
    ):
        daemon.wait()
    assert row_of(settings, job).state is State.QUEUED
    run(settings)
    assert result_of(settings, job).state is State.DONE


def test_a_worker_that_cannot_start_is_told_of_while_watching(tmp_path, settings):
    submit(settings.spool, job_for(tmp_path, "Song"))
    with DaemonThread(settings, options=replace(QUICK, runner="no_such_module:run")) as daemon:
        until(lambda: "worker" in daemon.kinds())
    assert any("no_such_module" in event.message for event in daemon.events)


def test_an_idle_worker_is_let_go_and_comes_back(tmp_path, settings):
    first, second = job_for(tmp_path, "First"), job_for(tmp_path, "Second")
    submit(settings.spool, first)
    with DaemonThread(settings, options=replace(QUICK, worker_idle_s=0.2)) as daemon:
        until(lambda: result_of(settings, first))
        until(lambda: not daemon.daemon.worker_pids)
        submit(settings.spool, second)
        until(lambda: result_of(settings, second))


def test_several_workers_share_the_jobs(tmp_path, settings):
    jobs = [job_for(tmp_path, "held", seed=number) for number in range(2)]
    for job in jobs:
        submit(settings.spool, job)
    with DaemonThread(settings, options=replace(QUICK, workers=2)) as daemon:
        until(lambda: len(songs_run(settings)) == 2)
        assert len(daemon.daemon.worker_pids) == 2
        assert not any(result_of(settings, job) for job in jobs)
        let_go(settings, "held")
        until(lambda: all(result_of(settings, job) for job in jobs))


def test_a_disk_too_full_for_the_queue_pauses_it(tmp_path, settings):
    job = job_for(tmp_path, "Song")
    told = []
    with Daemon(settings, options=QUICK, listener=told.append) as daemon:
        database = daemon.store.database
        pages = database.read("PRAGMA page_count")[0][0]
        database.read(f"PRAGMA max_page_count={pages}")  # SQLite itself now says what it says on a full disk
        submit(settings.spool, job.model_copy(update={"deliver": {"much": "x" * 50_000}}))
        until(lambda: told, daemon=daemon)
        assert [event.kind for event in told] == ["paused"]
        database.read("PRAGMA max_page_count=1000000")
        until(lambda: result_of(settings, job), daemon=daemon)
    assert [event.kind for event in told if event.kind != "progress"] == [
        "paused",
        "resumed",
        "queued",
        "started",
        "done",
    ]
    assert not database.short_of_space


def test_old_results_are_pruned(tmp_path, settings):
    job = job_for(tmp_path, "Song")
    run(settings, job)
    with Daemon(settings, options=replace(QUICK, done_days=0.0)) as daemon:
        daemon.tick(time.monotonic())
    assert Spool(settings.spool).finished_folders() == []
    assert row_of(settings, job).state is State.DONE


def test_a_changed_file_supersedes_its_running_job(tmp_path, settings):
    path = write_song(tmp_path / "in" / "hang.mp3", 1)
    with DaemonThread(settings, (WatchFolder(path.parent, tmp_path / "out"),)) as daemon:
        until(lambda: songs_run(settings))
        write_song(path, 2)
        until(lambda: len(songs_run(settings)) == 2)
        assert "superseded" in daemon.kinds()
    old, new = rows(settings)
    assert (old.state, new.state) == (State.SUPERSEDED, State.QUEUED)
    assert new.job.source.path.read_bytes() == wav_bytes(2)


def test_neither_torch_nor_a_decoder_comes_into_the_daemon(settings):
    program = "import sys, tsbs_daw.daemon.daemon; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pedalboard", "numpy", "soundfile", "soxr"} & set(loaded)
    assert "tsbs_daw" in loaded


def test_a_clock_that_is_a_year_ahead_removes_no_result(tmp_path, settings, monkeypatch):
    job = job_for(tmp_path, "Song")
    run(settings, job)
    real = time.time
    for _ in range(3):
        monkeypatch.setattr(time, "time", lambda: real() + 400 * 86400)
        with Daemon(settings, options=QUICK) as daemon:
            daemon.tick(time.monotonic())
            daemon._last_prune = float("-inf")
            daemon.tick(time.monotonic() + 7200.0)
        assert result_of(settings, job).state is State.DONE
    monkeypatch.setattr(time, "time", real)
    old = settings.spool / "done" / job.id
    os.utime(old, (real() - 31 * 86400,) * 2)
    with Daemon(settings, options=QUICK) as daemon:
        daemon.tick(time.monotonic())
    assert not old.exists()
