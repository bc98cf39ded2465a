"""How long a user of REAPER waits: from running an action to the tracks, with the real scripts and the real daemon.

    make bench-reaper            a table; with ARGUMENTS="--json" what docs/results/ keeps

The scripts run in Lua 5.4 in the stand-in for REAPER, whose ticks come every 30 ms of real time, as REAPER's do. The
daemon is a process of its own with the bundled model; its worker has loaded it. Every run has music of its own, so that
nothing comes from the cache of stems. REAPER's own work at the insertion is the one thing that is not in it. `cpu` is
the processor time that daemon and worker took for it, which says on a busy machine what the wait does not.

The second table separates many items at once, without and with *Jobs* open, then separates them again in place, and
says how long the ticks were: the time of all scripts in Lua between two frames of REAPER's window, which is measured,
and what REAPER needs to answer them, which is the stand-in's assumption (5 us a call, more for files, peaks and
tracks). `cpu` has the processor's time of Lua in it, `wall` what passed meanwhile: on a busy machine, also the time in
which another program had the processor. `lua` is the part of `cpu` that is not assumed. Going from Lua to this
stand-in's Python and back is not REAPER's time and not the scripts': the cheapest such way is measured first, and taken
off for every call. The daemon's part is played there, since its time is in no tick: it takes all jobs at once and has
all results at once, the hardest case.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from reaper.model import Item
from reaper.stage import STEMS, DaemonByHand, DaemonProcess, Studio, song_file, stem_items
from reaper.stand_in import BETWEEN_TICKS_S
from timeouts import PATIENCE_S

from tsbs_daw import __version__
from tsbs_daw.core import machine

TARGET_S = 5.0
TICK_TARGET_MS = 10.0
ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "item.plain": ("an item that plays its file as it is: handed over as a portion of it", {}),
    "item.read": ("an item at playrate 0.9: read through REAPER, a little in every tick", {"D_PLAYRATE": 0.9}),
}


TICK_ROWS = {
    "closed": "from the action to the last item's tracks",
    "open": "the same with *Jobs* open",
    "again": "all of them again in place",
}
TICK_KINDS = ("cpu", "wall", "lua")
BRIDGE_CALLS, BRIDGE_ROUNDS = 1000, 20
EACH_S, APART_S = 1.0, 0.25  # of many items: how long each is, and how much later in its file than the one before
PARTS = 10  # in which their progress comes


class Bench:
    """One REAPER and one daemon for all runs. Args: folder: empty; seconds: the item's length"""

    def __init__(self, folder: Path, seconds: float):
        self.seconds, self.home, self.number = seconds, folder / "home", 0
        self.daemon = DaemonProcess(self.home, env=os.environ | {"TSBS_DAW_HOME": str(self.home)})
        self.daemon.wait_until_alive()
        self.studio = Studio(folder, self.home)
        self.studio.reaper.patient = True  # numpy plays the part of REAPER's audio engine here
        self.studio.reaper.counts_lua = True

    def once(self, values: dict[str, float]) -> dict[str, float]:
        """Separate an item of a new project. Returns: seconds from the action to each event"""
        self.number += 1
        studio, cpu_s = self.studio, family_cpu_s(self.daemon.process.pid)
        project = studio.project = studio.new_project(f"song {self.number}")
        path = song_file(project.folder / "Media" / "mix.wav", self.seconds + 3.0, seed=100 + self.number)
        item = project.add_item(project.add_track("Mix"), path, 12.345678, self.seconds, D_STARTOFFS=0.73, **values)
        spool, known = self.home / "spool", self._jobs()
        began = time.monotonic()
        studio.run("Separate selected items")
        action_s = time.monotonic() - began
        asked_s = self._until(began, lambda: self._jobs() - known)
        result_s = self._until(began, lambda: any(path.name not in known for path in spool.glob("done/*/")))
        there_s = self._until(began, studio.delivered)
        self._check(item)
        cpu_s = family_cpu_s(self.daemon.process.pid) - cpu_s
        return {"action": action_s, "asked": asked_s, "result": result_s, "tracks": there_s, "cpu": cpu_s}

    def _jobs(self) -> set[str]:
        """The ids of all that was ever asked for: they move from inbox/ to jobs/ to done/, and found in order."""
        places = (self.home / "spool" / place for place in ("inbox", "jobs", "done"))
        return {path.parent.name for place in places for path in place.glob("*/job.json")}

    def _until(self, began: float, condition: Callable[[], object]) -> float:
        """Tick as REAPER does. Returns: seconds since `began`"""
        while not condition():
            if time.monotonic() - began > PATIENCE_S or self.studio.troubled():
                sys.exit(f"The tracks did not come: {self.studio.troubled() or 'nothing happened'}")
            due = time.monotonic() + BETWEEN_TICKS_S
            self.studio.reaper.tick()
            time.sleep(max(0.0, due - time.monotonic()))
        return time.monotonic() - began

    def _check(self, item: Item) -> None:
        stems = [stem for name in STEMS for stem in stem_items(self.studio.project, name)]
        places = {(stem.values["D_POSITION"], stem.values["D_LENGTH"]) for stem in stems}
        if len(stems) != len(STEMS) or places != {(item.values["D_POSITION"], item.values["D_LENGTH"])}:
            sys.exit(f"The tracks are not as they should be: {places}")


