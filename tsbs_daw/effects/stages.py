"""The stages of a chain: each runs one effect on a stream.

Audio is float32 (channels, samples). Output and input of a stage have the same number of samples and are aligned. Two
properties of pedalboard, both measured, determine the design:

- An effect with latency (a limiter's lookahead, a codec's frames) returns fewer samples at first, and the rest only
  after more input. A stage counts its input, and at the end feeds silence until it has returned as many samples.
- A call with a different block size may reset an effect and change the rounding. A stage feeds blocks of one size only,
  so the result does not depend on how the caller cuts the song into blocks.

Some effects only work on a whole song: pedalboard's pitch shifter and GSM codec clear part of their state in every
call, which breaks a stream (measured: the pitch shifter returns silence, the codec loses 20 ms per call).
`SegmentedStage` cuts the song into long overlapping segments, renders each in one call, and joins neighbours by a short
crossfade where the overlap is quietest. Cut positions are counted from the start of the song, so the result does not
depend on the caller's blocks.

    context | segment k                    | context
                                   context | segment k + 1                    | context
                                   ^^^^^^^^^^^^^^^^^ the crossfade is in the middle half of this overlap

Some effects support at most two channels (measured: a reverb leaves three channels unchanged, a convolution mixes them
up), and which channel layouts a plug-in supports depends on the plug-in. More channels are split among several
instances, in pairs or one by one. A single channel (a mono song) is sent to both inputs of a stereo-only plug-in, and
the mean of its outputs is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tsbs_daw.core.errors import EffectError, did_you_mean, shown
from tsbs_daw.core.files import open_regular
from tsbs_daw.effects.table import EFFECTS, PLUGIN, Effect, EffectKind, Value

BLOCK_SAMPLES = 8192
LONGEST_DELAY_S = 60.0  # an effect that still holds samples after this much silence never returns them
RUNAWAY_PEAK = 1000.0  # +60 dBFS: only an unstable filter gets there
NYQUIST_SHARE = 0.98  # of half the sample rate; filters with a higher frequency become unstable
SEGMENT_S = 20.0
CONTEXT_S = 0.5
FADE_S = 0.04

Announce = Callable[[Effect], None]


class Stage(Protocol):
    """A part of a chain that audio streams through."""

    def push(self, block: np.ndarray) -> np.ndarray:
        """Add a block of any length and return what is ready, possibly nothing."""

    def finish(self) -> np.ndarray:
        """Return the remaining samples, so that output and input have the same length."""


class PluginStage:
    """One pedalboard effect or plug-in, fed in blocks of one size.

    Args:
        effect: The effect.
        instances: Instances of the effect, one for each group of channels.
        sample_rate: In Hz.
        channels: Number of channels.
        announce: Called with the effect before each call into it, so that a crash can be attributed.
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
            raise EffectError(f"The effect {self.effect} holds back samples and never returns them; remove it.")
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


class SegmentedStage:
    """An effect that is rendered in long segments.

    Args:
        effect: The effect.
        sample_rate: In Hz.
        channels: Number of channels.
    """

    def __init__(self, effect: Effect, sample_rate: int, channels: int):
        self.effect, self.sample_rate = effect, sample_rate
        self.instances = build_instances(effect, sample_rate, channels, BLOCK_SAMPLES)
        self.segment, self.context = round(SEGMENT_S * sample_rate), round(CONTEXT_S * sample_rate)
        self.fade = round(FADE_S * sample_rate)
        # Input, starting one context before the next segment. The context of the first segment is silence.
        self._waiting = np.zeros((channels, self.context), np.float32)
        self._overlap: np.ndarray | None = None  # the previous rendering of the overlap with the next segment

    def push(self, block: np.ndarray) -> np.ndarray:
        parts = [block[:, :0]]
        self._waiting = np.concatenate([self._waiting, block], axis=1)
        while self._waiting.shape[1] >= self.segment + 2 * self.context:
            rendered = self._render(self._waiting[:, : self.segment + 2 * self.context])
            parts.append(self._joined(rendered)[:, : -2 * self.context])
            self._overlap = rendered[:, self.segment :]
            self._waiting = self._waiting[:, self.segment :]
        return np.concatenate(parts, axis=1)

    def finish(self) -> np.ndarray:
        # A segment is rendered once its right context is complete, so at least one context is waiting here.
        rest = self._joined(self._render(self._waiting))
        self._waiting, self._overlap = self._waiting[:, :0], None
        return rest

    def _joined(self, rendered: np.ndarray) -> np.ndarray:
        """Return the rendering from the current position on, with its left overlap joined to the previous right one."""
        if self._overlap is None:
            return rendered[:, self.context :]
        head = rendered[:, : 2 * self.context]
        return np.concatenate([join(self._overlap, head, self.fade), rendered[:, 2 * self.context :]], axis=1)

    def _render(self, block: np.ndarray) -> np.ndarray:
        """Process one block in one call. The length does not change."""
        done = self.instances.process(np.ascontiguousarray(block), self.sample_rate, BLOCK_SAMPLES, reset=True)
        return checked(done, self.effect)


