"""Passes, which separate a stem further with another model, and the tree of a song's stems.

    drums bass other vocals         the stems of the job's model
                     vocals         is separated by a pass, and is kept beside its parts
                       lead         a part; another pass may separate it further
                       backing

The parts sum to their whole, just like the stems sum to the song: the pass's residual is shared among the parts,
becomes a stem `vocals residual`, or is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, ModelError, PresetError, UnknownModel, did_you_mean
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import kinds, registry
from tsbs_daw.pipeline.stem_cache import BLOCK_SAMPLES, RESIDUAL, CachedStems, Separation
from tsbs_daw.presets.delivery import Pass, remainder
from tsbs_daw.presets.preset import Preset
from tsbs_daw.presets.rules import REST
from tsbs_daw.separation.separator import joined_hash
from tsbs_daw.separation.streams import share_residual

Blocks = Iterator[tuple[dict[str, np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class ResolvedPass:
    """A pass whose model has been looked up but not loaded.

    Attributes:
        stem: The stem to separate.
        model: Name or path of the model.
        sha256: Hash of the model's file.
        outputs: The model's stems.
        parts: The parts of the stem; each is the sum of the outputs listed.
    """

    stem: str
    model: str
    sha256: str
    outputs: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]

    @property
    def residual(self) -> str:
        """Name of the stem's residual: the part of the stem that is in none of its parts."""
        return f"{self.stem} {RESIDUAL}"


