"""Where the chunks of all songs meet that are being separated: they are computed in common batches.

There is no thread of its own here. Who has chunks puts them down and comes to the device. If it is free, he computes
for everybody whose chunks lie there, in the order of their coming, up to the size that the memory allows; if it is
not, he waits, and mostly finds that another has computed his. A song alone is computed in its own thread, as if
nothing of this existed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from tsbs_daw.core.errors import DeviceLost
from tsbs_daw.separation.engine import Engine
from tsbs_daw.separation.transfer import Pending

log = logging.getLogger(__name__)


class Ticket:
    """One chunk that was put down, and where its estimate will be found."""

    def __init__(self, audio: np.ndarray, stage: str, owner: object):
        self.audio, self.stage, self.owner = audio, stage, owner
        self.answered = False  # whether what follows is known
        self._batch: Pending | None = None
        self._place = 0
        self._error: BaseException | None = None

    def fits(self, other: Ticket) -> bool:
        """Whether both can be in one batch."""
        return (self.audio.shape, self.stage) == (other.audio.shape, other.stage)

    def answer(self, batch: Pending, place: int) -> None:
        self._batch, self._place, self.answered = batch, place, True

    def fail(self, error: BaseException) -> None:
        self._error, self.answered = error, True

    def arrived(self, seconds: float) -> bool:
        """Whether `array` gives something without another machine: always. `cluster.remote` has others."""
        return True

    def array(self) -> np.ndarray:
        """(stems, channels, samples). Raises: what computing it raised"""
        if self._error is not None:
            raise self._error
        return self._batch.array()[self._place]


class Batcher:
    """Hands an engine the chunks of several songs at once. For any number of threads.

    Args: ahead: how many batches may be under way while another is begun; None: one on CUDA, where computing goes on
                 by itself, else none
    """

    def __init__(self, engine: Engine, ahead: int | None = None):
        self.engine = engine
        self.ahead = int(engine.device.type == "cuda") if ahead is None else ahead
        self._changed = threading.Condition()  # guards the next three
        self._waiting: list[Ticket] = []
        self._busy = False
        self._another_song = False
        self._under_way: deque[Pending] = deque()  # of him who has the device

    @property
    def batch_size(self) -> int:
        """How many chunks to submit at once."""
        return self.engine.batch_size

    def begin(self) -> None:
        """Another song: what lacked memory before may have it by now."""
        with self._changed:
            self._another_song = True

    def submit(self, chunks: Sequence[np.ndarray], stage: str = "full") -> list[Ticket]:
        """Have these computed, (channels, samples) each, together with whatever else waits.

        Returns: a ticket for each, answered; its array may still be under way
        """
        owner = object()
        tickets = [Ticket(audio, stage, owner) for audio in chunks]
        with self._changed:
            self._waiting += tickets
        while self._device_is_ours(tickets):
            try:
                self._compute_some()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        return tickets

    def _device_is_ours(self, tickets: list[Ticket]) -> bool:
        """Wait for all answers, or for the device, whichever comes first. Whether there is something left to compute"""

        def answered() -> bool:
            return all(ticket.answered for ticket in tickets)

        with self._changed:
            self._changed.wait_for(lambda: not self._busy or answered())
            if answered():
                return False
            self._busy = True
            return True

    def _compute_some(self) -> None:
        while len(self._under_way) > self.ahead:
            with contextlib.suppress(DeviceLost):  # told to those whose batch it was
                self._under_way.popleft().wait()  # what comes meanwhile goes into this batch
        with self._changed:
            if self._another_song:
                self._another_song = False
                self.engine.begin()
            first = self._waiting[0]
            batch = [ticket for ticket in self._waiting if ticket.fits(first)][: self.engine.batch_size]
            taken = set(map(id, batch))
            self._waiting = [ticket for ticket in self._waiting if id(ticket) not in taken]
        self._compute(batch)

    def _compute(self, batch: list[Ticket]) -> None:
        """Answer these. When it fails, each song's part is tried alone, so that none fails by another's fault."""
        try:
            found = self.engine.start(np.stack([ticket.audio for ticket in batch]), batch[0].stage)
        except Exception as error:
            songs: dict[object, list[Ticket]] = {}
            for ticket in batch:
                songs.setdefault(ticket.owner, []).append(ticket)
            if len(songs) == 1 or isinstance(error, DeviceLost):
                for ticket in batch:
                    ticket.fail(error)
                return
            log.warning("a batch of %d songs failed (%s); each is tried alone", len(songs), error)
            for part in songs.values():
                self._compute(part)
        except BaseException as error:  # Ctrl-C: nobody shall wait for what does not come any more
            for ticket in batch:
                ticket.fail(error)
            raise
        else:
            self._under_way.append(found)
            for place, ticket in enumerate(batch):
                ticket.answer(found, place)
