"""What every sung voice needs, whatever shapes its vowels: a pitch curve and a train of glottal pulses."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import HOP, SAMPLE_RATE, curve_phase

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