@dataclass(frozen=True)
class StemTree:
    """The stems of the job's model, and the parts that passes separate them into."""

    stems: tuple[str, ...]
    passes: tuple[ResolvedPass, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The parts of every stem that has a pass."""
        return {step.stem: tuple(step.parts) for step in self.passes}

    @property
    def names(self) -> tuple[str, ...]:
        """All stems, each followed by its parts."""
        return self._within(self.stems)

    def inside(self, stem: str) -> tuple[str, ...]:
        """Return the parts of a stem, their parts, and so on."""
        return self._within(self.parts.get(stem, ()))

    def wholes(self, stem: str) -> tuple[str, ...]:
        """Return the stems that contain a stem, outermost first."""
        above = next((whole for whole, parts in self.parts.items() if stem in parts), None)
        return () if above is None else (*self.wholes(above), above)

    def root(self, stem: str) -> str:
        """Return the stem of the job's model that contains a stem, or the stem itself if it is one of them."""
        return (*self.wholes(stem), stem)[0]

    def needed_for(self, wanted: Collection[str]) -> StemTree:
        """Return the tree with only the passes that these stems need."""
        passes = (step for step in self.passes if any(stem in wanted for stem in self.inside(step.stem)))
        return StemTree(self.stems, tuple(passes))

    def sources(self, chosen: Sequence[str], rest: bool) -> tuple[str, ...]:
        """Return the chosen stems and, if `rest`, those that make up the sum of all others."""
        return (*chosen, *(remainder(self.stems, chosen, self.parts) if rest else ()))

    def muted(self, chosen: Collection[str]) -> set[str]:
        """Return the chosen stems and residuals that a session mutes, so that nothing in it sounds twice.

        If all parts of a stem are chosen, the stem itself is muted; if only some are, those parts are.
        """
        names: set[str] = set()
        residuals = {step.stem: step.residual for step in self.passes}

        def visit(stem: str, silent: bool) -> None:
            apart = self._taken_apart(stem, chosen)
            if stem in chosen and (silent or apart):
                names.add(stem)
            parts_silent = silent or (stem in chosen and not apart)
            if parts_silent and stem in residuals:
                names.add(residuals[stem])
            for part in self.parts.get(stem, ()):
                visit(part, parts_silent)

        for stem in self.stems:
            visit(stem, False)
        return names

    def _taken_apart(self, stem: str, chosen: Collection[str]) -> bool:
        """Return whether the chosen stems include all parts of this one."""
        parts = self.parts.get(stem, ())
        return bool(parts) and all(part in chosen or self._taken_apart(part, chosen) for part in parts)

    def _within(self, stems: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for stem in stems for name in (stem, *self._within(self.parts.get(stem, ()))))


@dataclass(frozen=True)
class DryTrack:
    """A stem without effects, or the sum of several.

    Attributes:
        name: Name of the track.
        sources: The stems that sum to the track.
        delivered: Whether its file is delivered, rather than an intermediate file.
        folders: The stems that contain it, outermost first.
        muted: Whether a session mutes it.
    """

    name: str
    sources: tuple[str, ...]
    delivered: bool = True
    folders: tuple[str, ...] = ()
    muted: bool = False


def dry_tracks(tree: StemTree, chosen: tuple[str, ...] | None, with_residual: bool, every_stem: bool) -> list[DryTrack]:
    """List the dry stems in the model's order, each followed by its parts; then the rest; then the residuals."""
    names = tree.names
    chosen = names if chosen is None else chosen
    muted, tracks = tree.muted(chosen), []
    for stem in names:
        if stem in chosen or (every_stem and stem in tree.stems):
            apart = any(part in chosen for part in tree.inside(stem))
            folders = (*tree.wholes(stem), stem) if apart else tree.wholes(stem)
            tracks.append(DryTrack(stem, (stem,), stem in chosen, folders, stem in muted))
    if REST in chosen:
        named = [stem for stem in names if stem in chosen]
        name = f"no_{named[0]}" if len(named) == 1 else REST
        tracks.append(DryTrack(name, remainder(tree.stems, named, tree.parts)))
    if with_residual:
        for step in tree.passes:
            if set(step.parts) & set(chosen):
                folders = (*tree.wholes(step.stem), step.stem)
                tracks.append(DryTrack(step.residual, (step.residual,), True, folders, step.residual in muted))
        tracks.append(DryTrack(RESIDUAL, (RESIDUAL,)))
    return tracks


def resolve_passes(preset: Preset, stems: tuple[str, ...], settings: Settings) -> StemTree:
    """Build the tree of stems for a preset.

    Args:
        preset: The preset with its passes.
        stems: Stems of the job's model.
        settings: Where models are.

    Raises:
        PresetError: A pass separates or keeps a stem that does not exist, or makes a stem that exists already.
        UnknownModel, CheckpointError, ModelError: The model of a pass is not installed or not usable.
    """
    resolved_passes: list[ResolvedPass] = []
    models = [_look_up(step, preset, settings) for step in preset.passes]
    for index, (step, (sha256, outputs)) in enumerate(zip(preset.passes, models, strict=True)):
        tree = StemTree(stems, tuple(resolved_passes))
        if step.stem not in tree.names:
            later = zip(preset.passes[index + 1 :], models[index + 1 :], strict=True)
            made_later = any(step.stem in _parts(other, given, preset) for other, (_, given) in later)
            raise PresetError(_no_stem(step.stem, tree.names, made_later), preset.path)
        resolved = ResolvedPass(step.stem, step.model, sha256, outputs, _parts(step, outputs, preset))
        _check_names(resolved, {name.casefold() for name in tree.names}, preset)
        resolved_passes.append(resolved)
    return StemTree(stems, tuple(resolved_passes))


def _look_up(step: Pass, preset: Preset, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Return hash and stems of a pass's model."""
    try:
        paths = [registry.locate(name, settings) for name in registry.members(step.model)]
        stats = [path.stat() for path in paths if path]
        return _read(step.model, settings, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))
    except (UnknownModel, CheckpointError, ModelError) as error:
        raise type(error)(f"The preset {preset.name} separates {step.stem} with another model: {error}") from error


@lru_cache(maxsize=16)  # `versions` is part of the key, so a model is hashed again if its file has changed
def _read(model: str, settings: Settings, versions: tuple[tuple[int, int], ...]) -> tuple[str, tuple[str, ...]]:
    paths = [registry.resolve(name, settings) for name in registry.members(model)]
    return joined_hash([file_sha256(path) for path in paths]), tuple(kinds.read_config(paths[0]).stems)


def _parts(step: Pass, outputs: tuple[str, ...], preset: Preset) -> dict[str, tuple[str, ...]]:
    if not step.keep:
        return {output: (output,) for output in outputs}
    for stem, _ in step.keep:
        if stem not in outputs:
            closest = did_you_mean(stem, list(outputs)) or f"; it provides {', '.join(outputs)}."
            raise PresetError(
                f"the pass over {step.stem!r} keeps {stem!r}, which {Path(step.model).name} does not provide{closest}",
                preset.path,
            )
    kept = {stem for stem, _ in step.keep}
    parts: dict[str, tuple[str, ...]] = {name: (stem,) for stem, name in step.keep}
    others = tuple(output for output in outputs if output not in kept)
    return parts | {f"{step.stem} rest": others} if others else parts


def _no_stem(stem: str, known: Sequence[str], made_later: bool) -> str:
    if made_later:
        return f"the pass over {stem!r} comes before the pass that makes this stem; move it below that one."
    return f"there is a pass over {stem!r}, but the stems are {', '.join(known)}; choose another preset or model."


def _check_names(step: ResolvedPass, taken: Collection[str], preset: Preset) -> None:
    """Check the names of a pass's parts.

    Raises:
        PresetError: Two stems would have the same name, ignoring case.
    """
    clashing = [name for name in step.parts if name.casefold() in taken]
    if not clashing:
        return
    free = [name for name in step.parts if name not in clashing]
    renamed = f"{{{clashing[0]}: NEW NAME}}"
    hint = f"`keep: [{', '.join(free)}]`, or rename it with `keep: [{renamed}]`" if free else f"`keep: [{renamed}]`"
    raise PresetError(
        f"the pass over {step.stem!r} makes a second stem {clashing[0]!r}; choose and name its stems with {hint}.",
        preset.path,
    )


@dataclass(frozen=True)
class SeparatedSong:
    """The cached stems of a song, and the cached parts of its passes."""

    song: CachedStems
    passes: tuple[tuple[ResolvedPass, CachedStems], ...] = ()

    @property
    def about(self) -> Separation:
        return self.song.about

    @property
    def key(self) -> str:
        """Cache key of the song's own stems."""
        return self.song.folder.name

    @property
    def tree(self) -> StemTree:
        return StemTree(self.about.stems, tuple(step for step, _ in self.passes))

    def blocks(self, *, share: bool = False) -> Blocks:
        """Yield (stems by name, residual of the song) block by block, (channels, n) each.

        The stems include the residual of each pass, named `ResolvedPass.residual`.

        Args:
            share: Distribute the residuals among the stems, so that only rounding errors are left.
        """
        blocks = self.song.blocks(share=share)
        for step, cached in self.passes:
            blocks = _with_parts(blocks, step, cached, share)
        return blocks


def _with_parts(blocks: Blocks, step: ResolvedPass, cached: CachedStems, share: bool) -> Blocks:
    """Yield the same blocks with a pass's parts added to the stems. The parts sum to their stem in these blocks."""
    waiting = _Waiting()
    shares = _left_out(blocks, step, cached, waiting)
    for outputs, residual in share_residual(shares, cached.about.sample_rate) if share else shares:
        stems, left = waiting.take(residual.shape[-1])
        by_name = dict(zip(step.outputs, outputs, strict=True))
        parts = {name: total([by_name[output] for output in sources]) for name, sources in step.parts.items()}
        yield stems | parts | {step.residual: residual}, left


def _left_out(
    blocks: Blocks, step: ResolvedPass, cached: CachedStems, waiting: _Waiting
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pass's outputs, (outputs, channels, n), and their residual in the stem, (channels, n)."""
    with cached.opened(step.outputs) as read:
        for stems, left in blocks:
            waiting.add(stems, left)
            outputs = read(left.shape[-1])
            yield outputs, (stems[step.stem] - outputs.sum(0, dtype=np.float64)).astype(np.float32)


class _Waiting:
    """A buffer for blocks that are taken out in other lengths than they were added."""

    def __init__(self) -> None:
        self._stems: dict[str, np.ndarray] = {}
        self._left = np.zeros((0, 0), np.float32)

    def add(self, stems: dict[str, np.ndarray], left: np.ndarray) -> None:
        if self._left.shape[-1]:
            stems = {name: np.concatenate([self._stems[name], stem], axis=-1) for name, stem in stems.items()}
            left = np.concatenate([self._left, left], axis=-1)
        self._stems, self._left = stems, left

    def take(self, samples: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        taken = {name: stem[:, :samples] for name, stem in self._stems.items()}, self._left[:, :samples]
        self._stems = {name: stem[:, samples:] for name, stem in self._stems.items()}
        self._left = self._left[:, samples:]
        return taken


def total(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of arrays, as float32."""
    if len(parts) == 1:
        return parts[0]
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64), np.float32)


@dataclass(frozen=True)
class PassSource:
    """A cached stem as the source of a pass, with those attributes of an `AudioReader` that writers need.

    Attributes:
        outputs: Cached files that sum to the stem.
    """

    cached: CachedStems
    outputs: tuple[str, ...]

    @property
    def info(self) -> Any:
        return self.cached.about

    def blocks(self, samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        """Yield the stem in blocks of (channels, n)."""
        with self.cached.opened(self.outputs) as read:
            while (block := read(samples)).shape[-1]:
                yield total(list(block))
