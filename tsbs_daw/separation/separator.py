"""mixture -> stems, as a stream: resample, cut, run the network, overlap-add, resample back.

The stems have the mixture's sample rate and exactly its number of samples.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch

from tsbs_daw.audio.dsp import Resampler
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobCancelled, UsageError, did_you_mean
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import kinds, registry
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.devices import choose_device
from tsbs_daw.separation.engine import Batcher, ChunkFuture, Engine
from tsbs_daw.separation.forms import mark
from tsbs_daw.separation.streams import OVERLAP, Chunk, OverlapAdd, cut, mean, share_mixture

log = logging.getLogger(__name__)

ASK_EVERY_S = 1.0  # how often to check for cancellation while other machines compute

NORMAL = "normal"


@dataclass(frozen=True)
class Steps:
    """The steps of a separation, which `--quality` selects. They work with any network.

    Each was measured on real songs (`tsbs-daw evaluate --real --compare-quality`; the table is in docs/models.md);
    steps without a gain are left out.

    Attributes:
        overlap: Share of a chunk that overlaps the next one; None for the separator's default.
        mask: Make the stems shares of the mixture, by the magnitudes of the network's stems at each time and frequency.
    """

    overlap: float | None = None
    mask: bool = False


QUALITIES = {"fast": Steps(overlap=0.05), NORMAL: Steps(), "best": Steps(mask=True)}


def steps_of(quality: str | Steps) -> Steps:
    """Return the steps of a quality, given its name or the steps themselves.

    Raises:
        UsageError: There is no such quality.
    """
    if isinstance(quality, Steps):
        return quality
    if quality not in QUALITIES:
        closest = did_you_mean(quality, list(QUALITIES)) or f"; choose from {', '.join(QUALITIES)}."
        raise UsageError(f"There is no quality {quality!r}{closest}")
    return QUALITIES[quality]


class Separator:
    """A network on a device. `load` creates one; `separate` takes arrays, `stream` takes songs of any length.

    Several threads may separate a song each; their chunks are computed in common batches.

    Args:
        network: The network.
        device: The device to run it on.
        model_hash: Hash of the checkpoint.
        batch_size: Chunks per batch; 0: as many as fit the device.
        precision: As in `load`.
    """

    def __init__(
        self,
        network: SeparationNetwork,
        device: torch.device,
        *,
        model_hash: str = "",
        batch_size: int = 0,
        precision: str = "auto",
        cache: Path | None = None,
    ):
        self.engine = Engine(network, device, batch_size=batch_size, precision=precision, cache=cache)
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
        """Load a model onto a device.

        Args:
            model: A registered name or a path; for several, separated by commas, the mean of their waveforms.
            device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
            settings: Where to find models; by default from the environment.
            precision: Precision of matrix products: "float32", "bfloat16", or "auto" for the fastest that does not
                reduce quality.

        Raises:
            UnknownModel: There is no such model.
            CheckpointError: The checkpoint is damaged or not supported.
            DeviceError: The device cannot be used.
            UsageError: There is no such precision, or the models cannot be averaged.
        """
        settings = settings or Settings.from_environment()
        names = registry.members(str(model))
        if len(names) > 1:
            return Ensemble([cls.load(name, device, settings, precision=precision) for name in names])
        path = Path(registry.resolve(names[0], settings))
        chosen = choose_device(device)
        network, sha256 = kinds.load(path), file_sha256(path)
        separator = cls(network, chosen, model_hash=sha256, precision=precision, cache=settings.cache)
        separator.path = path
        form = separator.engine.form
        log.info("loaded %s on %s: %s in %s", path.name, separator.device, form.name, form.format_name)
        return separator

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.path.stem if self.path else type(self.network).__name__

    @property
    def members(self) -> tuple[Separator, ...]:
        """The separators whose mean this one returns: itself, unless it is an ensemble."""
        return (self,)

    @property
    def network(self) -> SeparationNetwork:
        """The network in the form that runs; it may differ from the one passed in, and cannot be trained or saved."""
        return self.engine.network

    @property
    def precision(self) -> str:
        return str(self.engine.dtype).removeprefix("torch.")

    @property
    def precision_mark(self) -> str | None:
        """Equal for separators whose precision does not make their stems differ; see `forms.mark`."""
        return "tf32" if self.engine.form.tf32 else mark(self.engine.dtype, self.engine.config)

    @property
    def batch_size(self) -> int:
        return self.engine.batch_size

    @property
    def stems(self) -> tuple[str, ...]:
        return self.engine.config.stems

    @property
    def stages(self) -> tuple[str, ...]:
        """The valid values of `stage`."""
        return self.engine.config.stages

    def separate(
        self,
        audio: np.ndarray,
        sample_rate: int,
        *,
        stage: str = "full",
        quality: str | Steps = NORMAL,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, np.ndarray]:
        """Separate a recording that fits in memory.

        Args:
            audio: Mixture in [-1, 1], as float32.
            sample_rate: In Hz; audio is resampled if the model needs another rate.
            stage: "full", or "mask" for the mask stage alone.
            quality: "fast", "normal", "best", or custom steps.
            progress: Called with the number of samples done, at `sample_rate`.
            cancelled: Called before each batch; True cancels the separation.

        Returns:
            An array of the same shape for each stem.

        Raises:
            JobCancelled: `cancelled` returned True.
            DeviceError: The device failed, or has too little memory even for the shortest chunk.
            UsageError: There is no such stage or quality.

        Shape:
            audio: (channels, samples)
        """
        stream = self.stream(
            [audio], sample_rate, stage=stage, quality=quality, progress=progress, cancelled=cancelled
        )  # fmt: skip
        parts = list(stream)
        whole = np.concatenate(parts, axis=-1) if parts else np.zeros((len(self.stems), *audio.shape), np.float32)
        return dict(zip(self.stems, whole, strict=True))

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        *,
        stage: str = "full",
        quality: str | Steps = NORMAL,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[np.ndarray]:
        """Separate a stream of any length in constant memory.

        All arguments except `blocks`, and the errors, are those of `separate`.

        Args:
            blocks: Mixture, (channels, n) each, where n may vary.

        Yields:
            The stems, (stems, channels, n), as many samples in total as the blocks have.
        """
        if stage not in self.stages:
            raise UsageError(f"This model has no {stage} stage; leave out --stage.")
        steps, model_rate = steps_of(quality), self.engine.config.sample_rate
        source = _Counted(blocks)
        together = self._estimates(_resampled(source, sample_rate, model_rate), stage, steps, cancelled)
        estimates = share_mixture(together, model_rate) if steps.mask else (part[:-1] for part in together)
        flat = (part.reshape(-1, part.shape[-1]) for part in estimates)  # soxr accepts only two axes
        done = 0
        for part in _resampled(flat, model_rate, sample_rate):
            # Resampling twice rounds the length up twice; cut off what the source did not have.
            part = part[:, : source.samples - done]
            if not part.shape[-1]:
                continue
            yield part.reshape(len(self.stems), -1, part.shape[-1])
            done += part.shape[-1]
            if progress:
                progress(done)

    def _estimates(
        self, blocks: Iterable[np.ndarray], stage: str, steps: Steps, cancelled: Callable[[], bool] | None
    ) -> Iterator[np.ndarray]:
        """Yield the network's estimates and, last, its input: (stems + mixture, channels, n), at the model's rate."""
        fade = self.fade_samples if steps.overlap is None else round(steps.overlap * self.chunk_samples)
        overlap_add = OverlapAdd(fade)
        for chunk, estimate in self._batches(cut(blocks, self.chunk_samples, fade), stage, cancelled):
            yield overlap_add.add(chunk.start, np.concatenate([estimate, chunk.audio[None]]), chunk.last)

    def _batches(
        self, chunks: Iterator[Chunk], stage: str, cancelled: Callable[[], bool] | None
    ) -> Iterator[tuple[Chunk, np.ndarray]]:
        """Yield each chunk with its estimate, (stems, channels, samples), computed `batch_size` at a time.

        If the device is asynchronous, the next batch is read and started before waiting for the last one.
        """
        self.batcher.begin()
        in_flight: deque[tuple[list[Chunk], list[ChunkFuture]]] = deque()
        while batch := list(islice(chunks, self.batcher.batch_size)):
            _check(cancelled)
            audible = [chunk for chunk in batch if np.any(chunk.audio)]  # silence gives silence, without computing
            in_flight.append((batch, self.batcher.submit([chunk.audio for chunk in audible], stage)))
            if len(in_flight) > self.batcher.ahead:
                yield from self._answers(*in_flight.popleft(), cancelled)
        for batch, futures in in_flight:
            yield from self._answers(batch, futures, cancelled)

    def _answers(
        self, batch: list[Chunk], futures: list[ChunkFuture], cancelled: Callable[[], bool] | None
    ) -> Iterator[tuple[Chunk, np.ndarray]]:
        found = iter(futures)
        for chunk in batch:
            if not np.any(chunk.audio):
                yield chunk, np.zeros((len(self.stems), *chunk.audio.shape), np.float32)
                continue
            future = next(found)
            while not future.arrived(ASK_EVERY_S):
                _check(cancelled)
            yield chunk, future.array()


class Ensemble(Separator):
    """Several models as one: the mean of the waveforms of separators with the same stems and sample rate.

    Each member cuts the song into chunks of its own length and computes on its own. The stems are in the order of the
    first member.

    Raises:
        UsageError: The members' stems or sample rates differ.
    """

    def __init__(self, members: Sequence[Separator]):
        self._members = tuple(members)
        first = self._members[0]
        for other in self._members[1:]:
            if problem := _difference(first, other):
                raise UsageError(f"The models {first.name} and {other.name} cannot be averaged: {problem}")
        # Attributes that callers use on any separator are the first one's, unless all members affect them.
        self.engine, self.batcher, self.device, self.path = first.engine, first.batcher, first.device, None
        self.chunk_samples, self.fade_samples = first.chunk_samples, first.fade_samples
        self.model_hash = joined_hash([member.model_hash for member in members])

    @property
    def members(self) -> tuple[Separator, ...]:
        return self._members

    @property
    def name(self) -> str:
        return ",".join(member.name for member in self._members)

    @property
    def precision(self) -> str:
        return ",".join(dict.fromkeys(member.precision for member in self._members))

    @property
    def precision_mark(self) -> str | None:
        marks = [member.precision_mark for member in self._members]
        return ",".join(mark or "" for mark in marks) if any(marks) else None

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(stage for stage in self.engine.config.stages if all(stage in m.stages for m in self._members))

    def _estimates(
        self, blocks: Iterable[np.ndarray], stage: str, steps: Steps, cancelled: Callable[[], bool] | None
    ) -> Iterator[np.ndarray]:
        copies = tee(blocks, len(self._members))
        streams = [
            member._estimates(part, stage, steps, cancelled)
            for member, part in zip(self._members, copies, strict=True)
        ]  # fmt: skip
        # The mixture stays last.
        orders = [[*map(member.stems.index, self.stems), -1] for member in self._members]
        ordered = [map(itemgetter(order), stream) for order, stream in zip(orders, streams, strict=True)]
        yield from mean(ordered)


def _difference(first: Separator, other: Separator) -> str | None:
    """Say why two separators cannot be averaged, as the end of a sentence; None if they can."""
    if set(first.stems) != set(other.stems):
        stems = f"{first.name} gives {', '.join(first.stems)}, and {other.name} gives {', '.join(other.stems)}"
        return f"{stems}. Choose models of the same stems."
    one_hz, other_hz = (separator.engine.config.sample_rate for separator in (first, other))
    if one_hz != other_hz:
        rates = f"{first.name} works at {one_hz} Hz, and {other.name} at {other_hz} Hz"
        return f"{rates}. Choose models of the same sample rate."
    return None


def joined_hash(hashes: Sequence[str]) -> str:
    """Return the hash that identifies the mean of several models; for a single model, its own hash."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _check(cancelled: Callable[[], bool] | None) -> None:
    """Raise JobCancelled if the job was cancelled."""
    if cancelled and cancelled():
        raise JobCancelled("The job was cancelled.")


class _Counted:
    """A stream that counts the samples taken from it."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks:
            self.samples += block.shape[-1]
            yield block


def _resampled(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Resample a stream; pass it through if the rates are equal."""
    if from_hz == to_hz:
        yield from blocks
        return
    resampler = None
    for block in blocks:
        resampler = resampler or Resampler(from_hz, to_hz, block.shape[0])
        yield resampler.process(block)
    if resampler:
        yield resampler.process(np.zeros((block.shape[0], 0), np.float32), last=True)
