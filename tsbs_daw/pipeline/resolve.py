"""The input of every step of a job: `ResolvedJob`, with preset, model and hashes looked up, and `JobContext`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from tsbs_daw.audio.probe import cannot_open
from tsbs_daw.contracts.job import Job
from tsbs_daw.contracts.manifest import identity_of
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, JobCancelled, UsageError, shown
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import HashedFile
from tsbs_daw.models import registry
from tsbs_daw.pipeline.passes import ResolvedPass, StemTree, resolve_passes
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import Preset, load_preset
from tsbs_daw.presets.rules import REST
from tsbs_daw.separation import Separator

Progress = Callable[[float, str], None]

# Start and end of each step on the progress bar.
Shares = Mapping[str, tuple[float, float]]

T = TypeVar("T")


class Stopwatch:
    """Sums the seconds of each step. The time of a nested step counts only for the inner step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time within a `with` block for the step `name`."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def each(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """Yield the same values; the time to produce them counts for `name`."""
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
    """Progress, cancellation and timings of one run of a job.

    Attributes:
        job_id: Id of the job, for the log.
        progress: Called with (fraction, phrase).
        cancelled: Called between blocks; returns whether to stop. May raise LeaseLost.
        timings: Sums the seconds of each step.
        shares: Start and end of each step on the progress bar; see `run`.
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
        """Stop if the job was cancelled.

        Raises:
            JobCancelled: The job was cancelled.
        """
        if self.cancelled():
            raise JobCancelled("The job was cancelled.")


def _load(model: str, settings: Settings, sha256: str | None = None) -> Separator:
    separator = Separator.load(model, settings.device, settings, precision=settings.precision)
    if settings.cluster:
        from tsbs_daw.cluster import read_paths
        from tsbs_daw.cluster.remote import attach

        fallback, paths = settings.cluster_fallback == "local", read_paths(settings.home)
        for member, name in zip(separator.members, registry.members(model), strict=True):
            path = str(registry.resolve(name, settings))
            attach(member, path, settings.cluster, fallback=fallback, paths=paths)
    return separator


# Two models stay loaded between jobs: that of the last job, and that of the last pass.
_loaded, _loaded_for_pass = lru_cache(maxsize=1)(_load), lru_cache(maxsize=1)(_load)
_loading = threading.Lock()  # so that two simultaneous jobs share one model and one engine


def load_separator(model: str, settings: Settings) -> Separator:
    """Return the separator of a model, shared by all jobs of this process that use the same model and settings."""
    with _loading:
        return _loaded(model, settings)


def load_pass_separator(step: ResolvedPass, settings: Settings) -> Separator:
    """Return the separator of a pass.

    Raises:
        CheckpointError: The model's file has changed since the pass was resolved.
    """
    with _loading:
        separator = _loaded_for_pass(step.model, settings, step.sha256)
    if separator.model_hash != step.sha256:
        raise CheckpointError(f"The model {shown(step.model)} changed while the song was separated; try again.")
    return separator


@dataclass(frozen=True)
class ResolvedJob:
    """A job with everything that it refers to looked up.

    Attributes:
        job: The job.
        song: Name of the song, safe for file systems.
        preset: The preset.
        delivery: The preset's delivery options, overridden by the job's.
        separator: The loaded model.
        tree: The stems, with the passes that this job needs.
        source: The source file with its hash.
        identity: Identifies equal runs; see `contracts.manifest.identity_of`.
        settings: The program's settings.
    """

    job: Job
    song: str
    preset: Preset
    delivery: DeliveryOptions
    separator: Separator
    tree: StemTree
    source: HashedFile
    identity: str
    settings: Settings

    @property
    def cache(self) -> Path:
        """Folder for cached stems and analyses."""
        return self.settings.cache

    @property
    def source_sha256(self) -> str:
        return self.source.sha256

    @property
    def residual(self) -> Literal["share", "separate", "drop"]:
        """How to treat the difference between the mixture and the sum of the stems."""
        return self.delivery.residual or "share"

    @property
    def quality(self) -> Literal["fast", "normal", "best"]:
        """Quality of the separation."""
        return self.delivery.quality or "normal"


def resolve(job: Job, settings: Settings) -> ResolvedJob:
    """Look up preset, model and hashes.

    Raises:
        PresetError, UnknownModel, CheckpointError, UnreadableAudio, SourceUnavailable
        UsageError: The delivery options contradict each other, or the model has no such stage.
    """
    preset = load_preset(job.preset, settings.presets)
    delivery = preset.delivery.overridden_by(job.delivery)
    if job.null:
        delivery = delivery.model_copy(update={"residual": None})
    if problem := delivery.problem():
        raise UsageError(f"Invalid delivery options: {problem}.")
    separator = load_separator(job.model, settings)
    tree = _stem_tree(preset, delivery, separator.stems, settings)
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
        passes=[step.sha256 for step in tree.passes],
    )
    song = safe_name(job.song or job.source.path.stem)
    return ResolvedJob(job, song, preset, delivery, separator, tree, source, identity, settings)


def _stem_tree(preset: Preset, delivery: DeliveryOptions, stems: tuple[str, ...], settings: Settings) -> StemTree:
    """Return the stems, with the passes that the delivered files need. Raises like `resolve`."""
    tree = resolve_passes(preset, stems, settings)
    if problem := delivery.stems_problem(stems, tree.parts):
        raise UsageError(f"Invalid delivery options: {problem}")
    preset.check_stems(tree.names)
    if delivery.stems is None:
        return tree
    used = tree.sources([stem for stem in delivery.stems if stem != REST], REST in delivery.stems)
    return tree.needed_for({*used, *(source for output in preset.outputs for source in output.sources)})
