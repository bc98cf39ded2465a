"""Renders an output as a stream: mixes its stems and runs the sum through its chain of effects.

Audio is float32 (channels, samples). Output and input have the same number of samples and are aligned: the latency of
effects is compensated. The output ends with the song; reverb and echo tails beyond it are cut, so that all files of a
song have the same length.

A dry run sends noise of a known level through a chain, to show the effect of the chain before the first song.

A chain with a plug-in runs in a separate process, so that a crash or hang of the plug-in does no harm. `vst3` is the
parent's side and starts the process as `python -m tsbs_daw.effects.chain SECONDS`. Everything in the process runs in
its main thread, because plug-ins expect that. The messages of `core.conversation` are:

parent to child                           child to parent
C  JSON: chain, sample_rate, channels     R  the chain is built
B  a block of float32                     A  the index of the effect in the chain that is called next
E  the last block of float32               B  a block of float32
                                          X  an error message
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Protocol

import numpy as np

from tsbs_daw.audio.dsp import Levels, Meter
from tsbs_daw.core.child import keep_stdout
from tsbs_daw.core.conversation import receive, send
from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.stages import (
    BLOCK_SAMPLES,
    Announce,
    PluginStage,
    SegmentedStage,
    Stage,
    build_instances,
)
from tsbs_daw.effects.table import EFFECTS, Effect, Output, effect_from_json

RENDER_BLOCK_SAMPLES = 65536


class Chain(Protocol):
    """Effects in series, in this process or in another one."""

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Add a block and return the samples that are ready; with `last`, all remaining ones."""

    def close(self) -> None:
        """Release the resources of the chain. May be called twice."""


class LocalChain:
    """A chain of pedalboard effects in this process.

    Raises:
        EffectError: An effect cannot be built.
    """

    def __init__(self, effects: tuple[Effect, ...], sample_rate: int, channels: int, announce=lambda effect: None):
        self.stages = build(effects, sample_rate, channels, announce)

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        return run(self.stages, block, last)

    def close(self) -> None:
        self.stages = []


def build(effects: Iterable[Effect], sample_rate: int, channels: int, announce: Announce) -> list[Stage]:
    """Build the stages of a chain.

    Raises:
        EffectError: An effect cannot be built. The message names it.
    """
    stages: list[Stage] = []
    for effect in effects:
        if effect.name == "Chain":
            stages += build(effect.children, sample_rate, channels, announce)
        elif effect.name == "Mix":
            branches = [build([child], sample_rate, channels, announce) for child in effect.children]
            stages.append(ParallelStage(branches, channels))
        elif effect.name in EFFECTS and EFFECTS[effect.name].segments:
            stages.append(SegmentedStage(effect, sample_rate, channels))
        else:
            announce(effect)
            instances = build_instances(effect, sample_rate, channels, BLOCK_SAMPLES)
            stages.append(PluginStage(effect, instances, sample_rate, channels, announce))
    return stages


class ParallelStage:
    """Several chains in parallel, fed with the same audio and summed, like pedalboard's `Mix`.

    It replaces pedalboard's own `Mix`, which aligns branches of different latency only if it gets a whole song at once.
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


def run(stages: list[Stage], block: np.ndarray, last: bool) -> np.ndarray:
    """Run a block through the stages in order. With `last`, each stage is drained into the next."""
    for stage in stages:
        block = stage.push(block)
        if last:
            block = np.concatenate([block, stage.finish()], axis=1)
    return block


class OutputRenderer:
    """Renders one output of one song. Context manager; the last block closes it, too.

    Args:
        output: The output.
        sample_rate: In Hz.
        channels: Number of channels.
        plugins: The `PluginHost` for a chain with a plug-in. Default: one with the program's settings.

    Raises:
        EffectError: The chain cannot be built. The message names the effect.
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
        """Add the next block of every stem and return the next block of the output, which may have another length.

        Args:
            stems: Blocks of equal length. Stems that the output does not use are ignored.
            last: Whether this is the last block, after which all samples are returned and the renderer is closed.

        Shape:
            stems: (channels, samples) each
            returns: (channels, n)

        Raises:
            EffectError: A stem is missing or not finite, or an effect fails.
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
        assert mixed is not None, "an output has a source"
        return mixed

    def _check(self, stem: np.ndarray, source: str) -> None:
        """Raise EffectError for samples that are not finite, because a filter never recovers from a NaN."""
        finite = np.isfinite(stem)
        if not finite.all():
            index = self._taken + int(np.argmin(finite.all(axis=0)))
            raise EffectError(
                f"The stem {source!r} is not finite at sample {index}, so the output {self.output.name!r} cannot be "
                "rendered; separate the song again."
            )


def render(output: Output, stems: Mapping[str, np.ndarray], sample_rate: int, plugins=None) -> np.ndarray:
    """Render a whole output in memory. The samples are the same as those of a stream.

    Shape:
        stems: (channels, samples) each
        returns: (channels, samples)

    Raises:
        EffectError: A stem is missing or not finite, or an effect fails.
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


