"""The whole of it: the real daemon as a process, real songs, the bundled model; killed, and every job done once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import signals
import soundfile
from harness.repeats import repeated, rounds
from harness.stage import DaemonProcess, children_of, is_beating, rows, settings_in, state_of, until

from tsbs_daw.contracts.job import Job, Result, Source, State
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models.registry import BUNDLED
from tsbs_daw.queue.spool import read_progress, read_result, submit
from tsbs_daw.watch.folders import WatchFolder

OPTIONS = replace(DaemonOptions(), restart_first_s=0.05)
STEMS = {"drums.wav", "bass.wav", "other.wav", "vocals.wav"}

pytestmark = [
    pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled model is not in this checkout"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
]


def write_mixture(path: Path, sample_rate: int, duration_s: float, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = signals.mixture(signals.song(duration_s, sample_rate))
    return signals.write_file(path, audio + signals.noise(audio.shape[1], amplitude=1e-4, seed=seed), sample_rate)


def check_set(result: Result, source: Path) -> None:
    """All of a song's folder is there, as long as the source to the sample."""
    info = soundfile.info(source)
    names = {path.name for path in result.folder.iterdir()}
    assert names == STEMS | {"manifest.json", f"{result.folder.name}.RPP"}
    for stem in STEMS:
        found = soundfile.info(result.folder / stem)
        assert (found.samplerate, found.frames, found.channels) == (info.samplerate, info.frames, info.channels)


@pytest.mark.timeout(3600)
@repeated(20)
def test_a_killed_daemon_and_a_killed_worker_lose_nothing_and_repeat_nothing(tmp_path, tally, times):
    for place in rounds(tmp_path, times):
        settings, folder = settings_in(place), WatchFolder(place / "in", place / "out")
        dropped = [
            write_mixture(place / "in" / "First.wav", 44100, 20.0, 1),
            write_mixture(place / "in" / "Second.flac", 48000, 3.0, 2),
        ]
        sent = write_mixture(place / "Sent.wav", 44100, 3.0, 3)
        hashes = {path: file_sha256(path) for path in (*dropped, sent)}
        job = Job(source=Source(path=sent), output=folder.output, priority="interactive")
        submit(settings.spool, job)
        with DaemonProcess(settings, (folder,), options=OPTIONS) as daemon:
            until(lambda settings=settings: at_work(settings))
            daemon.kill()
        with DaemonProcess(settings, (folder,), options=OPTIONS) as daemon:
            until(lambda settings=settings, daemon=daemon: is_beating(settings, daemon))
            until(lambda settings=settings: at_work(settings))
            for worker in children_of(daemon.process.pid):
                os.kill(worker, signal.SIGKILL)
                until(lambda worker=worker: state_of(worker) in ("", "Z"))
            daemon.kill()
        with DaemonProcess(settings, (folder,), options=OPTIONS, once=True) as daemon:
            assert daemon.wait() == 0, daemon.log.read_text()
        assert Counter(row.state for row in rows(settings)) == {State.DONE: 3}
        sources = {"First": dropped[0], "Second": dropped[1], "Sent": sent}
        tally.faults += 3
        tally.count(settings, folder.output, list(sources))
        for row in rows(settings):
            check_set(read_result(settings.spool, row.id), sources[row.song])
        assert {path: file_sha256(path) for path in hashes} == hashes


def at_work(settings: Settings) -> bool:
    """Whether a job is being separated right now, and is in the middle of it."""
    found = [read_progress(settings.spool, row.id) for row in rows(settings, State.RUNNING)]
    return any(progress is not None and 0 < progress.fraction < 0.7 for progress in found)
