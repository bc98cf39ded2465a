"""Speed and memory on this machine, each measured in a process of its own and held against its target.

separate.*   a song the whole way, from file to session: speed, and where the seconds go
memory.*     peak memory of the same at a short and at a long length: what grows between them is a leak
start.*      the command line's start
daemon.*     a real daemon: how soon it begins, what it costs while it waits
network.*    the network alone: speed, arithmetic, and how much of the machine's own matrix speed it reaches
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tsbs_daw import errors
from tsbs_daw.errors import TsbsDawError, UsageError

PROBE_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Options:
    """What to measure.

    seconds:  of the song whose separation is timed
    quick:    tiny lengths and few repetitions: shows that everything runs, not how fast
    only:     names of rows or groups; empty is all
    """

    model: str = "default"
    preset: str = "none"
    device: str = "auto"
    seconds: float = 60.0
    quick: bool = False
    only: tuple[str, ...] = ()

    @property
    def memory_seconds(self) -> tuple[float, float]:
        return (2.0, 4.0) if self.quick else (30.0, 300.0)


@dataclass(frozen=True)
class Row:
    """One line of the table. A row without a target is there for information.

    larger_is_better: which way the target is meant
    """

    name: str
    what: str
    figure: float
    unit: str
    target: float | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the target; below 1 is a miss."""
        if self.target is None or self.figure <= 0:
            return None
        return self.figure / self.target if self.larger_is_better else self.target / self.figure

    @property
    def ok(self) -> bool | None:
        if self.target is None:
            return None
        return self.figure >= self.target if self.larger_is_better else self.figure <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "ratio": self.ratio}


# What each group can give. The steps of the way are named by the pipeline, so separate.* is open.
GROUPS: dict[str, tuple[str, ...]] = {
    "separate": ("separate.speed", "separate.*"),
    "memory": ("memory.short", "memory.long", "memory.growth"),
    "start": ("start.help",),
    "daemon": ("daemon.pickup", "daemon.item", "daemon.cpu", "daemon.memory", "daemon.worker"),
    "network": ("network.speed", "network.arithmetic", "network.machine", "network.reached"),
}


def measure(options: Options) -> Iterator[Row]:
    """Every wanted row as soon as it is known.

    Raises: UsageError: `only` names what there is not; TsbsDawError: what was to be measured failed
    """
    wanted = _wanted(options.only)
    groups: dict[str, Callable[[Options], Iterable[Row]]] = {
        "start": _start,
        "network": _network,
        "separate": _separate,
        "memory": _memory,
        "daemon": _daemon,
    }
    chosen = [group for group in groups if any(name.split(".")[0] == group for name in wanted)]
    if chosen != ["start"]:
        with _work_folder() as folder:
            options = replace(options, model=_probe("resolve", folder, options)["path"])
    for group in chosen:
        yield from (row for row in groups[group](options) if not options.only or {row.name, group} & wanted)


def _wanted(only: tuple[str, ...]) -> set[str]:
    if not only:
        return set(GROUPS)
    known = [*GROUPS, *(name for names in GROUPS.values() for name in names if "*" not in name)]
    for name in only:
        if name not in known and not name.startswith("separate."):
            raise UsageError(f"There is no row {name!r}; choose from {', '.join(known)}.")
    return set(only)


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
    with _work_folder() as folder:
        first = _probe("song", folder, options, file="first", seconds=1.0)["path"]
        song = _probe("song", folder, options, file="song", seconds=seconds)["path"]
        found = _probe("separate", folder, options, sources=[first, song])
    speed = found["seconds"] / found["wall_s"]
    yield Row("separate.speed", f"{seconds:g} s of song, file to session", speed, "x real time", 4.0, True)
    for name, value in sorted(found["timings_s"].items(), key=lambda item: -item[1]):
        if name != "total":
            yield Row(f"separate.{name}", f"of that: {name}", value, "s")


def _memory(options: Options) -> Iterator[Row]:
    peaks = []
    for name, seconds in zip(("short", "long"), options.memory_seconds, strict=True):
        with _work_folder() as folder:
            song = _probe("song", folder, options, file="song", seconds=seconds)["path"]
            peak = _probe("separate", folder, options, sources=[song])["peak_bytes"]
        if peak is None:  # Windows has no such count
            return
        peaks.append(peak / 1e6)
        yield Row(f"memory.{name}", f"peak for {seconds:g} s of song", peaks[-1], "MB", 1500.0)
    yield Row("memory.growth", "the long one needs more by", max(0.0, peaks[1] - peaks[0]), "MB", 100.0)


def _network(options: Options) -> Iterator[Row]:
    with _work_folder() as folder:
        found = _probe("network", folder, options)
    rate = found["macs_per_s_of_audio"] * found["speed"] / 1e9
    yield Row("network.speed", f"the network alone on {found['device']}", found["speed"], "x real time")
    yield Row("network.arithmetic", "counted per second of stereo", found["macs_per_s_of_audio"] / 1e9, "GMAC")
    yield Row("network.machine", "large matrix products here", found["machine_macs_per_s"] / 1e9, "GMAC/s")
    yield Row("network.reached", "of that, the network reaches", 100 * rate * 1e9 / found["machine_macs_per_s"], "%")


def _daemon(options: Options) -> Iterator[Row]:
    from tsbs_daw.bench.daemon import measure_daemon

    with _work_folder() as folder:
        song = Path(_probe("song", folder, options, file="song", seconds=2.0)["path"])
        item_s = 2.0 if options.quick else 10.0
        item = Path(_probe("song", folder, options, file="item", seconds=item_s)["path"])
        found = measure_daemon(Path(folder), song, item, Path(options.model), idle_s=2.0 if options.quick else 20.0)
    yield Row("daemon.pickup", "a file stops growing, its job starts", found.pickup_s, "s", 5.0)
    yield Row("daemon.item", f"a DAW asks for {item_s:g} s, its stems are there", found.item_s, "s", 5.0)
    if found.idle is not None:
        yield Row("daemon.cpu", "an idle daemon, of one core", 100 * found.idle.cpu_share, "%", 1.0)
        yield Row("daemon.memory", "an idle daemon", found.idle.memory_bytes / 1e6, "MB", 150.0)
    if found.worker_bytes is not None:
        yield Row("daemon.worker", "its worker, while it waits for more", found.worker_bytes / 1e6, "MB")


def _work_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-", ignore_cleanup_errors=True)


def _probe(name: str, folder: str, options: Options, **values: Any) -> dict[str, Any]:
    """Run one of `probe`'s measurements in a process of its own. Raises: what it raised; TsbsDawError: it died"""
    request = {"probe": name, "folder": folder, "model": options.model, "preset": options.preset}
    request |= {"device": options.device, "quick": options.quick, **values}
    ended = subprocess.run(
        [sys.executable, "-m", "tsbs_daw.bench.probe", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=PROBE_LIMIT_S,
    )
    answer = Path(folder) / "answer.json"
    found = json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}
    if "error" in found:
        raise getattr(errors, found["kind"])(found["error"])
    if not found:
        last = ended.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
        raise TsbsDawError(
            f"Measuring {name} ended early (exit code {ended.returncode}: {' '.join(last)}); run `tsbs-daw doctor`."
        )
    answer.unlink()
    return found
