"""Make an output: mix its stems and send the sum through its chain, as a stream.

Audio is float32 (channels, samples). Exactly as many samples come out as went in, and nothing is late: delays that
effects have of their own are made up for. The output ends with the song; a reverb's or an echo's tail beyond it is
cut, so that every file of a set has the same length.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.output import Effect, Output
from tsbs_daw.effects.stages import build, run

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
