"""run_job: the way of a song, from the file to the folder with its stems and session.

probe -> recognise an equal run -> separate (or find the stems in the cache) -> effects and files -> publish
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tsbs_daw.audio.read import open_audio
from tsbs_daw.config import Settings
from tsbs_daw.daw.reaper import write_rpp
from tsbs_daw.daw.session import Session, SessionTrack
from tsbs_daw.effects.preset import Preset, load_preset
from tsbs_daw.errors import UnreadableAudio
from tsbs_daw.hashing import file_sha256
from tsbs_daw.jobs.delivery import Delivery, ensure_space, estimate_bytes, find_equal_run
from tsbs_daw.jobs.job import Job, Result, State, StemFile
from tsbs_daw.jobs.manifest import (
    FILE_NAME,
    FileEntry,
    Manifest,
    NamedHash,
    SourceEntry,
    identity_of,
    read_manifest,
)
from tsbs_daw.jobs.names import safe_name
from tsbs_daw.jobs.rendering import Rendered, Rendering, render
from tsbs_daw.jobs.stem_cache import CachedStems, StemCache, cache_key
from tsbs_daw.jobs.stopwatch import Stopwatch
from tsbs_daw.separation import Separator

log = logging.getLogger(__name__)

SEPARATION_SHARE = 0.9  # of the progress bar; effects and writing are quick beside it

Progress = Callable[[float, str], None]
load_separator = lru_cache(maxsize=1)(Separator.load)  # the model stays loaded from job to job


@dataclass(frozen=True)
class Request:
    """A job with everything it names looked up."""

    job: Job
    song: str
    preset: Preset
    separator: Separator
    source_sha256: str
    identity: str


def run_job(
    job: Job,
    *,
    settings: Settings,
    fence: int,
    attempt: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Result:
    """Do what the job asks for, once.

    Args:    fence: the number of this lease; attempt: for the log
             progress: told (fraction, phrase); cancelled: asked between chunks
    Returns: a Result with state done; of an equal earlier run, if there is one
    Raises:  TsbsDawError: anything that goes wrong; nothing has appeared in the output folder then
    """
    watch = Stopwatch()
    started = time.perf_counter()
    with watch.step("prepare"):
        progress(0.0, "reading")
        request = look_up(job, settings)
    if folder := find_equal_run(job.output, request.song, request.identity):
        log.info("job %s: %s is there already, from an equal run", job.id, folder)
        return result_of(request, folder)
    cached = separate(request, StemCache(settings.cache), watch, progress, cancelled)
    with Delivery(
        job.output, request.song, preset=request.preset.name, identity=request.identity, job=job.id, fence=fence
    ) as delivery:
        rendering = _render(request, cached, delivery.folder, watch, progress)
        with watch.step("session"):
            start = cached.about.time_reference_samples + job.source.start_samples
            write_rpp(session_of(request, cached, rendering, start), delivery.folder / f"{request.song}.RPP")
            entries = tuple(_entry(delivery.folder, rendered) for rendered in rendering.files)
        watch.seconds["total"] = time.perf_counter() - started
        published = delivery.publish(_manifest(request, cached, rendering, entries, watch.seconds))
    log.info("job %s: done in %.2f s (attempt %d): %s", job.id, time.perf_counter() - started, attempt, published)
    return result_of(request, published.folder)


def look_up(job: Job, settings: Settings) -> Request:
    """Preset, model and hashes of a job. Raises: PresetError, UnknownModel, CheckpointError, UnreadableAudio"""
    preset = load_preset(job.preset)
    separator = load_separator(job.model, settings.device, settings)
    preset.check_stems(separator.stems)
    try:
        source_sha256 = file_sha256(job.source.path)
    except OSError as error:
        raise UnreadableAudio(f"{job.source.path} cannot be read ({error.strerror}); is it still there?") from error
    identity = identity_of(
        source_sha256=source_sha256,
        model_sha256=separator.model_hash,
        preset_sha256=preset.sha256,
        stage=job.stage,
        null=job.null,
        salvage=job.salvage,
        start_samples=job.source.start_samples,
        length_samples=job.source.length_samples,
    )
    return Request(job, safe_name(job.song or job.source.path.stem), preset, separator, source_sha256, identity)


def separate(
    request: Request, cache: StemCache, watch: Stopwatch, progress: Progress, cancelled: Callable[[], bool]
) -> CachedStems:
    """The stems, from the cache or computed into it. Raises: AudioError, DeviceError, JobCancelled, NoSpaceLeft"""
    job, separator = request.job, request.separator
    key = cache_key(
        source=request.source_sha256,
        model=separator.model_hash,
        stage=job.stage,
        portion=[job.source.start_samples, job.source.length_samples],
        salvage=job.salvage,
    )
    if cached := cache.find(key):
        log.info("job %s: the stems are cached", job.id)
        return cached
    with open_audio(
        job.source.path,
        start_samples=job.source.start_samples,
        length_samples=job.source.length_samples,
        salvage=job.salvage,
    ) as reader:
        samples = reader.samples
        _ensure_space(request, cache, reader.info.channels, samples)

        def report(done: int) -> None:
            progress(SEPARATION_SHARE * done / samples if samples else 0.0, "separating")

        with cache.writing(key, separator.stems, reader) as writer:
            source = _Tee(watch.each("decode", reader.blocks()))
            stream = separator.stream(
                source, reader.info.sample_rate, stage=job.stage, progress=report, cancelled=cancelled
            )
            for stems in watch.each("separate", stream):
                with watch.step("cache"):
                    writer.write(stems, source.take(stems.shape[-1]))
    cached = cache.find(key)
    assert cached is not None, "what was written a moment ago is there"
    return cached


class _Tee:
    """Hands a stream through, and gives the same samples again to whoever follows behind."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks, self._kept = blocks, None

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._kept = block if self._kept is None else np.concatenate([self._kept, block], axis=-1)
            yield block

    def take(self, samples: int) -> np.ndarray:
        taken, self._kept = self._kept[:, :samples], self._kept[:, samples:]
        return taken


