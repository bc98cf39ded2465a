"""The worker's side of a cluster: replaces a separator's batcher and has the chunks computed on other machines.

Decoding, cutting, overlap-add, effects and publishing stay in the worker. Chunks go out and estimates come back, each
with its hash, through a `bridge` process that talks to Ray. A song has as many chunks under way as the cluster can use,
but at most `MOST_AHEAD`. If a bridge dies, its unfinished chunks go to the next one.

If a cluster has had no node for `AWAY_S`, it is considered away. The worker then computes locally until the cluster is
back or, if that is not allowed, returns its songs to the queue.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from tsbs_daw.cluster import Paths, places_of
from tsbs_daw.cluster.bridge import read_frame, write_frame
from tsbs_daw.cluster.lanes import Model
from tsbs_daw.cluster.node import DamagedInTransit, checked, digest
from tsbs_daw.core.child import describe_exit, environment, python
from tsbs_daw.core.conversation import enlarge
from tsbs_daw.core.errors import ClusterUnavailable
from tsbs_daw.separation import Separator
from tsbs_daw.separation.engine import Batcher

log = logging.getLogger(__name__)

AWAY_S = 60.0  # time without a node until the worker computes locally
SILENT_S = 30.0  # a bridge that sends nothing for this long hangs; it has CONNECT_S to connect
CONNECT_S = 120.0
RESTART_S = (1.0, 15.0)
MOST_AHEAD = 48  # chunks of one song under way: 250 MB with four stems


class ChunkRequest:
    """A chunk that was sent, and its estimate once that has arrived.

    Attributes:
        error: Why no node can compute the chunk; "" if one can.
    """

    def __init__(self, number: int, head: dict[str, Any], audio: np.ndarray):
        self.number, self.head, self.audio = number, head, audio
        self.sent_s = time.monotonic()
        self._arrived = threading.Event()
        self._estimate: np.ndarray | None = None
        self.error = ""

    def answer(self, estimate: np.ndarray | None, error: str = "") -> None:
        self._estimate, self.error = estimate, error
        self._arrived.set()

    def wait(self, seconds: float) -> bool:
        return self._arrived.wait(seconds)

    @property
    def estimate(self) -> np.ndarray | None:
        return self._estimate


class Connection:
    """The bridge to one cluster, restarted whenever it ends. Thread-safe.

    Attributes:
        lanes: Number of actors that are ready.
        capacity: Number of chunks that the cluster can have under way.
        trouble: The last message about a problem; "" once a node is there.
    """

    def __init__(self, address: str):
        self.address = address
        self.lanes = self.capacity = 0
        self.trouble = ""
        self._lock = threading.Lock()  # guards the next four
        self._outstanding: dict[int, ChunkRequest] = {}
        self._frames: queue.SimpleQueue[ChunkRequest | None] = queue.SimpleQueue()
        self._numbers = self._songs = 0
        self._lanes_seen = time.monotonic()  # when a node was last seen; at first, the start
        self.bytes_out = self.bytes_in = 0
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_bridge, name="cluster", daemon=True)
        self._thread.start()

    @property
    def away(self) -> bool:
        """Whether the cluster has had no node for `AWAY_S`."""
        return time.monotonic() - self._lanes_seen > AWAY_S

    def new_song(self) -> int:
        with self._lock:
            self._songs += 1
            return self._songs

    def send(self, model: Model, stage: str, song: int, audio: np.ndarray) -> ChunkRequest:
        """Send a chunk without waiting. It is kept here until its estimate has arrived."""
        audio = np.ascontiguousarray(audio, np.float32)
        head = {"op": "chunk", "model": asdict(model), "stage": stage, "song": song, "hash": digest(audio)}
        with self._lock:
            self._numbers += 1
            request = ChunkRequest(self._numbers, {**head, "id": self._numbers}, audio)
            self._outstanding[request.number] = request
            self._frames.put(request)
        return request

    def withdraw(self, request: ChunkRequest) -> None:
        """Withdraw a request; its estimate is dropped if it still arrives."""
        with self._lock:
            self._outstanding.pop(request.number, None)

    def close(self) -> None:
        """End the bridge and its actors. The connection cannot be used afterwards."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    # In the connection's thread

    def _keep_bridge(self) -> None:
        failures = 0
        while not self._closed:
            began = time.monotonic()
            how = self._run_bridge()
            self.lanes = self.capacity = 0
            if self._closed:
                return
            failures = 0 if time.monotonic() - began > SILENT_S else failures + 1
            log.warning("the bridge to the cluster %s ended (%s)", self.address, how)
            time.sleep(min(RESTART_S[0] * 2.0 ** min(failures, 10), RESTART_S[1]))

    def _run_bridge(self) -> str:
        """Run one bridge until it ends or hangs, and describe how it ended."""
        command = python("tsbs_daw.cluster.bridge", self.address)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(threads=1))
        assert process.stdin is not None and process.stdout is not None
        enlarge(process.stdin)
        enlarge(process.stdout)
        self._process = process
        last_seen_s = [time.monotonic() + CONNECT_S - SILENT_S]
        frames: queue.SimpleQueue[ChunkRequest | None] = queue.SimpleQueue()
        with self._lock:
            self._frames = frames
            for request in self._outstanding.values():
                frames.put(request)
        writer = threading.Thread(target=self._write, args=(process.stdin, frames), daemon=True)
        watch = threading.Thread(target=_kill_when_silent, args=(process, last_seen_s), daemon=True)
        writer.start()
        watch.start()
        while (frame := read_frame(process.stdout)) is not None:
            last_seen_s[0] = time.monotonic()
            self._handle(*frame)
        try:
            process.wait(2.0)  # its stdout is closed, and it usually ends by itself
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        frames.put(None)
        writer.join()
        watch.join()
        process.stdout.close()
        return describe_exit(process.returncode)

    def _write(self, stream: IO[bytes], frames: queue.SimpleQueue[ChunkRequest | None]) -> None:
        try:
            while (request := frames.get()) is not None:
                if request.number in self._outstanding:
                    write_frame(stream, request.head, request.audio)
                    self.bytes_out += request.audio.nbytes
        except (OSError, ValueError) as error:
            log.debug("the bridge accepts no more chunks: %s", error)
        finally:
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def _handle(self, head: dict[str, Any], array: np.ndarray | None) -> None:
        event = head["event"]
        if event == "alive":
            self.lanes, self.capacity = head["lanes"], head["capacity"]
            if head["lanes"]:
                self._lanes_seen, self.trouble = time.monotonic(), ""
        elif event == "trouble":
            self.trouble = head["message"]
            log.warning("%s", self.trouble)
        elif event == "estimate":
            assert array is not None
            self.bytes_in += array.nbytes
            self._take(head, array)
        elif event == "failed":
            with self._lock:
                request = self._outstanding.pop(head["id"], None)
            if request is not None:
                request.answer(None, head["error"])

    def _take(self, head: dict[str, Any], array: np.ndarray) -> None:
        with self._lock:
            request = self._outstanding.get(head["id"])
            if request is None:
                return
            try:
                checked(array, head["hash"])
            except DamagedInTransit:
                log.warning("an estimate was damaged in transit; its chunk is computed again")
                self._frames.put(request)
                return
            del self._outstanding[head["id"]]
        request.answer(array)


