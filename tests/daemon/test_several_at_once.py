"""Several songs in one worker: each comes to its own end, and none pays for another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness.repeats import repeated, rounds
from harness.stage import (
    QUICK,
    DaemonThread,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    row_of,
    settings_in,
    until,
)
from harness.studio import STEMS, Studio, stem_of
from timeouts import PATIENCE_S

from tsbs_daw.contracts.job import Job, Source, State
from tsbs_daw.core.config import PIPELINE
from tsbs_daw.queue.spool import request_cancel, submit

TWO = replace(QUICK, songs_at_once=2)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="these faults are made with POSIX signals")


@pytest.fixture(autouse=True)
def _workers_find_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


def running(settings, *jobs: Job) -> bool:
    begun = lines(settings, "runs.log")
    return all(any(line.startswith(job.id) for line in begun) for job in jobs)


def state(settings, job: Job) -> State:
    return result_of(settings, job).state


def test_two_songs_at_once_give_the_stems_that_each_gives_alone(tmp_path):
    (tmp_path / "alone").mkdir()
    studio = Studio(tmp_path / "alone")
    paths = [studio.song(f"{seed}.wav", duration_s=4.0 + seed, seed=seed) for seed in (1, 2)]
    wanted = [studio.run(path) for path in paths]
    settings = replace(settings_in(tmp_path), device="cpu", precision="float32")
    jobs = [Job(source=Source(path=path), output=tmp_path / "out") for path in paths]
    for job in jobs:
        submit(settings.spool, job)
    with DaemonThread(settings, options=replace(TWO, runner=PIPELINE), once=True) as daemon:
        daemon.wait()
    assert daemon.kinds()[:4] == ["queued", "queued", "started", "started"]
    for job, alone in zip(jobs, wanted, strict=True):
        found = result_of(settings, job)
        for stem in STEMS:
            np.testing.assert_array_equal(stem_of(found, stem), stem_of(alone, stem))


@repeated(50)
def test_a_song_that_fails_and_one_that_is_cancelled_leave_the_one_beside_them_alone(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings = settings_in(folder)
        good, bad, unwanted = (job_for(folder, song) for song in ("held", "break", "hang"))
        for job in (good, bad, unwanted):
            submit(settings.spool, job)
        with DaemonThread(settings, options=replace(TWO, songs_at_once=3, cancel_kill_s=PATIENCE_S)) as daemon:
            until(lambda settings=settings, jobs=(good, bad, unwanted): running(settings, *jobs))
            request_cancel(settings.spool, unwanted.id)
            until(lambda settings=settings, jobs=(bad, unwanted): all(result_of(settings, j) for j in jobs))
            let_go(settings, good.song)
            until(lambda settings=settings, jobs=(good, bad, unwanted): all(result_of(settings, j) for j in jobs))
            assert len(daemon.daemon.worker_pids) == 1
        assert [state(settings, job) for job in (good, bad, unwanted)] == [State.DONE, State.FAILED, State.CANCELLED]
        assert len(lines(settings, "runs.log")) == 3
        assert row_of(settings, good).crashes == 0
        tally.faults += 2
        tally.count(settings, folder / "out", [good.song])


@repeated(50)
def test_a_cancelled_song_whose_worker_must_be_killed_costs_the_others_no_attempt(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings, deaf, other = settings_in(folder), job_for(folder, "deaf"), job_for(folder, "held")
        for job in (deaf, other):
            submit(settings.spool, job)
        with DaemonThread(settings, options=replace(TWO, cancel_kill_s=0.1)):
            until(lambda settings=settings, jobs=(deaf, other): running(settings, *jobs))
            request_cancel(settings.spool, deaf.id)
            until(lambda settings=settings, deaf=deaf: result_of(settings, deaf))
            let_go(settings, other.song)
            until(lambda settings=settings, jobs=(deaf, other): all(result_of(settings, job) for job in jobs))
        assert [state(settings, job) for job in (deaf, other)] == [State.CANCELLED, State.DONE]
        row = row_of(settings, other)
        assert (row.crashes, row.attempts) == (0, 1)
        tally.faults += 1
        tally.count(settings, folder / "out", [other.song])


@repeated(200)
def test_songs_whose_worker_is_killed_are_run_again_one_by_one(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        settings = settings_in(folder)
        jobs = [job_for(folder, f"held {number}", seed=number) for number in range(2)]
        for job in jobs:
            submit(settings.spool, job)
        with DaemonThread(settings, options=TWO) as daemon:
            until(lambda settings=settings, jobs=jobs: running(settings, *jobs))
            os.kill(daemon.daemon.worker_pids[0], signal.SIGKILL)
            let_go(settings, *(job.song for job in jobs))
            until(lambda settings=settings, jobs=jobs: all(result_of(settings, job) for job in jobs))
        assert [state(settings, job) for job in jobs] == [State.DONE, State.DONE]
        assert daemon.kinds()[-6:] == ["retrying", "retrying", "started", "done", "started", "done"]
        tally.faults += 1
        tally.count(settings, folder / "out", [job.song for job in jobs])


@repeated(10)
@pytest.mark.parametrize("crash_limit", [1, 3])
def test_the_song_that_kills_its_workers_is_found_and_the_others_are_done(tmp_path, tally, crash_limit, times):
    for folder in rounds(tmp_path, times):
        settings = settings_in(folder)
        others = [job_for(folder, f"slow {number}", seed=number) for number in range(3)]
        guilty = job_for(folder, "crash")
        for job in (others[0], guilty, *others[1:]):
            submit(settings.spool, job)
        with DaemonThread(
            settings, options=replace(TWO, songs_at_once=4, crash_limit=crash_limit), once=True
        ) as daemon:
            daemon.wait()
        assert state(settings, guilty) is State.DEAD
        assert [state(settings, job) for job in others] == [State.DONE] * 3
        assert max(row_of(settings, job).crashes for job in others) <= 1
        runs = Counter(line.split(" ", 2)[2] for line in lines(settings, "runs.log"))
        assert runs["crash"] == max(crash_limit, 2)
        tally.faults += runs["crash"]
        tally.count(settings, folder / "out", [job.song for job in others])


def test_a_worker_that_stands_still_loses_all_its_songs_and_each_is_tried_again(tmp_path):
    settings = settings_in(tmp_path)
    frozen, other = job_for(tmp_path, "stop"), job_for(tmp_path, "slow")
    for job in (other, frozen):
        submit(settings.spool, job)
    with DaemonThread(settings, options=replace(TWO, lease_s=10.0), once=True) as daemon:
        daemon.wait()
    assert [state(settings, job) for job in (frozen, other)] == [State.DONE, State.DONE]
    assert len(lines(settings, "published.log")) == 2


def test_a_daemon_that_ends_releases_all_songs_of_a_worker(tmp_path):
    settings = settings_in(tmp_path)
    jobs = [job_for(tmp_path, song) for song in ("hang", "deaf")]
    for job in jobs:
        submit(settings.spool, job)
    with DaemonThread(settings, options=TWO):
        until(lambda: running(settings, *jobs))
    for job in jobs:
        row = row_of(settings, job)
        assert (row.state, row.attempts, row.crashes) == (State.QUEUED, 0, 0)
    assert not list(Path(tmp_path / "out").rglob(".tmp-*"))


def test_a_device_that_is_lost_is_found_again_by_the_next_worker_and_costs_no_song_its_stems(tmp_path):
    settings = settings_in(tmp_path)
    jobs = [job_for(tmp_path, song) for song in ("held", "lose")]
    for job in jobs:
        submit(settings.spool, job)
    with DaemonThread(settings, options=TWO, once=True) as daemon:
        until(lambda: daemon.kinds().count("retrying") == 2)
        let_go(settings, "held")
        daemon.wait()
    assert [state(settings, job) for job in jobs] == [State.DONE, State.DONE]
    assert {row_of(settings, job).crashes for job in jobs} == {1}
    assert len(lines(settings, "published.log")) == 2
