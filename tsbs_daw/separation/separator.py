"""mixture -> stems, in a stream: resample, cut, run the network, overlap-add, resample back.

S stems, C channels. The stems have the mixture's sample rate and exactly its number of samples.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tsbs_daw.audio.resample import Resampler
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobCancelled, UsageError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import kinds, registry
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.batching import Batcher, Ticket
from tsbs_daw.separation.chunking import OVERLAP, Chunk, OverlapAdd, cut
from tsbs_daw.separation.devices import choose_device
from tsbs_daw.separation.engine import Engine
from tsbs_daw.separation.forms import mark

log = logging.getLogger(__name__)

ASK_EVERY_S = 1.0  # whether the job is still wanted, while other machines compute


class Separator:
    """A network on a device. `load` makes one; `separate` takes arrays, `stream` takes songs of any length.

    Several threads may separate a song each: their chunks are computed in common batches.
    """

    def __init__(
        self,
        network: SeparationNetwork,
        device: torch.device,
        *,
        model_hash: str = "",
        batch_size: int = 0,
        precision: str = "auto",
    ):
        self.engine = Engine(network, device, batch_size=batch_size, precision=precision)
        self.batcher = Batcher(self.engine)
        self.device = self.engine.device
        self.model_hash = model_hash
        self.path: Path | None = None  # where `load` found the weights
        self.chunk_samples = network.config.chunk_samples
        self.fade_samples = round(OVERLAP * self.chunk_samples)

    @classmethod
    def load(
        cls,
        model: str = "default",
        device: str = "auto",
        settings: Settings | None = None,
        *,
        precision: str = "auto",
    ) -> Separator:
        """
        Args:   model: a registered name or a path; device: "auto", "cpu", "cuda", "cuda:1", "mps"
                precision: of the matrix products: "float32", "bfloat16", or "auto": the faster that costs no quality
        Raises: UnknownModel, CheckpointError, DeviceError, UsageError
        """
        path = Path(registry.resolve(model, settings or Settings.from_environment()))
        chosen = choose_device(device)
        separator = cls(kinds.load(path), chosen, model_hash=file_sha256(path), precision=precision)
        separator.path = path
        told = (path.name, separator.device, separator.engine.form.name, separator.engine.form.format_name)
        log.info("loaded %s on %s: %s in %s", *told)
        return separator

    @property
    def network(self) -> SeparationNetwork:
        """What computes: not the network that was given, and not one to train or to save."""
        return self.engine.network

    @property
    def precision(self) -> str:
        return str(self.engine.dtype).removeprefix("torch.")

    @property
    def precision_mark(self) -> str | None:
        """Equal for two separators that give equal stems, as far as the precision goes; see `forms.mark`."""
        return "tf32" if self.engine.form.tf32 else mark(self.engine.dtype, self.engine.config)

    @property
    def batch_size(self) -> int:
        return self.engine.batch_size

    @property
    def stems(self) -> tuple[str, ...]:
        return self.engine.config.stems

    @property
    def stages(self) -> tuple[str, ...]:
        """What may be asked for as `stage`."""
        return self.engine.config.stages

    def separate(
        self,
        audio: np.ndarray,
        sample_rate: int,
        *,
        stage: str = "full",
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, np.ndarray]:
        """Separate a recording that fits in memory.

        Args:    audio: (channels, samples); sample_rate: Hz; stage: "full", or "mask" for the mask stage alone
        Returns: {stem: (channels, samples)}
        Raises:  JobCancelled, DeviceError
        """
        parts = list(self.stream([audio], sample_rate, stage=stage, progress=progress, cancelled=cancelled))
        whole = np.concatenate(parts, axis=-1) if parts else np.zeros((len(self.stems), *audio.shape), np.float32)
        return dict(zip(self.stems, whole, strict=True))

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        *,
        stage: str = "full",
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[np.ndarray]:
        """Separate a stream, in memory that does not grow with its length.

        Args:   blocks: (channels, n) each, at sample_rate (Hz)
                progress: told the samples done, at the source's rate; cancelled: asked before each batch
        Yields: (stems, channels, n), as many samples in all as the blocks had
        Raises: JobCancelled, DeviceError
        """
        if stage not in self.stages:
            raise UsageError(f"This model has no {stage} stage; leave out --stage.")
        model_rate = self.engine.config.sample_rate
        source = _Counted(blocks)
        chunks = cut(_resampled(source, sample_rate, model_rate), self.chunk_samples, self.fade_samples)
        estimates = self._overlap_add(self._batches(chunks, stage, cancelled))
        flat = (part.reshape(-1, part.shape[-1]) for part in estimates)  # soxr knows two axes
        done = 0
        for part in _resampled(flat, model_rate, sample_rate):
            # There and back again rounds up twice; what the source did not have is cut off.
            part = part[:, : source.samples - done]
            if not part.shape[-1]:
                continue
            yield part.reshape(len(self.stems), -1, part.shape[-1])
            done += part.shape[-1]
            if progress:
                progress(done)

    def _batches(
        self, chunks: Iterator[Chunk], stage: str, cancelled: Callable[[], bool] | None
    ) -> Iterator[tuple[Chunk, np.ndarray]]:
        """Each chunk with its estimate, (stems, channels, samples), computed `batch_size` at a time.

        Where the device computes by itself, the next batch is read and begun before the last one is waited for.
        """
        self.batcher.begin()
        under_way: deque[tuple[list[Chunk], list[Ticket]]] = deque()
        while batch := list(islice(chunks, self.batcher.batch_size)):
            _check(cancelled)
            heard = [chunk for chunk in batch if np.any(chunk.audio)]  # silence in, silence out, at no cost
            under_way.append((batch, self.batcher.submit([chunk.audio for chunk in heard], stage)))
            if len(under_way) > self.batcher.ahead:
                yield from self._answers(*under_way.popleft(), cancelled)
        for batch, tickets in under_way:
            yield from self._answers(batch, tickets, cancelled)

    def _answers(
        self, batch: list[Chunk], tickets: list[Ticket], cancelled: Callable[[], bool] | None
    ) -> Iterator[tuple[Chunk, np.ndarray]]:
        found = iter(tickets)
        for chunk in batch:
            if not np.any(chunk.audio):
                yield chunk, np.zeros((len(self.stems), *chunk.audio.shape), np.float32)
                continue
            ticket = next(found)
            while not ticket.arrived(ASK_EVERY_S):
                _check(cancelled)
            yield chunk, ticket.array()

    def _overlap_add(self, estimates: Iterator[tuple[Chunk, np.ndarray]]) -> Iterator[np.ndarray]:
        overlap_add = OverlapAdd(self.fade_samples)
        for chunk, estimate in estimates:
            yield overlap_add.add(chunk.start, estimate, chunk.last)


def _check(cancelled: Callable[[], bool] | None) -> None:
    """Raises: JobCancelled"""
    if cancelled and cancelled():
        raise JobCancelled("The job was cancelled.")


class _Counted:
    """A stream that knows how many samples have been taken from it."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks:
            self.samples += block.shape[-1]
            yield block


def _resampled(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """The stream at another rate; as it is when the rates are equal."""
    if from_hz == to_hz:
        yield from blocks
        return
    resampler = None
    for block in blocks:
        resampler = resampler or Resampler(from_hz, to_hz, block.shape[0])
        yield resampler.process(block)
    if resampler:
        yield resampler.process(np.zeros((block.shape[0], 0), np.float32), last=True)
