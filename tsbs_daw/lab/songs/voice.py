"""A sung voice from arithmetic: a glottal pulse train and noise through moving formants.

A line of syllables becomes curves of pitch, voicing, breath, friction and formants (see `articulation`). A band-limited
pulse train at the pitch curve and white noise then pass a time-varying filter. G formants of the grid,
B = N_FFT // 2 + 1 bins.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tsbs_daw.lab.songs.articulation import Articulation, articulate
from tsbs_daw.lab.songs.dsp import HOP, N_FFT, SAMPLE_RATE, bandpass, filter_frames, midi_hz
from tsbs_daw.lab.songs.phonation import pitch_curve, pulses
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.singer import Singer

BINS_HZ = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
GRID_HZ = 20.0  # formants are rounded to this, so that their responses can be looked up
_AUDIBLE = 1e-4


def sing(
    line: tuple[Sung, ...], singer: Singer, score: Score, samples: int, rng: np.random.Generator, loose_s: float = 0.012
) -> np.ndarray:
    """Sing a line: (samples,) float32. `loose_s` is how far syllables stray from the beat."""
    frames = samples // HOP + 2
    curves = articulate(line, singer, score, frames, rng, loose_s)
    active = np.flatnonzero(curves.voiced + curves.breath + curves.noise > _AUDIBLE)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    f0_hz = midi_hz(pitch_curve(curves.pitch, curves.since_s, singer, rng))
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(frames)
    source = pulses(per_sample(f0_hz)) * per_sample(curves.voiced * shimmer)
    # Breath is strongest while the glottis is open: the noise pulses with the voice.
    white = rng.standard_normal(samples).astype(np.float32)
    breath = white * per_sample(curves.breath + singer.breath * curves.voiced)
    tract = _formant_response(curves, singer, active)
    glottis = _glottal_response(f0_hz[active], curves.effort[active], singer)
    voice = filter_frames(source, tract * glottis, active)
    voice += 0.02 * filter_frames(breath, tract * _breath_response(), active)
    noisy = np.flatnonzero(curves.noise > _AUDIBLE)
    if len(noisy):
        friction = white[::-1] * per_sample(curves.noise * singer.friction)
        voice += 0.09 * filter_frames(friction, _friction_response(curves, noisy), noisy)
    return voice


@cache
def _resonances(bandwidth: float) -> np.ndarray:
    """Responses (G, B) of one resonance at every multiple of GRID_HZ, gain one at zero frequency."""
    centres_hz = np.arange(1, int(4200 / GRID_HZ)) * GRID_HZ
    return np.stack([_resonance(hz, bandwidth * (45.0 + 0.045 * hz)) for hz in centres_hz]).astype(np.complex64)


def _resonance(centre_hz: float, width_hz: float) -> np.ndarray:
    s = 1j * BINS_HZ
    return (centre_hz**2 + (width_hz / 2) ** 2) / ((s + width_hz / 2) ** 2 + centre_hz**2)


def _formant_response(curves: Articulation, singer: Singer, active: np.ndarray) -> np.ndarray:
    """(active frames, B), complex: three moving formants, the fixed ones above, and the nose."""
    fixed = np.ones(len(BINS_HZ), dtype=np.complex128)
    for hz in singer.upper_hz:
        fixed *= _resonance(hz, singer.bandwidth * (80 + 0.06 * hz))
    table = _resonances(round(singer.bandwidth, 1))
    response = np.broadcast_to(fixed.astype(np.complex64), (len(active), len(BINS_HZ))).copy()
    for row in range(3):
        index = np.clip((curves.formants_hz[row][active] / GRID_HZ).round().astype(int) - 1, 0, len(table) - 1)
        response *= table[index]
    nasal = curves.nasal[active].astype(np.float32)
    damped = (1.0 / (1.0 + (BINS_HZ / 900.0) ** 2)).astype(np.float32)
    response *= 1.0 - nasal[:, None] * (1.0 - damped[None])
    return response


def _glottal_response(f0_hz: np.ndarray, effort: np.ndarray, singer: Singer) -> np.ndarray:
    """Pulse and lip radiation: minus 6 dB per octave from the fundamental up, more above the tilt frequency."""
    tilt_hz = singer.tilt_hz * (0.4 + 0.8 * effort)
    slope = 1.0 / (1.0 + BINS_HZ[None] / f0_hz[:, None])
    soft = 1.0 / np.sqrt(1.0 + (BINS_HZ[None] / tilt_hz[:, None]) ** 2)
    return (0.05 * slope * soft).astype(np.float32)


def _breath_response() -> np.ndarray:
    return (bandpass(400, 14000, 1)(BINS_HZ) * 0.5)[None].astype(np.float32)


def _friction_response(curves: Articulation, noisy: np.ndarray) -> np.ndarray:
    """(noisy frames, B): the band of each frame's consonant."""
    pairs = np.stack([curves.low_hz[noisy], curves.high_hz[noisy]], axis=1)
    response = np.zeros((len(noisy), len(BINS_HZ)), dtype=np.float32)
    for pair in np.unique(pairs, axis=0):
        if pair[1] > 0:
            response[np.all(pairs == pair, axis=1)] = bandpass(pair[0], pair[1], 3)(BINS_HZ)
    return response