class Ticks:
    """How long the ticks of many items are. Args: folder: empty; count: of items; with_window: *Jobs* is open"""

    def __init__(self, folder: Path, count: int, with_window: bool):
        self.studio, self.count = Studio(folder, folder / "home"), count
        self.daemon = DaemonByHand(self.studio.home)
        self.studio.reaper.counts_lua = self.studio.reaper.patient = True
        self.studio.reaper.bridge_s = bridge_s(self.studio)
        self.ticks_ms: list[tuple[float, float, float]] = []  # of each tick: the TICK_KINDS
        project = self.studio.project
        path = song_file(project.folder / "Media" / "mix.wav", EACH_S + count * APART_S)
        track = project.add_track("Mix")
        for number in range(count):
            project.add_item(track, path, 2.0 * number, EACH_S, D_STARTOFFS=number * APART_S)
        if with_window:
            self.studio.run("Jobs")

    def measure(self) -> list[tuple[float, float, float]]:
        """From the action until every item has its stems."""
        self._run("Separate selected items")
        if [len(stem_items(self.studio.project, name)) for name in STEMS] != [self.count] * len(STEMS):
            sys.exit("Not every item has its stems.")
        return self.ticks_ms

    def measure_again(self) -> list[tuple[float, float, float]]:
        """The same, and then from the second action until every stem has new media. Returns: the ticks of the latter"""
        self.measure()
        self.ticks_ms = []
        tracks = [track for track in self.studio.project.tracks if track.name in STEMS]
        tracks[0].values["I_SELECTED"] = 1.0
        before = [item.take.source.path for track in tracks for item in track.items]
        self._run("Re-separate in place")
        self.studio.reaper.window("Re-separate").click("Separate")
        self._work()
        if set(before) & {item.take.source.path for track in tracks for item in track.items}:
            sys.exit("Not every stem has new media.")
        return self.ticks_ms

    def _run(self, action: str) -> None:
        self._timed(lambda: self.studio.run(action))
        if "Separate" in action:
            self._work()
        else:
            self._tick()

    def _work(self) -> None:
        jobs: list[dict] = []
        while len(jobs) < self.count:
            self._tick()
            jobs += self.daemon.claim()
        for part in range(1, PARTS):
            for job in jobs:
                self.daemon.progress(job, part / PARTS)
            for _ in range(PARTS):
                self._tick()
        for job in jobs:
            self.daemon.finish(job)
        while not self.studio.delivered():
            self._tick()

    def _tick(self) -> None:
        self.daemon.beat()
        self._timed(self.studio.reaper.tick, BETWEEN_TICKS_S)

    def _timed(self, do: Callable[[], object], between_s: float = 0.0) -> None:
        """Do what REAPER does between two frames. between_s: how much of it the stand-in's clock only waits"""
        reaper = self.studio.reaper
        began_s, lua_s, wall_s = reaper.time_precise(), reaper.lua_s, reaper.lua_wall_s
        do()
        cpu_s, lua_s = reaper.time_precise() - began_s - between_s, reaper.lua_s - lua_s
        wall_s = cpu_s - lua_s + reaper.lua_wall_s - wall_s
        self.ticks_ms.append((cpu_s * 1000, wall_s * 1000, lua_s * 1000))


