"""What a built-in pitched timbre is made of.

Six kinds of spectrum that evolve over a note:
    subtractive   a classic waveform through a filter with an envelope
    struck        plucked and hammered strings: every harmonic decays at its own rate
    blown         bowed and blown: brightness follows the attack, with vibrato and breath
    fm            one operator modulating another
    modal         inharmonic bars, bells and tines
    sweep         noise that swells and brightens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timbre:
    """One instrument: how its spectrum begins, evolves and ends. Each kind reads the fields that it has a use for."""

    family: str
    kind: str
    attack_s: float = 0.004
    decay_s: float = 1.0
    sustain: float = 0.7
    release_s: float = 0.12
    wave: str = "saw"
    pulse_width: float = 0.5
    cutoff_hz: float = 2000.0  # at middle C
    resonance: float = 0.8
    slopes: int = 2  # second-order sections of the filter
    sweep: float = 2.0  # how many times the cutoff the filter opens at the attack
    sweep_s: float = 0.3
    tilt: float = 1.0  # harmonic k has amplitude k ** -tilt
    strike: float = 0.2  # where the string is plucked, as a part of its length
    ring_s: float = 2.0
    damp_hz: float = 2500.0
    body: tuple[tuple[float, float, float], ...] = ()  # (frequency_hz, width_hz, gain) of resonances
    harmonics: tuple[float, ...] = ()  # fixed drawbars
    ratios: tuple[float, ...] = ()
    ratio: float = 1.0
    fm_index: float = 2.0
    unison: int = 1
    detune_cents: float = 0.0
    spread: float = 0.0  # 0 mono .. 1 wide
    vibrato_hz: float = 0.0
    vibrato_cents: float = 0.0
    noise: float = 0.0
    noise_hz: tuple[float, float] = (1000.0, 6000.0)
    noise_s: float = 0.02  # 0 = as long as the note
    octaves: tuple[int, ...] = (0,)
    transpose: int = 0


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Equally likely in every octave from `low` to `high`."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_body(rng: np.random.Generator, count: int, low_hz: float, high_hz: float, most: float):
    """`count` resonances, (frequency_hz, width_hz, gain) each, with gains from 0.4 to `most`."""
    return tuple(
        (
            float(np.exp(rng.uniform(np.log(low_hz), np.log(high_hz)))),
            float(rng.uniform(60, 500)),
            float(rng.uniform(0.4, most)),
        )
        for _ in range(count)
    )
