"""Get the stems of a song: from the cache, or separate the song and cache them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError, DecoderKilled, OutputUnavailable, UnreadableAudio
from tsbs_daw.core.files import content_state, write_error
from tsbs_daw.models.registry import record_speed
from tsbs_daw.pipeline.passes import PassSource, ResolvedPass, SeparatedSong
from tsbs_daw.pipeline.publish import ensure_space, estimate_bytes
from tsbs_daw.pipeline.resolve import JobContext, ResolvedJob, load_pass_separator
from tsbs_daw.pipeline.stem_cache import CachedStems, StemCache, StemWriter, cache_key
from tsbs_daw.separation import Separator
from tsbs_daw.separation.separator import NORMAL, QUALITIES

log = logging.getLogger(__name__)

LONG_ENOUGH_S = 30.0  # shorter songs do not show the speed of a model reliably

DECODER_AGAIN_S = 5.0  # pause before a decoder that was killed runs again
LOOK_EVERY_S = 0.2


def separate(resolved: ResolvedJob, cache: StemCache, context: JobContext) -> SeparatedSong:
    """Get the song's stems and the parts of its passes: from the cache, or compute and cache them.

    Raises:
        AudioError, ModelError, DeviceError, JobCancelled, NoSpaceLeft
    """
    begin, end = context.shares["separate"]
    each = (end - begin) / (1 + len(resolved.tree.passes))

    def share(number: int) -> JobContext:
        return replace(context, shares={"separate": (begin + number * each, begin + (number + 1) * each)})

    song = _separate_song(resolved, cache, share(0))
    made: list[tuple[ResolvedPass, CachedStems]] = []
    for number, step in enumerate(resolved.tree.passes, start=1):
        whole = next((source for source in (_part(step.stem, *earlier) for earlier in made) if source), None)
        source = whole or PassSource(song, (step.stem,))
        made.append((step, _run_pass(step, source, resolved, cache, share(number))))
    return SeparatedSong(song, tuple(made))


def _part(stem: str, step: ResolvedPass, cached: CachedStems) -> PassSource | None:
    """Return a stem as a part of a pass; None if the pass has no such part."""
    return PassSource(cached, step.parts[stem]) if stem in step.parts else None


def _run_pass(
    step: ResolvedPass, source: PassSource, resolved: ResolvedJob, cache: StemCache, context: JobContext
) -> CachedStems:
    """Get the parts of a stem: from the cache, or compute and cache them. Only the latter loads the pass's model."""
    settings, device = resolved.settings, resolved.separator.device.type
    # What determines the number format, as far as it is known without loading the model; empty for the defaults.
    precision = {} if settings.precision == "auto" else {"precision": settings.precision}
    place = {} if device == "cpu" else {"device": device}
    key = cache_key(
        stem=[source.cached.folder.name, *source.outputs],
        model=step.sha256,
        **precision,
        **place,
        **_quality_mark(resolved),
    )
    if cached := cache.find(key):
        log.info("job %s: the parts of %s are cached", context.job_id, step.stem)
        return cached
    with context.timings.step("load"):
        separator = load_pass_separator(step, settings)
    samples = source.info.samples
    ensure_space(cache.folder, estimate_bytes(len(step.outputs) + 1, source.info.channels, samples), resolved.song)

    def report(done: int) -> None:
        context.report("separate", done / samples if samples else 0.0, f"separating {step.stem}")

    with cache.writing(key, separator.stems, source) as writer:
        rate, quality = source.info.sample_rate, resolved.quality
        _write_stems(separator, writer, source.blocks(), rate, "full", quality, report, context)
    return _found(cache, key)


def _separate_song(resolved: ResolvedJob, cache: StemCache, context: JobContext) -> CachedStems:
    job, separator = resolved.job, resolved.separator
    # Default precision and quality add no entry, so the key stays that of versions without these options.
    marks: dict[str, Any] = {} if separator.precision_mark is None else {"precision": separator.precision_mark}
    marks |= _quality_mark(resolved)
    key = cache_key(
        source=resolved.source_sha256,
        model=separator.model_hash,
        stage=job.stage,
        portion=[job.source.start_samples, job.source.length_samples],
        salvage=job.salvage,
        **marks,
    )
    if cached := cache.find(key):
        log.info("job %s: the stems are cached", job.id)
        return cached
    try:
        _separate_trying_again(cache, key, resolved, context)
    except AudioError as error:
        if not _is_unchanged(resolved):  # the file may be unreadable because it is being written
            raise resolved.source.error() from error
        raise
    return _found(cache, key)


def _quality_mark(resolved: ResolvedJob) -> dict[str, Any]:
    """Return the quality for a cache key; empty for normal quality."""
    return {} if resolved.quality == NORMAL else {"quality": asdict(QUALITIES[resolved.quality])}


def _found(cache: StemCache, key: str) -> CachedStems:
    """Return the stems that were just cached.

    Raises:
        OutputUnavailable: They were removed in the meantime.
    """
    cached = cache.find(key)
    if cached is None:
        raise OutputUnavailable(f"The cached stems in {cache.folder} were removed while they were written; try again.")
    return cached


