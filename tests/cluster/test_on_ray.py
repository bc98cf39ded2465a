"""Songs on a real Ray cluster of three nodes on this machine, while everything in turn is killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli.program import run, small_model
from cluster.ray_nodes import ENVIRONMENT, RayNodes, children_of, command_of
from harness.repeats import repeated
from harness.stage import DaemonProcess, rows, settings_in, until
from timeouts import PATIENCE_S

from tsbs_daw.cluster.remote import attach, connection_to
from tsbs_daw.contracts.job import Job, Source, State
from tsbs_daw.core import machine
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.pipeline.run import run_job
from tsbs_daw.queue.spool import read_result, submit
from tsbs_daw.separation import Separator

pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

# The order of the kills, over and over: each kind once, then more often what is cheap to start again.
KILLS = ("actor", "node", "bridge", "daemon", "head", "network", "actor", "node", "actor", "actor")
OPTIONS = DaemonOptions(songs_at_once=4, restart_first_s=0.05, busy_tick_s=0.05, finish_s=0.2, release_s=0.5)
SONG_S = 4.0  # two chunks
TIGHT = 1e-6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    with RayNodes(3, tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(autouse=True)
def _the_clusters_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def job_of(folder: Path, number: int, model: Path, out: Path) -> Job:
    """A song of its own: noise that swells."""
    path = folder / f"song {number}.wav"
    if not path.exists():
        samples = round(SONG_S * 44100)
        noise = np.random.default_rng(number).normal(0, 0.1, (samples, 2))
        soundfile.write(path, noise * np.linspace(0.1, 1.0, samples)[:, None], 44100, "FLOAT")
    return Job(schema=1, source=Source(path=path), output=out, model=str(model))


def run_here(job: Job, settings: Settings) -> Path:
    """The same job without a cluster. Returns: its folder"""
    heard = {"progress": lambda *_: None, "cancelled": lambda: False}
    return run_job(job, settings=settings, fence=1, attempt=1, **heard).folder


def stems_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.wav"))}


def largest_difference(one: Path, other: Path) -> float:
    mine, others = stems_of(one), stems_of(other)
    assert mine.keys() == others.keys() and len(mine) >= 4
    return max(float(np.abs(mine[name] - others[name]).max()) for name in mine)


class Hall:
    """Daemons on the cluster, one after the other, and what they are given."""

    def __init__(self, root: Path, cluster: RayNodes, model: Path):
        self.root, self.cluster, self.model = root, cluster, model
        self.out = root / "out"
        self.settings = replace(settings_in(root), device="cpu", cluster=cluster.address, cluster_fallback="wait")
        self.jobs: list[Job] = []
        self.daemon = DaemonProcess(self.settings, options=OPTIONS)

    def submit(self, count: int) -> None:
        for number in range(count):
            self.jobs.append(job_of(self.root, number, self.model, self.out))
            submit(self.settings.spool, self.jobs[-1])

    @property
    def done(self) -> int:
        return sum(read_result(self.settings.spool, job.id) is not None for job in self.jobs)

    def kill(self, what: str) -> str:
        """Returns: what was killed; empty if there was none"""
        if what == "daemon":
            self.daemon.kill()
            self.daemon = DaemonProcess(self.settings, options=OPTIONS)
            return what
        if what == "bridge":
            workers = children_of(self.daemon.process.pid)
            bridges = [pid for worker in workers for pid in children_of(worker) if "bridge" in command_of(str(pid))]
            for pid in bridges:
                os.kill(pid, signal.SIGKILL)
            return what if bridges else ""
        return self.cluster.kill(what)

    def close(self) -> None:
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.wait()


@pytest.fixture
def hall(tmp_path: Path, cluster: RayNodes, model: Path) -> Iterator[Hall]:
    place = Hall(tmp_path, cluster, model)
    yield place
    place.close()


@repeated(200, short=20)
def test_kills_of_everything_lose_no_song_repeat_none_and_change_none(hall: Hall, times: int):
    songs = 3 * times // 2 + 1
    hall.submit(songs)
    killed: Counter[str] = Counter()
    for number, what in zip(range(times), itertools.cycle(KILLS)):
        until(lambda number=number: hall.done >= min(songs - 4, number * songs // (times + 2)))
        end = time.monotonic() + PATIENCE_S
        while not hall.kill(what):  # until there is one
            assert time.monotonic() < end
            time.sleep(0.2)
        killed[what] += 1
        print(f"{hall.done} of {songs} songs done, killed {dict(killed)}", flush=True)
    until(lambda: hall.done == songs)
    assert sum(killed.values()) == times
    assert Counter(row.state for row in rows(hall.settings)) == {State.DONE: songs}
    folders = sorted(path.name for path in hall.out.iterdir())
    assert folders == sorted(f"song {number}" for number in range(songs)), "lost, twice, or partial"
    here = replace(settings_in(hall.root / "here"), device="cpu")
    for job in hall.jobs:
        local = run_here(job.model_copy(update={"output": hall.root / "local"}), here)
        assert largest_difference(local, hall.out / local.name) <= TIGHT


def resident_mb(cluster: RayNodes) -> float:
    """The memory of this process, of its bridge, and of every process of the cluster, together."""
    seen, new = {os.getpid()}, [cluster.process.pid, *children_of(os.getpid())]
    while new:
        pid = new.pop()
        if pid not in seen:
            seen.add(pid)
            new += children_of(pid)
    total = 0
    for pid in seen:
        with contextlib.suppress(OSError):  # it has ended
            total += machine.process_bytes(pid) or 0
    return total / 1e6


@pytest.mark.long
def test_a_song_of_two_hours_takes_no_more_memory_than_one_of_minutes(cluster: RayNodes, model: Path):
    separator = attach(Separator.load(str(model), "cpu"), str(model), cluster.address, fallback=False)
    block = np.random.default_rng(1).normal(0, 0.1, (2, 10 * 44100)).astype(np.float32)
    hours, warm = 2, 15  # it takes the heaps of the nodes' actors some minutes to reach their size
    done, begin_mb, rest_mb = 0, 0.0, 0.0
    try:
        for part in separator.stream(itertools.repeat(block, hours * 360), 44100):
            done += part.shape[-1]
            if done % 441000 < part.shape[-1]:
                if done < warm * 60 * 44100:
                    begin_mb = max(begin_mb, resident_mb(cluster))
                else:
                    rest_mb = max(rest_mb, resident_mb(cluster))
    finally:
        separator.batcher.connection.close()
        connection_to.cache_clear()
    print(f"{begin_mb:.0f} MB in the first {warm} minutes of a song, {rest_mb:.0f} MB in the rest of {hours} hours")
    assert done == hours * 3600 * 44100
    assert rest_mb < begin_mb + 150.0, (begin_mb, rest_mb)


def test_status_and_doctor_see_every_node_and_every_gpu(cluster: RayNodes, tmp_path: Path):
    cluster.order("gpus")
    shown = run(tmp_path / "home", "cluster", "status", "--address", cluster.address, "--json")
    assert shown.returncode == 0, shown.stderr
    import json

    nodes = [node for node in json.loads(shown.stdout)["nodes"] if node["alive"]]
    assert len(nodes) == 5 and sum(node["cpus"] for node in nodes) == 4
    assert sorted(node["gpus"] for node in nodes) == [0, 0, 0, 0, 2]
    looked = run(tmp_path / "home", "doctor", "--cluster", cluster.address, "--json")
    findings = [f for f in json.loads(looked.stdout)["findings"] if f["topic"] == "cluster"]
    cluster.order("no gpus")
    assert [finding["status"] for finding in findings] == ["ok"] * 5, findings
    assert sum(f"(GPU {share})" in str(finding) for finding in findings for share in (0, 1)) == 2, "one actor a GPU"
