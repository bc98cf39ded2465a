"""Speed and memory on this machine, each measured in its own process and compared with its target.

Figures that are compared with each other are measured in turn in one process, so that other processes affect both
alike. By default, only groups that take minutes are measured; `complete` adds the rest.

User-visible times and memory:
    separate.*   a song from file to session: speed, and the time of each step
    full.*       the same for a model of the size in the paper, with random weights
    memory.*     peak memory for a short and for a long song; growth between them indicates a leak
    start.*      start of the command line
    daemon.*     a real daemon: how soon it starts a job, and its cost while idle
The network alone, compared with the speed of the machine at matrix products:
    network.*    the requested model
    sizes.*      the two sizes of the paper and the bundled one, in each precision that the device supports
    gpu.*        on CUDA: ceilings, each size by form, number format and batch, memory, a song from file to session
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

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.bench.row import Group, Options, Row, probe, work_folder


def _start(options: Options) -> Iterator[Row]:
    """Measure the whole process of the command line. The first start, which fills caches, is not counted."""
    seconds = []
    for _ in range(2 if options.quick else 10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tsbs_daw", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    yield Row("start.help", "`tsbs-daw --help` answers, median", statistics.median(seconds[1:]), "s", 0.3)


def _separate(options: Options) -> Iterator[Row]:
    """Measure a song after a short job, so that loading the model does not count as separation."""
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
    """Measure a slow model, for which everything but the network should be negligible."""
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
        if peak is None:  # not available on Windows
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


_USER_GROUPS = (
    Group("start", _start, ("start.help",), needs_model=False),
    Group("separate", _separate, ("separate.speed", "separate.factor", "separate.overhead"), open=True),
    Group("full", _full, ("full.speed", "full.overhead"), long=True, needs_model=False, open=True),
    Group("memory", _memory, ("memory.short", "memory.long", "memory.growth")),
    Group("daemon", _daemon, ("daemon.pickup", "daemon.item", "daemon.cpu", "daemon.memory", "daemon.worker")),
)


SIZES = ("full", "lite", "tiny")
OVER_FLOOR = {("full", "float32"): 1.5, ("full", "bfloat16"): 2.2}  # largest multiple of the floor
FULL_MB = 3000.0


def _network(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("network", folder, options)
    rate = found["macs_per_s_of_audio"] * found["speed"]
    yield Row("network.speed", f"the network alone on {found['device']}", found["speed"], "x real time")
    yield Row("network.arithmetic", "counted per second of stereo", found["macs_per_s_of_audio"] / 1e9, "GMAC")
    yield Row("network.machine", "large matrix products here", found["machine_macs_per_s"] / 1e9, "GMAC/s")
    yield Row("network.reached", "of that, the network reaches", 100 * rate / found["machine_macs_per_s"], "%")


def _sizes(options: Options) -> Iterator[Row]:
    for size in SIZES:
        for precision in ("float32", "bfloat16"):
            with work_folder() as folder:
                found = probe("size", folder, options, size=size, precision=precision)
            yield from _rows_of_size(size, precision, found)


def _rows_of_size(size: str, precision: str, found: dict) -> Iterator[Row]:
    name, what = f"sizes.{size}.{precision}", f"{size}, {precision} on {found['device']}"
    yield Row(f"{name}.speed", f"{what}: a chunk", found["speed"], "x real time")
    target = OVER_FLOOR.get((size, precision))
    yield Row(f"{name}.over_floor", "its time over the floor", found["over_floor"], "x", target)
    yield Row(f"{name}.floor", "the floor", found["macs_per_s_of_audio"] / found["machine_macs_per_s"], "s per s")
    own, executed = found["macs_per_s_of_audio"] / 1e9, found["executed_macs_per_s_of_audio"] / 1e9
    yield Row(f"{name}.arithmetic", "the network's own, per second of stereo", own, "GMAC")
    yield Row(f"{name}.executed", "of them are computed here", executed, "GMAC")
    yield Row(f"{name}.machine", f"large {precision} products here", found["machine_macs_per_s"] / 1e9, "GMAC/s")
    yield Row(f"{name}.products", "of its time, in matrix products", 100 * found["share_in_products"], "%")
    if found["peak_bytes"] is not None:
        memory_target = FULL_MB if size == "full" else None
        yield Row(f"{name}.memory", "peak memory", found["peak_bytes"] / 1e6, "MB", memory_target)


# Figures of a GPU: description and unit of each.
GPU_FIGURES = {
    "real_time": ("new sound per second", "x real time"),
    "error": ("its error, as a ratio of norms to float32", ""),
    "peak_gb": ("peak memory", "GB"),
    "planned_gb": ("planned for it", "GB"),
    "launches": ("kernels of one run", ""),
    "wall_s": ("from file to session", "s"),
    "examples_per_s": ("forward and backward", "examples/s"),
    "copy_tb_per_s": ("a large copy, read and written", "TB/s"),
    "bfloat16_tflop_per_s": ("large products in bfloat16", "TFLOP/s"),
    "tf32_tflop_per_s": ("large products in TF32", "TFLOP/s"),
    "float32_tflop_per_s": ("large products in float32", "TFLOP/s"),
    "small_launch_us": ("a small launch", "us"),
}


def _gpu(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        rows = probe("gpu", folder, options)["rows"]
    for row in rows:
        name = f"gpu.{row['name'].replace(' ', '-')}"
        for key, (what, unit) in GPU_FIGURES.items():
            if key in row:
                yield Row(f"{name}.{key}", what, row[key], unit)


_NETWORK_GROUPS = (
    Group("network", _network, ("network.speed", "network.arithmetic", "network.machine", "network.reached")),
    Group(
        "sizes",
        _sizes,
        tuple(f"sizes.{size}.{precision}.speed" for size in SIZES for precision in ("float32", "bfloat16")),
        long=True,
        needs_model=False,
        open=True,
    ),
    Group("gpu", _gpu, long=True, needs_model=False, open=True),
)


AHEAD_OF = {"htdemucs": 3.0}  # the bundled model must be at least this many times as fast
AHEAD_OF_REFERENCE = 6.0


def _peers(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("peers", folder, options)
    for name, seconds in found.items():
        yield Row(f"peers.{name}", f"{name}: computing per second of song", seconds, "s per s")
    for name in (name for name in found if name not in {"tiny", "full"}):
        what = f"the bundled size is faster than {name} by"
        yield Row(f"peers.tiny_over_{name}", what, found[name] / found["tiny"], "x", AHEAD_OF.get(name), True)
        if "full" in found:
            yield Row(f"peers.full_over_{name}", f"the full size, than {name}", found[name] / found["full"], "x")


def _reference(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("reference", folder, options)
    yield Row("reference.plain", "the full size, plainly written", found["reference"], "s per s")
    yield Row("reference.fast", "the full size, as it is", found["fast"], "s per s")
    ahead = found["reference"] / found["fast"]
    yield Row("reference.ahead", "faster by", ahead, "x", AHEAD_OF_REFERENCE, True)


_PEER_GROUPS = (
    Group("peers", _peers, ("peers.tiny",), long=True, needs_model=False, open=True),
    Group(
        "reference",
        _reference,
        ("reference.plain", "reference.fast", "reference.ahead"),
        long=True,
        needs_model=False,
    ),
)


LENGTHS_S = (30.0, 300.0, 3600.0)
COUNTS = (1, 10, 100)
SONG_S = 10.0
CLUSTER_SONGS = (("short", 10.0, 3), ("long", 240.0, 1))  # name, seconds, repetitions
CLUSTER_S = 900.0  # time limit of one measurement of the cluster
STEMS = (1, 2, 4, 8)


def _lengths(options: Options) -> Iterator[Row]:
    """Measure songs of several lengths. A short song before each loads the model."""
    first_s = None
    for seconds in (2.0, 4.0) if options.quick else LENGTHS_S:
        with work_folder() as folder:
            first = probe("song", folder, options, file="first", seconds=1.0)["path"]
            song = probe("song", folder, options, file="song", seconds=seconds)["path"]
            found = probe("separate", folder, options, sources=[first, song])
        per_second = found["wall_s"] / found["seconds"]
        first_s = first_s or per_second
        yield Row(f"lengths.{seconds:g}", f"{seconds:g} s of song", per_second, "s per s", 1.1 * first_s)
        if found["peak_bytes"] is not None:
            yield Row(f"lengths.{seconds:g}.memory", "peak memory", found["peak_bytes"] / 1e6, "MB", 1500.0)


def _songs(options: Options) -> Iterator[Row]:
    from tsbs_daw.lab.bench.daemon import measure_queue

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


def _cluster(options: Options) -> Iterator[Row]:
    if importlib.util.find_spec("ray") is None:
        raise UsageError("The group cluster needs Ray; run `pip install 'tsbs-daw[cluster]'`.")
    lengths = (("short", 4.0, 1),) if options.quick else CLUSTER_SONGS
    songs = 2 if options.quick else 12
    with work_folder() as folder:
        for name, seconds, times in lengths:
            song = probe("song", folder, options, file=name, seconds=seconds)["path"]
            single = {"song": song, "nodes": 1, "in_turn": times}
            yield from _rows_of_cluster(name, seconds, probe("cluster", folder, options, limit_s=CLUSTER_S, **single))
        song = probe("song", folder, options, file="each", seconds=lengths[0][1])["path"]
        for nodes in (1,) if options.quick else (1, 2, 3):
            several = {"song": song, "nodes": nodes, "together": songs}
            found = probe("cluster", folder, options, limit_s=CLUSTER_S, **several)
            yield Row(
                f"cluster.{nodes}", f"{nodes} node(s) with single core each", found["songs_per_minute"], "songs/min"
            )


def _rows_of_cluster(name: str, seconds: float, found: dict) -> Iterator[Row]:
    """Yield the rows of a song. Only the long one has a target, because start and end dominate a short one."""
    target = 10.0 if name == "long" else None
    yield Row(f"cluster.{name}.local", f"{seconds:g} s of song on one core here", found["local_s"], "s")
    yield Row(f"cluster.{name}.remote", "the same on one node with one core", found["remote_s"], "s")
    longer = 100 * (found["remote_s"] / found["local_s"] - 1)
    yield Row(f"cluster.{name}.overhead", "that is longer by", longer, "%", target)
    more = 100 * (found["remote_processor_s"] / found["local_processor_s"] - 1)
    yield Row(f"cluster.{name}.processor", "and takes more processor time, with all of Ray, by", more, "%")
    yield Row(f"cluster.{name}.bytes", "there and back, for a second of song", found["bytes_per_s"] / 1e6, "MB")


def _stems(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("stems", folder, options)
    for count in STEMS:
        yield Row(f"stems.{count}", f"the bundled size with {count} stems", found[str(count)], "s per s")


def _overlap(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        table = probe("overlap", folder, options)["table"]
    for point in table:
        name = f"overlap.{point['chunk_s']:g}s.{100 * point['overlap']:.0f}"
        what = f"chunks of {point['chunk_s']:g} s, {100 * point['overlap']:.0f} % overlap"
        yield Row(f"{name}.sdr", f"{what}: mean SDR", point["sdr_db"], "dB")
        yield Row(f"{name}.cost", "that takes", point["seconds"], "s per s")


_GROWTH_GROUPS = (
    Group("lengths", _lengths, long=True, open=True),
    Group("songs", _songs, ("songs.1",), long=True, open=True),
    Group(
        "cluster",
        _cluster,
        ("cluster.short.local", "cluster.short.remote", "cluster.short.overhead", "cluster.1"),
        long=True,
        open=True,
    ),
    Group("stems", _stems, tuple(f"stems.{count}" for count in STEMS), long=True, needs_model=False),
    Group("overlap", _overlap, long=True, open=True),
)


# In the order in which they are measured.
GROUPS = {group.name: group for group in (*_USER_GROUPS, *_NETWORK_GROUPS, *_PEER_GROUPS, *_GROWTH_GROUPS)}


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