def bridge_s(studio: Studio) -> float:
    """How long Lua waits for the cheapest answer of this stand-in, in seconds; REAPER has a price of its own."""
    script, reaper = studio.reaper.run(_empty_script(studio)), studio.reaper
    ask = script.lua.eval("function(n) for _ = 1, n do local _ = gfx.w end end")
    rounds = []
    for _ in range(BRIDGE_ROUNDS):
        before = reaper.lua_s
        reaper.lua_begins()
        ask(BRIDGE_CALLS)
        reaper.lua_ends()
        rounds.append((reaper.lua_s - before) / BRIDGE_CALLS)
    return min(rounds)


def _empty_script(studio: Studio) -> Path:
    path = studio.folder / "empty.lua"
    path.write_text("reaper.defer(function() end)", encoding="utf-8")
    return path


def family_cpu_s(pid: int) -> float:
    """Processor seconds of a process, what it started, and what of that has ended; 0 where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        children = [
            child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return 0.0
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(family_cpu_s(int(child)) for child in children)


def measure_waits(seconds: float, runs: int) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seconds)
        try:
            bench.once({})  # loads the model
            rows = []
            for name, (what, values) in ROWS.items():
                found = [bench.once(values) for _ in range(runs)]
                figures = {event: statistics.median(run[event] for run in found) for event in found[0]}
                tracks = sorted(round(run["tracks"], 3) for run in found)
                rows.append({"name": name, "what": what, "median_s": figures, "tracks_s": tracks, "target_s": TARGET_S})
            return rows
        finally:
            bench.daemon.stop()


def measure_ticks(items: int) -> list[dict[str, object]]:
    rows = []
    for name, what in TICK_ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            ticks = Ticks(Path(folder), items, name == "open")
            ticks_ms = ticks.measure_again() if name == "again" else ticks.measure()
            bridge_us = ticks.studio.reaper.bridge_s * 1e6
        row: dict[str, object] = {"name": f"ticks.{name}", "what": what, "items": items, "ticks": len(ticks_ms)}
        row["bridge_us"] = bridge_us
        for kind, times in zip(TICK_KINDS, zip(*ticks_ms, strict=True), strict=True):
            ordered = sorted(times)
            row[f"{kind}_ms"] = {
                "median": statistics.median(ordered),
                "p99": ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))],
                "longest": ordered[-1],
                "too_long": sum(time_ms > TICK_TARGET_MS for time_ms in ordered),
            }
        rows.append(row | {"target_ms": TICK_TARGET_MS})
    return rows


def report(seconds: float, runs: int, items: int, only: str | None = None) -> dict[str, object]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"tsbs-daw": __version__, "torch": importlib.metadata.version("torch")},
        "machine": {**machine.describe(), "load_before": load},
        "options": {"seconds": seconds, "runs": runs, "items": items},
        "rows": measure_waits(seconds, runs) if only != "ticks" else [],
        "ticks": measure_ticks(items) if only != "waits" else [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-reaper", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the item")
    parser.add_argument("--runs", type=int, default=5, help="of each row")
    parser.add_argument("--items", type=int, default=100, help="how many are separated at once in the second table")
    parser.add_argument("--only", choices=["waits", "ticks"], help="one of the two tables")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    chosen = parser.parse_args()
    found = report(chosen.seconds, chosen.runs, chosen.items, chosen.only)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'row':<12}{'action':>9}{'asked':>9}{'result':>9}{'tracks':>9}{'cpu':>9}{'target':>9}   (medians, s)")
    for row in found["rows"]:
        medians = "".join(f"{row['median_s'][event]:>9.2f}" for event in ("action", "asked", "result", "tracks", "cpu"))
        print(f"{row['name']:<12}{medians}{row['target_s']:>9.1f}   {row['what']}")
    print(f"\n{'row':<14}{'ticks':>7}{'':>6}{'median':>9}{'99 %':>9}{'longest':>9}{'target':>9}{'over':>7}   (ms)")
    for row in found["ticks"]:
        for kind in TICK_KINDS:
            figures = row[f"{kind}_ms"]
            three = "".join(f"{figures[name]:>9.2f}" for name in ("median", "p99", "longest"))
            end = f"{row['target_ms']:>9.1f}{figures['too_long']:>7}   {row['items']} items: {row['what']}"
            print(f"{row['name']:<14}{row['ticks']:>7}{kind:>6}{three}{end}")


if __name__ == "__main__":
    main()
