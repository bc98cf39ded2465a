"""The queue's table: order, leases, fences, retries, superseding, and one computation per content."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from harness.stage import job_for

from tsbs_daw.contracts.job import Job, Result, State
from tsbs_daw.queue.records import NewJob, SeenFile
from tsbs_daw.queue.store import JobStore, Requeued


@pytest.fixture
def store(tmp_path: Path):
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


@pytest.fixture
def make(tmp_path: Path):
    return lambda song="Song", **values: job_for(tmp_path, song, **values)


def watched(job: Job, relative: str = "a.wav", *, state: str = "1", content: str = "c", preset: str = "p") -> NewJob:
    file = SeenFile("/in", relative, state, preset, content, job.id)
    return NewJob(job, f"/in/{relative}", file, "m", 100)


def add(store: JobStore, *jobs: Job) -> None:
    store.enqueue(NewJob(job) for job in jobs)


def lease_next(store: JobStore, now: float = 0.0):
    row = store.next(now)
    return store.lease(row, "this run", now + 30) if row else None


def done(job_id: str) -> Result:
    return Result(id=job_id, state=State.DONE, finished_unix_s=1.0)


def test_jobs_come_in_order_of_arrival_but_interactive_ones_first(store, make):
    first, second = make(), make()
    hurried = make(priority="interactive")
    add(store, first, second, hurried)
    assert [lease_next(store).id for _ in range(3)] == [hurried.id, first.id, second.id]
    assert lease_next(store) is None


def test_a_job_that_was_tried_stands_behind_those_that_were_not(store, make):
    first, second = make(), make()
    add(store, first, second)
    row = lease_next(store)
    store.requeue(row.id, row.fence, Requeued.CRASHED)
    assert lease_next(store).id == second.id
    assert lease_next(store).id == first.id


@pytest.mark.parametrize(
    ("who", "where", "order"),
    [
        (3, "first", "3012"),
        (2, "earlier", "0213"),
        (0, "earlier", "0123"),
        (1, "later", "0213"),
        (3, "later", "0123"),
        (0, "last", "1230"),
    ],
)
def test_a_waiting_job_can_be_moved_and_later_ones_still_come_last(store, make, who, where, order):
    jobs = [make() for _ in range(4)]
    add(store, *jobs)
    assert store.move(jobs[who].id, where)
    jobs.append(make())
    add(store, jobs[4])
    expected = [jobs[int(place)].id for place in f"{order}4"]
    assert [row.id for row in store.in_order(100)] == expected
    assert [lease_next(store).id for _ in jobs] == expected


def test_a_moved_job_gets_past_priorities_and_attempts_and_the_others_keep_their_order(store, make):
    tried, batch, hurried = make(), make(), make(priority="interactive")
    add(store, tried, batch)
    row = lease_next(store)
    store.requeue(row.id, row.fence, Requeued.CRASHED)
    add(store, hurried, last := make(priority="interactive"))
    assert [row.id for row in store.in_order(9)] == [hurried.id, last.id, batch.id, tried.id]
    assert store.move(tried.id, "first")
    assert [row.id for row in store.in_order(9)] == [tried.id, hurried.id, last.id, batch.id]
    assert store.move(hurried.id, "last")
    assert [row.id for row in store.in_order(9)] == [tried.id, last.id, batch.id, hurried.id]


def test_only_a_job_that_waits_can_be_moved(store, make):
    job, other = make(), make()
    add(store, job, other)
    lease_next(store)
    assert not store.move(job.id, "last") and not store.move("nobody", "first")
    assert [row.id for row in store.in_order(9)] == [job.id, other.id], "what runs stands before what waits"


def test_a_job_waits_for_its_time(store, make):
    job = make()
    add(store, job)
    row = lease_next(store)
    store.requeue(row.id, row.fence, Requeued.RETRIED, not_before=100.0)
    assert store.next(99.9) is None
    assert store.next(100.0).id == job.id


def test_what_is_counted(store, make):
    job = make()
    add(store, job)
    counts = []
    for why in (Requeued.CRASHED, Requeued.RETRIED, Requeued.RELEASED):
        row = lease_next(store)
        store.requeue(row.id, row.fence, why)
        row = store.get(job.id)
        counts.append((row.attempts, row.crashes, row.retries, row.fence))
    assert counts == [(1, 1, 0, 1), (2, 1, 1, 2), (2, 1, 1, 3)]


def test_a_stale_fence_changes_nothing(store, make):
    job = make()
    add(store, job)
    old = lease_next(store)
    store.requeue(old.id, old.fence, Requeued.CRASHED)
    new = lease_next(store)
    assert new.fence == old.fence + 1
    assert not store.finish(done(job.id), old.fence)
    assert not store.extend(job.id, old.fence, 1e9, 0.9, "late")
    assert not store.requeue(job.id, old.fence, Requeued.RETRIED)
    assert store.get(job.id) == new
    assert store.finish(done(job.id), new.fence)
    assert not store.finish(done(job.id), new.fence)
    assert store.get(job.id).state is State.DONE


def test_progress_never_falls(store, make):
    add(store, make())
    row = lease_next(store)
    store.extend(row.id, row.fence, 60, 0.5, "separating")
    store.extend(row.id, row.fence, 90, 0.2, "writing")
    row = store.get(row.id)
    assert (row.progress, row.message, row.lease_until) == (0.5, "writing", 90)


def test_everything_survives_reopening(tmp_path, store, make):
    job = make(deliver={"item": "ü"}, priority="interactive")
    add(store, job)
    before = store.get(job.id)
    again = JobStore.open(tmp_path / "jobs.sqlite3")
    assert again.get(job.id) == before
    assert again.get(job.id).job == job
    again.close()


def test_a_new_run_takes_over_what_was_running_and_no_time_of_the_old_clock_counts(store, make):
    running, waiting = make(), make()
    add(store, running, waiting)
    row = lease_next(store)
    other = lease_next(store)
    store.requeue(other.id, other.fence, Requeued.RETRIED, not_before=1e12)
    assert store.take_over() == [running.id]
    row = store.get(running.id)
    assert (row.state, row.crashes, row.attempts) == (State.QUEUED, 0, 1)
    assert {lease_next(store).id, lease_next(store).id} == {running.id, waiting.id}


def test_the_same_job_twice_is_one_job(store, make):
    job = make()
    add(store, job, job)
    add(store, job)
    assert store.live_count() == 1


def test_a_finished_job_runs_again_as_new(store, make):
    job = make()
    add(store, job)
    for _ in range(2):
        row = lease_next(store)
        store.requeue(row.id, row.fence, Requeued.CRASHED)
    row = lease_next(store)
    store.finish(Result(id=job.id, state=State.DEAD, error="Dead."), row.fence)
    add(store, job)
    row = store.get(job.id)
    assert (row.state, row.crashes, row.attempts, row.error, row.result) == (State.QUEUED, 0, 0, None, None)
    assert lease_next(store).fence == 4


def test_equal_content_is_computed_by_one_job_at_a_time(store, make):
    first, copy = make(), make()
    store.enqueue([watched(first, "a.wav"), watched(copy, "copy.wav")])
    row = lease_next(store)
    assert row.id == first.id
    assert store.next(0.0) is None
    store.finish(done(first.id), row.fence)
    assert store.done_duplicate(store.next(0.0)).id == first.id
    with pytest.raises(sqlite3.IntegrityError):
        lease_next(store)


def test_other_content_preset_or_model_is_another_job(store, make):
    store.enqueue(
        [watched(make(), "a.wav"), watched(make(), "b.wav", content="d"), watched(make(), "c.wav", preset="q")]
    )
    assert [lease_next(store) is not None for _ in range(3)] == [True] * 3


def test_content_whose_result_is_gone_is_computed_again(store, make):
    first, copy = make(), make()
    store.enqueue([watched(first, "a.wav"), watched(copy, "copy.wav")])
    store.finish(done(first.id), lease_next(store).fence)
    store.forget_content(first.id)
    assert lease_next(store).id == copy.id


def test_a_changed_file_supersedes_its_waiting_job(store, make):
    old, other, new = make(), make(), make()
    store.enqueue([watched(old), watched(other, "b.wav", content="x")])
    outcome = store.enqueue([watched(new, state="2", content="d")])
    assert (outcome.superseded, outcome.queued) == ([old.id], [new.id])
    assert store.get(old.id).cancel_requested == "superseded"
    assert store.get(other.id).cancel_requested == ""


def test_a_changed_file_asks_its_running_job_to_end(store, make):
    old, new = make(), make()
    store.enqueue([watched(old)])
    lease_next(store)
    assert store.enqueue([watched(new, state="2", content="d")]).superseded == []
    assert store.get(old.id).cancel_requested == "superseded"


@pytest.mark.parametrize(("ended", "again"), [(State.DONE, False), (State.FAILED, True), (State.CANCELLED, True)])
def test_a_file_that_was_only_touched_runs_again_if_it_did_not_go_well(store, make, ended, again):
    first, second = make(), make()
    store.enqueue([watched(first)])
    store.finish(Result(id=first.id, state=ended), lease_next(store).fence)
    outcome = store.enqueue([watched(second, state="2")])
    assert (outcome.queued, outcome.unchanged) == (([second.id], []) if again else ([], [second.id]))
    known = store.files_of("/in")["a.wav"]
    assert (known.state, known.job_id) == ("2", second.id if again else first.id)


def test_the_first_wish_to_end_a_job_counts(store, make):
    job = make()
    add(store, job)
    assert store.request_cancel(job.id, State.CANCELLED)
    assert not store.request_cancel(job.id, State.SUPERSEDED)
    assert store.get(job.id).cancel_requested == "cancelled"


def test_ignored_files_are_listed_whatever_they_are_called(store):
    names = ["notes.txt", "new\nline.pdf", "caf\u00e9 \U0001f3b5.txt", "not-utf8-\udcff.txt"]
    store.remember_files(SeenFile("/in", name, "1", reason="No sound.") for name in names)
    assert {file.relative for file in store.ignored()} == set(names)
    assert set(store.files_of("/in")) == set(names)


def test_states_are_counted_and_listed_newest_first(store, make):
    jobs = [make() for _ in range(3)]
    add(store, *jobs)
    store.finish(done(jobs[0].id), lease_next(store).fence)
    assert store.counts() == {State.DONE: 1, State.QUEUED: 2}
    assert [row.id for row in store.rows()] == [job.id for job in reversed(jobs)]
    assert [row.id for row in store.rows([State.DONE])] == [jobs[0].id]
    assert len(store.rows(limit=2)) == 2
