"""What a built-in timbre is, and the families of timbres after strings, keys, winds and bars.

Every call of a family draws a new timbre. The synthesiser, which plays them all, has the families that imitate nothing.
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


def string(family: str, rng) -> Timbre:
    nylon, electric = (family == "nylon", family in ("clean", "overdrive", "distorted"))
    return Timbre(
        family,
        "struck",
        attack_s=0.002,
        decay_s=30.0,
        sustain=1.0,
        release_s=log_uniform(rng, 0.05, 0.2),
        tilt=uniform(rng, 1.0, 1.5) if nylon else uniform(rng, 0.7, 1.2),
        strike=uniform(rng, 0.08, 0.35),
        ring_s=log_uniform(rng, 1.5, 5.0),
        damp_hz=log_uniform(rng, 900, 2000) if nylon else log_uniform(rng, 1600, 5000),
        body=() if electric else random_body(rng, 4, 90, 1200, 1.8),
        noise=uniform(rng, 0.02, 0.12),
        noise_hz=(800.0, 7000.0),
        noise_s=0.012,
        unison=2 if rng.random() < 0.2 else 1,
        detune_cents=uniform(rng, 2, 6),
        spread=0.3,
        cutoff_hz=log_uniform(rng, 2500, 9000),
    )


def piano(family: str, rng) -> Timbre:
    harp = family == "harp"
    return Timbre(
        family,
        "struck",
        attack_s=0.002,
        decay_s=30.0,
        sustain=1.0,
        release_s=uniform(rng, 0.6, 1.2) if harp else uniform(rng, 0.1, 0.25),
        tilt=uniform(rng, 0.9, 1.5),
        strike=uniform(rng, 0.3, 0.5) if harp else uniform(rng, 0.11, 0.14),
        ring_s=log_uniform(rng, 3.0, 8.0),
        damp_hz=log_uniform(rng, 700, 2500),
        body=random_body(rng, 4, 80, 2500, 0.8),
        noise=uniform(rng, 0.01, 0.06),
        noise_hz=(120.0, 2500.0),
        noise_s=0.03,
        unison=2,
        detune_cents=uniform(rng, 0.6, 2.5),
        spread=uniform(rng, 0.2, 0.7),
        cutoff_hz=log_uniform(rng, 2000, 8000),
    )


def epiano(family: str, rng) -> Timbre:
    if rng.random() < 0.5:
        return Timbre(
            family,
            "fm",
            attack_s=0.002,
            decay_s=uniform(rng, 0.8, 2.5),
            sustain=0.05,
            release_s=0.15,
            sweep_s=uniform(rng, 0.1, 0.6),
            ratio=float(rng.choice([1, 1, 14, 7])),
            fm_index=uniform(rng, 0.3, 1.2),
            unison=2,
            detune_cents=uniform(rng, 1, 5),
            spread=0.6,
        )
    return Timbre(
        family,
        "struck",
        attack_s=0.003,
        decay_s=30.0,
        sustain=1.0,
        release_s=0.15,
        tilt=uniform(rng, 1.6, 2.4),
        strike=0.31,
        ring_s=uniform(rng, 2, 4),
        damp_hz=log_uniform(rng, 600, 1500),
        cutoff_hz=log_uniform(rng, 1200, 4000),
        spread=0.2,
    )


def clav(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "struck",
        attack_s=0.001,
        decay_s=30.0,
        sustain=1.0,
        release_s=0.03,
        tilt=uniform(rng, 0.4, 0.9),
        strike=uniform(rng, 0.05, 0.15),
        ring_s=uniform(rng, 0.8, 2.0),
        damp_hz=log_uniform(rng, 1500, 4000),
        cutoff_hz=9000.0,
        noise=0.05,
    )


def organ(family: str, rng) -> Timbre:
    bars = tuple(float(value) for value in rng.choice([0, 0.2, 0.5, 0.8, 1.0], size=9))
    if family in ("accordion", "harmonica"):
        return _free_reed(family, rng)  # after the drawbars, which it has not: a seed gives the same song for ever
    return Timbre(
        family,
        "blown",
        attack_s=0.006,
        decay_s=1.0,
        sustain=1.0,
        release_s=0.04,
        harmonics=(1.0, *bars),
        noise=uniform(rng, 0, 0.1),
        noise_s=0.008,
        noise_hz=(1500.0, 9000.0),
        cutoff_hz=9000.0,
        sweep_s=0.001,
        vibrato_hz=uniform(rng, 5, 7),
        vibrato_cents=uniform(rng, 0, 12),
        spread=0.5,
        transpose=-12,
    )


def _free_reed(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "blown",
        attack_s=0.03,
        decay_s=1.0,
        sustain=1.0,
        release_s=0.06,
        tilt=uniform(rng, 0.6, 1.1),
        cutoff_hz=log_uniform(rng, 2500, 6000),
        body=random_body(rng, 3, 400, 3500, 1.5),
        unison=2,
        detune_cents=uniform(rng, 6, 18),
        spread=0.4,
        sweep_s=0.02,
        vibrato_hz=5.5,
        vibrato_cents=uniform(rng, 0, 12),
    )


def bowed(family: str, rng) -> Timbre:
    ensemble = family != "fiddle"
    return Timbre(
        family,
        "blown",
        attack_s=log_uniform(rng, 0.06, 0.3) if ensemble else uniform(rng, 0.03, 0.08),
        decay_s=2.0,
        sustain=0.9,
        release_s=log_uniform(rng, 0.12, 0.5),
        tilt=uniform(rng, 0.8, 1.2),
        cutoff_hz=log_uniform(rng, 2500, 7000),
        body=random_body(rng, 5, 250, 4500, 1.6),
        sweep_s=uniform(rng, 0.05, 0.2),
        unison=int(rng.choice([3, 4, 5])) if ensemble else 1,
        detune_cents=uniform(rng, 5, 14),
        spread=uniform(rng, 0.5, 1.0) if ensemble else 0.1,
        vibrato_hz=uniform(rng, 4.5, 6.2),
        vibrato_cents=uniform(rng, 5, 22),
        noise=uniform(rng, 0.01, 0.05),
        noise_hz=(2000.0, 9000.0),
        noise_s=0.0,
    )


def brass(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "blown",
        attack_s=uniform(rng, 0.02, 0.07),
        decay_s=1.0,
        sustain=0.85,
        release_s=uniform(rng, 0.05, 0.12),
        tilt=uniform(rng, 0.3, 0.8),
        cutoff_hz=log_uniform(rng, 1200, 3500),
        body=random_body(rng, 3, 500, 2500, 1.5),
        sweep_s=uniform(rng, 0.03, 0.1),
        unison=int(rng.choice([1, 2, 3])),
        detune_cents=uniform(rng, 4, 12),
        spread=0.6,
        vibrato_hz=5.0,
        vibrato_cents=uniform(rng, 0, 10),
        noise=uniform(rng, 0.005, 0.03),
        noise_s=0.0,
    )


def wind(family: str, rng) -> Timbre:
    odd = family == "clarinet"
    count = {"flute": 6, "whistle": 3, "clarinet": 14, "sax": 24}[family]
    steep = {"flute": 1.8, "whistle": 2.5, "clarinet": 0.9, "sax": 0.7}[family]
    levels = tuple(
        float(k ** (-steep) * rng.uniform(0.5, 1.5) * (0.12 if odd and k % 2 == 0 else 1.0))
        for k in range(1, count + 1)
    )
    return Timbre(
        family,
        "blown",
        attack_s=uniform(rng, 0.03, 0.08),
        decay_s=1.0,
        sustain=0.9,
        release_s=uniform(rng, 0.05, 0.12),
        harmonics=levels,
        cutoff_hz=log_uniform(rng, 2500, 6000),
        sweep_s=0.05,
        body=random_body(rng, 2, 500, 3000, 1.0),
        vibrato_hz=uniform(rng, 4.5, 6),
        vibrato_cents=uniform(rng, 5, 25),
        noise=uniform(rng, 0.02, 0.12),
        noise_hz=(1000.0, 7000.0),
        noise_s=0.0,
    )


def modal(family: str, rng) -> Timbre:
    ratios = {
        "bell": (1.0, 2.0, 2.76, 3.0, 4.07, 5.4, 6.8),
        "vibes": (1.0, 4.0, 10.0),
        "marimba": (1.0, 3.93, 9.4),
        "kalimba": (1.0, 5.3, 12.4, 2.0),
    }[family]
    ratios = tuple(
        float(ratio * rng.uniform(0.985, 1.015)) if ratio not in (1.0, 2.0, 4.0) else ratio for ratio in ratios
    )
    ring = {"bell": (0.8, 3.0), "vibes": (2.0, 5.0), "marimba": (0.2, 0.6), "kalimba": (0.4, 1.2)}[family]
    return Timbre(
        family,
        "modal",
        attack_s=0.001,
        decay_s=30.0,
        sustain=1.0,
        release_s=uniform(rng, 0.1, 0.5),
        tilt=uniform(rng, 0.6, 1.6),
        ring_s=log_uniform(rng, *ring),
        ratios=ratios,
        noise=uniform(rng, 0.0, 0.1),
        noise_s=0.006,
        vibrato_hz=uniform(rng, 3, 6) if family == "vibes" else 0.0,
        vibrato_cents=0.0,
        spread=0.2,
    )


def bass_string(family: str, rng) -> Timbre:
    slap, upright, driven = (family == "slap", family == "upright", family == "drive")
    return Timbre(
        family,
        "struck",
        attack_s=0.004 if upright else 0.002,
        decay_s=30.0,
        sustain=1.0,
        release_s=uniform(rng, 0.04, 0.12),
        tilt=uniform(rng, 0.5, 0.9) if slap or driven else uniform(rng, 0.9, 1.5),
        strike=uniform(rng, 0.04, 0.1) if slap else uniform(rng, 0.12, 0.4),
        ring_s=uniform(rng, 0.8, 2.0) if upright else uniform(rng, 2, 6),
        damp_hz=log_uniform(rng, 2000, 5000) if slap or driven else log_uniform(rng, 300, 1600),
        body=random_body(rng, 3, 60, 400, 1.0) if upright else (),
        noise=uniform(rng, 0.1, 0.3) if slap else uniform(rng, 0.0, 0.05),
        noise_hz=(1200.0, 6000.0) if slap else (300.0, 2500.0),
        noise_s=0.01,
        cutoff_hz=log_uniform(rng, 3000, 8000) if slap or family == "pick" else log_uniform(rng, 700, 3000),
    )
