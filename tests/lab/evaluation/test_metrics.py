from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from signals import RATE, noise, silence, song

from tsbs_daw.lab.evaluation.evaluate import csdr, sdr_frames, si_sdr, usdr


def test_usdr_of_a_scaled_target_is_known():
    target = noise(RATE)
    assert usdr(target, 0.9 * target) == pytest.approx(20.0, abs=1e-4)
    assert usdr(target, -target) == pytest.approx(-20 * np.log10(2), abs=1e-4)


def test_usdr_of_silence_is_finite():
    assert usdr(silence(100), silence(100)) == 0.0
    assert usdr(silence(100), np.full((2, 100), 0.1)) == pytest.approx(10 * np.log10(1e-7 / 2), abs=1e-3)
    assert usdr(noise(100), noise(100)) > 60


def test_usdr_is_the_ratio_of_sums_over_channels_and_samples():
    """The Music Demixing Challenge's definition, written out."""
    target, estimate = noise(1000, seed=1), noise(1000, seed=2)
    numerator = sum(float(value) ** 2 for value in target.ravel()) + 1e-7
    denominator = sum((float(a) - float(b)) ** 2 for a, b in zip(target.ravel(), estimate.ravel(), strict=True)) + 1e-7
    assert usdr(target, estimate) == pytest.approx(10 * np.log10(numerator / denominator), abs=1e-6)


def test_si_sdr_does_not_know_the_level():
    target, estimate = noise(RATE, seed=1), noise(RATE, seed=1) + 0.3 * noise(RATE, seed=2)
    assert si_sdr(target, 0.1 * estimate) == pytest.approx(si_sdr(target, estimate), abs=1e-3)


def test_si_sdr_of_an_orthogonal_error_is_the_ratio_of_energies():
    target, error = noise(RATE, seed=1).astype(np.float64), noise(RATE, seed=2).astype(np.float64)
    error -= target * np.sum(error * target) / np.sum(target**2)
    expected = 10 * np.log10(np.sum(target**2) / (0.01 * np.sum(error**2)))
    assert si_sdr(target, target + 0.1 * error) == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def museval_metrics():
    """museval's metrics without the rest of it, whose import fails where ffmpeg is not installed."""
    path = Path(importlib.util.find_spec("museval").submodule_search_locations[0]) / "metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::UserWarning")  # museval's, of silent stems
@pytest.mark.parametrize(
    ("wrong", "seconds"),
    [("interference", 0.3), ("noise", 1.0)]
    + [(wrong, 2.4) for wrong in ("interference", "level", "delay", "noise", "channels", "silence")],
)
def test_sdr_frames_are_museval_s(museval_metrics, wrong, seconds):
    """Whatever is wrong with an estimate, of one frame, of whole frames, and of frames and a rest."""
    targets = np.stack([song(3.0)[stem] for stem in ("vocals", "bass")])[..., : round(seconds * RATE)]
    spoil = {
        "interference": lambda stems: 0.8 * stems + 0.2 * stems[::-1],
        "level": lambda stems: 1.5 * stems,
        "delay": lambda stems: np.roll(stems, 7, axis=-1),
        "noise": lambda stems: stems + 0.1 * noise(stems.shape[-1], seed=1),
        "channels": lambda stems: stems[:, ::-1] + 0.01 * noise(stems.shape[-1], seed=2),
        "silence": lambda stems: 0.9 * stems * (np.arange(stems.shape[-1]) > RATE),
    }
    estimates = spoil[wrong](targets.astype(np.float64))
    expected, *_ = museval_metrics.bss_eval(
        targets.transpose(0, 2, 1).astype(np.float64), estimates.transpose(0, 2, 1), window=RATE, hop=RATE
    )
    frames = sdr_frames(targets, estimates, RATE)
    assert frames.shape == expected.shape
    assert np.allclose(frames, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_frames_with_a_silent_stem_say_nothing():
    targets = np.stack([noise(2 * RATE, seed=seed) for seed in range(2)])
    targets[1, :, :RATE] = 0
    frames = sdr_frames(targets, targets + 0.01, RATE)
    assert np.isnan(frames[:, 0]).all()
    assert np.isfinite(frames[:, 1]).all()


def test_csdr_is_the_median_of_the_frames_that_count():
    assert csdr(np.array([1.0, np.nan, 5.0, 2.0])) == 2.0
    assert csdr(np.array([np.nan, np.inf])) is None
