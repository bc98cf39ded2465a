"""The actor that runs on a node: it keeps models loaded on one GPU, or on a share of the CPU, and computes chunks.

This module does not import Ray, so the class can be tested without it. Chunks of several songs arrive in several
threads, and the separator's batcher combines them, just as for several songs on one machine.

All data is checked against its hash on arrival and gets one on departure. Models are stored by hash: a node without a
model receives its file once, in pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import tsbs_daw
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, DeviceLost
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models.registry import BUNDLED
from tsbs_daw.network import checkpoint
from tsbs_daw.separation import Separator
from tsbs_daw.separation.devices import choose_device

log = logging.getLogger(__name__)

CPU_SHARE = 8  # cores of one actor on a node without a GPU
MODELS_LOADED = 2
SPEED_OVER_S = 60.0  # period over which `status` averages the speed
COMPUTING = ("cluster", "network", "separation")  # packages whose code must be the same on both sides

Hashed = tuple[np.ndarray, str]


class DamagedInTransit(Exception):
    """Data does not match the hash that it was sent with."""


def digest(array: np.ndarray) -> str:
    """Return the hash that accompanies a chunk or an estimate: SHA-256, which current processors accelerate."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def checked(array: np.ndarray, expected: str) -> np.ndarray:
    """Return the array if it matches its hash.

    Raises:
        DamagedInTransit: The array does not match.
    """
    if digest(array) != expected:
        raise DamagedInTransit("a chunk was damaged in transit")
    return array


@cache
def fingerprint() -> str:
    """Return a hash of the code that computes, because two checkouts may have the same version."""
    package, found = Path(tsbs_daw.__file__).parent, hashlib.sha256()
    for name in COMPUTING:
        for path in sorted((package / name).glob("*.py")):
            found.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Place:
    """A place for one actor on a node.

    Attributes:
        node: Ray's id of the node.
        name: Host name and address.
        share: Index of the node's GPU, or of its share of the CPU.
        gpus: GPUs that the actor reserves.
        cpus: Cores that the actor reserves.
    """

    node: str
    name: str
    share: int
    gpus: int
    cpus: float

    @property
    def text(self) -> str:
        return f"{self.name} ({'GPU' if self.gpus else 'CPU'} {self.share})"


def places(nodes: Sequence[dict[str, Any]]) -> Iterator[Place]:
    """Yield every place for an actor.

    Args:
        nodes: From `ray.nodes()`. A node without CPUs and GPUs has no place.
    """
    for node in nodes:
        resources = node.get("Resources", {})
        if not node.get("Alive"):
            continue
        name = f"{node.get('NodeManagerHostname') or '?'} {node.get('NodeManagerAddress', '')}".strip()
        gpus, cpus = int(resources.get("GPU", 0)), float(resources.get("CPU", 0.0))
        if gpus:
            yield from (Place(node["NodeID"], name, share, 1, 0.0) for share in range(gpus))
        elif cpus >= 1.0:
            shares = max(1, round(cpus / CPU_SHARE))
            yield from (Place(node["NodeID"], name, share, 0, float(int(cpus / shares))) for share in range(shares))


