"""Who sings: what stays the same from note to note."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Singer:
    """What stays the same for a singer. Levels are linear, frequencies in Hz."""

    tract: float  # formant scale: 1 an adult man, 1.18 a woman
    upper_hz: tuple[float, ...]  # fixed formants above the third
    tilt_hz: float  # above it the glottal pulse loses another 6 dB per octave: low is soft, high is pressed
    breath: float
    vibrato_hz: float
    vibrato_cents: float
    vibrato_after_s: float
    glide_s: float
    scoop: float  # semitones below the first note of a phrase
    jitter_cents: float
    drift_cents: float
    friction: float
    bandwidth: float  # of formants, relative
    brilliance_db: float  # how much brighter than speech a speaker's vowels are sung


def random_singer(voice: str, kind: str, rng: np.random.Generator) -> Singer:
    """Args: voice: "soprano" to "bass"; kind: "sung", or "rap" without vibrato"""
    base = {"soprano": 1.2, "alto": 1.15, "tenor": 1.03, "baritone": 0.98, "bass": 0.93}[voice]
    tract = float(base * rng.uniform(0.95, 1.05))
    upper = tuple(float(hz * tract * rng.uniform(0.95, 1.05)) for hz in (3400, 4300, 5400, 6500, 7600, 8800, 10200))
    rap = kind == "rap"
    return Singer(
        tract=tract,
        upper_hz=upper,
        tilt_hz=float(np.exp(rng.uniform(np.log(1500), np.log(7000)))),
        breath=float(np.exp(rng.uniform(np.log(0.015), np.log(0.14)))),
        vibrato_hz=float(rng.uniform(4.6, 6.6)),
        vibrato_cents=0.0 if rap else float(rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(10, 60)),
        vibrato_after_s=float(rng.uniform(0.15, 0.5)),
        glide_s=float(rng.uniform(0.02, 0.09)),
        scoop=float(rng.uniform(0.0, 2.0)),
        jitter_cents=float(rng.uniform(4, 14)),
        drift_cents=float(rng.uniform(4, 18)),
        friction=float(rng.uniform(0.5, 1.3)),
        bandwidth=float(rng.uniform(0.8, 1.5)),
        brilliance_db=float(rng.uniform(0.0, 14.0)),
    )