def _kill_when_silent(process: subprocess.Popen[bytes], last_seen_s: list[float]) -> None:
    while process.poll() is None:
        if time.monotonic() - last_seen_s[0] > SILENT_S:
            log.warning("the bridge to the cluster does not respond and is killed")
            process.kill()
            return
        time.sleep(0.5)


class RemoteBatcher:
    """Replaces a separator's `Batcher`.

    Args:
        connection: To the cluster.
        model: The model of the separator.
        local: The separator's own batcher, used while the cluster is away; None if computing locally is not allowed.
    """

    batch_size = 1

    def __init__(self, connection: Connection, model: Model, local: Batcher | None):
        self.connection, self._model, self._local = connection, model, local
        self._song = threading.local()

    @property
    def ahead(self) -> int:
        """Number of chunks that a song may have under way when it sends another."""
        return max(1, min(self.connection.capacity, MOST_AHEAD))

    def begin(self) -> None:
        self._song.number = self.connection.new_song()
        if self._local is not None:
            self._local.begin()

    def submit(self, chunks: Sequence[np.ndarray], stage: str = "full") -> list[RemoteChunkFuture]:
        """Send chunks.

        Args:
            chunks: The chunks.
            stage: "full" or "mask".

        Returns:
            One future for each chunk.

        Shape:
            chunks: (channels, samples) each
        """
        song = getattr(self._song, "number", 0)
        return [
            RemoteChunkFuture(self, self.connection.send(self._model, stage, song, audio), stage) for audio in chunks
        ]

    def gives_up(self, request: ChunkRequest) -> bool:
        """Return whether to stop waiting for the cluster.

        A song that must not be computed locally waits `AWAY_S` for each chunk, even if the cluster is away already.
        """
        patient = self._local is None and time.monotonic() - request.sent_s < AWAY_S
        return self.connection.away and not patient

    def compute_here(self, request: ChunkRequest, stage: str) -> np.ndarray:
        """Compute a chunk locally.

        Raises:
            ClusterUnavailable: Computing locally is not allowed.
        """
        connection = self.connection
        connection.withdraw(request)
        if request.estimate is not None:  # it has just arrived
            return request.estimate
        if self._local is not None:
            return self._local.submit([request.audio], stage)[0].array()
        if request.error:
            raise ClusterUnavailable(f"No node of the cluster can compute a chunk ({request.error}).")
        why = connection.trouble or f"The cluster {connection.address} has no node that computes."
        raise ClusterUnavailable(f"{why} The song waits; see `tsbs-daw cluster status`.")


