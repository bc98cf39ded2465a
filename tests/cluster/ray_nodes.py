"""A real Ray cluster on this machine's loopback: a head without a share in the work, and nodes with a core each.

    python ray_nodes.py PORT NODES FOLDER

It lives in a process of its own, and with it every process of Ray: commands come in on stdin, one a line, and each is
answered with a line. `actor`, `node` and `head` kill one by SIGKILL and, for nodes and head, start another in its
place. `network` stops a node with all that runs on it by SIGSTOP, as if its network were cut, and starts another; after
a while it goes on, and finds that it was given up. `gpus` adds a node with two GPUs, as far as Ray knows; `no gpus`
takes it away. The end of stdin ends everything.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timeouts import PATIENCE_S

TOKEN = "test-" * 8
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
    # Ray gives a node up after 15 s without an answer, and the head after 20 s here. A test need not wait so long.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
CUT_S = 20.0  # how long the network is away: longer than a node is waited for
# About the smallest object store that Ray takes: what does not fit would show.
COMMON = {"object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}


class RayNodes:
    """Starts `ray_nodes.py` and tells it what to kill. Use it in a `with`."""

    def __init__(self, nodes: int, folder: Path):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {**os.environ, **ENVIRONMENT}
        self._arguments = [str(self.port), str(nodes), str(folder)]

    def __enter__(self) -> RayNodes:
        self._temporary = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        environment = {**self.environment, "RAY_TMPDIR": self._temporary.name}  # short: sockets lie below it
        tests = str(Path(__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), tests]))
        self.process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        left = ray_processes(self._temporary.name)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self._temporary.cleanup()
        assert not left, f"processes of Ray stayed: {left}"

    def kill(self, what: str) -> str:
        """`actor`, `node`, `head` or `network`. Returns: what it was; empty if there was none"""
        return self.order(what)

    def order(self, what: str) -> str:
        """One of the commands above. Returns: the answer"""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        for line in self.process.stdout:  # Ray prints, too
            if line.startswith("> "):
                return line[2:].strip()
        raise AssertionError("the cluster ended")


def free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def ray_processes(folder: str) -> list[int]:
    """Those whose command names the cluster's own folder: the head's and the nodes'."""
    return [int(pid.name) for pid in Path("/proc").glob("[0-9]*") if folder in command_of(pid.name)]


def children_of(pid: int) -> list[int]:
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in tasks.read_text().split()]
        except OSError:
            continue
    return found


def patient(start: Callable[[], Any], clean_up: Callable[[], None] = lambda: None) -> Any:
    """What `start` gives. Ray allows a node 30 s to start, which a busy machine may take longer for."""
    for left in reversed(range(6)):
        try:
            return start()
        except Exception as error:
            print(f"starting again, {left} more times: {error}", flush=True)
            if not left:
                raise
            clean_up()


class Nodes:
    """The cluster itself, in the process of its own."""

    def __init__(self, port: int, count: int, folder: Path):
        self._port, self._count, self._folder, self._number = port, count, folder, 0
        self._random = random.Random(port)
        self._stopped: list[int] = []
        self.start()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": self._port, **COMMON}
        head |= {"include_log_monitor": False, "no_monitor": True}  # two processes that nobody needs
        self._cluster = patient(lambda: Cluster(initialize_head=True, head_node_args=head), self._sweep)
        self._nodes = [self._add() for _ in range(self._count)]

    def _add(self, gpus: int = 0) -> Any:
        self._number += 1
        os.environ["TSBS_DAW_HOME"] = str(self._folder / f"node {self._number % (self._count + 2)}")
        return patient(lambda: self._cluster.add_node(wait=False, num_cpus=1, num_gpus=gpus, **COMMON))

    def stop(self) -> None:
        self._thaw()
        self._cluster.shutdown()
        self._sweep()

    def _thaw(self) -> None:
        while self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._stopped.pop(), signal.SIGCONT)

    def _sweep(self) -> None:
        """What a start that failed has left behind."""
        for pid in ray_processes(os.environ["RAY_TMPDIR"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def obey(self, what: str) -> str:
        return getattr(self, "_" + what.replace(" ", "_"))()

    def _actor(self) -> str:
        raylets = [node.all_processes["raylet"][0].process.pid for node in self._nodes]
        actors = [pid for raylet in raylets for pid in children_of(raylet) if "NodeSeparator" in command_of(str(pid))]
        if not actors:
            return ""
        os.kill(chosen := self._random.choice(actors), signal.SIGKILL)
        return f"actor {chosen}"

    def _node(self) -> str:
        node = self._nodes.pop(self._random.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())
        return f"node {node.unique_id}"

    def _head(self) -> str:
        """The head is gone with all it knew. Nodes cannot live without it: all start again, as systemd has it."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)
        self.stop()
        self.start()
        return "head"

    def _network(self) -> str:
        """A node that answers nothing, and does not know that it is cut off."""
        node = self._nodes.pop(self._random.randrange(len(self._nodes)))
        pids = [node.all_processes["raylet"][0].process.pid]
        for pid in pids:  # a stopped process starts no others
            os.kill(pid, signal.SIGSTOP)
            pids += children_of(pid)
        self._stopped += pids
        threading.Timer(CUT_S, self._thaw).start()
        self._nodes.append(self._add())
        return f"network of {node.unique_id}"

    def _gpus(self) -> str:
        self._with_gpus = self._add(gpus=2)
        return "gpus"

    def _no_gpus(self) -> str:
        self._cluster.remove_node(self._with_gpus, allow_graceful=False)
        return "no gpus"


def main() -> None:
    port, count, folder = sys.argv[1:]
    nodes = Nodes(int(port), int(count), Path(folder))
    print("> ready", flush=True)
    try:
        for line in sys.stdin:
            print("> " + nodes.obey(line.strip()), flush=True)
    finally:
        nodes.stop()


if __name__ == "__main__":
    main()
