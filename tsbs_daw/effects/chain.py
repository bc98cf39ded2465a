"""Make an output: mix its stems and send the sum through its chain, as a stream.

Audio is float32 (channels, samples). Exactly as many samples come out as went in, and nothing is late: delays that
effects have of their own are made up for. The output ends with the song; a reverb's or an echo's tail beyond it is
cut, so that every file of a set has the same length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.instances import Instances, SegmentedStage, build_instances
from tsbs_daw.effects.output import Effect, Output
from tsbs_daw.effects.table import EFFECTS

BLOCK_SAMPLES = 8192
LONGEST_DELAY_S = 60.0  # an effect that still owes samples after so much silence will never give them
RUNAWAY_PEAK = 1000.0  # +60 dBFS: no chain that is meant gets there; a filter that blows up does

Announce = Callable[[Effect], None]


class Stage(Protocol):
    """Something that audio streams through."""

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take in a block of any length; give what is ready, perhaps nothing."""

    def finish(self) -> np.ndarray:
        """Give the rest: after it, as many samples have come out as went in."""


class PluginStage:
    """One effect of pedalboard, or one plug-in, fed in blocks of one size.

    Args: announce: called with the effect before each call into it, so that a crash can be told from another's
    """

    def __init__(self, effect: Effect, instances: Instances, sample_rate: int, channels: int, announce: Announce):
        self.effect, self.instances, self.sample_rate = effect, instances, sample_rate
        self.announce = announce
        self._waiting = np.zeros((channels, 0), np.float32)
        self._taken = self._given = 0

    def push(self, block: np.ndarray) -> np.ndarray:
        self._taken += block.shape[1]
        self._waiting = np.concatenate([self._waiting, block], axis=1)
        whole = self._waiting.shape[1] // BLOCK_SAMPLES * BLOCK_SAMPLES
        ready, self._waiting = self._waiting[:, :whole], self._waiting[:, whole:]
        return self._run(ready)

    def finish(self) -> np.ndarray:
        parts = []
        for _ in range(2 + int(LONGEST_DELAY_S * self.sample_rate / BLOCK_SAMPLES)):
            missing = self._taken - self._given
            if missing <= 0:
                break
            padding = BLOCK_SAMPLES - self._waiting.shape[1]
            padded = np.pad(self._waiting, ((0, 0), (0, padding)))
            self._waiting = self._waiting[:, :0]
            parts.append(self._run(padded)[:, :missing])
        else:
            raise EffectError(f"The effect {self.effect} keeps samples back and never gives them; remove it.")
        return np.concatenate([self._waiting[:, :0], *parts], axis=1)

    def _run(self, ready: np.ndarray) -> np.ndarray:
        """Process whole blocks."""
        parts = [self._waiting[:, :0]]
        for start in range(0, ready.shape[1], BLOCK_SAMPLES):
            self.announce(self.effect)
            block = np.ascontiguousarray(ready[:, start : start + BLOCK_SAMPLES])
            parts.append(checked(self.instances.process(block, self.sample_rate, BLOCK_SAMPLES), self.effect))
        given = np.concatenate(parts, axis=1)
        self._given += given.shape[1]
        return given


class ParallelStage:
    """Several chains side by side, fed with the same audio and summed, as pedalboard's `Mix` does.

    Not pedalboard's own, because that one aligns branches of different delay only when it is given a whole song.
    """

    def __init__(self, branches: list[list[Stage]], channels: int):
        self.branches = branches
        self._ready = [np.zeros((channels, 0), np.float32) for _ in branches]

    def push(self, block: np.ndarray) -> np.ndarray:
        return self._sum(block, last=False)

    def finish(self) -> np.ndarray:
        return self._sum(self._ready[0][:, :0], last=True)

    def _sum(self, block: np.ndarray, last: bool) -> np.ndarray:
        given = [run(branch, block, last) for branch in self.branches]
        self._ready = [np.concatenate(pair, axis=1) for pair in zip(self._ready, given, strict=True)]
        samples = min(ready.shape[1] for ready in self._ready)
        total = sum(ready[:, :samples] for ready in self._ready)
        self._ready = [ready[:, samples:] for ready in self._ready]
        return np.asarray(total, np.float32)


def build(effects: Iterable[Effect], sample_rate: int, channels: int, announce: Announce) -> list[Stage]:
    """The stages of a chain.

    Raises: EffectError: an effect that cannot be built, by name
    """
    stages: list[Stage] = []
    for effect in effects:
        if effect.name == "Chain":
            stages += build(effect.children, sample_rate, channels, announce)
        elif effect.name == "Mix":
            branches = [build([child], sample_rate, channels, announce) for child in effect.children]
            stages.append(ParallelStage(branches, channels))
        elif effect.name in EFFECTS and EFFECTS[effect.name].segments:
            stages.append(SegmentedStage(effect, sample_rate, channels, checked))
        else:
            announce(effect)
            instances = build_instances(effect, sample_rate, channels, BLOCK_SAMPLES)
            stages.append(PluginStage(effect, instances, sample_rate, channels, announce))
    return stages


