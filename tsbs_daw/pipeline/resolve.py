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


# Models stay loaded from job to job: that of the jobs, and one of their passes.
_loaded, _loaded_for_pass = lru_cache(maxsize=1)(_load), lru_cache(maxsize=1)(_load)
_loading = threading.Lock()  # two jobs at once want one model, and one engine for both


def load_separator(model: str, settings: Settings) -> Separator:
    """The one that all jobs of this process share which want the same."""
    with _loading:
        return _loaded(model, settings)


def load_pass_separator(step: ResolvedPass, settings: Settings) -> Separator:
    """The same for a pass, whose model was looked up before. Raises: CheckpointError: it is another one by now"""
    with _loading:
        separator = _loaded_for_pass(step.model, settings, step.sha256)
    if separator.model_hash != step.sha256:
        raise CheckpointError(f"The model {shown(step.model)} changed while the song was separated; try again.")
    return separator


@dataclass(frozen=True)
class ResolvedJob:
    """A job with everything that it names: what a run is to do.

    delivery: the preset's own, with what the job changes of it
    tree:     the stems, with the passes that this job needs
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
        """Where what was computed of the same song before is kept."""
        return self.settings.cache

    @property
    def source_sha256(self) -> str:
        return self.source.sha256

    @property
    def residual(self) -> Literal["share", "separate", "drop"]:
        """What becomes of what the stems leave out."""
        return self.delivery.residual or "share"

    @property
    def quality(self) -> Literal["fast", "normal", "best"]:
        """The steps of the separation."""
        return self.delivery.quality or "normal"


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
    """The stems, with the passes that the delivered files need. Raises: see `resolve`"""
    tree = resolve_passes(preset, stems, settings)
    if problem := delivery.stems_problem(stems, tree.parts):
        raise UsageError(f"Invalid delivery options: {problem}")
    preset.check_stems(tree.names)
    if delivery.stems is None:
        return tree
    used = tree.sources([stem for stem in delivery.stems if stem != REST], REST in delivery.stems)
    return tree.needed_for({*used, *(source for output in preset.outputs for source in output.sources)})
