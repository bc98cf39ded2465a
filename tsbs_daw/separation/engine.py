"""A network on a device: chunks in, estimates out, in whatever memory there is.

When the memory does not suffice, the next rung of a ladder is tried, each logged once: a smaller batch; a shorter
chunk, overlapping its neighbours as before; the processor; a failure that says so.

The CUDA side has never run on a CUDA device. Its parts run in the tests on a processor: mixed precision, batches, and
each rung of the ladder, by an out-of-memory error that is raised on purpose.
"""

from __future__ import annotations

import contextlib
import copy
import logging

import numpy as np
import torch
from torch import Tensor, nn

from tsbs_daw.core.errors import DeviceError
from tsbs_daw.network import TwoStageSeparator
from tsbs_daw.network.inference import for_inference
from tsbs_daw.separation.chunking import OVERLAP, OverlapAdd, cut
from tsbs_daw.separation.precision import choose_precision
from tsbs_daw.separation.transfer import Joined, Pending, Transfer, losses_named, on_host

log = logging.getLogger(__name__)

SHORTEST_S = 0.5  # a chunk shorter than this hears too little to tell stems apart
MEMORY_SHARE = 0.6  # of a device's free memory that a batch may plan with
LARGEST_BATCH = 32
# What lacks memory says so in these words, where it has no exception of its own.
OUT_OF_MEMORY = ("can't allocate memory", "ALLOC_FAILED", "CUDA error: out of memory")


class Engine:
    """One thread at a time: `batching` sees to that.

    Args: precision: one of precision.NAMES; batch_size: chunks at once; 0 is what fits the device
    """

    def __init__(self, network: nn.Module, device: torch.device, *, precision: str = "auto", batch_size: int = 0):
        self.config, self.device = network.config, device
        self.dtype = choose_precision(precision, device, network.config)
        self.network = _prepared(network, device, self.dtype)
        self.batch_size = self._whole_batch = batch_size or _batch_size(network, device)
        self.piece_samples: int | None = None  # the longest that is computed at once; None: any length
        self._transfer = Transfer(device)
        self._processor: nn.Module | None = None  # stands in for a device without memory

    def begin(self) -> None:
        """A new song: what lacked memory in the last one may have it by now."""
        self.batch_size, self.piece_samples, self._processor = self._whole_batch, None, None

    def estimate(self, mixtures: np.ndarray, stage: str = "full") -> np.ndarray:
        """
        Args:    mixtures: (batch, channels, samples), float32; stage: "full" or "mask"
        Returns: (batch, stems, channels, samples), float32
        Raises:  DeviceError: too little memory for the shortest chunk, even on the processor
        """
        return self.start(mixtures, stage).array()

    def start(self, mixtures: np.ndarray, stage: str = "full") -> Pending:
        """`estimate`, not waited for where the device computes by itself. Memory is taken, or lacks, at once."""
        while True:
            try:
                return self._start(mixtures, stage)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    with losses_named():
                        raise
                reason = error.with_traceback(None)  # whose frames hold on to what is to be freed
            self._step_down(len(mixtures), mixtures.shape[-1], reason)

    def _start(self, mixtures: np.ndarray, stage: str) -> Pending:
        if len(mixtures) > self.batch_size:
            halves = np.array_split(mixtures, range(self.batch_size, len(mixtures), self.batch_size))
            return Joined([self.start(half, stage) for half in halves], np.concatenate)
        if self.piece_samples is None or mixtures.shape[-1] <= self.piece_samples:
            with torch.inference_mode():
                mixture = on_host(mixtures) if self._processor else self._transfer.upload(mixtures)
                return self._transfer.download(self.run(mixture, stage))
        fade = round(OVERLAP * self.piece_samples)
        pieces = list(cut([mixtures], self.piece_samples, fade))

        def join(found: list[np.ndarray]) -> np.ndarray:
            add = OverlapAdd(fade).add
            return np.concatenate([add(p.start, part, p.last) for p, part in zip(pieces, found, strict=True)], -1)

        return Joined([self.start(piece.audio, stage) for piece in pieces], join)

    def run(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """The network as it is used, at once and whatever it needs: (B, C, samples) -> (B, S, C, samples)."""
        network, device = (self._processor, torch.device("cpu")) if self._processor else (self.network, self.device)
        with self._mixed_precision(device):
            return network(mixture.to(device), mask_only=stage == "mask", final_only=True).estimates

    def _mixed_precision(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The tiled network converts by itself; on other devices torch does it."""
        if device.type == "cpu" or self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.dtype)

    def _step_down(self, batch: int, samples: int, reason: RuntimeError) -> None:
        """The next rung. Raises: DeviceError: there is none"""
        device = "cpu" if self._processor else self.device
        if batch > 1:
            self.batch_size = batch // 2
            log.warning("out of memory on %s: batches of %d from now on", device, self.batch_size)
        elif (shorter := samples // 2) >= SHORTEST_S * self.config.sample_rate:
            self.piece_samples = shorter
            log.warning("out of memory on %s: chunks of %.2f s from now on", device, shorter / self.config.sample_rate)
        elif self._processor is None and self.device.type != "cpu":
            self._processor = _on_processor(self.network)
            self.piece_samples = None
            log.warning("out of memory on %s: the rest of the song is separated on the processor", device)
        else:
            raise DeviceError(
                f"{device} has too little free memory for the shortest chunk; close other programs"
                f"{'' if self.device.type == 'cpu' else ' or use --device cpu'}."
            ) from reason
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what is under way lets go of its memory
            torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    """A device says it by the exception's class, the processor's allocator in words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    if device.type == "cpu" and isinstance(network, TwoStageSeparator):
        return for_inference(network, dtype)
    return network.to(device).eval()


def _on_processor(network: nn.Module) -> nn.Module:
    return _prepared(copy.deepcopy(network).cpu(), torch.device("cpu"), torch.float32)


def _batch_size(network: nn.Module, device: torch.device) -> int:
    """One chunk where batches gain nothing; on CUDA, as many as its free memory should hold."""
    if device.type != "cuda":
        return 1
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(min(LARGEST_BATCH, max(1, MEMORY_SHARE * free_bytes // chunk_bytes(network.config))))


def chunk_bytes(config) -> int:
    """About what a chunk of stereo needs in the plain network: the widest activations, a few of them at once."""
    frames = 1 + config.chunk_samples // config.hop_length
    directions = 2 if config.bidirectional else 1
    values = directions * (2 * config.d_inner + 2 * config.d_state + config.heads)
    return 6 * 4 * 2 * config.bands * frames * values
