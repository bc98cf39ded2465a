"""What every step of a job is given: the job with preset, model, hashes and options looked up, and its context."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from tsbs_daw.audio.headers.probe import cannot_open
from tsbs_daw.contracts.job import Job
from tsbs_daw.contracts.manifest import identity_of
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobCancelled, UsageError, shown
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import HashedFile
from tsbs_daw.models import registry
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import Preset, load_preset
from tsbs_daw.separation import Separator

Progress = Callable[[float, str], None]

# Where each step begins on the progress bar, and where it ends.
Shares = Mapping[str, tuple[float, float]]

T = TypeVar("T")


class Stopwatch:
    """Sums seconds per step. The time of a step inside another counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def each(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time that making them takes counts for `name`."""
        iterator = iter(values)
        while True:
            with self.step(name):
                try:
                    value = next(iterator)
                except StopIteration:
                    return
            yield value

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True)
class JobContext:
    """One run of one job, as its steps see it.

    Attributes:
        job_id: For the log.
        progress: Called with a fraction and a phrase.
        cancelled: Asked between blocks. May raise LeaseLost.
        timings: Sums the seconds of each step.
        shares: Of the progress bar, by step; see `run`.
    """

    job_id: str
    progress: Progress
    cancelled: Callable[[], bool]
    timings: Stopwatch = field(default_factory=Stopwatch)
    shares: Shares = field(default_factory=dict)

    def report(self, step: str, done: float, message: str) -> None:
        """Report how much of a step is done, as a fraction of that step."""
        begin, end = self.shares[step]
        self.progress(begin + (end - begin) * min(max(done, 0.0), 1.0), message)

    def check_cancelled(self) -> None:
        """Raises: JobCancelled: the job is not wanted any more"""
        if self.cancelled():
            raise JobCancelled("The job was cancelled.")


@lru_cache(maxsize=1)  # the model stays loaded from job to job
def _loaded(model: str, settings: Settings) -> Separator:
    separator = Separator.load(model, settings.device, settings, precision=settings.precision)
    if settings.cluster:
        from tsbs_daw.cluster.remote import attach

        path, fallback = registry.resolve(model, settings), settings.cluster_fallback == "local"
        attach(separator, str(path), settings.cluster, fallback=fallback)
    return separator


_loading = threading.Lock()  # two jobs at once want one model, and one engine for both


def load_separator(model: str, settings: Settings) -> Separator:
    """The one that all jobs of this process share which want the same."""
    with _loading:
        return _loaded(model, settings)


@dataclass(frozen=True)
class ResolvedJob:
    """A job with everything that it names: what a run is to do.

    delivery: the preset's own, with what the job changes of it
    cache:    where what was computed of the same song before is kept
    """

    job: Job
    song: str
    preset: Preset
    delivery: DeliveryOptions
    separator: Separator
    source: HashedFile
    identity: str
    cache: Path

    @property
    def source_sha256(self) -> str:
        return self.source.sha256

    @property
    def residual(self) -> Literal["share", "separate", "drop"]:
        """What becomes of what the stems leave out."""
        return self.delivery.residual or "share"


def resolve(job: Job, settings: Settings) -> ResolvedJob:
    """Look up preset, model and hashes.

    Raises: PresetError, UnknownModel, CheckpointError, UnreadableAudio, SourceUnavailable
    UsageError: what is to be delivered does not go together
    """
    preset = load_preset(job.preset, settings.presets)
    delivery = preset.delivery.overridden_by(job.delivery)
    if job.null:
        delivery = delivery.model_copy(update={"residual": None})
    if problem := delivery.problem():
        raise UsageError(f"Invalid delivery options: {problem}.")
    separator = load_separator(job.model, settings)
    if problem := delivery.stems_problem(separator.stems):
        raise UsageError(f"Invalid delivery options: {problem}")
    preset.check_stems(separator.stems)
    if job.stage not in separator.stages:
        raise UsageError(f"The model {shown(job.model)} has no {job.stage} stage; leave out --stage.")
    try:
        source = HashedFile.of(job.source.path)
    except OSError as error:
        raise cannot_open(job.source.path, error) from error
    identity = identity_of(
        source_sha256=source.sha256,
        model_sha256=separator.model_hash,
        preset_sha256=preset.sha256,
        treatment=job.treatment,
        start_samples=job.source.start_samples,
        length_samples=job.source.length_samples,
        delivery=delivery.decisive,
        precision=separator.precision_mark,
    )
    song = safe_name(job.song or job.source.path.stem)
    return ResolvedJob(job, song, preset, delivery, separator, source, identity, settings.cache)
