"""run_job: the way of a song, from the file to the folder with its stems and session.

look up -> recognise an equal run -> separate (or find the stems in the cache) -> effects -> finish -> publish
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from tsbs_daw.contracts.job import Job, Result, State, StemFile
from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, NamedHash, SourceEntry, read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.pipeline.deliver import ANALYSING_SHARE, Finished, Finisher, raw_folder
from tsbs_daw.pipeline.publish import Delivery, find_equal_run
from tsbs_daw.pipeline.render import Rendering, render
from tsbs_daw.pipeline.resolve import Request, look_up
from tsbs_daw.pipeline.separate import Progress, separate
from tsbs_daw.pipeline.stem_cache import CachedStems, StemCache
from tsbs_daw.pipeline.stopwatch import Stopwatch
from tsbs_daw.separation.devices import songs_at_once  # noqa: F401  (the worker asks the module of its runner)

log = logging.getLogger(__name__)


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
    if folder := find_equal_run(job.output, request.song, request.identity, analysed=request.delivery.analyses):
        log.info("job %s: %s is there already, from an equal run", job.id, folder)
        return result_of(request, folder)
    cached = separate(request, StemCache(request.cache), watch, progress, cancelled)
    with Delivery(
        job.output, request.song, preset=request.preset.name, identity=request.identity, job=job.id, fence=fence
    ) as delivery:
        rendering = _render(request, cached, delivery.folder, watch, progress)
        finished = Finisher(request, cached, rendering, delivery.folder, watch, progress, cancelled).finish()
        watch.seconds["total"] = time.perf_counter() - started
        published = delivery.publish(_manifest(request, cached, rendering, finished, watch.seconds))
    log.info("job %s: done in %.2f s (attempt %d): %s", job.id, time.perf_counter() - started, attempt, published)
    return result_of(request, published.folder)


def _render(request: Request, cached: CachedStems, folder: Path, watch: Stopwatch, progress: Progress) -> Rendering:
    begin, end = request.separation_share, 1.0 if request.delivery.plain else ANALYSING_SHARE

    def report(done: int) -> None:
        share = done / max(1, cached.about.samples)
        progress(begin + (end - begin) * share, "effects" if request.preset.outputs else "writing")

    raw = raw_folder(request, folder)
    raw.mkdir(exist_ok=True)
    return render(
        cached,
        request.preset,
        raw,
        null=request.job.null,
        time_reference_samples=cached.about.time_reference_samples + request.job.source.start_samples,
        description=f"stem of {request.song}",
        watch=watch,
        progress=report,
        with_mixture=request.delivery.needs_mixture,
    )


def _manifest(
    request: Request,
    cached: CachedStems,
    rendering: Rendering,
    finished: Finished,
    timings_s: dict[str, float],
) -> Manifest:
    job, about = request.job, cached.about
    return Manifest(
        schema=1,
        job=job.id,
        song=request.song,
        artist=finished.artist,
        title=finished.title,
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
        format=finished.format,
        gain_db=finished.gain_db,
        stems=finished.stems,
        sessions=finished.sessions,
        analysis=finished.analysis,
        others=finished.others,
        residual_db=rendering.residual_db,
        timings_s={name: round(seconds, 4) for name, seconds in timings_s.items()},
        device=str(request.separator.device),
        precision=request.separator.precision,
        warnings=(*about.warnings, *finished.warnings),
    )


def result_of(request: Request, folder: Path) -> Result:
    """The result that a complete folder stands for, whichever run made it."""
    manifest = read_manifest(folder)
    assert manifest is not None, "only complete folders are published or recognised"
    sessions = (f"{manifest.song}.RPP",) if manifest.sessions is None else manifest.sessions
    return Result(
        schema=1,
        id=request.job.id,
        state=State.DONE,
        folder=folder,
        session=folder / sessions[0] if sessions else None,
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
            if entry.kind != "source"
        ),
        sample_rate=manifest.source.sample_rate,
        samples=manifest.source.samples,
        time_reference_samples=manifest.source.time_reference_samples,
        warnings=manifest.warnings,
        deliver=request.job.deliver,
        finished_unix_s=time.time(),
    )