def run(stages: list[Stage], block: np.ndarray, last: bool) -> np.ndarray:
    """Send a block through stages in order; `last` empties each before the next."""
    for stage in stages:
        block = stage.push(block)
        if last:
            block = np.concatenate([block, stage.finish()], axis=1)
    return block


def checked(block: np.ndarray, effect: Effect) -> np.ndarray:
    """The block, if it is sound. One NaN inside a reverb or a filter would silence the rest of the song.

    Raises: EffectError: not finite, or a level that has run away
    """
    peak = float(np.abs(block).max()) if block.size else 0.0
    if not np.isfinite(peak):
        raise EffectError(f"The effect {effect} gave samples that are not numbers; change its parameters or remove it.")
    if peak > RUNAWAY_PEAK:
        raise EffectError(f"The level ran away in the effect {effect}; change its parameters or remove it.")
    return block


log = logging.getLogger(__name__)

RENDER_BLOCK_SAMPLES = 65536


class Chain(Protocol):
    """Effects in order, here or in another process."""

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Take in a block, give what is ready; with `last`, everything."""

    def close(self) -> None:
        """Free what the chain holds. May be called twice."""


class LocalChain:
    """Effects of pedalboard, in this process.

    Raises: EffectError: an effect that cannot be built
    """

    def __init__(self, effects: tuple[Effect, ...], sample_rate: int, channels: int, announce=lambda effect: None):
        self.stages = build(effects, sample_rate, channels, announce)

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        return run(self.stages, block, last)

    def close(self) -> None:
        self.stages = []


class OutputRenderer:
    """One output of one song. A context manager; closed by its last block, too.

    Args:   plugins: how to run a chain with a plug-in; None: as the program's settings say
    Raises: EffectError: the chain cannot be built; one sentence with the effect's name
    """

    def __init__(self, output: Output, sample_rate: int, channels: int, plugins=None):
        self.output, self.channels = output, channels
        self._taken = self._given = 0
        self._chain = self._open(sample_rate, plugins)

    def _open(self, sample_rate: int, plugins) -> Chain:
        if not self.output.uses_plugin:
            return LocalChain(self.output.chain, sample_rate, self.channels)
        from tsbs_daw.effects.vst3 import PluginHost

        return (plugins or PluginHost()).open(self.output, sample_rate, self.channels)

    def __enter__(self) -> OutputRenderer:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def close(self) -> None:
        self._chain.close()

    def process(self, stems: Mapping[str, np.ndarray], last: bool = False) -> np.ndarray:
        """Take in the next block of every stem, give the next block of the output, perhaps of another length.

        Args:    stems: (channels, samples) each, of one length; those that the output does not use are ignored
                 last: no more will come; the rest is given and the renderer is closed
        Returns: (channels, samples)
        Raises:  EffectError: a stem that is missing or not finite, an effect that fails
        """
        try:
            block = self._mix(stems)
            done = self._chain.process(block, last)
        except BaseException:
            self.close()
            raise
        self._taken += block.shape[1]
        self._given += done.shape[1]
        if last:
            self.close()
            if self._given != self._taken:
                raise EffectError(
                    f"The output {self.output.name!r} has {self._given} samples instead of {self._taken}; "
                    "remove the last effect added to its chain."
                )
        return done

    def _mix(self, stems: Mapping[str, np.ndarray]) -> np.ndarray:
        mixed: np.ndarray | None = None
        for source, gain_db in zip(self.output.sources, self.output.gain_db, strict=True):
            if source not in stems:
                raise EffectError(
                    f"The output {self.output.name!r} needs the stem {source!r}, which was not separated; "
                    "choose another preset or model."
                )
            stem = np.asarray(stems[source], np.float32)
            self._check(stem, source)
            scaled = stem * np.float32(10 ** (gain_db / 20))
            mixed = scaled if mixed is None else mixed + scaled
        return mixed

    def _check(self, stem: np.ndarray, source: str) -> None:
        """One NaN that enters a filter never leaves it."""
        finite = np.isfinite(stem)
        if not finite.all():
            index = self._taken + int(np.argmin(finite.all(axis=0)))
            raise EffectError(
                f"The stem {source!r} is not a number at sample {index}, so the output {self.output.name!r} cannot be "
                "made; separate the song again."
            )


def render(output: Output, stems: Mapping[str, np.ndarray], sample_rate: int, plugins=None) -> np.ndarray:
    """A whole output in memory: the same samples as a stream gives.

    Args:    stems: (channels, samples) each
    Returns: (channels, samples), as long as the stems
    Raises:  EffectError
    """
    first = next(iter(stems.values()))
    channels, samples = first.shape
    parts = []
    with OutputRenderer(output, sample_rate, channels, plugins) as renderer:
        for start in range(0, max(samples, 1), RENDER_BLOCK_SAMPLES):
            stop = start + RENDER_BLOCK_SAMPLES
            blocks = {name: stem[:, start:stop] for name, stem in stems.items()}
            parts.append(renderer.process(blocks, last=stop >= samples))
    return np.concatenate(parts, axis=1)