def join(before: np.ndarray, after: np.ndarray, fade: int) -> np.ndarray:
    """Crossfade between two renderings of the same span, where both are quietest.

    The gains preserve power: a and 1 - a are divided by sqrt(a^2 + (1 - a)^2 + 2 r a (1 - a)), where r is the
    correlation of the two renderings. Equal renderings (r = 1) are not changed.

    Shape:
        before, after: (channels, samples)
        returns: (channels, samples)
    """
    samples = before.shape[1]
    energy = (np.square(before, dtype=np.float64) + np.square(after, dtype=np.float64)).sum(axis=0)
    first, last = samples // 4, max(3 * samples // 4 - fade, samples // 4 + 1)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    start = first + int(np.argmin(sums[first + fade : last + fade] - sums[first:last]))
    here, there = before[:, start : start + fade], after[:, start : start + fade]
    power = np.sqrt(float(np.vdot(here, here)) * float(np.vdot(there, there)))
    likeness = max(float(np.vdot(here, there)) / power, 0.0) if power > 0 else 1.0
    rising = np.arange(1, fade + 1) / (fade + 1)
    falling = 1 - rising
    gain = 1 / np.sqrt(rising**2 + falling**2 + 2 * likeness * rising * falling)
    crossfade = (here * falling + there * rising) * gain
    return np.concatenate([before[:, :start], crossfade, after[:, start + fade :]], axis=1, dtype=np.float32)


def checked(block: np.ndarray, effect: Effect) -> np.ndarray:
    """Return the block if its samples are plausible. One NaN in a reverb or filter would silence the rest of the song.

    Raises:
        EffectError: Samples are not finite, or the level is excessive.
    """
    peak = float(np.abs(block).max()) if block.size else 0.0
    if not np.isfinite(peak):
        raise EffectError(f"The effect {effect} returned NaN or infinity; change its parameters or remove it.")
    if peak > RUNAWAY_PEAK:
        raise EffectError(f"The effect {effect} became unstable (over +60 dBFS); change its parameters or remove it.")
    return block


# ---- instances of pedalboard's effects -------------------------------------------------------------------------------


@dataclass
class Group:
    """An instance of an effect.

    Attributes:
        channels: Channels that it processes.
        instance: pedalboard's object.
        doubled: Whether a single channel is sent to both inputs of a stereo-only plug-in.
    """

    channels: slice
    instance: Any
    doubled: bool = False


class Instances:
    """The instances of one effect, which together process all channels."""

    def __init__(self, effect: Effect, groups: list[Group], channels: int):
        self.effect, self.groups, self.channels = effect, groups, channels

    def process(self, block: np.ndarray, sample_rate: int, block_samples: int, reset: bool = False) -> np.ndarray:
        """Process a block.

        Raises:
            EffectError: The effect failed. The message has the library's error and the effect's name.
        """
        parts = []
        for group in self.groups:
            part = block[group.channels]
            part = np.repeat(part, 2, axis=0) if group.doubled else part
            with effect_errors(self.effect):
                done = group.instance.process(part, sample_rate, buffer_size=block_samples, reset=reset)
            parts.append(done.mean(axis=0, keepdims=True) if group.doubled else done)
        if len({part.shape[1] for part in parts}) != 1:
            raise EffectError(f"The effect {self.effect} delays one channel more than another; remove it.")
        return np.concatenate(parts, axis=0, dtype=np.float32)


@dataclass
class PitchShifter:
    """`PitchShift` with pedalboard's `time_stretch`.

    pedalboard's `PitchShift` deviates by up to half a semitone on a steady note (measured; a long tone is split into
    several adjacent tones). `time_stretch` is accurate to a cent, but must be called with the whole signal.
    """

    semitones: float = 0.0

    def process(self, audio: np.ndarray, sample_rate: int, buffer_size: int, reset: bool) -> np.ndarray:
        if self.semitones == 0 or not audio.any():
            return audio
        from pedalboard import time_stretch

        return time_stretch(audio, sample_rate, pitch_shift_in_semitones=self.semitones, preserve_formants=False)


