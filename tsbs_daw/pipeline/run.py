"""`run_job`: the steps from a song's file to the published folder with its stems and session.

resolve -> find an equal earlier run -> separate, or find the stems in the cache -> render -> deliver -> publish
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tsbs_daw.contracts.job import Job, Result, State, StemFile
from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, NamedHash, PassEntry, SourceEntry, read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.pipeline.deliver import Delivered, deliver, raw_folder
from tsbs_daw.pipeline.passes import SeparatedSong
from tsbs_daw.pipeline.publish import StagedFolder, find_previous_run
from tsbs_daw.pipeline.render import Rendering, render
from tsbs_daw.pipeline.resolve import JobContext, Progress, ResolvedJob, Shares, resolve
from tsbs_daw.pipeline.separate import separate
from tsbs_daw.pipeline.stem_cache import StemCache
from tsbs_daw.separation.devices import songs_at_once  # noqa: F401  (the worker looks it up in the module of its runner)

log = logging.getLogger(__name__)


# Start and end of each step on the progress bar. In a plain delivery, separation takes nearly all of the time.
PLAIN_SHARES: Shares = {"separate": (0.0, 0.9), "render": (0.9, 1.0)}
FULL_SHARES: Shares = {
    "separate": (0.0, 0.75),
    "render": (0.75, 0.82),
    "analyse": (0.82, 0.92),
    "write": (0.92, 0.99),
}


def run_job(
    job: Job,
    *,
    settings: Settings,
    fence: int,
    attempt: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Result:
    """Run a job once.

    Args:
        job: The job.
        settings: Folders of the cache, models and presets, and the device.
        fence: Number of this lease.
        attempt: Number of this attempt, for the log.
        progress: Called with (fraction, phrase).
        cancelled: Called between blocks; returns whether to stop.

    Returns:
        A result with state done. If an equal run is already published, its result.

    Raises:
        TsbsDawError: The job failed; nothing was published.
    """
    started_s = time.perf_counter()
    context = JobContext(job.id, progress, cancelled)
    with context.timings.step("prepare"):
        progress(0.0, "reading")
        resolved = resolve(job, settings)
    context = replace(context, shares=PLAIN_SHARES if resolved.delivery.plain else FULL_SHARES)
    if folder := find_previous_run(
        job.output, resolved.song, resolved.identity, analysed=resolved.delivery.analyses
    ):  # fmt: skip
        log.info("job %s: %s was already made by an equal run", job.id, folder)
        return result_of(resolved, folder)
    separated = separate(resolved, StemCache(resolved.cache), context)
    with StagedFolder(
        job.output, resolved.song, preset=resolved.preset.name, identity=resolved.identity, job=job.id, fence=fence
    ) as staged:
        rendering = _render(resolved, separated, staged.folder, context)
        delivered = deliver(resolved, separated, rendering, staged.folder, context)
        context.timings.seconds["total"] = time.perf_counter() - started_s
        published = staged.publish(_manifest(resolved, separated, rendering, delivered, context.timings.seconds))
    log.info("job %s: done in %.2f s (attempt %d): %s", job.id, time.perf_counter() - started_s, attempt, published)
    return result_of(resolved, published.folder)


def _render(resolved: ResolvedJob, separated: SeparatedSong, folder: Path, context: JobContext) -> Rendering:
    raw = raw_folder(resolved, folder)
    raw.mkdir(exist_ok=True)
    return render(
        separated,
        resolved.preset,
        raw,
        stems=resolved.delivery.stems,
        residual=resolved.residual,
        time_reference_samples=separated.about.time_reference_samples + resolved.job.source.start_samples,
        description=f"stem of {resolved.song}",
        context=context,
        with_mixture=resolved.delivery.needs_mixture,
        every_stem=resolved.delivery.analyses,
    )


def _manifest(
    resolved: ResolvedJob,
    separated: SeparatedSong,
    rendering: Rendering,
    delivered: Delivered,
    timings_s: dict[str, float],
) -> Manifest:
    job, about = resolved.job, separated.about
    return Manifest(
        schema=1,
        job=job.id,
        song=resolved.song,
        artist=delivered.artist,
        title=delivered.title,
        identity=resolved.identity,
        source=SourceEntry(
            path=job.deliver.get("watched", job.source.path),  # a watched file is separated from its copy
            sha256=resolved.source_sha256,
            container=about.container,
            subtype=about.subtype,
            sample_rate=about.sample_rate,
            channels=about.channels,
            samples=about.samples,
            start_samples=job.source.start_samples,
            length_samples=job.source.length_samples,
            time_reference_samples=about.time_reference_samples + job.source.start_samples,
        ),
        model=NamedHash(name=job.model, sha256=resolved.separator.model_hash),
        preset=NamedHash(name=resolved.preset.name, sha256=resolved.preset.sha256),
        stage=job.stage,
        null=job.null,
        residual=resolved.residual,
        quality=resolved.quality,
        salvage=job.salvage,
        format=delivered.format,
        gain_db=delivered.gain_db,
        stems=delivered.stems,
        sessions=delivered.sessions,
        passes=tuple(
            PassEntry(stem=step.stem, model=NamedHash(name=step.model, sha256=step.sha256), parts=tuple(step.parts))
            for step in resolved.tree.passes
        ),
        analysis=delivered.analysis,
        others=delivered.others,
        residual_db=rendering.residual_db,
        timings_s={name: round(seconds, 4) for name, seconds in timings_s.items()},
        device=str(resolved.separator.device),
        precision=resolved.separator.precision,
        warnings=(*about.warnings, *delivered.warnings),
    )


def result_of(resolved: ResolvedJob, folder: Path) -> Result:
    """Return the result for a complete folder, whichever run made it."""
    manifest = read_manifest(folder)
    assert manifest is not None, "only complete folders are published or recognised"
    sessions = (f"{manifest.song}.RPP",) if manifest.sessions is None else manifest.sessions
    return Result(
        schema=resolved.job.schema_,
        id=resolved.job.id,
        state=State.DONE,
        folder=folder,
        session=folder / sessions[0] if sessions else None,
        manifest=folder / FILE_NAME,
        analysis=folder / manifest.analysis if manifest.analysis else None,
        stems=tuple(
            StemFile(
                name=entry.name,
                path=folder / entry.file,
                kind=entry.kind,
                color=entry.color,
                muted=entry.muted,
                folders=entry.folders,
            )
            for entry in manifest.stems
            if entry.kind != "source"
        ),
        sample_rate=manifest.source.sample_rate,
        samples=manifest.source.samples,
        time_reference_samples=manifest.source.time_reference_samples,
        warnings=manifest.warnings,
        deliver=resolved.job.deliver,
        finished_unix_s=time.time(),
    )
