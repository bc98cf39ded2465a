"""Benchmark of a real daemon with an empty home: its cost while idle, and how soon it starts jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tsbs_daw.audio.wav_writer import file_samples
from tsbs_daw.contracts.job import Job, Source
from tsbs_daw.core import machine
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.queue.spool import submit

START_LIMIT_S = 60.0
JOB_LIMIT_S = 300.0
PIECES, PAUSE_S = 4, 0.2  # the file arrives in pieces, like a slow copy
SETTLE_S = 2.0


@dataclass(frozen=True)
class Cost:
    """Cost of an idle process.

    Attributes:
        cpu_share: Share of one core, 0 to 1.
        memory_bytes: Resident memory.
    """

    cpu_share: float
    memory_bytes: int


@dataclass(frozen=True)
class DaemonFigures:
    """Figures of a daemon. Optional ones are None on systems without /proc.

    Attributes:
        pickup_s: From the end of a file's growth to the start of its job.
        item_s: From a DAW's request for an item to its stems, with a worker that has loaded the model.
        idle: Cost of the idle daemon.
        worker_bytes: Memory of the idle worker.
    """

    pickup_s: float
    item_s: float
    idle: Cost | None
    worker_bytes: int | None


@dataclass(frozen=True)
class Queued:
    """Figures of a queue of songs.

    Attributes:
        songs: Number of songs submitted at once.
        seconds: Time until the last one was done.
        worker_bytes: Memory of the worker afterwards.
    """

    songs: int
    seconds: float
    worker_bytes: int | None


def measure_daemon(folder: Path, song: Path, item: Path, model: Path, *, idle_s: float) -> DaemonFigures:
    """Measure a daemon: let it idle, copy a song into its watch folder, then request an item like a DAW.

    Args:
        folder: Empty folder for the daemon's files.
        song: File to copy into the watch folder.
        item: File to request.
        model: Model file.
        idle_s: Duration of the idle measurement.

    Raises:
        DaemonError: The daemon did not start, or did not process the song.
    """
    spool, watched = folder / "home" / "spool", folder / "watched"
    watched.mkdir()
    with _daemon(folder, ["watch", str(watched), "--out", str(folder / "out"), "--model", str(model)]) as daemon:
        time.sleep(SETTLE_S)
        idle = _idle(daemon.pid, idle_s)
        stopped_growing = _copy_slowly(song, watched / "song.wav")
        _wait(lambda: _started(spool), JOB_LIMIT_S, daemon, folder)
        pickup_s = time.monotonic() - stopped_growing
        _wait(lambda: any((spool / "done").glob("*/result.json")), JOB_LIMIT_S, daemon, folder)
        worker_bytes = machine.children_bytes(daemon.pid)
        job = Job(schema=1, source=Source(path=item), output=folder / "out", model=str(model), priority="interactive")
        asked = time.monotonic()
        submit(spool, job)
        _wait((spool / "done" / job.id / "result.json").exists, JOB_LIMIT_S, daemon, folder)
        return DaemonFigures(pickup_s, time.monotonic() - asked, idle, worker_bytes)


def measure_queue(folder: Path, song: Path, model: Path, counts: Sequence[int]) -> list[Queued]:
    """Submit several songs at once to a daemon, for each of `counts` in turn.

    Each song is the same recording from another sample on, so the daemon treats it as a different song.

    Raises:
        DaemonError: The daemon did not start, or did not finish.
    """
    spool = folder / "home" / "spool"
    length_samples = file_samples(song) - sum(counts) - 1
    found, start = [], 0
    with _daemon(folder, ["watch"]) as daemon:
        for count in (1, *counts):  # the first song loads the model and is not counted
            jobs = []
            asked = time.monotonic()
            for _ in range(count):
                source = Source(path=song, start_samples=start, length_samples=length_samples)
                jobs.append(Job(schema=1, source=source, output=folder / "out", model=str(model)))
                submit(spool, jobs[-1])
                start += 1
            last = [spool / "done" / job.id / "result.json" for job in jobs]
            _wait(partial(_all_exist, last), count * JOB_LIMIT_S, daemon, folder)
            found.append(Queued(count, time.monotonic() - asked, machine.children_bytes(daemon.pid)))
    return found[1:]


def _all_exist(paths: list[Path]) -> bool:
    return all(path.exists() for path in paths)


@contextmanager
def _daemon(folder: Path, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon with a home of its own inside the block.

    Raises:
        DaemonError: It did not start.
    """
    home = folder / "home"
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "tsbs_daw", *arguments],
            env=os.environ | {"TSBS_DAW_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait((home / "spool" / "heartbeat.json").exists, START_LIMIT_S, daemon, folder)
        yield daemon
    finally:
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _started(spool: Path) -> bool:
    """Return whether a job is running or done."""
    if any((spool / "done").glob("*/result.json")):
        return True
    for path in (spool / "jobs").glob("*/progress.json"):
        try:
            return json.loads(path.read_bytes())["state"] == "running"
        except (OSError, ValueError):
            continue  # the file was just being replaced
    return False


def _copy_slowly(source: Path, target: Path) -> float:
    """Copy a file in pieces. Returns the monotonic time of the last write."""
    content = source.read_bytes()
    piece = len(content) // PIECES + 1
    with target.open("wb") as file:
        for start in range(0, len(content), piece):
            if start:
                time.sleep(PAUSE_S)
            file.write(content[start : start + piece])
            file.flush()
    return time.monotonic()


def _wait(condition: Callable[[], bool], limit_s: float, daemon: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if daemon.poll() is not None or time.monotonic() > deadline:
            last = (folder / "daemon.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            how = "ended" if daemon.poll() is not None else "did nothing in time"
            raise DaemonError(f"The daemon that was to be measured {how}: {' '.join(last) or 'it wrote nothing'}")
        time.sleep(0.02)


def _idle(pid: int, seconds: float) -> Cost | None:
    before_s, began = machine.process_cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    after_s, memory_bytes = machine.process_cpu_s(pid), machine.process_bytes(pid)
    if before_s is None or after_s is None or memory_bytes is None:
        return None
    return Cost((after_s - before_s) / (time.monotonic() - began), memory_bytes)
