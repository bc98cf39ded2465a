"""Effects as stages of a stream: samples go in block by block, exactly as many come out, and none is late.

Audio is float32 (channels, samples). Two facts of pedalboard shape this file, both measured:

- An effect with a delay of its own (a limiter's lookahead, a codec's frames) returns fewer samples at first, and the
  rest only when more is fed. A stage counts what went in, and at the end feeds silence until as much has come out.
  The end of a song is therefore the end of the output: an echo or a reverb tail beyond it is cut.
- A call with another block size may prepare an effect anew and give other rounding. A stage feeds blocks of one size
  only, so the result does not depend on how the caller cuts the song.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.effect_errors import Instances, build_instances
from tsbs_daw.effects.output import Effect
from tsbs_daw.effects.segments import SegmentedStage
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
