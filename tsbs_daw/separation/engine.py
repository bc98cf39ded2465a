"""A network on a device: batches of chunks from all songs, sized to the memory that is available.

When memory runs out, the `Engine` falls back step by step and logs each step: smaller batches; shorter chunks, with the
same relative overlap; the CPU; a DeviceError.

The `Batcher` has no thread of its own. Callers enqueue chunks and contend for the device. Whoever holds it computes one
batch after another of all queued chunks, in order and as large as memory allows. The others wait, and usually find
their chunks computed by then. A single song is computed in its own thread without any waiting.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceError, DeviceLost
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.devices import (
    JoinedFuture,
    Pending,
    Transfer,
    fitting_batch,
    is_out_of_memory,
    on_host,
    translate_cuda_errors,
)
from tsbs_daw.separation.forms import Form, GraphedForm, choose_form
from tsbs_daw.separation.streams import OVERLAP, OverlapAdd, cut

log = logging.getLogger(__name__)

SHORTEST_S = 0.5  # a shorter chunk has too little context to tell stems apart
LARGEST_BATCH = 32


class Engine:
    """Runs a network on a device. Not thread-safe; `Batcher` serialises the calls.

    Args:
        network: The network.
        device: The device to run it on; the CPU if the device has no memory for the weights.
        precision: One of `forms.NAMES`.
        batch_size: Chunks per batch; 0: as many as fit the device.
        cache: Folder in which `forms` keeps what it measured.
    """

    def __init__(
        self,
        network: SeparationNetwork,
        device: torch.device,
        *,
        precision: str = "auto",
        batch_size: int = 0,
        cache: Path | None = None,
    ):
        self.config, self._plain = network.config, network
        with translate_cuda_errors():
            self.form, self.device = _placed(network, device, precision, cache)
            self.batch_size = self._whole_batch = batch_size or fitting_batch(
                self.form.chunk_bytes(), self.device, LARGEST_BATCH
            )
            self._transfer = Transfer(self.device)
        self.network, self.dtype = self.form.network, self.form.dtype
        self._run = GraphedForm(self.form) if self.device.type == "cuda" else self.form
        self.max_chunk_samples: int | None = None  # None: any length
        self._processor: Form | None = None  # on the CPU; replaces a device without enough memory

    def begin(self) -> None:
        """Reset the limits for a new song: memory that the last one lacked may be free by now."""
        self.batch_size, self.max_chunk_samples, self._processor = self._whole_batch, None, None

    def estimate(self, mixtures: np.ndarray, stage: str = "full") -> np.ndarray:
        """Estimate the stems of a batch of chunks.

        Args:
            mixtures: The chunks, as float32.
            stage: "full" or "mask".

        Returns:
            The estimates, as float32.

        Raises:
            DeviceError: There is too little memory for the shortest chunk, even on the CPU.

        Shape:
            mixtures: (batch, channels, samples)
            estimates: (batch, stems, channels, samples)
        """
        return self.start(mixtures, stage).array()

    def start(self, mixtures: np.ndarray, stage: str = "full") -> Pending:
        """Like `estimate`, but asynchronous if the device is. A lack of memory is noticed and handled at once."""
        with translate_cuda_errors():
            while True:
                try:
                    return self._start(mixtures, stage)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = error.with_traceback(None)  # its frames would keep the memory that must be freed
                self._reduce_memory(len(mixtures), mixtures.shape[-1], reason)

    def _start(self, mixtures: np.ndarray, stage: str) -> Pending:
        if len(mixtures) > self.batch_size:
            parts = np.array_split(mixtures, range(self.batch_size, len(mixtures), self.batch_size))
            return JoinedFuture([self.start(part, stage) for part in parts], np.concatenate)
        if self.max_chunk_samples is None or mixtures.shape[-1] <= self.max_chunk_samples:
            with torch.inference_mode():
                mixture = on_host(mixtures) if self._processor else self._transfer.upload(mixtures)
                return self._transfer.download(self.run(mixture, stage))
        fade = round(OVERLAP * self.max_chunk_samples)
        pieces = list(cut([mixtures], self.max_chunk_samples, fade))

        def join(found: list[np.ndarray]) -> np.ndarray:
            add = OverlapAdd(fade).add
            return np.concatenate([add(p.start, part, p.last) for p, part in zip(pieces, found, strict=True)], -1)

        return JoinedFuture([self.start(piece.audio, stage) for piece in pieces], join)

    def run(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """Run the network on a whole batch, without limiting its memory: (B, C, samples) -> (B, S, C, samples)."""
        if self._processor:
            return self._processor(mixture.cpu(), stage)
        return self._run(mixture.to(self.device), stage)

    def _reduce_memory(self, batch: int, samples: int, reason: RuntimeError) -> None:
        """Take the next step to use less memory.

        Raises:
            DeviceError: No step is left.
        """
        device = "cpu" if self._processor else self.device
        self._free_memory()
        if batch > 1:
            self.batch_size = batch // 2
            log.warning("out of memory on %s: batches of %d from now on", device, self.batch_size)
        elif self.config.any_length and (shorter := samples // 2) >= SHORTEST_S * self.config.sample_rate:
            self.max_chunk_samples = shorter
            log.warning("out of memory on %s: chunks of %.2f s from now on", device, shorter / self.config.sample_rate)
        elif self._processor is None and self.device.type != "cpu":
            self._processor = _on_processor(self._plain)
            self.max_chunk_samples = None
            log.warning("out of memory on %s: the rest of the song is separated on the CPU", device)
        else:
            raise DeviceError(
                f"{device} has too little free memory for the shortest chunk; close other programs"
                f"{'' if self.device.type == 'cpu' else ' or use --device cpu'}."
            ) from reason

    def _free_memory(self) -> None:
        """Release the memory of recorded graphs, batches in flight, and torch's cache."""
        if self.device.type == "cuda":
            self._run = GraphedForm(self.form)
            torch.cuda.synchronize(self.device)
        if self.device.type in ("cuda", "xpu", "mps"):
            getattr(torch, self.device.type).empty_cache()


