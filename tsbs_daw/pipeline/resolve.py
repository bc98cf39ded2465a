"""A job with everything that it names looked up: preset, model, hashes, what is to be delivered."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tsbs_daw.audio.headers.probe import cannot_open
from tsbs_daw.contracts.job import Job
from tsbs_daw.contracts.manifest import identity_of
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import UsageError
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import HashedFile
from tsbs_daw.models import registry
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import Preset, load_preset
from tsbs_daw.separation import Separator


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
