"""Computes the chunks of all songs that are being separated in common batches.

There is no thread of its own. Callers enqueue chunks and contend for the device. Whoever holds it computes one batch
after another of all queued chunks, in order and as large as memory allows; the others wait, and mostly find that
theirs have been computed. A single song is computed in its own thread, as if none of this existed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from tsbs_daw.core.errors import DeviceLost
from tsbs_daw.separation.devices import Pending
from tsbs_daw.separation.engine import Engine

log = logging.getLogger(__name__)


class ChunkFuture:
    """The estimate of one enqueued chunk, once it is known."""

    def __init__(self, audio: np.ndarray, stage: str, owner: object):
        self.audio, self.stage, self.owner = audio, stage, owner
        self.answered = False  # whether the fields below are known
        self._batch: Pending | None = None
        self._place = 0
        self._error: BaseException | None = None

    def fits(self, other: ChunkFuture) -> bool:
        """Whether both can go into one batch."""
        return (self.audio.shape, self.stage) == (other.audio.shape, other.stage)

    def answer(self, batch: Pending, place: int) -> None:
        self._batch, self._place, self.answered = batch, place, True

    def fail(self, error: BaseException) -> None:
        self._error, self.answered = error, True

    def arrived(self, seconds: float) -> bool:
        """Whether `array` returns without waiting for another machine: always here; see `cluster.remote`."""
        return True

    def array(self) -> np.ndarray:
        """The estimate, (stems, channels, samples). Raises: whatever computing it raised"""
        if self._error is not None:
            raise self._error
        return self._batch.array()[self._place]


class Batcher:
    """Runs an engine on the chunks of several songs at once. Safe to use from any number of threads.

    Args:
        ahead: How many batches may be in flight while another is started. None: one on CUDA, where kernels run
            asynchronously; otherwise none.
    """

    def __init__(self, engine: Engine, ahead: int | None = None):
        self.engine = engine
        self.ahead = int(engine.device.type == "cuda") if ahead is None else ahead
        self._changed = threading.Condition()  # guards the next three
        self._waiting: list[ChunkFuture] = []
        self._busy = False
        self._another_song = False
        self._under_way: deque[Pending] = deque()  # of the thread that holds the device

    @property
    def batch_size(self) -> int:
        """How many chunks to submit at once."""
        return self.engine.batch_size

    def begin(self) -> None:
        """A new song starts: memory that was missing before may be free by now."""
        with self._changed:
            self._another_song = True

    def submit(self, chunks: Sequence[np.ndarray], stage: str = "full") -> list[ChunkFuture]:
        """Compute these chunks, (channels, samples) each, together with whatever else is queued.

        Returns:
            A future for each, answered; its array may still be in flight.
        """
        owner = object()
        futures = [ChunkFuture(audio, stage, owner) for audio in chunks]
        with self._changed:
            self._waiting += futures
        while self._device_is_ours(futures):
            try:
                self._compute_some()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        return futures

    def _device_is_ours(self, futures: list[ChunkFuture]) -> bool:
        """Wait for all answers or for the device. Returns: whether anything is left to compute"""

        def answered() -> bool:
            return all(future.answered for future in futures)

        with self._changed:
            self._changed.wait_for(lambda: not self._busy or answered())
            if answered():
                return False
            self._busy = True
            return True

    def _compute_some(self) -> None:
        while len(self._under_way) > self.ahead:
            with contextlib.suppress(DeviceLost):  # reported to the songs of that batch
                self._under_way.popleft().wait()  # chunks that arrive meanwhile go into this batch
        with self._changed:
            if self._another_song:
                self._another_song = False
                self.engine.begin()
            first = self._waiting[0]
            batch = [future for future in self._waiting if future.fits(first)][: self.engine.batch_size]
            taken = set(map(id, batch))
            self._waiting = [future for future in self._waiting if id(future) not in taken]
        self._compute(batch)

    def _compute(self, batch: list[ChunkFuture]) -> None:
        """Compute a batch. If it fails, retry each song's part alone, so that no song fails because of another."""
        try:
            found = self.engine.start(np.stack([future.audio for future in batch]), batch[0].stage)
        except Exception as error:
            songs: dict[object, list[ChunkFuture]] = {}
            for future in batch:
                songs.setdefault(future.owner, []).append(future)
            if len(songs) == 1 or isinstance(error, DeviceLost):
                for future in batch:
                    future.fail(error)
                return
            log.warning("a batch of %d songs failed (%s); retrying each alone", len(songs), error)
            for part in songs.values():
                self._compute(part)
        except BaseException as error:  # Ctrl-C: nobody may wait for a result that never comes
            for future in batch:
                future.fail(error)
            raise
        else:
            self._under_way.append(found)
            for place, future in enumerate(batch):
                future.answer(found, place)