class NodeSeparator:
    """The actor. Thread-safe."""

    def __init__(self) -> None:
        self._cache = Settings.from_environment().cache / "cluster-models"
        self._lock = threading.Lock()
        self._separators: OrderedDict[tuple[str, str], Separator] = OrderedDict()
        self._song = -1
        self._done: deque[tuple[float, float, int]] = deque()  # (when, seconds of sound, song)
        self._chunks = 0
        self._in_place: dict[str, Path] = {}

    def hello(self) -> dict[str, Any]:
        """Return host, process, device, and the version of the program."""
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": tsbs_daw.__version__,
            "fingerprint": fingerprint(),
            "device": str(choose_device("auto")),
            "nice": os.nice(0) if hasattr(os, "nice") else 0,
        }

    def has(self, sha256: str) -> bool:
        """Return whether the model with this hash is on this machine."""
        return self._find(sha256) is not None

    def use(self, sha256: str, path: str, size_bytes: int) -> str:
        """Use a model's file in place, in a shared folder.

        Args:
            sha256: Hash of the model.
            path: The file on this machine.
            size_bytes: Its expected size.

        Returns:
            Why the file cannot be used; "" if it can.
        """
        try:
            if Path(path).stat().st_size != size_bytes:
                return "has another size there"
            if file_sha256(Path(path)) != sha256:
                return "has other content there"
        except OSError as error:
            return f"cannot be read there ({error.strerror})"
        self._in_place[sha256] = Path(path)
        return ""

    def receive(self, sha256: str, offset: int, piece: bytes, last: bool) -> None:
        """Store the next piece of a model's file.

        Args:
            sha256: Hash of the model.
            offset: Position of the piece in the file, in bytes.
            piece: The bytes.
            last: Whether this is the last piece.

        Raises:
            DamagedInTransit: The complete file does not match its hash.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = self._cache / f".{sha256}.{os.getpid()}"
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if not last:
            return
        if file_sha256(partial) != sha256:
            partial.unlink()
            raise DamagedInTransit("the model was damaged in transit")
        partial.replace(self._path(sha256))

    def load(self, sha256: str, precision: str) -> dict[str, Any]:
        """Load a model if necessary, and describe how it computes.

        Raises:
            CheckpointError: The model's file is missing.
        """
        separator = self._separator(sha256, precision)
        return {"mark": separator.precision_mark, "batch": separator.batch_size, "device": str(separator.device)}

    def compute(self, sha256: str, precision: str, stage: str, song: int, chunks: Sequence[Hashed]) -> list[Hashed]:
        """Separate chunks, batched with those of other calls.

        Args:
            sha256: Hash of the model.
            precision: Number format of matrix products.
            stage: "full" or "mask".
            song: Number of the song; higher for later songs. A new song resets the memory limits of the last one.
            chunks: Each chunk with its hash.

        Returns:
            One estimate with its hash for each chunk.

        Raises:
            DamagedInTransit: A chunk does not match its hash.
            DeviceError: There is too little memory.

        Shape:
            chunks: (channels, samples) each
            estimates: (stems, channels, samples) each
        """
        arrays = [checked(array, expected) for array, expected in chunks]
        separator = self._separator(sha256, precision)
        with self._lock:
            if song > self._song:
                self._song = song
                separator.batcher.begin()
        try:
            found = [future.array() for future in separator.batcher.submit(arrays, stage)]
        except DeviceLost:
            log.exception("the device is lost; ending this process")
            os._exit(1)  # the bridge starts another actor
        seconds = sum(array.shape[-1] for array in arrays) / separator.engine.config.sample_rate
        self._note(song, len(arrays), seconds)
        return [(estimate, digest(estimate)) for estimate in found]

    def status(self) -> dict[str, Any]:
        """Return the actor's state for `tsbs-daw cluster status`."""
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            seconds = sum(done[1] for done in self._done)
            since = now - self._done[0][0] if self._done else 0.0
            songs = len({done[2] for done in self._done if now - done[0] < SPEED_OVER_S / 4})
            models = [sha256 for sha256, _ in self._separators]
        speed = seconds / since if since > 1.0 else 0.0
        return {**self.hello(), "models": models, "songs": songs, "chunks": self._chunks, "speed": round(speed, 2)}

    def _note(self, song: int, chunks: int, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._chunks += chunks
            self._done.append((now, seconds, song))
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._done and now - self._done[0][0] > SPEED_OVER_S:
            self._done.popleft()

    def _path(self, sha256: str) -> Path:
        return self._cache / f"{sha256}.safetensors"

    def _find(self, sha256: str) -> Path | None:
        """Find the file of a model; a damaged file counts as missing."""
        for path in filter(None, (self._path(sha256), BUNDLED, self._in_place.get(sha256))):
            with contextlib.suppress(OSError):
                if file_sha256(path) == sha256:
                    return path
        return None

    def _separator(self, sha256: str, precision: str) -> Separator:
        with self._lock:
            key = (sha256, precision)
            if key not in self._separators:
                path = self._find(sha256)
                if path is None:
                    raise CheckpointError(f"The model {sha256[:12]} is no longer on {socket.gethostname()}.")
                while len(self._separators) >= MODELS_LOADED:
                    self._separators.popitem(last=False)
                network, device = checkpoint.load(path), choose_device("auto")
                self._separators[key] = Separator(
                    network, device, model_hash=sha256, precision=precision, cache=self._cache
                )
            self._separators.move_to_end(key)
            return self._separators[key]
