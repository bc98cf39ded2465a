"""The worker's side of a cluster: stands where a separator has its batcher, and has the chunks computed elsewhere.

Decoding, cutting, overlap-add, effects and publishing stay in the worker; chunks go out and estimates come back, each
with its hash, through a `bridge` process that speaks Ray. A song has as many chunks under way as the cluster can use,
and no more than `MOST_AHEAD`. What a bridge had when it died goes to the next one. Nothing is ever half done: an
estimate is there, or its chunk is computed again.

A cluster that has had no node for a minute is away: the worker then computes by itself until it is back, or, where that
is not allowed, puts its songs back into the queue.
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
from tsbs_daw.separation.batching import Batcher

log = logging.getLogger(__name__)

AWAY_S = 60.0  # without a node, before the worker helps itself
SILENT_S = 30.0  # a bridge that says nothing for so long hangs; longer while it connects
CONNECT_S = 120.0
RESTART_S = (1.0, 15.0)
MOST_AHEAD = 48  # chunks of one song under way: 250 MB of four stems


class RemoteTicket:
    """One chunk that was sent, and where its estimate arrives."""

    def __init__(self, number: int, head: dict[str, Any], audio: np.ndarray):
        self.number, self.head, self.audio = number, head, audio
        self.sent = time.monotonic()
        self._arrived = threading.Event()
        self._estimate: np.ndarray | None = None
        self.error = ""  # why no node can compute it

    def answer(self, estimate: np.ndarray | None, error: str = "") -> None:
        self._estimate, self.error = estimate, error
        self._arrived.set()

    def wait(self, seconds: float) -> bool:
        return self._arrived.wait(seconds)

    @property
    def estimate(self) -> np.ndarray | None:
        return self._estimate


class Connection:
    """The bridge to one cluster, started again whenever it ends. For any number of threads."""

    def __init__(self, address: str):
        self.address = address
        self.lanes = self.capacity = 0  # actors that are ready, and chunks that the cluster can have under way
        self.trouble = ""  # the last sentence about it
        self._lock = threading.Lock()  # guards the next four
        self._outstanding: dict[int, RemoteTicket] = {}
        self._frames: queue.SimpleQueue[RemoteTicket | None] = queue.SimpleQueue()
        self._numbers = self._songs = 0
        self._lanes_seen = time.monotonic()  # when there last was a node, or the first moment
        self.bytes_out = self.bytes_in = 0
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_bridge, name="cluster", daemon=True)
        self._thread.start()

    @property
    def away(self) -> bool:
        """Whether there has been no node for so long that others have to compute."""
        return time.monotonic() - self._lanes_seen > AWAY_S

    def new_song(self) -> int:
        with self._lock:
            self._songs += 1
            return self._songs

    def send(self, model: Model, stage: str, song: int, audio: np.ndarray) -> RemoteTicket:
        """Returns at once; the chunk stays here until its estimate has arrived."""
        audio = np.ascontiguousarray(audio, np.float32)
        head = {"op": "chunk", "model": asdict(model), "stage": stage, "song": song, "hash": digest(audio)}
        with self._lock:
            self._numbers += 1
            ticket = RemoteTicket(self._numbers, {**head, "id": self._numbers}, audio)
            self._outstanding[ticket.number] = ticket
            self._frames.put(ticket)
        return ticket

    def withdraw(self, ticket: RemoteTicket) -> None:
        """Not wanted any more: an estimate that arrives later is dropped."""
        with self._lock:
            self._outstanding.pop(ticket.number, None)

    def close(self) -> None:
        """End the bridge, and with it what Ray runs for it. Nothing can be sent any more."""
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
        """Run one bridge until it ends or hangs. Returns: how it ended"""
        command = python("tsbs_daw.cluster.bridge", self.address)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(threads=1))
        assert process.stdin is not None and process.stdout is not None
        enlarge(process.stdin)
        enlarge(process.stdout)
        self._process = process
        heard = [time.monotonic() + CONNECT_S - SILENT_S]
        frames: queue.SimpleQueue[RemoteTicket | None] = queue.SimpleQueue()
        with self._lock:
            self._frames = frames
            for ticket in self._outstanding.values():
                frames.put(ticket)
        writer = threading.Thread(target=self._write, args=(process.stdin, frames), daemon=True)
        watch = threading.Thread(target=_kill_when_silent, args=(process, heard), daemon=True)
        writer.start()
        watch.start()
        while (frame := read_frame(process.stdout)) is not None:
            heard[0] = time.monotonic()
            self._hear(*frame)
        try:
            process.wait(2.0)  # it has closed its stdout, and mostly ends by itself
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        frames.put(None)
        writer.join()
        watch.join()
        process.stdout.close()
        return describe_exit(process.returncode)

    def _write(self, stream: IO[bytes], frames: queue.SimpleQueue[RemoteTicket | None]) -> None:
        try:
            while (ticket := frames.get()) is not None:
                if ticket.number in self._outstanding:
                    write_frame(stream, ticket.head, ticket.audio)
                    self.bytes_out += ticket.audio.nbytes
        except (OSError, ValueError) as error:
            log.debug("the bridge does not take more: %s", error)
        finally:
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def _hear(self, head: dict[str, Any], array: np.ndarray | None) -> None:
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
                ticket = self._outstanding.pop(head["id"], None)
            if ticket is not None:
                ticket.answer(None, head["error"])

    def _take(self, head: dict[str, Any], array: np.ndarray) -> None:
        with self._lock:
            ticket = self._outstanding.get(head["id"])
            if ticket is None:
                return
            try:
                checked(array, head["hash"])
            except DamagedInTransit:
                log.warning("an estimate was damaged on its way; its chunk is computed again")
                self._frames.put(ticket)
                return
            del self._outstanding[head["id"]]
        ticket.answer(array)


def _kill_when_silent(process: subprocess.Popen[bytes], heard: list[float]) -> None:
    while process.poll() is None:
        if time.monotonic() - heard[0] > SILENT_S:
            log.warning("the bridge to the cluster says nothing; it is ended")
            process.kill()
            return
        time.sleep(0.5)


class RemoteBatcher:
    """In place of a separator's `Batcher`. Args: local: its own, for when the cluster is away; None: not allowed"""

    batch_size = 1

    def __init__(self, connection: Connection, model: Model, local: Batcher | None):
        self.connection, self._model, self._local = connection, model, local
        self._song = threading.local()

    @property
    def ahead(self) -> int:
        """How many chunks a song may have under way while another is sent."""
        return max(1, min(self.connection.capacity, MOST_AHEAD))

    def begin(self) -> None:
        self._song.number = self.connection.new_song()
        if self._local is not None:
            self._local.begin()

    def submit(self, chunks: Sequence[np.ndarray], stage: str = "full") -> list[RemoteChunk]:
        """Send these, (channels, samples) each. Returns: one for each, on its way"""
        song = getattr(self._song, "number", 0)
        return [RemoteChunk(self, self.connection.send(self._model, stage, song, audio), stage) for audio in chunks]

    def gives_up(self, ticket: RemoteTicket) -> bool:
        """Whether to wait no longer for the cluster. A song that may not be computed here is patient once more."""
        patient = self._local is None and time.monotonic() - ticket.sent < AWAY_S
        return self.connection.away and not patient

    def compute_here(self, ticket: RemoteTicket, stage: str) -> np.ndarray:
        """Raises: ClusterUnavailable: that is not allowed"""
        connection = self.connection
        connection.withdraw(ticket)
        if ticket.estimate is not None:  # it arrived at this very moment
            return ticket.estimate
        if self._local is not None:
            return self._local.submit([ticket.audio], stage)[0].array()
        if ticket.error:
            raise ClusterUnavailable(f"No node of the cluster can compute a chunk ({ticket.error}).")
        why = connection.trouble or f"The cluster {connection.address} has no node that computes."
        raise ClusterUnavailable(f"{why} The song waits; see `tsbs-daw cluster status`.")


