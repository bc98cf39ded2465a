"""The daemon: requests become results, in order, whatever the worker does."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs.runners import RUNNERS_FOLDER
from jobs.stage import QUICK, DaemonProcess, job_for, lines, result_of, settings_in, until, visible_sets, write_song

from tsbs_daw.config import Settings
from tsbs_daw.jobs.daemon import Daemon
from tsbs_daw.jobs.folders import WatchFolder
from tsbs_daw.jobs.job import State
from tsbs_daw.jobs.spool import submit


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", str(RUNNERS_FOLDER))
    return settings_in(tmp_path)


def test_a_submitted_job_is_separated_and_appears_in_done(tmp_path, settings):
    job = job_for(tmp_path, "Night Drive", deliver={"item": "{GUID}"})
    submit(settings.spool, job)
    with Daemon(settings, options=QUICK) as daemon:
        until(lambda: result_of(settings, job), daemon=daemon)
    result = result_of(settings, job)
    assert (result.state, result.error, result.deliver) == (State.DONE, None, {"item": "{GUID}"})
    assert (result.folder / "vocals.wav").read_bytes() == job.source.path.read_bytes()
    assert not (settings.spool / "inbox" / job.id).exists()
    assert not (settings.spool / "jobs" / job.id).exists()


def test_once_handles_a_watch_folder_and_ends(tmp_path, settings):
    for number in range(3):
        write_song(tmp_path / "in" / f"Song {number}.wav", number)
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    with DaemonProcess(settings, (folder,), once=True) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    assert [path.name for path in visible_sets(tmp_path / "out")] == ["Song 0", "Song 1", "Song 2"]
    assert len(lines(settings, "runs.log")) == 3