class RemoteChunkFuture:
    """The future of a chunk on a cluster, used like `engine.ChunkFuture`."""

    def __init__(self, batcher: RemoteBatcher, request: ChunkRequest, stage: str):
        self._batcher, self._request, self._stage = batcher, request, stage

    def arrived(self, seconds: float) -> bool:
        """Wait at most this long. Returns whether `array` no longer has to wait for the cluster."""
        return self._request.wait(seconds) or self._batcher.gives_up(self._request)

    def array(self) -> np.ndarray:
        """Wait for the estimate.

        Raises:
            ClusterUnavailable: The cluster is away, and computing locally is not allowed.
            DeviceError: Computing locally failed.

        Shape:
            (stems, channels, samples)
        """
        while not self.arrived(1.0):
            continue
        estimate = self._request.estimate
        return estimate if estimate is not None else self._batcher.compute_here(self._request, self._stage)


@lru_cache(maxsize=4)
def connection_to(address: str) -> Connection:
    """Return this process's connection to a cluster."""
    return Connection(address)


def attach(
    separator: Separator, model_path: str, address: str, *, fallback: bool, paths: Paths | None = None
) -> Separator:
    """Have a separator's chunks computed on a cluster.

    Args:
        separator: The separator as loaded here; nodes compute in its number format.
        model_path: The model's file, which is sent to nodes that lack it.
        address: "auto", or host:port of a Ray head.
        fallback: Whether to compute locally while the cluster is away.
        paths: Folders that nodes share with this machine, in which they read the model in place.

    Returns:
        The same separator.
    """
    # A named format is the same on every node. TF32 has no name, so nodes choose it like this machine did.
    precision = "auto" if separator.engine.form.tf32 else separator.precision
    places = places_of(Path(model_path), paths or {})
    model = Model(separator.model_hash, model_path, precision, separator.precision_mark, places)
    local = separator.batcher if fallback else None
    separator.batcher = RemoteBatcher(connection_to(address), model, local)  # type: ignore[assignment]
    return separator
