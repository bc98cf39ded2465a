"""A network on a device: chunks in, estimates out, in whatever memory there is.

When the memory does not suffice, the next rung of a ladder is tried, each logged once: a smaller batch; a shorter
chunk, overlapping its neighbours as before; the processor; a failure that says so.
"""

from __future__ import annotations

import copy
import logging

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceError
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.chunking import OVERLAP, OverlapAdd, cut
from tsbs_daw.separation.devices import (
    JoinedFuture,
    Pending,
    Transfer,
    is_out_of_memory,
    on_host,
    translate_cuda_errors,
)
from tsbs_daw.separation.forms import Form, GraphedForm, choose_form

log = logging.getLogger(__name__)

SHORTEST_S = 0.5  # a chunk shorter than this hears too little to tell stems apart
MEMORY_SHARE = 0.6  # of a device's free memory that a batch may plan with
LARGEST_BATCH = 32


class Engine:
    """Runs a network on a device. Not thread-safe; `batching` serialises the calls.

    Args:
        precision: One of `precision.NAMES`.
        batch_size: Chunks at a time; 0: as many as fit the device.
    """

    def __init__(
        self, network: SeparationNetwork, device: torch.device, *, precision: str = "auto", batch_size: int = 0
    ):
        self.config, self._plain = network.config, network
        self.form, self.device = _placed(network, device, precision)
        self.network, self.dtype = self.form.network, self.form.dtype
        self._run = GraphedForm(self.form) if self.device.type == "cuda" else self.form
        self.batch_size = self._whole_batch = batch_size or _batch_size(self.form, self.device)
        self.max_chunk_samples: int | None = None  # None: any length
        self._transfer = Transfer(self.device)
        self._processor: Form | None = None  # replaces a device without memory

    def begin(self) -> None:
        """Reset the limits for a new song: memory that was missing for the last one may be free by now."""
        self.batch_size, self.max_chunk_samples, self._processor = self._whole_batch, None, None

    def estimate(self, mixtures: np.ndarray, stage: str = "full") -> np.ndarray:
        """
        Args:    mixtures: (batch, channels, samples), float32; stage: "full" or "mask"
        Returns: (batch, stems, channels, samples), float32
        Raises:  DeviceError: too little memory for the shortest chunk, even on the processor
        """
        return self.start(mixtures, stage).array()

    def start(self, mixtures: np.ndarray, stage: str = "full") -> Pending:
        """Like `estimate`, but asynchronous where the device is. A lack of memory shows at once."""
        while True:
            try:
                return self._start(mixtures, stage)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    with translate_cuda_errors():
                        raise
                reason = error.with_traceback(None)  # whose frames hold on to what is to be freed
            self._reduce_memory(len(mixtures), mixtures.shape[-1], reason)

    def _start(self, mixtures: np.ndarray, stage: str) -> Pending:
        if len(mixtures) > self.batch_size:
            halves = np.array_split(mixtures, range(self.batch_size, len(mixtures), self.batch_size))
            return JoinedFuture([self.start(half, stage) for half in halves], np.concatenate)
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
        """The network as it is used, at once and whatever it needs: (B, C, samples) -> (B, S, C, samples)."""
        if self._processor:
            return self._processor(mixture.cpu(), stage)
        return self._run(mixture.to(self.device), stage)

    def _reduce_memory(self, batch: int, samples: int, reason: RuntimeError) -> None:
        """Go to the next rung of the memory ladder. Raises: DeviceError: there is none"""
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
            log.warning("out of memory on %s: the rest of the song is separated on the processor", device)
        else:
            raise DeviceError(
                f"{device} has too little free memory for the shortest chunk; close other programs"
                f"{'' if self.device.type == 'cpu' else ' or use --device cpu'}."
            ) from reason

    def _free_memory(self) -> None:
        """Release the memory of what is in flight, and of the cache."""
        if self.device.type == "cuda":
            self._run = GraphedForm(self.form)
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()


def _placed(network: SeparationNetwork, device: torch.device, precision: str) -> tuple[Form, torch.device]:
    """The network in a form for `device`, or for the CPU where the device has no memory for the weights."""
    try:
        return choose_form(network, device, precision), device
    except RuntimeError as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    log.warning("%s has no memory for the network; it runs on the CPU", device)
    cpu = torch.device("cpu")
    return choose_form(network.cpu(), cpu, precision), cpu


def _on_processor(network: SeparationNetwork) -> Form:
    """A copy on the CPU. It takes no memory on the device, which has none."""
    here: dict[int, Tensor] = {id(part): torch.nn.Parameter(part.detach().cpu()) for part in network.parameters()}
    here |= {id(part): part.cpu() for part in network.buffers()}
    return choose_form(copy.deepcopy(network, here), torch.device("cpu"), "float32")


def _batch_size(form: Form, device: torch.device) -> int:
    """One chunk where batches gain nothing; on CUDA, as many as its free memory should hold."""
    if device.type != "cuda":
        return 1
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(min(LARGEST_BATCH, max(1, MEMORY_SHARE * free_bytes // form.chunk_bytes())))
