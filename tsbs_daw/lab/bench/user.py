"""What a user waits for.

separate.*   a song the whole way, from file to session: speed, and where the seconds go
full.*       the same for a model of the paper's size, with random weights
memory.*     peak memory of the same at a short and at a long length: what grows between them is a leak
start.*      the command line's start
daemon.*     a real daemon: how soon it begins, what it costs while it waits
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tsbs_daw.lab.bench.probing import probe, work_folder
from tsbs_daw.lab.bench.row import Group, Options, Row


def _start(options: Options) -> Iterator[Row]:
    """The whole process, as a user waits for it. The first start is left out: it compiles and fills caches."""
    seconds = []
    for _ in range(2 if options.quick else 10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tsbs_daw", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    yield Row("start.help", "`tsbs-daw --help` answers, median", statistics.median(seconds[1:]), "s", 0.3)


def _separate(options: Options) -> Iterator[Row]:
    """A short job goes first, so that loading the model is not counted as separating."""
    seconds = 2.0 if options.quick else options.seconds
    with work_folder() as folder:
        first = probe("song", folder, options, file="first", seconds=1.0)["path"]
        song = probe("song", folder, options, file="song", seconds=seconds)["path"]
        found = probe("separate", folder, options, sources=[first, song])
    speed = found["seconds"] / found["wall_s"]
    yield Row("separate.speed", f"{seconds:g} s of song, file to session", speed, "x real time", 4.0, True)
    yield Row("separate.factor", "the same as a share of the song's length", 1 / speed, "s per s", 0.15)
    steps = {name: value for name, value in found["timings_s"].items() if name != "total"}
    outside = 1 - steps["separate"] / found["wall_s"]
    yield Row("separate.overhead", "spent outside the network", 100 * outside, "%", 30.0)
    for name, value in sorted(steps.items(), key=lambda item: -item[1]):
        yield Row(f"separate.{name}", f"of that: {name}", value, "s")


def _full(options: Options) -> Iterator[Row]:
    """A model that computes so long that all else should hardly show."""
    size, seconds = ("tiny", 2.0) if options.quick else ("full", 15.0)
    with work_folder() as folder:
        options = replace(options, model=probe("random_model", folder, options, size=size)["path"])
        first = probe("song", folder, options, file="first", seconds=1.0)["path"]
        song = probe("song", folder, options, file="song", seconds=seconds)["path"]
        found = probe("separate", folder, options, sources=[first, song])
    yield Row(
        "full.speed", f"{seconds:g} s of song, file to session", found["seconds"] / found["wall_s"], "x real time"
    )
    outside = 1 - found["timings_s"]["separate"] / found["wall_s"]
    yield Row("full.overhead", "spent outside the network", 100 * outside, "%", 10.0)
    if found["peak_bytes"] is not None:
        yield Row("full.memory", "peak memory", found["peak_bytes"] / 1e6, "MB", 3000.0)


def _memory(options: Options) -> Iterator[Row]:
    peaks = []
    for name, seconds in zip(("short", "long"), options.memory_seconds, strict=True):
        with work_folder() as folder:
            song = probe("song", folder, options, file="song", seconds=seconds)["path"]
            peak = probe("separate", folder, options, sources=[song])["peak_bytes"]
        if peak is None:  # Windows has no such count
            return
        peaks.append(peak / 1e6)
        yield Row(f"memory.{name}", f"peak for {seconds:g} s of song", peaks[-1], "MB", 1500.0)
    yield Row("memory.growth", "the long one needs more by", max(0.0, peaks[1] - peaks[0]), "MB", 100.0)


def _daemon(options: Options) -> Iterator[Row]:
    from tsbs_daw.lab.bench.daemon import measure_daemon

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


GROUPS = (
    Group("start", _start, ("start.help",), needs_model=False),
    Group("separate", _separate, ("separate.speed", "separate.factor", "separate.overhead"), open=True),
    Group("full", _full, ("full.speed", "full.overhead"), long=True, needs_model=False, open=True),
    Group("memory", _memory, ("memory.short", "memory.long", "memory.growth")),
    Group("daemon", _daemon, ("daemon.pickup", "daemon.item", "daemon.cpu", "daemon.memory", "daemon.worker")),
)
