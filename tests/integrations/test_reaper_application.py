"""The daemon that REAPER started ends when nothing is asked of it."""

from __future__ import annotations

import threading
from pathlib import Path

from timeouts import PATIENCE_S

from tsbs_daw.integrations.reaper_application import IdleWatch, is_idle


def job(spool: Path, place: str, name: str = "a") -> Path:
    folder = spool / place / name
    folder.mkdir(parents=True)
    (folder / "job.json").touch()
    return folder


def test_a_spool_is_idle_without_whole_requests(tmp_path: Path):
    assert is_idle(tmp_path)
    (tmp_path / "inbox" / "half" / "source").mkdir(parents=True)
    job(tmp_path, "done")
    assert is_idle(tmp_path)
    job(tmp_path, "jobs")
    assert not is_idle(tmp_path)


def test_the_time_counts_from_the_last_job_on(tmp_path: Path):
    watch = IdleWatch(tmp_path, 10.0, lambda: None)
    start = watch._busy_at
    assert not watch.look(start + 9)
    folder = job(tmp_path, "inbox")
    assert not watch.look(start + 20)
    folder.rename(tmp_path / "gone")
    assert not watch.look(start + 29) and watch.look(start + 30)


def test_it_stops_the_daemon_and_ends_with_it(tmp_path: Path):
    stopped = threading.Event()
    with IdleWatch(tmp_path, 0.0, stopped.set, every_s=0.01):
        assert stopped.wait(PATIENCE_S)
    with IdleWatch(tmp_path, 1000.0, stopped.set, every_s=0.01):
        pass