# ---- dry runs --------------------------------------------------------------------------------------------------------

SAMPLE_RATE = 44100
DURATION_S = 4.0
LEVEL_DB = -18.0  # RMS of each stem; the nominal level of a mix


@dataclass(frozen=True)
class DryRun:
    """Levels of the plain sum of the stems (`before`) and of the output (`after`)."""

    before: Levels
    after: Levels

    @property
    def change_db(self) -> float | None:
        """Change of loudness in LU; None if the sum or the output is silent."""
        if self.before.loudness_lufs is None or self.after.loudness_lufs is None:
            return None
        return self.after.loudness_lufs - self.before.loudness_lufs


def dry_run(output: Output, plugins=None) -> DryRun:
    """Run an output on pink noise, with a different noise for each stem.

    Raises:
        EffectError: The chain cannot be built or fails.
    """
    rng = np.random.default_rng(0)
    stems = {source: pink_noise(rng) for source in output.sources}
    plain = Output(output.name, output.sources, output.gain_db)
    return DryRun(_levels(render(plain, stems, SAMPLE_RATE)), _levels(render(output, stems, SAMPLE_RATE, plugins)))


def pink_noise(rng: np.random.Generator) -> np.ndarray:
    """Make float32 pink noise, (2, samples), at LEVEL_DB: equal power in every octave above 20 Hz, like music."""
    samples = round(DURATION_S * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal((2, samples)))
    frequencies_hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum *= np.where(frequencies_hz < 20, 0, 1 / np.sqrt(np.maximum(frequencies_hz, 20)))
    noise = np.fft.irfft(spectrum, samples)
    return (noise * (10 ** (LEVEL_DB / 20) / np.sqrt(np.square(noise).mean()))).astype(np.float32)


def _levels(audio: np.ndarray) -> Levels:
    meter = Meter(SAMPLE_RATE, audio.shape[0])
    meter.add(audio)
    return meter.levels()


# ---- the process for chains with a plug-in ---------------------------------------------------------------------------


def main() -> None:
    import pedalboard  # noqa: F401 - slow to import; must not count towards the plug-in's time limit

    # A plug-in may write to stdout or read stdin, so the pipes are moved to other file descriptors.
    requests, answers = os.fdopen(os.dup(0), "rb"), keep_stdout()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    faulthandler.enable()
    code = 0
    try:
        serve(requests, answers, stall_s=float(sys.argv[1]))
    except EffectError as error:
        send(answers, b"X", str(error).encode())
    except (EOFError, BrokenPipeError):
        pass  # the parent has ended
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        # Exit without unloading the plug-ins, because many crash then. Everything has been sent by now.
        sys.stderr.flush()
        os._exit(code)


def serve(requests: IO[bytes], answers: IO[bytes], stall_s: float) -> None:
    """Build the chain and run it to the end.

    Args:
        requests: Pipe from the parent.
        answers: Pipe to the parent.
        stall_s: Time limit of one call, after which this process exits, even if the parent has ended.

    Raises:
        EffectError: The chain cannot be built or fails.
        EOFError: The parent has ended.
    """
    send(answers, b"R")
    _, payload = receive(requests)
    request = json.loads(payload)
    effects = tuple(effect_from_json(effect) for effect in request["chain"])
    numbers = {id(inner): n for n, inner in enumerate(inner for effect in effects for inner in effect.walk())}
    channels = request["channels"]

    def announce(effect: Effect) -> None:
        send(answers, b"A", str(numbers[id(effect)]).encode())

    faulthandler.dump_traceback_later(stall_s, exit=True)
    chain = LocalChain(effects, request["sample_rate"], channels, announce)
    send(answers, b"R")
    while True:
        faulthandler.cancel_dump_traceback_later()
        kind, payload = receive(requests)
        faulthandler.dump_traceback_later(stall_s, exit=True)
        block = np.frombuffer(payload, np.float32).reshape(channels, -1)
        done = chain.process(block, last=kind == b"E")
        send(answers, b"B", np.ascontiguousarray(done, np.float32).tobytes())
        if kind == b"E":
            return


if __name__ == "__main__":
    main()
