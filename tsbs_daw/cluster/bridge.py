"""The process that talks to Ray for a worker: `python -m tsbs_daw.cluster.bridge ADDRESS`, started by `remote`.

Ray kills its client process when the head stays away, so the worker must not be that process. Chunks come in on stdin
and estimates go out on the original stdout, in frames: a line of JSON, followed by the number of bytes that it states.

    in   {"op": "chunk", "id", "model": {...}, "stage", "song", "shape", "hash", "bytes"}
    out  {"event": "alive", "lanes", "capacity"}     every second while the cluster answers
         {"event": "estimate", "id", "shape", "hash", "bytes"}   {"event": "failed", "id", "error"}
         {"event": "trouble", "message"}             a node fails or is refused; the head cannot be reached

The process ends at the end of stdin, and Ray then ends its actors.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from tsbs_daw.cluster.lanes import INLINE, NAMESPACE, Hashed, Hooks, Item, Lanes, Model
from tsbs_daw.core.child import keep_stdout
from tsbs_daw.core.errors import described

log = logging.getLogger(__name__)

TICK_S = 1.0

# Our defaults, unless the user has set them: no telemetry, token authentication, and fast detection of a lost head.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    **INLINE,
}

# Otherwise Ray replaces 127.0.0.1 by the machine's external address, where a head on loopback does not listen.
STAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def local_address() -> str:
    """Return the address of this machine's cluster according to Ray; "" if there is none.

    It is read without Ray, because the environment must be set before Ray is imported.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    try:
        return (Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster").read_text("utf-8").strip()
    except OSError:
        return ""


def is_loopback(address: str) -> bool:
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def write_frame(stream: IO[bytes], head: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Write a line of JSON, then the array's bytes."""
    if array is None:
        stream.write(json.dumps(head).encode() + b"\n")
    else:
        data = np.ascontiguousarray(array, np.float32)
        stream.write(json.dumps({**head, "shape": data.shape, "bytes": data.nbytes}).encode() + b"\n")
        stream.write(data.data.cast("B"))
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], np.ndarray | None] | None:
    """Read the next frame; None at the end of the stream, even inside a frame."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    head = json.loads(line)
    if "bytes" not in head:
        return head, None
    data = bytearray(head["bytes"])
    view, filled = memoryview(data), 0
    while filled < len(data):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            return None
        filled += count
    return head, np.frombuffer(data, np.float32).reshape(head["shape"])


class Channel:
    """Stream of events to the worker. Thread-safe."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._lock = stream, threading.Lock()

    def send(self, event: str, array: np.ndarray | None = None, **values: Any) -> None:
        try:
            with self._lock:
                write_frame(self._stream, {"event": event, **values}, array)
        except OSError:
            os._exit(0)  # the worker is gone

    def done(self, item: Item, answer: Hashed) -> None:
        self.send("estimate", answer[0], id=item.id, hash=answer[1])

    def failed(self, item: Item, error: str) -> None:
        self.send("failed", id=item.id, error=error)

    def trouble(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.send("trouble", message=sentence)


def connect(address: str) -> Any:
    """Connect to a cluster and return the `ray` module.

    Raises:
        Exception: Any exception of Ray, if there is no cluster, no token, or a version mismatch.
    """
    loopback = is_loopback(local_address() if address == "auto" else address)
    for name, value in {**RAY_ENVIRONMENT, **(STAY_ON_LOOPBACK if loopback else {})}.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )
    return ray


def listen(stream: BinaryIO, take: Callable[[Item], None]) -> None:
    """Pass chunks from the worker to `take` until the worker is gone, then exit."""
    while (frame := read_frame(stream)) is not None:
        head, chunk = frame
        assert chunk is not None
        take(Item(head["id"], Model.from_json(head["model"]), head["stage"], head["song"], chunk, head["hash"]))
    os._exit(0)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    address, channel = sys.argv[1], Channel(keep_stdout())
    lanes = Lanes(str(os.getpid()), Hooks(channel.done, channel.failed, channel.trouble))
    threading.Thread(target=listen, args=(sys.stdin.buffer, lanes.add), daemon=True).start()
    try:
        ray = connect(address)
    except Exception as error:
        channel.trouble(f"Cannot reach the cluster {address} ({described(error)}).")
        return 1
    while True:
        lanes.settle(ray, ray.nodes(), time.monotonic())
        channel.send("alive", lanes=lanes.ready, capacity=lanes.capacity)
        time.sleep(TICK_S)


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        log.exception("the bridge to the cluster failed")
        code = 1
    sys.stderr.flush()
    os._exit(code)
