"""Stems -> the files of a song: dry stems, and the outputs of the preset, each measured while it is written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tsbs_daw.audio.measure import Levels, Meter, db
from tsbs_daw.audio.write import AudioWriter
from tsbs_daw.effects.chain import OutputRenderer
from tsbs_daw.effects.preset import Preset
from tsbs_daw.jobs.stem_cache import CachedStems
from tsbs_daw.jobs.stopwatch import Stopwatch

# The colours that tell stems apart also for the colour-blind (Okabe and Ito); others take turns.
STEM_COLORS = {"vocals": "#56b4e9", "drums": "#e69f00", "bass": "#009e73", "other": "#cc79a7"}
MORE_COLORS = ("#f0e442", "#0072b2", "#d55e00", "#999999")


@dataclass(frozen=True)
class Rendered:
    """One file: `kind` is "stem" or "output"; muted: a dry stem beside outputs."""

    name: str
    kind: str
    file: str
    color: str
    muted: bool
    levels: Levels


@dataclass(frozen=True)
class Rendering:
    """residual_db: what the dry stems leave out of the mixture, relative to it; None if it is nothing."""

    files: tuple[Rendered, ...]
    residual_db: float | None


@dataclass
class _Track:
    """A file while it is being written."""

    name: str
    kind: str
    file: str
    color: str
    muted: bool
    renderer: OutputRenderer | None
    writer: AudioWriter = field(repr=False)
    meter: Meter = field(repr=False)

    def write(self, audio: np.ndarray, watch: Stopwatch) -> None:
        with watch.step("write"):
            self.writer.write(audio)
        with watch.step("measure"):
            self.meter.add(audio)


def render(
    cached: CachedStems,
    preset: Preset,
    folder: Path,
    *,
    null: bool,
    time_reference_samples: int,
    description: str,
    watch: Stopwatch,
    progress: Callable[[int], None],
) -> Rendering:
    """Write every file of the song into `folder`, block by block.

    Args:   progress: told the samples done
    Raises: EffectError, OutputError, NoSpaceLeft
    """
    about = cached.about
    left_out, done = 0.0, 0
    with ExitStack() as files:

        def track(name: str, kind: str, file: str, color: str, muted: bool, renderer: OutputRenderer | None) -> _Track:
            writer = AudioWriter(
                folder / file, about.sample_rate, about.channels,
                time_reference_samples=time_reference_samples, description=description,
            )  # fmt: skip
            meter = Meter(about.sample_rate, about.channels)
            return _Track(name, kind, file, color, muted, renderer, files.enter_context(writer), meter)

        outputs = []
        for o in preset.outputs:
            renderer = files.enter_context(OutputRenderer(o, about.sample_rate, about.channels))
            outputs.append(track(o.name, "output", f"{o.name}.wav", o.color, False, renderer))
        names = dry_names(about.stems, {output.name for output in preset.outputs})
        dry = [
            track(name, "stem", f"{name}.wav", stem_color(stem, place), bool(outputs), None)
            for place, (stem, name) in enumerate(zip(about.stems, names, strict=True))
        ]
        for stems, residual in watch.each("read stems", cached.blocks(null=null)):
            for stem, part in zip(dry, stems.values(), strict=True):
                stem.write(part, watch)
            done += residual.shape[1]
            for output in outputs:
                with watch.step("effects"):
                    audio = output.renderer.process(stems, last=done == about.samples)
                output.write(audio, watch)
            left_out += float(np.square(residual, dtype=np.float64).sum())
            progress(done)
        with watch.step("write"):
            files.close()
    finished = (
        Rendered(t.name, t.kind, t.file, t.color, t.muted, t.meter.levels()) for t in (*outputs, *dry)
    )  # fmt: skip
    return Rendering(tuple(finished), _residual_db(left_out, cached))


def dry_names(stems: tuple[str, ...], taken: set[str]) -> list[str]:
    """What the dry stems are called: their names, or "vocals (dry)" where an output has the name."""
    lower = {name.casefold() for name in taken}
    return [f"{stem} (dry)" if stem.casefold() in lower else stem for stem in stems]


def stem_color(stem: str, place: int) -> str:
    return STEM_COLORS.get(stem, MORE_COLORS[place % len(MORE_COLORS)])


def _residual_db(energy: float, cached: CachedStems) -> float | None:
    about = cached.about
    rms = np.sqrt(energy / max(1, about.samples * about.channels))
    return db(rms / about.mixture_rms) if about.mixture_rms else None
