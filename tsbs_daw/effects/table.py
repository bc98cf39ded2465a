"""The outputs of a preset, each a mix of stems with a chain of effects, and the effects that a chain may use.

The table has pedalboard's names and parameters, with the range in which each works. It is written out rather than
queried from pedalboard, so that reading a preset loads no audio library. A test compares it with the installed
pedalboard and runs each effect at both ends of each range. Where pedalboard accepts values that do not work (a chorus
with a feedback of 2 becomes NaN, a filter above half the sample rate infinite), the range here is narrower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tsbs_daw.core.errors import did_you_mean

Value = float | bool | str
Kind = Literal["number", "switch", "choice", "file"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an effect.

    Attributes:
        name: pedalboard's name, which includes the unit.
        kind: Type of the value.
        default: pedalboard's default. If it is None, the preset must set the parameter.
        low: Lowest allowed number.
        high: Highest allowed number.
        choices: Allowed values of a choice.
        frequency: Whether it is a frequency of the signal, which is limited to just below half the sample rate when
            the effect is built.
    """

    name: str
    kind: Kind = "number"
    default: Value | None = None
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    frequency: bool = False

    def allowed(self) -> str:
        """Describe the allowed values in a message."""
        if self.kind == "number":
            return f"{self.low:g} to {self.high:g}"
        return {"switch": "true or false", "file": "a path"}.get(self.kind, ", ".join(self.choices))

    def facts(self) -> dict[str, object]:
        """Return the kind, default and allowed values as JSON values."""
        facts: dict[str, object] = {"kind": self.kind, "default": self.default}
        if self.kind == "number":
            facts |= {"low": self.low, "high": self.high}
        return facts | ({"choices": list(self.choices)} if self.choices else {})

    def problem(self, value: object) -> str | None:
        """Return why `value` is invalid, as the predicate of a sentence about this parameter; None if it is valid."""
        if self.kind == "number":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return "must be a number"
            if not math.isfinite(value):
                return "must be a finite number"
            if not self.low <= value <= self.high:
                return f"must be from {self.low:g} to {self.high:g}, not {value:g}"
            return None
        if self.kind == "switch":
            return None if isinstance(value, bool) else "must be true or false"
        if not isinstance(value, str) or not value:
            return "must be a path" if self.kind == "file" else f"must be one of {', '.join(self.choices)}"
        if self.kind == "choice" and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value!r}{did_you_mean(value, self.choices)}"
        return None