def _separate_trying_again(cache: StemCache, key: str, resolved: ResolvedJob, context: JobContext) -> None:
    """Separate the source; if its decoder was killed or stalled, try once more after a pause.

    If that happens twice, the song is the likely cause, and the job fails. Raises like `separate`.
    """
    try:
        return _separate_into(cache, key, resolved, context)
    except DecoderKilled as error:
        log.warning("job %s: %s Retrying in %g s.", context.job_id, error, DECODER_AGAIN_S)
    context.report("separate", 0.0, "waiting to decode again")
    until = time.monotonic() + DECODER_AGAIN_S
    while (left_s := until - time.monotonic()) > 0:
        context.check_cancelled()
        time.sleep(min(left_s, LOOK_EVERY_S))
    try:
        return _separate_into(cache, key, resolved, context)
    except DecoderKilled as error:
        raise UnreadableAudio(f"{error} This was the second try.") from error


def _is_unchanged(resolved: ResolvedJob) -> bool:
    """Return whether the source is still the file that was hashed, according to its size and times."""
    try:
        status = resolved.job.source.path.stat()
    except OSError:
        return False
    # Compare ctime as well: a program may rewrite a file and restore its mtime.
    return (content_state(status), status.st_ctime_ns) == (resolved.source.state, resolved.source.changed_ns)


def _separate_into(cache: StemCache, key: str, resolved: ResolvedJob, context: JobContext) -> None:
    """Separate the source into the cache.

    Raises:
        SourceChanged: The file changed after it was hashed. Others: see `separate`.
    """
    job, separator = resolved.job, resolved.separator
    with open_audio(
        job.source.path,
        start_samples=job.source.start_samples,
        length_samples=job.source.length_samples,
        salvage=job.salvage,
        source=resolved.source,
    ) as reader:
        samples = reader.samples
        _ensure_space(resolved, cache, reader.info.channels, samples)

        def report(done: int) -> None:
            context.report("separate", done / samples if samples else 0.0, "separating")

        began = time.monotonic()
        with cache.writing(key, separator.stems, reader) as writer:
            blocks, rate = context.timings.each("decode", reader.blocks()), reader.info.sample_rate
            _write_stems(separator, writer, blocks, rate, job.stage, resolved.quality, report, context)
            _record_speed(resolved, writer.about().samples / reader.info.sample_rate, time.monotonic() - began)
            reader.check_unchanged()  # before the stems appear in the cache under the hash


def _write_stems(
    separator: Separator,
    writer: StemWriter,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    stage: str,
    quality: str,
    report: Callable[[int], None],
    context: JobContext,
) -> None:
    """Separate blocks of (channels, n), and write the stems in another thread while the next are computed."""
    source = _Tee(blocks)
    stream = separator.stream(
        source, sample_rate, stage=stage, quality=quality, progress=report, cancelled=context.cancelled
    )  # fmt: skip
    with _Background() as background:
        for stems in context.timings.each("separate", stream):
            with context.timings.step("cache"):
                background.run(writer.write, stems, source.take(stems.shape[-1]))
        with context.timings.step("cache"):
            background.wait()


def _record_speed(resolved: ResolvedJob, audio_s: float, took_s: float) -> None:
    """Record the speed for `models list`, unless the first chunk dominates the time because the song is short."""
    path = resolved.separator.path if resolved.quality == NORMAL else None
    if path is not None and audio_s >= LONG_ENOUGH_S:
        record_speed(path, audio_s / max(took_s, 1e-3), resolved.cache)


class _Background:
    """Runs one call at a time in a background thread while the caller prepares the next. A context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "cache")
        self._doing: Future[None] | None = None

    def __enter__(self) -> _Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, work: Callable[..., None], *values: np.ndarray) -> None:
        """Wait for the previous call, then start this one. Raises what the previous call raised."""
        self.wait()
        self._doing = self._pool.submit(work, *values)

    def wait(self) -> None:
        """Wait for the last call. Raises what it raised."""
        if self._doing is not None:
            self._doing.result()


class _Tee:
    """Passes a stream of blocks through, and keeps the samples until `take` returns them a second time."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = blocks
        self._kept: np.ndarray | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._kept = block if self._kept is None else np.concatenate([self._kept, block], axis=-1)
            yield block

    def take(self, samples: int) -> np.ndarray:
        kept = self._kept
        assert kept is not None, "`take` is only called after these samples passed through"
        taken: np.ndarray = kept[:, :samples]
        self._kept = kept[:, samples:]
        return taken


def _ensure_space(resolved: ResolvedJob, cache: StemCache, channels: int, samples: int | None) -> None:
    """Check for space in the output folder and in the cache, if the length of the song is known."""
    if samples is None:
        return
    stems, delivery = len(resolved.tree.names), resolved.delivery
    files = stems + len(resolved.preset.outputs)
    if not delivery.plain:  # also the mixture, the copy of one file while it is encoded, and the loops
        files += 2 + len(delivery.loops) * stems
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        cache.remove_abandoned()  # a killed run may have left gigabytes
    except OSError as error:
        raise write_error(cache.folder, error) from error
    ensure_space(resolved.job.output, estimate_bytes(files, channels, samples), resolved.song)
    ensure_space(cache.folder, estimate_bytes(len(resolved.separator.stems) + 1, channels, samples), resolved.song)
