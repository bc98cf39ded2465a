"""Dither, by its statistics."""

from __future__ import annotations

import numpy as np
import pytest
import signals

from tsbs_daw.audio.dsp import Quantiser

SAMPLES = 1 << 18


def errors(level: float, seed: int | None = 7, bits: int = 16) -> np.ndarray:
    """In steps: what comes out for a constant of `level` steps, less the constant."""
    frames = np.full((SAMPLES, 1), level * 2.0 ** (1 - bits))
    return (Quantiser(bits, seed=seed).quantise(frames) - level)[:, 0]


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5, 0.77, 1.0, -3.3])
def test_mean_and_power_of_the_error_do_not_depend_on_the_sound(level):
    """What the triangular shape, two steps wide, is for: mean 0, RMS half a step, for whatever is rounded."""
    found = errors(level)
    assert found.mean() == pytest.approx(0, abs=5 * 0.5 / SAMPLES**0.5)
    assert np.sqrt(np.square(found).mean()) == pytest.approx(0.5, rel=0.01)
    assert np.abs(found).max() <= 1.5, "a step of dither to either side, and half a step of rounding"


def test_the_dither_is_triangular_and_two_steps_wide():
    """At 32 bits of a tiny constant, seen through a quantiser whose step is 2^-12 of the dither's width."""
    quantiser = Quantiser(16, seed=7)
    pairs = quantiser._random.random((SAMPLES, 2), dtype=np.float32)
    dither = pairs[:, 0] - pairs[:, 1]
    counts, _ = np.histogram(dither, bins=8, range=(-1, 1))
    expected = SAMPLES * np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 32
    assert (dither.min(), dither.max()) == pytest.approx((-1, 1), abs=0.01)
    assert np.square(counts - expected).sum() / expected.mean() < 60


def test_the_spectrum_of_the_error_is_flat_also_under_a_tone():
    """Without dither it is a comb of harmonics, 20 dB and more above the rest."""
    frames = signals.tone(997, SAMPLES, amplitude=3.3 * 2.0**-15, channels=1).T
    spectra = {}
    for seed in (7, None):
        error = Quantiser(16, seed=seed).quantise(frames)[:, 0] - frames[:, 0].astype(np.float64) * 2**15
        pieces = error.reshape(-1, 1024) * np.hanning(1024)
        spectra[seed] = 10 * np.log10(np.square(np.abs(np.fft.rfft(pieces))).mean(axis=0))[2:-2]
    assert np.ptp(spectra[7]) < 3.0
    assert np.ptp(spectra[None]) > 15.0


def test_silence_is_left_alone_and_a_sounding_channel_is_not():
    frames = np.zeros((1000, 2), np.float32)
    frames[500:, 0] = 0.3
    found = Quantiser(16, seed=7).quantise(frames)
    assert not found[:500].any()
    assert found[500:, 1].any(), "the other channel belongs to the same moment"


def test_without_a_seed_it_rounds_to_the_nearest():
    found = Quantiser(24).quantise(np.array([[0.0, 1.4, -1.6, 2.5]]) * 2.0**-23)
    assert found.tolist() == [[0, 1, -2, 2]]


@pytest.mark.parametrize("bits", [16, 24])
def test_what_lies_beyond_full_scale_is_cut_off_and_counted(bits):
    quantiser, full = Quantiser(bits, seed=1), 2 ** (bits - 1)
    found = quantiser.quantise(np.array([[1.0, -1.0], [2.0, -2.0], [0.999, 0.0]]))
    assert quantiser.clipped_samples == 3, "-1.0 is a value that integers have, 1.0 is not"
    assert found.max() == full - 1
    assert found.min() == -full
