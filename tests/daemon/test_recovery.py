"""A daemon that dies between any two of its steps; the next one makes it good."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.stage import (
    DaemonProcess,
    DaemonThread,
    job_for,
    lines,
    python_path,
    result_of,
    row_of,
    rows,
    settings_in,
    visible_sets,
    write_song,
)

from tsbs_daw.contracts.job import Job, State
from tsbs_daw.core.config import Settings
from tsbs_daw.queue.spool import request_cancel, request_retry, submit
from tsbs_daw.watch.folders import WatchFolder

STEPS = [
    "spool:Spool.claim:after",
    "store:JobStore.enqueue:after",
    "spool:Spool.forget_again:before",
    "store:JobStore.lease:after",
    "spool:Spool.write_fence:after",
    "store:JobStore.finish:before",
    "store:JobStore.finish:after",
    "spool:Spool.settle:after",
]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return settings_in(tmp_path)


def cancelled_job(settings: Settings, tmp_path: Path) -> Job:
    """A job that ended, and is asked to run again."""
    job = job_for(tmp_path, "Again", seed=3)
    submit(settings.spool, job)
    request_cancel(settings.spool, job.id)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    assert result_of(settings, job).state is State.CANCELLED
    request_retry(settings.spool, job.id)
    return job


@pytest.mark.parametrize("step", STEPS)
def test_a_daemon_that_dies_at_any_step_loses_nothing(tmp_path, settings, step):
    again = cancelled_job(settings, tmp_path)
    write_song(tmp_path / "in" / "Watched.wav", 1)
    sent = job_for(tmp_path, "Sent", seed=2)
    submit(settings.spool, sent)
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    with DaemonProcess(settings, (folder,), once=True, die_at=step) as daemon:
        assert daemon.wait() == 137
    with DaemonProcess(settings, (folder,), once=True) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    assert [row.state for row in rows(settings)] == [State.DONE] * 3
    assert row_of(settings, again).state is State.DONE
    assert result_of(settings, sent).state is State.DONE
    songs = sorted(line.split(" ", 2)[2].rsplit(" ", 1)[0] for line in lines(settings, "published.log"))
    assert songs == ["Again", "Sent", "Watched"]
    assert sorted(path.name for path in visible_sets(tmp_path / "out")) == songs
    assert list((settings.spool / "jobs").iterdir()) == []
    assert list((settings.spool / "inbox").iterdir()) == []


def test_a_copy_that_was_taken_in_and_not_queued_is_not_taken_twice(tmp_path, settings):
    write_song(tmp_path / "in" / "Watched.wav")
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    with DaemonProcess(settings, (folder,), once=True, die_at="store:JobStore.enqueue:before") as daemon:
        assert daemon.wait() == 137
    assert len(list((settings.spool / "jobs").iterdir())) == 1
    with DaemonProcess(settings, (folder,), once=True) as daemon:
        assert daemon.wait() == 0
    assert [row.state for row in rows(settings)] == [State.DONE]
    assert len(lines(settings, "runs.log")) == 1
