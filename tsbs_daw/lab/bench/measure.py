"""Speed and memory on this machine, each measured in its own process and compared with its target.

Figures that are compared with each other are measured in turn in one process, so that other processes affect both
alike. By default, only groups that take minutes are measured; `complete` adds the rest.

Groups that probes measure are in `groups`; those of whole programs, the command line and a daemon, are here.

User-visible times and memory:
    separate.*   a song from file to session: speed, and the time of each step
    full.*       the same for a model of the size in the paper, with random weights
    memory.*     peak memory for a short and for a long song; growth between them indicates a leak
    start.*      start of the command line
    daemon.*     a real daemon: how soon it starts a job, and its cost while idle
The network alone, compared with the speed of the machine at matrix products:
    network.*    the requested model
    sizes.*      the two sizes of the paper and the bundled one, in each precision that the device supports
    gpu.*        on CUDA: ceilings, each size by form, number format and batch, memory, a song from file to session,
                 training, SDR by number format
Other networks:
    peers.*      alternatives to the bundled model, if they are installed (the extra `bench`)
    reference.*  a straightforward implementation of this network, compared with the optimised one
Growth of the cost:
    lengths.*    songs of 30 s, 5 min and an hour, from file to session
    songs.*      1, 10 and 100 songs through one daemon
    cluster.*    a song here and on a node, and songs per minute on 1, 2 and 3 nodes of this machine (extra `cluster`)
    stems.*      networks with 1, 2, 4 and 8 stems
    overlap.*    SDR by chunk length and overlap
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tsbs_daw.audio.writer import file_samples
from tsbs_daw.contracts.job import Job, Source
from tsbs_daw.core import machine
from tsbs_daw.core.errors import DaemonError, UsageError
from tsbs_daw.lab.bench.groups import PROBED, Group, Options, Row, probe, work_folder
from tsbs_daw.queue.spool import submit

COUNTS = (1, 10, 100)
SONG_S = 10.0


def _start(options: Options) -> Iterator[Row]:
    """Measure the whole process of the command line. The first start, which fills caches, is not counted."""
    seconds = []
    for _ in range(2 if options.quick else 10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tsbs_daw", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    yield Row("start.help", "`tsbs-daw --help` answers, median", statistics.median(seconds[1:]), "s", 0.3)


def _daemon(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        song = Path(probe("song", folder, options, file="song", seconds=2.0)["path"])
        item_s = 2.0 if options.quick else 10.0
        item = Path(probe("song", folder, options, file="item", seconds=item_s)["path"])
        found = measure_daemon(Path(folder), song, item, Path(options.model), idle_s=2.0 if options.quick else 20.0)
    yield Row("daemon.pickup", "a file stops growing, its job starts", found.pickup_s, "s", 5.0)
    yield Row("daemon.item", f"a DAW asks for {item_s:g} s, its stems are there", found.item_s, "s", 5.0)
    if found.idle is not None:
        yield Row("daemon.cpu", "an idle daemon, of one core", 100 * found.idle.cpu_share, "%", 1.0)
        yield Row("daemon.memory", "an idle daemon", found.idle.memory_bytes / 1e6, "MB", 150.0)
    if found.worker_bytes is not None:
        yield Row("daemon.worker", "its worker, while it waits for more", found.worker_bytes / 1e6, "MB")


def _songs(options: Options) -> Iterator[Row]:
    counts = (1, 2) if options.quick else COUNTS
    with work_folder() as folder:
        song = Path(probe("song", folder, options, file="song", seconds=2.0 if options.quick else SONG_S)["path"])
        found = measure_queue(Path(folder), song, Path(options.model), counts)
    one_s = found[0].seconds
    for queued in found:
        target = None if queued.songs == 1 else 1.05 * one_s
        what = f"{queued.songs} queued, each"
        yield Row(f"songs.{queued.songs}", what, queued.seconds / queued.songs, "s", target)
        if queued.worker_bytes is not None:
            yield Row(f"songs.{queued.songs}.memory", "the worker after them", queued.worker_bytes / 1e6, "MB")


# In the order in which they are measured.
_ORDER = (
    "start", "separate", "full", "memory", "daemon", "network", "sizes", "gpu", "peers", "reference",
    "lengths", "songs", "cluster", "stems", "overlap",
)  # fmt: skip
_WHOLE_PROGRAMS = (
    Group("start", _start, ("start.help",), needs_model=False),
    Group("daemon", _daemon, ("daemon.pickup", "daemon.item", "daemon.cpu", "daemon.memory", "daemon.worker")),
    Group("songs", _songs, ("songs.1",), long=True, open=True),
)
GROUPS = {name: group for name in _ORDER for group in (*PROBED, *_WHOLE_PROGRAMS) if group.name == name}


def measure(options: Options) -> Iterator[Row]:
    """Measure, and yield each requested row once it is known.

    Raises:
        UsageError: `only` names an unknown row.
        TsbsDawError: A measurement failed.
    """
    wanted = _wanted(options)
    chosen = [group for name, group in GROUPS.items() if any(row.split(".")[0] == name for row in wanted)]
    if any(group.needs_model for group in chosen):
        with work_folder() as folder:
            options = replace(options, model=probe("resolve", folder, options)["path"])
    for group in chosen:
        yield from (row for row in group.measure(options) if not options.only or {row.name, group.name} & wanted)


def _wanted(options: Options) -> set[str]:
    if not options.only:
        return {name for name, group in GROUPS.items() if options.complete or not group.long}
    known = [*GROUPS, *(row for group in GROUPS.values() for row in group.rows)]
    for name in options.only:
        if name not in known and not (name.split(".")[0] in GROUPS and GROUPS[name.split(".")[0]].open):
            raise UsageError(f"There is no row {name!r}; choose from {', '.join(known)}.")
    return set(options.only)


# A real daemon with an empty home: its cost while idle, and how soon it starts jobs.
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
    with _daemon_in(folder, ["watch", str(watched), "--out", str(folder / "out"), "--model", str(model)]) as daemon:
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
    with _daemon_in(folder, ["watch"]) as daemon:
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
def _daemon_in(folder: Path, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
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