def _ensure_space(request: Request, cache: StemCache, channels: int, samples: int | None) -> None:
    """What the song's folder and the cache together need, where the length is known."""
    if samples is None:
        return
    stems = len(request.separator.stems)
    cache.folder.mkdir(parents=True, exist_ok=True)
    ensure_space(
        request.job.output, estimate_bytes(stems + len(request.preset.outputs), channels, samples), request.song
    )
    ensure_space(cache.folder, estimate_bytes(stems + 1, channels, samples), request.song)


def _render(request: Request, cached: CachedStems, folder: Path, watch: Stopwatch, progress: Progress) -> Rendering:
    def report(done: int) -> None:
        share = done / max(1, cached.about.samples)
        progress(SEPARATION_SHARE + (1 - SEPARATION_SHARE) * share, "effects" if request.preset.outputs else "writing")

    return render(
        cached,
        request.preset,
        folder,
        null=request.job.null,
        time_reference_samples=cached.about.time_reference_samples + request.job.source.start_samples,
        description=f"stem of {request.song}",
        watch=watch,
        progress=report,
    )


def session_of(request: Request, cached: CachedStems, rendering: Rendering, start_samples: int) -> Session:
    about = cached.about
    tracks = tuple(SessionTrack(file.name, file.file, file.color, file.muted) for file in rendering.files)
    return Session(request.song, about.sample_rate, start_samples, about.samples, about.channels, tracks)


def _entry(folder: Path, rendered: Rendered) -> FileEntry:
    path, levels = folder / rendered.file, rendered.levels
    return FileEntry(
        name=rendered.name,
        kind=rendered.kind,
        file=rendered.file,
        color=rendered.color,
        muted=rendered.muted,
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        sample_peak_db=levels.sample_peak_db,
        true_peak_db=levels.true_peak_db,
        rms_db=levels.rms_db,
        loudness_lufs=levels.loudness_lufs,
    )


def _manifest(
    request: Request,
    cached: CachedStems,
    rendering: Rendering,
    entries: tuple[FileEntry, ...],
    timings_s: dict[str, float],
) -> Manifest:
    job, about = request.job, cached.about
    return Manifest(
        schema=1,
        job=job.id,
        song=request.song,
        identity=request.identity,
        source=SourceEntry(
            path=job.deliver.get("watched", job.source.path),  # a watched file is separated from its copy
            sha256=request.source_sha256,
            container=about.container,
            subtype=about.subtype,
            sample_rate=about.sample_rate,
            channels=about.channels,
            samples=about.samples,
            start_samples=job.source.start_samples,
            length_samples=job.source.length_samples,
            time_reference_samples=about.time_reference_samples + job.source.start_samples,
        ),
        model=NamedHash(name=job.model, sha256=request.separator.model_hash),
        preset=NamedHash(name=request.preset.name, sha256=request.preset.sha256),
        stage=job.stage,
        null=job.null,
        salvage=job.salvage,
        stems=entries,
        residual_db=rendering.residual_db,
        timings_s={name: round(seconds, 4) for name, seconds in timings_s.items()},
        device=str(request.separator.device),
        warnings=about.warnings,
    )


def result_of(request: Request, folder: Path) -> Result:
    """The result that a complete folder stands for, whichever run made it."""
    manifest = read_manifest(folder)
    assert manifest is not None, "only complete folders are published or recognised"
    return Result(
        schema=1,
        id=request.job.id,
        state=State.DONE,
        folder=folder,
        session=folder / f"{manifest.song}.RPP",
        manifest=folder / FILE_NAME,
        stems=tuple(
            StemFile(
                name=entry.name,
                path=folder / entry.file,
                kind=entry.kind,
                color=entry.color,
                muted=entry.muted,
            )
            for entry in manifest.stems
        ),
        sample_rate=manifest.source.sample_rate,
        samples=manifest.source.samples,
        time_reference_samples=manifest.source.time_reference_samples,
        warnings=manifest.warnings,
        deliver=request.job.deliver,
        finished_unix_s=time.time(),
    )
