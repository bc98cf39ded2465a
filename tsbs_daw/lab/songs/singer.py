"""What every sung voice needs, whatever shapes its vowels: a singer, a pitch curve and a train of glottal pulses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.lab.songs.dsp import HOP, SAMPLE_RATE, curve_phase


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


FRAME_S = HOP / SAMPLE_RATE


def smooth(curve: np.ndarray, width: int) -> np.ndarray:
    """A curve of the same length, averaged over `width` frames (odd) with a raised cosine."""
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(curve, width // 2, mode="edge"), kernel / kernel.sum(), mode="valid")[: len(curve)]


def pitch_curve(notes: np.ndarray, since_s: np.ndarray, singer, rng: np.random.Generator) -> np.ndarray:
    """MIDI pitch per frame: portamento between notes, vibrato that grows on long ones, drift and jitter.

    Args: notes (frames,) the written pitch, NaN where nothing is sung; since_s (frames,) time since the note began
          singer: anything with the fields glide_s, vibrato_*, drift_cents, jitter_cents
    """
    frames = len(notes)
    known = np.flatnonzero(~np.isnan(notes))
    latest = np.maximum.accumulate(np.where(np.isnan(notes), 0, np.arange(frames)))
    pitch = smooth(notes[np.maximum(latest, known[0])], max(int(singer.glide_s * 2 / FRAME_S) | 1, 3))
    depth = singer.vibrato_cents * np.clip((np.nan_to_num(since_s) - singer.vibrato_after_s) / 0.35, 0.0, 1.0)
    rate_hz = singer.vibrato_hz * (1.0 + 0.24 * smooth(rng.standard_normal(frames), 41))
    vibrato = smooth(depth, 9) * np.sin(2 * np.pi * np.cumsum(rate_hz) * FRAME_S + rng.uniform(0, 6))
    drift = singer.drift_cents * 5 * smooth(rng.standard_normal(frames), 61)
    jitter = singer.jitter_cents * rng.standard_normal(frames)
    return pitch + (vibrato + drift + jitter) / 100.0


def pulses(f0_hz: np.ndarray) -> np.ndarray:
    """Band-limited pulses at a pitch curve (samples,): all harmonics up to 18 kHz, of amplitude two.

    sum over |k| <= K of exp(2 pi i k x) = sin(pi (2K + 1) x) / sin(pi x); the constant term is taken off.
    """
    phase = curve_phase(f0_hz.astype(np.float64)) % 1.0
    count = 2 * np.floor(18000.0 / f0_hz) + 1
    below = np.sin(np.pi * phase)
    near = np.abs(below) < 1e-4
    ratio = np.sin(np.pi * count * phase) / np.where(near, 1.0, below)
    return np.where(near, count, ratio).astype(np.float32) - 1.0