@dataclass(frozen=True)
class EffectKind:
    """What the renderer must know about an effect.

    Attributes:
        name: pedalboard's name.
        parameters: Its parameters.
        max_channels: Highest number of channels that pedalboard processes correctly; more are split among several
            instances. None if there is no limit.
        segments: Whether audio must be processed in one call, because pedalboard clears the effect's state between
            calls. A song is then rendered in long overlapping segments.
        aligned: Whether the output is aligned with the input; False for effects that delay on purpose.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    max_channels: int | None = None
    segments: bool = False
    aligned: bool = True

    def parameter(self, name: str) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


RESAMPLE_QUALITIES = (
    "ZeroOrderHold", "Linear", "Lagrange", "CatmullRom", "WindowedSinc", "WindowedSinc256", "WindowedSinc128",
    "WindowedSinc64", "WindowedSinc32", "WindowedSinc16", "WindowedSinc8",
)  # fmt: skip
LADDER_MODES = ("LPF12", "HPF12", "BPF12", "LPF24", "HPF24", "BPF24")
HIGHEST_HZ = 384_000.0


def _number(name: str, default: float, low: float, high: float) -> Parameter:
    return Parameter(name, "number", default, low, high)


def _hz(name: str, default: float, low: float = 1.0) -> Parameter:
    return Parameter(name, "number", default, low, HIGHEST_HZ / 2, frequency=True)


def _level(name: str, default: float) -> Parameter:
    return Parameter(name, "number", default, 0.0, 1.0)


def _choice(name: str, default: str, choices: tuple[str, ...]) -> Parameter:
    return Parameter(name, "choice", default, choices=choices)


def _shelf_or_peak(name: str, highest_q: float) -> EffectKind:
    return EffectKind(
        name,
        (
            _hz("cutoff_frequency_hz", 440.0),
            _number("gain_db", 0.0, -60.0, 36.0),
            _number("q", 0.7071067690849304, 0.05, highest_q),
        ),
    )


def _dynamics(name: str, threshold_db: float, ratio: float) -> EffectKind:
    return EffectKind(
        name,
        (
            _number("threshold_db", threshold_db, -120.0, 0.0),
            _number("ratio", ratio, 1.0, 1000.0),
            _number("attack_ms", 1.0, 0.0, 1000.0),
            _number("release_ms", 100.0, 0.0, 10_000.0),
        ),
    )


_KINDS = (
    EffectKind("Bitcrush", (_number("bit_depth", 8.0, 1.0, 32.0),)),
    EffectKind(
        "BrickwallLimiter",
        (
            _number("ceiling_db", -1.0, -60.0, 0.0),
            _number("release_ms", 100.0, 1.0, 10_000.0),
            _number("lookahead_ms", 5.0, 0.1, 100.0),
            Parameter("true_peak", "switch", False),
        ),
    ),
    EffectKind(
        "Chorus",
        (
            _number("rate_hz", 1.0, 0.0, 100.0),
            _level("depth", 0.25),
            _number("centre_delay_ms", 7.0, 1.0, 100.0),
            _number("feedback", 0.0, -0.95, 0.95),
            _level("mix", 0.5),
        ),
        aligned=False,
    ),
    EffectKind("Clipping", (_number("threshold_db", -6.0, -60.0, 0.0),)),
    _dynamics("Compressor", 0.0, 1.0),
    EffectKind(
        "Convolution",
        (Parameter("impulse_response_filename", "file"), _level("mix", 1.0)),
        max_channels=2,
        aligned=False,
    ),
    EffectKind(
        "Delay",
        (_number("delay_seconds", 0.5, 0.0, 30.0), _number("feedback", 0.0, 0.0, 0.99), _level("mix", 0.5)),
        aligned=False,
    ),
    EffectKind("Distortion", (_number("drive_db", 25.0, -60.0, 60.0),)),
    EffectKind("Gain", (_number("gain_db", 1.0, -100.0, 36.0),)),
    EffectKind(
        "GSMFullRateCompressor",
        (_choice("quality", "WindowedSinc8", RESAMPLE_QUALITIES),),
        max_channels=2,
        segments=True,
    ),
    _shelf_or_peak("HighShelfFilter", 4.0),
    EffectKind("HighpassFilter", (_hz("cutoff_frequency_hz", 50.0),)),
    EffectKind("Invert"),
    EffectKind(
        "LadderFilter",
        (
            _choice("mode", "LPF12", LADDER_MODES),
            _hz("cutoff_hz", 200.0),
            _level("resonance", 0.0),
            _number("drive", 1.0, 1.0, 100.0),
        ),
    ),
    EffectKind("Limiter", (_number("threshold_db", -10.0, -60.0, 0.0), _number("release_ms", 100.0, 0.0, 10_000.0))),
    _shelf_or_peak("LowShelfFilter", 4.0),
    EffectKind("LowpassFilter", (_hz("cutoff_frequency_hz", 50.0),)),
    EffectKind("MP3Compressor", (_number("vbr_quality", 2.0, 0.0, 9.9),), max_channels=2),
    _dynamics("NoiseGate", -100.0, 10.0),
    _shelf_or_peak("PeakFilter", 100.0),
    EffectKind(
        "Phaser",
        (
            _number("rate_hz", 1.0, 0.0, 100.0),
            _level("depth", 0.5),
            _hz("centre_frequency_hz", 1300.0, 20.0),
            _number("feedback", 0.0, -0.95, 0.95),
            _level("mix", 0.5),
        ),
    ),
    EffectKind("PitchShift", (_number("semitones", 0.0, -24.0, 24.0),), segments=True),
    EffectKind(
        "Resample",
        (
            _number("target_sample_rate", 8000.0, 100.0, HIGHEST_HZ),
            _choice("quality", "WindowedSinc32", RESAMPLE_QUALITIES),
        ),
    ),
    EffectKind(
        "Reverb",
        (
            _level("room_size", 0.5),
            _level("damping", 0.5),
            _level("wet_level", 0.33),
            _level("dry_level", 0.4),
            _level("width", 1.0),
            _level("freeze_mode", 0.0),
        ),
        max_channels=2,
        aligned=False,
    ),
)

EFFECTS: dict[str, EffectKind] = {kind.name: kind for kind in _KINDS}

# Parsed separately: containers hold lists of effects, and a plug-in is given by its path.
CONTAINERS = ("Chain", "Mix")
PLUGIN = "VST3"

EFFECT_NAMES = (*EFFECTS, *CONTAINERS, PLUGIN)


@dataclass(frozen=True)
class Effect:
    """One effect of a chain.

    Attributes:
        name: pedalboard's name, `Chain`, `Mix` or `VST3`.
        parameters: Values by pedalboard's names; for `VST3`, by the plug-in's own names.
        children: Effects inside a `Chain` (in series) or a `Mix` (in parallel, summed).
        path: For `VST3`, an absolute path, or a file name to search for in the system's plug-in folders.
        plugin: For `VST3`, the name of the plug-in in a file that contains several; "" if it contains one.
    """

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    children: tuple[Effect, ...] = ()
    path: str = ""
    plugin: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path})" if self.name == PLUGIN else self.name

    def walk(self) -> Iterator[Effect]:
        """Yield this effect and all effects inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Output:
    """One delivered file.

    Attributes:
        name: Name of the output.
        sources: Names of the stems to sum.
        gain_db: Gain of each stem, in the same order.
        chain: Effects, in order. If it is empty, the output is the plain sum.
        color: Color of the track in the DAW, as #rrggbb.
    """

    name: str
    sources: tuple[str, ...]
    gain_db: tuple[float, ...]
    chain: tuple[Effect, ...] = ()
    color: str = "#9e9e9e"

    def effects(self) -> Iterator[Effect]:
        """Yield every effect, including nested ones."""
        for effect in self.chain:
            yield from effect.walk()

    @property
    def uses_plugin(self) -> bool:
        """Whether the chain contains a plug-in and so must run in a separate process."""
        return any(effect.name == PLUGIN for effect in self.effects())


def effect_to_json(effect: Effect) -> dict[str, Any]:
    """Convert an effect to plain JSON values."""
    return {
        "name": effect.name,
        "parameters": dict(effect.parameters),
        "children": [effect_to_json(child) for child in effect.children],
        "path": effect.path,
        "plugin": effect.plugin,
    }


def effect_from_json(document: dict[str, Any]) -> Effect:
    """Convert the JSON values of `effect_to_json` back to an effect."""
    children = tuple(effect_from_json(child) for child in document["children"])
    return Effect(document["name"], document["parameters"], children, document["path"], document["plugin"])
