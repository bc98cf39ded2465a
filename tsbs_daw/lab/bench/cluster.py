"""Nodes on this machine: what a song costs through the cluster, and how songs per minute grow with nodes.

The nodes are real Ray nodes with a core each, on loopback. What they cannot show is a network between them; the bytes
that would have to pass it are counted.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tsbs_daw.core.config import Settings

NODES = (1, 2, 3)
AT_ONCE = 4
READY_LIMIT_S = 300.0

# Ray as the documentation starts it, on loopback alone.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "bench-" * 6,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "OMP_NUM_THREADS": "1",
}


def cluster(request: dict[str, Any]) -> dict[str, Any]:
    """The probe: one song in turn here and on one node, then several songs on 1, 2 and 3 nodes."""
    import torch

    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"songs_per_minute": {}}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        os.environ["RAY_TMPDIR"] = temporary  # short: sockets lie below it
        bench = _Bench(request)
        for nodes in NODES[:1] if request["quick"] else NODES:
            with ray_nodes(nodes) as address, bench.connected(address, nodes) as connection:
                if nodes == 1:
                    found |= bench.in_turn(connection, 1 if request["quick"] else 5)
                found["songs_per_minute"][str(nodes)] = bench.together(2 if request["quick"] else 3 * AT_ONCE)
    return found


@contextmanager
def ray_nodes(count: int):
    """A head without a share in the work, and nodes with one core each. Yields: the head's address"""
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


class _Bench:
    def __init__(self, request: dict[str, Any]):
        self._request, self._runs = request, 0
        self._folder = Path(request["folder"]).absolute()
        self._here = Settings(self._folder / "home", self._folder / "cache", Settings.from_environment().models, "cpu")
        self._there = self._here

    @contextmanager
    def connected(self, address: str, nodes: int):
        """Wait until all nodes compute. Yields: the connection"""
        from dataclasses import replace

        from tsbs_daw.cluster.remote import connection_to

        self._there = replace(self._here, cluster=address, cluster_fallback="wait")
        connection = connection_to(address)
        self._run(self._there)  # every node loads the model, as a new lane does
        until = time.monotonic() + READY_LIMIT_S
        while connection.lanes < nodes and time.monotonic() < until:
            time.sleep(0.1)
        try:
            yield connection
        finally:
            connection.close()

    def in_turn(self, connection: Any, times: int) -> dict[str, Any]:
        """The same song here and there, by turns, so that whatever else the machine does meets both."""
        walls: dict[bool, list[float]] = {False: [], True: []}
        self._run(self._here)
        moved = connection.bytes_out + connection.bytes_in
        seconds = 0.0
        for _ in range(times):
            for remote in (False, True):
                wall_s, song_s = self._run(self._there if remote else self._here)
                walls[remote].append(wall_s)
                seconds += song_s if remote else 0.0
        moved = connection.bytes_out + connection.bytes_in - moved
        local_s, remote_s = (statistics.median(walls[remote]) for remote in (False, True))
        return {"local_s": local_s, "remote_s": remote_s, "bytes_per_s": moved / seconds}

    def together(self, songs: int) -> float:
        """Songs per minute, `AT_ONCE` at a time."""
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: self._run(self._there), range(songs)))
        return songs / (time.perf_counter() - began) * 60.0

    def _run(self, settings: Settings) -> tuple[float, float]:
        """A job about the same recording from another sample on: another song, as long.

        Returns:
            Seconds that it took, without loading the model, and seconds of song.
        """
        from tsbs_daw.audio.wav_writer import file_samples
        from tsbs_daw.contracts.job import Job, Source
        from tsbs_daw.pipeline.run import run_job

        self._runs += 1
        path = Path(self._request["song"])
        length = file_samples(path) - 1000
        source = Source(path=path, start_samples=self._runs, length_samples=length)
        job = Job(schema=1, source=source, output=self._folder / "out", model=self._request["model"])
        result = run_job(job, settings=settings, fence=1, attempt=1, progress=lambda *_: None, cancelled=lambda: False)
        assert result.manifest is not None  # a separation always writes one
        timings_s = json.loads(result.manifest.read_text(encoding="utf-8"))["timings_s"]
        return timings_s["total"] - timings_s["prepare"], length / 44100
