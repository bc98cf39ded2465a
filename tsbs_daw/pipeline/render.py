"""Render stems into a song's files: dry stems, the preset's outputs and, if needed, the mixture.

The files are 32-bit float WAVs, measured while they are written; `encode` converts them to other formats. Blocks pass
through effects, writers and meters of all files in parallel, on the cores that the network no longer uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tsbs_daw.audio.dsp import Levels, Meter, db
from tsbs_daw.audio.writer import AudioWriter
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.effects.chain import OutputRenderer
from tsbs_daw.pipeline.passes import SeparatedSong, StemTree, total
from tsbs_daw.pipeline.resolve import JobContext
from tsbs_daw.pipeline.stem_cache import RESIDUAL, Separation
from tsbs_daw.presets.delivery import remainder
from tsbs_daw.presets.preset import Preset
from tsbs_daw.presets.rules import REST

# A palette that is safe for colour blindness (Okabe and Ito). Other stems cycle through MORE_COLORS.
STEM_COLORS = {"vocals": "#56b4e9", "drums": "#e69f00", "bass": "#009e73", "other": "#cc79a7"}
SOURCE_COLOR = "#757575"
SOURCE_NAME = "source"
MIXTURE_FILE = ".mixture.wav"  # cannot clash: stem names do not begin with a dot
MORE_COLORS = ("#f0e442", "#0072b2", "#d55e00", "#999999")


@dataclass(frozen=True)
class Rendering:
    """The rendered files of a song.

    Attributes:
        files: The delivered files.
        dry: Every dry stem that was written, delivered or not, by the model's name for it.
        residual_db: Level of the residual relative to the mixture; None if either is silent.
        mixture: The song itself, if requested.
        stems_sum: Levels of the sum of the dry stems, if the mixture was requested.
    """

    files: tuple[AudioFile, ...]
    dry: dict[str, AudioFile]
    residual_db: float | None
    mixture: AudioFile | None = None
    stems_sum: Levels | None = None


@dataclass
class _Track:
    """A file while it is being written."""

    file: AudioFile
    renderer: OutputRenderer | None
    delivered: bool
    writer: AudioWriter = field(repr=False)
    meter: Meter = field(repr=False)

    def measured(self) -> AudioFile:
        return self.file.model_copy(update=level_fields(self.meter.levels()))


def render(
    separated: SeparatedSong,
    preset: Preset,
    folder: Path,
    *,
    stems: tuple[str, ...] | None = None,
    residual: Literal["share", "separate", "drop"] = "share",
    time_reference_samples: int,
    description: str,
    context: JobContext,
    with_mixture: bool = False,
    every_stem: bool = False,
) -> Rendering:
    """Write every file of the song into `folder`, block by block.

    Args:
        separated: The song's stems.
        preset: The preset with its outputs.
        folder: Existing folder for the files.
        stems: The dry stems to write, with `REST` for the sum of the others; None for all.
        residual: Share the residual among the stems, write it as a stem of its own, or drop it.
        time_reference_samples: Position of the song in its session.
        description: Description in the files' BWF header.
        with_mixture: Also write the mixture, and measure it and the sum of the stems.
        every_stem: Also write the model's other dry stems, as intermediate files.
        context: Progress, cancellation and timings.

    Raises:
        EffectError, OutputError, NoSpaceLeft
    """
    about, tree = separated.about, separated.tree
    left_out, done = 0.0, 0
    message = "effects" if preset.outputs else "writing"
    with ExitStack() as files:
        dry = _dry_tracks(tree, stems, residual == "separate", every_stem)
        tracks = _tracks(files, about, tree, preset, dry, folder, time_reference_samples, description, with_mixture)
        renderers = [track.renderer for track in tracks if track.renderer]
        writers, meters = [track.writer for track in tracks], [track.meter for track in tracks]
        stems_sum = Meter(about.sample_rate, about.channels)
        # Entered last, so it exits first: no file is closed while a thread still writes to it.
        pool = files.enter_context(ThreadPoolExecutor(torch.get_num_threads(), "render"))

        def each(step: str, work: Callable[..., Any], *values: Iterable[Any]) -> list[Any]:
            with context.timings.step(step):
                return list(pool.map(work, *values))

        for parts, left in context.timings.each("read stems", separated.blocks(share=residual == "share")):
            done += left.shape[1]
            named = parts | {RESIDUAL: left}
            audio = [total([named[source] for source in track.sources]) for track in dry]
            measured = list(meters)
            if renderers:
                process = partial(OutputRenderer.process, stems=parts, last=done == about.samples)
                audio = each("effects", process, renderers) + audio
            if with_mixture:
                together = np.sum([parts[stem] for stem in tree.stems], axis=0, dtype=np.float64)
                audio += [(together + left).astype(np.float32), together.astype(np.float32)]
                measured.append(stems_sum)
            each("write", AudioWriter.write, writers, audio)  # the last array, the sum of the stems, is only measured
            each("measure", Meter.add, measured, audio)
            left_of_all = total([left, *(parts[step.residual] for step in tree.passes)])
            left_out += float(np.square(left_of_all, dtype=np.float64).sum())
            context.report("render", done / max(1, about.samples), message)
        each("write", AudioWriter.close, writers)
    finished = [(track.measured(), track.delivered) for track in tracks]
    return Rendering(
        tuple(file for file, delivered in finished if delivered and file.kind != "source"),
        {file.sources[0]: file for file, _ in finished if file.kind == "stem" and len(file.sources) == 1},
        _residual_db(left_out, about),
        finished[-1][0] if with_mixture else None,
        stems_sum.levels() if with_mixture else None,
    )


def _tracks(
    files: ExitStack,
    about: Separation,
    tree: StemTree,
    preset: Preset,
    dry: list[_DryTrack],
    folder: Path,
    time_reference_samples: int,
    description: str,
    with_mixture: bool,
) -> list[_Track]:
    """Open every file until `files` is closed: the outputs, the dry stems, and the mixture last."""

    def track(
        name: str,
        kind: Literal["stem", "output", "source"],
        file: str,
        color: str,
        muted: bool,
        sources: tuple[str, ...],
        renderer: OutputRenderer | None = None,
        delivered: bool = True,
        folders: tuple[str, ...] = (),
    ) -> _Track:
        writer = AudioWriter(
            folder / file, about.sample_rate, about.channels,
            time_reference_samples=time_reference_samples, description=description,
        )  # fmt: skip
        meter = Meter(about.sample_rate, about.channels)
        audio_file = AudioFile(
            name=name, kind=kind, file=file, color=color, muted=muted, folders=folders, sources=sources, size_bytes=0
        )  # fmt: skip
        return _Track(audio_file, renderer, delivered, files.enter_context(writer), meter)

    found = []
    for o in preset.outputs:
        renderer = files.enter_context(OutputRenderer(o, about.sample_rate, about.channels))
        roots = tuple(dict.fromkeys(tree.root(source) for source in o.sources))
        found.append(track(o.name, "output", f"{o.name}.wav", o.color, False, roots, renderer))
    names = dry_names([stem.name for stem in dry], {output.name for output in preset.outputs})
    for place, (stem, name) in enumerate(zip(dry, names, strict=True)):
        color, muted = stem_color(stem.name, place), bool(preset.outputs) or stem.muted
        more = {"delivered": stem.delivered, "folders": stem.folders}
        found.append(track(name, "stem", f"{name}.wav", color, muted, stem.sources, **more))
    if with_mixture:
        found.append(track(SOURCE_NAME, "source", MIXTURE_FILE, SOURCE_COLOR, True, about.stems))
    return found


def level_fields(measured: Levels | AudioFile, gain_db: float = 0.0) -> dict[str, float | None]:
    """Return levels as fields of an AudioFile.

    Args:
        measured: The measured levels.
        gain_db: Gain applied to the file after it was measured.
    """
    names = ("sample_peak_db", "true_peak_db", "rms_db", "loudness_lufs")
    values = ((name, getattr(measured, name)) for name in names)
    return {name: None if value is None else value + gain_db for name, value in values}


@dataclass(frozen=True)
class _DryTrack:
    """A stem without effects, or the sum of several."""

    name: str
    sources: tuple[str, ...]
    delivered: bool = True
    folders: tuple[str, ...] = ()
    muted: bool = False


def _dry_tracks(
    tree: StemTree, chosen: tuple[str, ...] | None, with_residual: bool, every_stem: bool
) -> list[_DryTrack]:
    """List the dry stems in the model's order, each followed by its parts; then the rest; then the residuals."""
    names = tree.names
    chosen = names if chosen is None else chosen
    muted, tracks = tree.muted(chosen), []
    for stem in names:
        if stem in chosen or (every_stem and stem in tree.stems):
            apart = any(part in chosen for part in tree.inside(stem))
            folders = (*tree.wholes(stem), stem) if apart else tree.wholes(stem)
            tracks.append(_DryTrack(stem, (stem,), stem in chosen, folders, stem in muted))
    if REST in chosen:
        named = [stem for stem in names if stem in chosen]
        name = f"no_{named[0]}" if len(named) == 1 else REST
        tracks.append(_DryTrack(name, remainder(tree.stems, named, tree.parts)))
    if with_residual:
        for step in tree.passes:
            if set(step.parts) & set(chosen):
                folders = (*tree.wholes(step.stem), step.stem)
                tracks.append(_DryTrack(step.residual, (step.residual,), True, folders, step.residual in muted))
        tracks.append(_DryTrack(RESIDUAL, (RESIDUAL,)))
    return tracks


def dry_names(stems: Sequence[str], taken: set[str]) -> list[str]:
    """Return the file names of the dry stems: their own, or "vocals (dry)" if an output has the same name."""
    lower = {name.casefold() for name in taken}
    return [f"{stem} (dry)" if stem.casefold() in lower else stem for stem in stems]


def stem_color(stem: str, place: int) -> str:
    return STEM_COLORS.get(stem, MORE_COLORS[place % len(MORE_COLORS)])


def _residual_db(energy: float, about: Separation) -> float | None:
    rms = np.sqrt(energy / max(1, about.samples * about.channels))
    return db(rms / about.mixture_rms) if about.mixture_rms else None
