"""What runs on a node: an actor that keeps models loaded on one GPU, or on a share of the CPU, and computes chunks.

Ray is not imported here, so that the same class can be tried without it. Chunks of several songs arrive in several
threads and meet in the separator's batcher, as the songs of one machine do.

Whatever arrives is held to its hash before it is used, and leaves with one. Models are kept by content: a node that
has never seen a hash is sent the file once, in pieces.
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
from collections.abc import Sequence
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

MODELS_LOADED = 2
SPEED_OVER_S = 60.0  # what `status` calls the speed
COMPUTING = ("cluster", "network", "separation")  # packages whose code must be the same on both ends

Hashed = tuple[np.ndarray, str]


class DamagedInTransit(Exception):
    """Bytes that are not the ones that were sent."""


def digest(array: np.ndarray) -> str:
    """The hash with which a chunk or an estimate travels: SHA-256, which processors of today have instructions for."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def checked(array: np.ndarray, expected: str) -> np.ndarray:
    """Raises: DamagedInTransit"""
    if digest(array) != expected:
        raise DamagedInTransit("a chunk was damaged on its way")
    return array


@cache
def fingerprint() -> str:
    """Of the code that computes. The version alone does not tell two checkouts apart."""
    package, found = Path(tsbs_daw.__file__).parent, hashlib.sha256()
    for name in COMPUTING:
        for path in sorted((package / name).glob("*.py")):
            found.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


class NodeSeparator:
    """The actor. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._cache = Settings.from_environment().cache / "cluster-models"
        self._lock = threading.Lock()
        self._separators: OrderedDict[tuple[str, str], Separator] = OrderedDict()
        self._song = -1
        self._done: deque[tuple[float, float, int]] = deque()  # (when, seconds of sound, song)
        self._chunks = 0
        self._in_place: dict[str, Path] = {}

    def hello(self) -> dict[str, Any]:
        """Who this is, and which program it runs."""
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": tsbs_daw.__version__,
            "fingerprint": fingerprint(),
            "device": str(choose_device("auto")),
            "nice": os.nice(0) if hasattr(os, "nice") else 0,
        }

    def has(self, sha256: str) -> bool:
        """Whether the model with this hash is on this machine."""
        return self._find(sha256) is not None

    def use(self, sha256: str, path: str, size_bytes: int) -> str:
        """Read a model in place, from a folder that this machine shares. Returns: why it cannot; empty if it can"""
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
        """A piece of a model's file, in order. Raises: DamagedInTransit: the whole is not what its hash says"""
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
            raise DamagedInTransit("the model was damaged on its way")
        partial.replace(self._path(sha256))

    def load(self, sha256: str, precision: str) -> dict[str, Any]:
        """Load a model, unless it is. Raises: CheckpointError: it is not here any more"""
        separator = self._separator(sha256, precision)
        return {"mark": separator.precision_mark, "batch": separator.batch_size, "device": str(separator.device)}

    def compute(self, sha256: str, precision: str, stage: str, song: int, chunks: Sequence[Hashed]) -> list[Hashed]:
        """Estimates of chunks, (channels, samples) each -> (stems, channels, samples), in common batches.

        Args:
            sha256, precision: Which model, and the number format of its products.
            stage: "full" or "mask".
            song: Counts up with every song that begins; a new one may use memory that the last one lacked.
            chunks: Each with its hash.

        Raises:
            DamagedInTransit: A chunk is not the one that was sent.
            DeviceError: There is too little memory.
        """
        arrays = [checked(array, expected) for array, expected in chunks]
        separator = self._separator(sha256, precision)
        with self._lock:
            if song > self._song:
                self._song = song
                separator.batcher.begin()
        try:
            found = [ticket.array() for ticket in separator.batcher.submit(arrays, stage)]
        except DeviceLost:
            log.exception("the device is lost, and this process with it")
            os._exit(1)  # the daemon's side starts another
        seconds = sum(array.shape[-1] for array in arrays) / separator.engine.config.sample_rate
        self._note(song, len(arrays), seconds)
        return [(estimate, digest(estimate)) for estimate in found]

    def status(self) -> dict[str, Any]:
        """For `tsbs-daw cluster status`."""
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
        """The model's file, its content checked: what is damaged counts as missing."""
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
                    raise CheckpointError(f"The model {sha256[:12]} is not on {socket.gethostname()} any more.")
                while len(self._separators) >= MODELS_LOADED:
                    self._separators.popitem(last=False)
                network, device = checkpoint.load(path), choose_device("auto")
                self._separators[key] = Separator(network, device, model_hash=sha256, precision=precision)
            self._separators.move_to_end(key)
            return self._separators[key]