def _placed(
    network: SeparationNetwork, device: torch.device, precision: str, cache: Path | None
) -> tuple[Form, torch.device]:
    """Return the network in a form for `device`, or for the CPU if the device has no memory for the weights."""
    try:
        return choose_form(network, device, precision, cache), device
    except RuntimeError as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    log.warning("%s has no memory for the network; it runs on the CPU", device)
    cpu = torch.device("cpu")
    return choose_form(network.cpu(), cpu, precision), cpu


def _on_processor(network: SeparationNetwork) -> Form:
    """Copy the network to the CPU without using memory on the device, which has none left."""
    here: dict[int, Tensor] = {id(part): torch.nn.Parameter(part.detach().cpu()) for part in network.parameters()}
    here |= {id(part): part.cpu() for part in network.buffers()}
    return choose_form(copy.deepcopy(network, here), torch.device("cpu"), "float32")


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
        """Whether `array` would return without waiting for another machine. Always true here; see `cluster.remote`."""
        return True

    def array(self) -> np.ndarray:
        """Return the estimate, (stems, channels, samples), or raise the error that computing it raised."""
        if self._error is not None:
            raise self._error
        assert self._batch is not None, "asked for before it was answered"
        return self._batch.array()[self._place]


class Batcher:
    """Runs an engine on the chunks of several songs at once. Thread-safe.

    Args:
        engine: The engine.
        ahead: How many batches may be in flight while another is started. None: one on CUDA, where kernels run
            asynchronously; otherwise none.
    """

    def __init__(self, engine: Engine, ahead: int | None = None):
        self.engine = engine
        self.ahead = int(engine.device.type == "cuda") if ahead is None else ahead
        self._changed = threading.Condition()  # guards the next three fields
        self._waiting: list[ChunkFuture] = []
        self._busy = False
        self._another_song = False
        self._in_flight: deque[Pending] = deque()  # used only by the thread that holds the device

    @property
    def batch_size(self) -> int:
        """How many chunks to submit at a time."""
        return self.engine.batch_size

    def begin(self) -> None:
        """Note that a new song starts: memory that was missing before may be free by now."""
        with self._changed:
            self._another_song = True

    def submit(self, chunks: Sequence[np.ndarray], stage: str = "full") -> list[ChunkFuture]:
        """Compute chunks, together with whatever else is queued.

        Args:
            chunks: (channels, samples) each.
            stage: "full" or "mask".

        Returns:
            An answered future for each chunk; its array may still be in flight.
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
        """Wait until all futures are answered or the device is free, and take the device in the latter case.

        Returns:
            Whether this thread now holds the device.
        """

        def answered() -> bool:
            return all(future.answered for future in futures)

        with self._changed:
            self._changed.wait_for(lambda: not self._busy or answered())
            if answered():
                return False
            self._busy = True
            return True

    def _compute_some(self) -> None:
        while len(self._in_flight) > self.ahead:
            with contextlib.suppress(DeviceLost, RuntimeError):  # reported to the songs in that batch
                self._in_flight.popleft().wait()  # chunks that arrive meanwhile go into this batch
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
        """Compute a batch. If it fails, retry each song's part alone, so that one song cannot make another fail."""
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
        except BaseException as error:  # Ctrl-C: no thread may wait for a result that never arrives
            for future in batch:
                future.fail(error)
            raise
        else:
            self._in_flight.append(found)
            for place, future in enumerate(batch):
                future.answer(found, place)
