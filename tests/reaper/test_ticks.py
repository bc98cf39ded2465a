"""How much a tick does has a bound that neither the number of items nor that of tracks moves.

Nothing is timed: what the scripts ask of REAPER, of gfx and of the disk in each tick is counted. `make bench-reaper`
says how long that takes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from reaper.imgui import ImGui
from reaper.stage import STEMS, DaemonByHand, Studio, stem_items

# Of a tick, in all scripts together. The tick's time, 3 ms, ends after at most 600 calls or 100 files; a step that is
# begun last, as the insertion of a job, which is one undo step, comes on top.
LIMITS = {"calls": 1300, "files": 160, "drawing": 400, "bytes": 400_000}
QUIET = {"calls": 10, "files": 0, "drawing": 1}
MANY = [100, 1000]
EACH_S = 0.05


class Watch:
    """Counts what is done in each tick."""

    def __init__(self, studio: Studio):
        self.studio, self.ticks = studio, []

    def tick(self, count: int = 1) -> list[Counter]:
        return [self._counted(self.studio.reaper.tick) for _ in range(count)]

    def run(self, action: str) -> None:
        self._counted(lambda: self.studio.run(action))

    def until(self, condition: Callable[[], object], most: int = 3000) -> None:
        for _ in range(most):
            if condition():
                return
            self.tick()
        raise AssertionError(f"not within {most} ticks: {self.studio.troubled()}")

    def _counted(self, do: Callable[[], object]) -> Counter:
        self.studio.reaper.work.clear()
        do()
        self.ticks.append(Counter(self.studio.reaper.work))
        return self.ticks[-1]

    def check(self) -> None:
        most = {name: max(tick[name] for tick in self.ticks) for name in LIMITS}
        assert all(most[name] <= limit for name, limit in LIMITS.items()), most


@pytest.fixture
def watch(studio: Studio) -> Watch:
    return Watch(studio)


def mix_of(studio: Studio, count: int):
    """A track of so many selected items of a short file."""
    path, track = studio.song(duration_s=EACH_S), studio.project.add_track("Mix")
    for number in range(count):
        studio.project.add_item(track, path, float(number), EACH_S)
    return track


def copies(studio: Studio, count: int) -> None:
    """As if the only ticket were that of so many jobs."""
    (path,) = (studio.home / "spool" / "reaper").glob("*.json")
    ticket = json.loads(path.read_text(encoding="utf-8"))
    for number in range(count - 1):
        name = f"{ticket['id']}c{number:04}"
        copy = ticket | {"id": name, "job": ticket["job"] | {"id": name}, "number": 1}
        path.with_name(f"{name}.1.json").write_text(json.dumps(copy), encoding="utf-8")
        folder = studio.home / "spool" / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(copy["job"]), encoding="utf-8")


@pytest.mark.parametrize("count", [100, 400])
def test_many_selected_items_are_asked_for_a_little_in_every_tick(
    studio: Studio, daemon: DaemonByHand, watch: Watch, count: int
):
    mix_of(studio, count)
    watch.run("Separate selected items")
    jobs: list[dict] = []

    def all_are_asked_for() -> bool:
        jobs.extend(daemon.claim())
        return len(jobs) == count

    watch.until(all_are_asked_for)
    for job in jobs[:3]:
        daemon.finish(job)
    watch.until(lambda: len(stem_items(studio.project, STEMS[0])) == 3)
    watch.check()


def test_garbage_is_collected_between_steps_alone_and_does_not_pile_up(
    studio: Studio, daemon: DaemonByHand, watch: Watch
):
    mix_of(studio, 100)
    studio.run("Jobs")
    watch.run("Separate selected items")
    peaks_kb: Counter[str] = Counter()
    for number in range(1000):
        watch.tick()
        for job in daemon.claim():
            daemon.progress(job, 0.5)
        for script in studio.reaper.scripts:
            if number > 3:  # each has had its turn
                assert script.lua.eval('not collectgarbage("isrunning")'), script.path.name
            used_kb = script.lua.eval('collectgarbage("count")')
            peaks_kb[script.path.name] = max(peaks_kb[script.path.name], used_kb)
    assert {"tsbs-daw_Background.lua", "tsbs-daw_Jobs.lua"} <= set(peaks_kb)
    assert max(peaks_kb.values()) < 5000, peaks_kb


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("window", ["none", "gfx", "imgui"])
def test_waiting_for_many_jobs_stays_cheap(studio: Studio, daemon: DaemonByHand, watch: Watch, count: int, window: str):
    if window == "imgui":
        studio.reaper.imgui = ImGui()
    mix_of(studio, 1)
    studio.run("Separate selected items")
    watch.until(daemon.claim)
    watch.tick(10)
    copies(studio, count)
    if window != "none":
        watch.run("Jobs")
    for part in range(5):
        for job in sorted((studio.home / "spool" / "jobs").iterdir())[:: count // 10]:
            daemon.progress({"id": job.name}, part / 5)
        watch.tick(20)
    watch.check()


@pytest.mark.parametrize("window", [False, True])
def test_a_tick_with_nothing_to_do_does_nearly_nothing(
    studio: Studio, daemon: DaemonByHand, watch: Watch, window: bool
):
    mix_of(studio, 1)
    studio.run("Separate selected items")
    watch.until(daemon.claim)
    copies(studio, 10)
    if window:
        studio.run("Jobs")
    watch.tick(30)
    quiet = [all(tick[name] <= most * (1 + window) for name, most in QUIET.items()) for tick in watch.tick(50)]
    assert sum(quiet) >= 25, watch.ticks[-10:]


@pytest.mark.parametrize("count", MANY)
def test_a_portion_of_a_track_among_many_with_many_items_is_delivered_in_small_steps(
    studio: Studio, daemon: DaemonByHand, watch: Watch, count: int
):
    for number in range(count):
        studio.project.add_track(f"Track {number}")
    track = mix_of(studio, count)
    track.values["I_SELECTED"] = 1.0
    studio.project.time_selection = (1.01, 1.04)
    watch.run("Separate time selection on selected tracks")
    jobs: list[dict] = []
    watch.until(lambda: jobs.extend(daemon.claim()) or jobs)
    daemon.finish(jobs[0])
    watch.until(studio.delivered)
    assert len(stem_items(studio.project, STEMS[0])) == 1
    watch.check()


@pytest.mark.parametrize("count", MANY)
def test_stems_among_many_items_are_replaced_in_small_steps(
    studio: Studio, daemon: DaemonByHand, watch: Watch, count: int
):
    mix_of(studio, 1)
    studio.run("Separate selected items")
    daemon.work(studio)
    stem = studio.project.track_named(STEMS[0])
    path = studio.song("other.wav", duration_s=EACH_S)
    for number in range(count):
        studio.project.add_item(stem, path, 10.0 + number, EACH_S)
    stem.values["I_SELECTED"] = 1.0
    before = stem.items[0].take.source.path
    watch.run("Re-separate in place")
    studio.reaper.window("Re-separate").click("Separate")
    jobs: list[dict] = []
    watch.until(lambda: jobs.extend(daemon.claim()) or jobs)
    daemon.finish(jobs[0])
    watch.until(studio.delivered)
    assert stem.items[0].take.source.path != before
    watch.check()


def test_a_long_analysis_is_read_in_small_steps(studio: Studio, daemon: DaemonByHand, watch: Watch, tmp_path):
    mix_of(studio, 1)
    studio.choose(analysis_tempo="yes")
    watch.run("Insert analysis of selected item")
    studio.reaper.window("Insert analysis").click("Insert")
    jobs: list[dict] = []
    watch.until(lambda: jobs.extend(daemon.claim()) or jobs)
    beats = np.linspace(0, EACH_S, 20_000)
    changes = [{"at_s": at, "bpm": 120.0 + number % 7} for number, at in enumerate(np.linspace(0, EACH_S, 100))]
    found = {"tempo": {"bpm": 120.0, "changes": changes, "doubtful": False}, "key": None, "sections": []}
    found["beats"] = {"times_s": list(beats), "downbeats_s": list(beats[::4]), "beats_per_bar": 4}
    path = tmp_path / "analysis.json"
    path.write_text(json.dumps({"schema": 1} | found), encoding="utf-8")
    daemon.finish(jobs[0], schema=2, analysis=str(path))
    watch.until(studio.delivered)
    assert studio.project.regions and len(studio.project.tempo) == 100
    calls = [tick["calls"] for tick in watch.ticks]
    assert max(calls) <= LIMITS["calls"]
    # Reading 20,000 numbers asks the clock now and then, so that a slow machine can end its tick there.
    assert sum(calls) > len(beats) // 64
