"""Rows of the benchmark's table, and the groups of them that are measured in child processes, by probes.

Figures that are compared with each other are measured in turn in one process, so that other processes affect both
alike.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tsbs_daw.core import child, errors
from tsbs_daw.core.errors import TsbsDawError, UsageError


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        model: Name or file of the model.
        preset: Name of the preset.
        device: Device to compute on.
        seconds: Length of the song whose separation is timed.
        quick: Use tiny lengths and few repetitions, to test that everything runs; the figures are meaningless.
        only: Names of rows or groups; empty for all groups that take minutes.
        complete: Also measure groups that take longer.
    """

    model: str = "default"
    preset: str = "none"
    device: str = "auto"
    seconds: float = 60.0
    quick: bool = False
    only: tuple[str, ...] = ()
    complete: bool = False

    @property
    def memory_seconds(self) -> tuple[float, float]:
        return (2.0, 4.0) if self.quick else (30.0, 300.0)


@dataclass(frozen=True)
class Row:
    """A row of the table. A row without a target is for information only.

    Attributes:
        name: `group.figure`.
        what: Description of the figure.
        figure: The measured value; None if measuring it failed.
        unit: Its unit.
        target: The largest or smallest acceptable value.
        larger_is_better: Whether the target is the smallest acceptable value.
    """

    name: str
    what: str
    figure: float | None
    unit: str
    target: float | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times the figure is better than the target; below 1, it misses the target."""
        if self.target is None or self.figure is None or self.figure <= 0:
            return None
        return self.figure / self.target if self.larger_is_better else self.target / self.figure

    @property
    def ok(self) -> bool | None:
        if self.target is None or self.figure is None:
            return None
        return self.figure >= self.target if self.larger_is_better else self.figure <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "ratio": self.ratio}


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    Attributes:
        name: The part of the rows' names before the dot.
        measure: Measures the group.
        rows: Names of the rows that always exist.
        long: Whether it takes long, so that it is measured only on request.
        needs_model: Whether it measures the model of the options.
        open: Whether it may have other rows, too.
    """

    name: str
    measure: Callable[[Options], Iterable[Row]]
    rows: tuple[str, ...] = ()
    long: bool = False
    needs_model: bool = True
    open: bool = False


PROBE_LIMIT_S = 3600.0


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder for the files of probes, as a context manager."""
    return tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-", ignore_cleanup_errors=True)


def probe(name: str, folder: str, options: Options, *, limit_s: float = PROBE_LIMIT_S, **values: Any) -> dict[str, Any]:
    """Run a measurement of the module `probe` in a child process.

    Args:
        name: Name of the measurement.
        folder: Folder for its files.
        options: Options of the benchmark.
        limit_s: Time limit.
        **values: Further arguments of the measurement.

    Raises:
        TsbsDawError: The child process failed or timed out; or the error that the measurement raised.
    """
    request: dict[str, object] = {"probe": name, "folder": folder, "model": options.model, "preset": options.preset}
    request |= {"device": options.device, "quick": options.quick, **values}
    command, env = child.python("tsbs_daw.lab.bench.probe"), child.environment()
    try:
        found: dict[str, Any] = child.ask(command, request, limit_s=limit_s, env=env)
    except child.ChildFailed as error:
        last = " ".join(error.log.strip().splitlines()[-1:])
        raise TsbsDawError(
            f"Measuring {name} ended early ({error.exit_text}: {last}); run `tsbs-daw doctor`."
        ) from error
    except child.ChildTimeout as error:
        raise TsbsDawError(f"Measuring {name} did not end within {limit_s:.0f} s.") from error
    if "error" in found:
        raise getattr(errors, found["kind"])(found["error"])
    return found


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


def _gpu(options: Options) -> Iterator[Row]:
    """Measure a GPU. What was measured before the probe failed is kept."""
    with work_folder() as folder:
        path = Path(folder) / "gpu.jsonl"
        try:
            probe("gpu", folder, options, file=str(path))
        finally:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            for line in lines:
                yield from _rows_of_gpu(json.loads(line))


def _rows_of_gpu(row: dict[str, Any]) -> Iterator[Row]:
    from tsbs_daw.lab.bench.gpu import FIGURES, TARGETS

    name = f"gpu.{row['name'].replace(' ', '-')}"
    if "error" in row:
        yield Row(name, f"failed: {row['error']}", None, "")
    for key, (what, unit) in FIGURES.items():
        if key in row:
            yield Row(f"{name}.{key}", what, row[key], unit, TARGETS.get(key))


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


LENGTHS_S = (30.0, 300.0, 3600.0)
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


PROBED = (
    Group("separate", _separate, ("separate.speed", "separate.factor", "separate.overhead"), open=True),
    Group("full", _full, ("full.speed", "full.overhead"), long=True, needs_model=False, open=True),
    Group("memory", _memory, ("memory.short", "memory.long", "memory.growth")),
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
    Group("peers", _peers, ("peers.tiny",), long=True, needs_model=False, open=True),
    Group(
        "reference",
        _reference,
        ("reference.plain", "reference.fast", "reference.ahead"),
        long=True,
        needs_model=False,
    ),
    Group("lengths", _lengths, long=True, open=True),
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
