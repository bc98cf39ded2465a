"""Benchmark of a cluster on this machine: the cost of a song, and songs per minute for several numbers of nodes.

The nodes are real Ray nodes with one core each, on loopback. There is no network between them, but the bytes that it
would transfer are counted. CPU time is measured as well as wall time, because it does not depend on other processes.

No process of Ray outlives the measurement, even if this process is killed: a keeper process detects that and kills
everything that runs in Ray's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tsbs_daw.core import child, machine
from tsbs_daw.core.config import Settings

AT_ONCE = 4
READY_LIMIT_S = 300.0
KEEP_S = 10.0  # longest time that a keeper spends killing processes

# Ray as in the documentation, but only on loopback.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "bench-" * 6,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
}


def cluster(request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe on `nodes` nodes: a song `in_turn` times here and on the cluster, or several songs `together`."""
    import torch

    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    bench = Bench(request)
    nodes = request["nodes"]
    with kept_folder(), ray_nodes(nodes) as address, bench.connected(address, nodes) as connection:
        if request.get("in_turn"):
            return bench.in_turn(connection, request["in_turn"])
        return {"songs_per_minute": bench.together(request["together"])}


@contextmanager
def kept_folder() -> Iterator[Path]:
    """Create a folder for Ray. However this process ends, all processes in the folder are killed and it is removed."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short, because paths of sockets must be short
    keeper = subprocess.Popen(
        child.python("tsbs_daw.lab.bench.cluster", str(folder)),
        stdin=subprocess.PIPE,
        env=child.environment(),
        start_new_session=True,  # protects it from Ctrl-C in a terminal
    )
    os.environ["RAY_TMPDIR"] = str(folder)
    assert keeper.stdin is not None
    try:
        yield folder
    finally:
        keeper.stdin.close()
        keeper.wait()


def keep(folder: Path) -> None:
    """Run the keeper: wait until its parent is gone, then kill all processes in the folder, and remove it."""
    sys.stdin.buffer.read()
    until, quiet = time.monotonic() + KEEP_S, 0
    while quiet < 3 and time.monotonic() < until:  # a process may start another just before it is killed
        found = processes_of(folder)
        quiet = 0 if found else quiet + 1
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[int]:
    """Return the processes of Ray and of the bridge to it."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _runs_in(process, os.fsencode(folder))]


def _runs_in(process: Path, folder: bytes) -> bool:
    """Return whether the folder is in a process's command or environment, or contains its log.

    Actors overwrite the first two.
    """
    try:
        if folder + b"/" in (process / "cmdline").read_bytes():
            return True
        if b"RAY_TMPDIR=" + folder in (process / "environ").read_bytes().split(b"\0"):
            return True
        return os.fsencode((process / "fd" / "2").readlink()).startswith(folder + b"/")
    except OSError:  # it has ended, or is another user's
        return False


@contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """Start a head that does not compute, and nodes with one core each.

    Yields:
        The head's address.
    """
    from ray.cluster_utils import Cluster

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    common = {"object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}
    head = {**common, "num_cpus": 0, "include_dashboard": False, "gcs_server_port": port}
    running = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            running.add_node(num_cpus=1, wait=False, **common)
        yield f"127.0.0.1:{port}"
    finally:
        running.shutdown()


class Bench:
    """Separations of one song, here and on nodes, with a cache of their own."""

    def __init__(self, request: dict[str, Any]):
        self._request, self._runs = request, 0
        # Every process counts its runs from the same start: with a shared cache, the later ones would compute nothing.
        self._folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=Path(request["folder"]).absolute()))
        self.settings = Settings(
            self._folder / "home", self._folder / "cache", Settings.from_environment().models, "cpu"
        )
        self._there = self.settings

    @contextmanager
    def connected(self, address: str, nodes: int) -> Iterator[Any]:
        """Connect and wait until all nodes compute.

        Yields:
            The connection.
        """
        from dataclasses import replace

        from tsbs_daw.cluster.remote import connection_to

        self._there = replace(self.settings, cluster=address, cluster_fallback="wait")
        connection = connection_to(address)
        try:
            self._run(self._there, 1.0)  # makes every node load the model
            until = time.monotonic() + READY_LIMIT_S
            while connection.lanes < nodes and time.monotonic() < until:
                time.sleep(0.1)
            yield connection
        finally:
            connection.close()

    def in_turn(self, connection: Any, times: int) -> dict[str, Any]:
        """Separate a song here and on the cluster in turn, so that other processes on the machine affect both alike.

        Returns:
            Medians of wall time and CPU time, and the bytes transferred per second of song.
        """
        walls: dict[bool, list[float]] = {False: [], True: []}
        processor: dict[bool, list[float]] = {False: [], True: []}
        self._run(self.settings, 1.0)
        moved = connection.bytes_out + connection.bytes_in
        seconds = 0.0
        for _ in range(times):
            for remote in (False, True):
                before = processor_s(with_ray=remote)
                wall_s, song_s = self._run(self._there if remote else self.settings)
                processor[remote].append(processor_s(with_ray=remote) - before)
                walls[remote].append(wall_s)
                seconds += song_s if remote else 0.0
        moved = connection.bytes_out + connection.bytes_in - moved
        found = {"bytes_per_s": moved / seconds}
        for remote, name in ((False, "local"), (True, "remote")):
            found |= {f"{name}_s": statistics.median(walls[remote])}
            found |= {f"{name}_processor_s": statistics.median(processor[remote])}
        return found

    def together(self, songs: int) -> float:
        """Return songs per minute, with `AT_ONCE` at a time."""
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: self._run(self._there), range(songs)))
        return songs / (time.perf_counter() - began) * 60.0

    def _run(self, settings: Settings, seconds: float | None = None) -> tuple[float, float]:
        """Run a job on the recording. Each job starts at another sample, so that no result is cached.

        Args:
            settings: For this machine, or for the cluster.
            seconds: Length of the job; None for the whole recording.

        Returns:
            Duration in seconds without loading the model, and length of the song in seconds.
        """
        from tsbs_daw.audio.writer import file_samples
        from tsbs_daw.contracts.job import Job, Source
        from tsbs_daw.pipeline.run import run_job

        self._runs += 1
        path = Path(self._request["song"])
        length = file_samples(path) - 1000 if seconds is None else round(seconds * 44100)
        source = Source(path=path, start_samples=self._runs, length_samples=length)
        job = Job(schema=1, source=source, output=self._folder / "out", model=self._request["model"])
        result = run_job(job, settings=settings, fence=1, attempt=1, progress=lambda *_: None, cancelled=lambda: False)
        assert result.manifest is not None  # a separation always writes one
        timings_s = json.loads(result.manifest.read_text(encoding="utf-8"))["timings_s"]
        shutil.rmtree(result.manifest.parent)
        return timings_s["total"] - timings_s["prepare"], length / 44100


def processor_s(*, with_ray: bool) -> float:
    """Return the CPU seconds of this process, of its ended children and, if requested, of all processes of Ray."""
    used = os.times()
    seconds = used.user + used.system + used.children_user + used.children_system
    for pid in processes_of(Path(os.environ["RAY_TMPDIR"])) if with_ray else ():
        with contextlib.suppress(OSError):  # it has just ended
            seconds += machine.process_cpu_s(pid) or 0.0
    return seconds


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