@contextmanager
def effect_errors(effect: Effect) -> Iterator[None]:
    """Convert any exception of a native library to an EffectError that names the effect."""
    try:
        yield
    except EffectError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise EffectError(f"The effect {effect} failed: {reason}; change or remove it in the preset.") from error


def build_instances(effect: Effect, sample_rate: int, channels: int, block_samples: int) -> Instances:
    """Build the instances of an effect.

    Raises:
        EffectError: The effect is unknown, a parameter is invalid, or pedalboard refuses it.
    """
    if effect.name == PLUGIN:
        return _plugin_instances(effect, sample_rate, channels, block_samples)
    kind = EFFECTS.get(effect.name)
    if kind is None:
        raise EffectError(f"There is no effect {effect.name!r}; correct its name.")
    arguments = _arguments(effect, kind, sample_rate)
    size = min(channels, kind.max_channels or channels)
    with effect_errors(effect):
        import pedalboard

        make = PitchShifter if effect.name == "PitchShift" else getattr(pedalboard, effect.name)
        return Instances(effect, [Group(part, make(**arguments)) for part in _slices(channels, size)], channels)


def _slices(channels: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def _arguments(effect: Effect, kind: EffectKind, sample_rate: int) -> dict[str, Any]:
    """Return the arguments for pedalboard. They are checked again, because an effect may not be from a preset file."""
    arguments: dict[str, Any] = {}
    for name, value in effect.parameters.items():
        parameter = kind.parameter(name)
        problem = parameter.problem(value) if parameter else "is unknown"
        if parameter is None or problem:
            raise EffectError(f"The effect {effect.name} is invalid: {name} {problem}; change it.")
        if parameter.frequency:
            value = min(float(value), NYQUIST_SHARE * sample_rate / 2)
        arguments[name] = _choice(effect.name, value) if parameter.kind == "choice" else value
        if parameter.kind == "file":
            _check_response(effect, str(value))
    return arguments


def _choice(effect_name: str, value: Value) -> Any:
    import pedalboard

    names = pedalboard.LadderFilter.Mode if effect_name == "LadderFilter" else pedalboard.Resample.Quality
    return getattr(names, str(value))


def _check_response(effect: Effect, path: str) -> None:
    """Check an impulse response, because pedalboard silently treats a file that is not audio as an empty response."""
    import soundfile

    try:
        with open_regular(Path(path)) as opened, soundfile.SoundFile(opened) as file:
            usable = file.frames > 0 and file.channels <= 2
    except (soundfile.SoundFileError, OSError) as error:
        raise EffectError(f"Cannot read the impulse response {shown(path)}; check the file.") from error
    if not usable:
        raise EffectError(f"The impulse response {shown(path)} must be mono or stereo, and not empty; choose another.")


def _plugin_instances(effect: Effect, sample_rate: int, channels: int, block_samples: int) -> Instances:
    """Load the instances of a plug-in.

    A plug-in reports the channel counts that it supports only by refusing others, so all channels are tried first, then
    pairs, then single channels.
    """
    first = _load_plugin(effect)
    for width in dict.fromkeys((channels, 2, 1)):
        if _accepts(effect, first, width, sample_rate, block_samples):
            parts = _slices(channels, width)
            loaded = [first, *(_load_plugin(effect) for _ in parts[1:])]
            doubled = [part.stop - part.start < width for part in parts]
            return Instances(effect, [Group(*group) for group in zip(parts, loaded, doubled, strict=True)], channels)
    raise EffectError(f"The plug-in {effect} supports neither {channels} channels nor two nor one; choose another.")


def _accepts(effect: Effect, plugin: Any, width: int, sample_rate: int, block_samples: int) -> bool:
    try:
        plugin.process(np.zeros((width, block_samples), np.float32), sample_rate, buffer_size=block_samples)
    except ValueError as error:
        if "channel" not in str(error):
            with effect_errors(effect):
                raise
        return False
    finally:
        plugin.reset()
    return True


def _load_plugin(effect: Effect) -> Any:
    with effect_errors(effect):
        import pedalboard

        plugin: Any = pedalboard.VST3Plugin(effect.path, plugin_name=effect.plugin or None)
        if not plugin.is_effect:
            raise EffectError(f"The plug-in {effect} is an instrument and has no audio input; choose an effect.")
        names = list(plugin.parameters)
        for name, value in effect.parameters.items():
            if name not in names:
                closest = did_you_mean(name, names) or f"; it has {', '.join(names[:20])}"
                raise EffectError(f"The plug-in {effect} has no parameter {name!r}{closest}")
            setattr(plugin, name, value)
        plugin.reset()  # without it, pedalboard does not compensate the plug-in's latency in a stream (measured)
        return plugin
