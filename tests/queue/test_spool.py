"""The folders between those who ask and the daemon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from harness.stage import job_for

from tsbs_daw.contracts.job import Heartbeat, Job, Progress, Result, State
from tsbs_daw.core.errors import DaemonError, JobFormatError
from tsbs_daw.queue.spool import (
    ALIVE_S,
    SOURCE,
    Spool,
    living_daemon,
    read_progress,
    read_result,
    request_cancel,
    request_retry,
    submit,
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.create()
    return spool


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_for(tmp_path, "Song")


def settled(spool: Spool, job: Job, state: State = State.DONE, error: str | None = None) -> Path:
    return spool.settle(job.id, Result(id=job.id, state=state, error=error, finished_unix_s=time.time()))


def claimed(spool: Spool, job: Job) -> Path:
    spool.claim(submit(spool.root, job))
    return spool.folder(job.id)


def test_a_submitted_job_can_be_claimed(spool, job):
    folder = submit(spool.root, job)
    assert spool.waiting() == [folder]
    assert spool.read_request(folder) == job
    spool.claim(folder)
    assert spool.waiting() == []
    assert spool.live_folders() == [spool.folder(job.id)]


def test_submitting_needs_no_daemon_and_no_spool(tmp_path, job):
    assert submit(tmp_path / "never" / "seen", job).is_dir()


@pytest.mark.parametrize("moved_to", ["jobs", "done"])
def test_a_request_that_a_daemon_takes_at_once_is_no_error_of_the_one_who_sent_it(spool, job, monkeypatch, moved_to):
    real = Path.replace

    def replace_and_be_claimed(path: Path, target: Path) -> Path:
        real(path, target)
        return target.parent.rename(getattr(spool, moved_to) / job.id)

    monkeypatch.setattr(Path, "replace", replace_and_be_claimed)
    submit(spool.root, job)
    assert (getattr(spool, moved_to) / job.id / "job.json").is_file()


def test_the_same_id_cannot_be_submitted_twice(spool, job):
    submit(spool.root, job)
    with pytest.raises(DaemonError, match="already exists"):
        submit(spool.root, job)


def test_a_folder_without_its_job_json_is_left_alone(spool, job):
    folder = spool.inbox / job.id
    folder.mkdir()
    (folder / "job.json.tmp").write_text(job.to_json())
    assert spool.waiting() == []
    (folder / "job.json.tmp").rename(folder / "job.json")
    assert spool.waiting() == [folder]


def test_an_unreadable_request_says_what_is_wrong(spool, job):
    folder = submit(spool.root, job)
    for text, sentence in {
        "{": "is not valid JSON",
        "[]": "schema None",
        job.to_json().replace('"preset"', '"pressed"'): "pressed",
        job.to_json().replace(job.id, "another"): "'another'",
        " " * 300_000: "larger than 256 KiB",
    }.items():
        (folder / "job.json").write_text(text)
        with pytest.raises(JobFormatError, match=sentence) as raised:
            spool.read_request(folder)
        assert "\n" not in str(raised.value)


def test_a_settled_job_lies_in_done_with_its_result(spool, job):
    claimed(spool, job)
    spool.write_fence(job.id, 3)
    settled(spool, job)
    assert read_result(spool.root, job.id).state is State.DONE
    assert sorted(path.name for path in (spool.done / job.id).iterdir()) == ["job.json", "result.json"]
    settled(spool, job)  # once more, as after a crash
    assert spool.finished_folders() == [spool.done / job.id]


@pytest.mark.parametrize(("state", "kept"), [(State.DONE, False), (State.CANCELLED, False), (State.FAILED, True)])
def test_the_copy_of_the_source_is_kept_only_for_a_job_that_failed(spool, job, state, kept):
    folder = claimed(spool, job)
    (folder / SOURCE).mkdir()
    (folder / SOURCE / "song.wav").write_bytes(b"sound")
    settled(spool, job, state)
    assert (spool.done / job.id / SOURCE).exists() == kept


def test_a_second_result_under_the_same_id_does_not_overwrite_the_first(spool, job):
    claimed(spool, job)
    settled(spool, job)
    claimed(spool, job)
    assert settled(spool, job, State.FAILED, "No.").name == f"{job.id}.2"
    assert read_result(spool.root, job.id).state is State.DONE


def test_a_finished_job_can_run_again(spool, job):
    folder = claimed(spool, job)
    (folder / "cancel").touch()
    settled(spool, job, State.CANCELLED)
    request_retry(spool.root, job.id)
    (folder,) = spool.waiting()
    spool.claim(folder)
    assert spool.runs_again(job.id)
    assert sorted(path.name for path in spool.folder(job.id).iterdir()) == ["again", "job.json"]
    spool.forget_again(job.id)
    assert not spool.runs_again(job.id)
    with pytest.raises(DaemonError, match="not among the finished"):
        request_retry(spool.root, job.id)


def test_cancelling_reaches_a_job_wherever_it_is(spool, job):
    with pytest.raises(DaemonError, match="is not known"):
        request_cancel(spool.root, job.id)
    folder = submit(spool.root, job)
    request_cancel(spool.root, job.id)
    assert (folder / "cancel").exists()
    spool.claim(folder)
    assert spool.cancel_wanted(job.id)
    settled(spool, job, State.CANCELLED)
    with pytest.raises(DaemonError, match="already finished"):
        request_cancel(spool.root, job.id)


def test_progress_can_be_read_while_it_is_written(spool, job):
    claimed(spool, job)
    assert read_progress(spool.root, job.id) is None
    for fraction in (0.1, 0.2):
        spool.write_progress(Progress(id=job.id, state=State.RUNNING, fraction=fraction))
        assert read_progress(spool.root, job.id).fraction == fraction


def test_a_heartbeat_tells_a_living_daemon_from_a_dead_one(spool):
    assert living_daemon(spool.root) is None
    spool.write_heartbeat(Heartbeat(pid=1, version="1", updated_unix_s=time.time()))
    assert living_daemon(spool.root).pid == 1
    spool.write_heartbeat(Heartbeat(pid=1, version="1", updated_unix_s=time.time() - ALIVE_S - 1))
    assert living_daemon(spool.root) is None
    spool.remove_heartbeat()
    assert not (spool.root / "heartbeat.json").exists()


def test_old_finished_folders_are_removed_and_young_ones_kept(spool, tmp_path):
    jobs = [job_for(tmp_path, "Song") for _ in range(2)]
    for job in jobs:
        claimed(spool, job)
        settled(spool, job)
    now = time.time()
    os.utime(spool.done / jobs[0].id, (now - 31 * 86400,) * 2)
    assert spool.prune(now) == 1
    assert spool.finished_folders() == [spool.done / jobs[1].id]


def test_copies_that_were_never_finished_are_swept(spool, job):
    claimed(spool, job)
    (spool.jobs / ".incoming-x" / SOURCE).mkdir(parents=True)
    spool.sweep()
    assert spool.live_folders() == [spool.folder(job.id)]


@pytest.mark.parametrize("removal", ["discard", "prune"])
def test_a_folder_whose_removal_was_cut_short_is_no_job_any_more(spool, job, monkeypatch, removal):
    claimed(spool, job)
    if removal == "prune":
        settled(spool, job)
        os.utime(spool.done / job.id, (0, 0))
    remove = {"discard": lambda: spool.discard(job.id), "prune": lambda: spool.prune(time.time())}[removal]

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tsbs_daw.queue.spool.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove()
    spool.sweep()
    assert spool.live_folders() == spool.finished_folders() == []


def test_a_spool_that_someone_removed_holds_nothing(spool):
    for folder in (spool.inbox, spool.jobs, spool.done):
        folder.rmdir()
    assert spool.waiting() == spool.live_folders() == spool.finished_folders() == []