class RemoteChunk:
    """A chunk that may be anywhere, as `batching.Ticket` is one that is here."""

    def __init__(self, batcher: RemoteBatcher, ticket: RemoteTicket, stage: str):
        self._batcher, self._ticket, self._stage = batcher, ticket, stage

    def arrived(self, seconds: float) -> bool:
        """Wait so long at most. Whether `array` gives something, or raises, without the cluster."""
        return self._ticket.wait(seconds) or self._batcher.gives_up(self._ticket)

    def array(self) -> np.ndarray:
        """(stems, channels, samples). Raises: ClusterUnavailable, DeviceError"""
        while not self.arrived(1.0):
            continue
        estimate = self._ticket.estimate
        return estimate if estimate is not None else self._batcher.compute_here(self._ticket, self._stage)


@lru_cache(maxsize=4)
def connection_to(address: str) -> Connection:
    """The one of this process to that cluster."""
    return Connection(address)


def attach(
    separator: Separator, model_path: str, address: str, *, fallback: bool, paths: Paths | None = None
) -> Separator:
    """Have a separator's chunks computed on a cluster.

    Args:
        separator: As loaded here: it says which number format the nodes compute in.
        model_path: The model's file, sent to the nodes that lack it.
        address: "auto", or host:port of a Ray head.
        fallback: Whether it may compute here while the cluster is away.
        paths: Folders that nodes share with this machine, from which they read the model in place.
    """
    # A format by name gives the same everywhere. TF32 has none: nodes choose it as this machine did.
    precision = "auto" if separator.engine.form.tf32 else separator.precision
    places = places_of(Path(model_path), paths or {})
    model = Model(separator.model_hash, model_path, precision, separator.precision_mark, places)
    local = separator.batcher if fallback else None
    separator.batcher = RemoteBatcher(connection_to(address), model, local)  # type: ignore[assignment]
    return separator
