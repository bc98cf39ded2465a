from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsbs_daw.lab.training.excerpts import CEILING, PITCH_RATIOS, master_gain, mix_stems
from tsbs_daw.lab.training.recipe import AugmentPart

RATE = 44100
PLAIN = {"gain_min_db": 0, "gain_max_db": 0, "swap_channels": 0, "flip_polarity": 0, "silence_stem": 0}


def _noise(batch=1, stems=4, samples=8192) -> torch.Tensor:
    return 0.1 * torch.randn(batch, stems, 2, samples, generator=torch.Generator().manual_seed(5))


def _mix(x, samples=None, seed=0, **changes) -> torch.Tensor:
    settings = AugmentPart(**{**PLAIN, **changes})
    return mix_stems(x, samples or x.shape[-1], settings, torch.Generator().manual_seed(seed), RATE)


def test_without_augmentation_stems_are_as_they_were():
    x = _noise()
    assert torch.equal(_mix(x), x)


def test_gains_fill_their_range_and_are_mostly_high():
    x = _noise(500)
    gains = 20 * torch.log10(_mix(x, gain_min_db=-20, gain_max_db=3)[..., 0, 0] / x[..., 0, 0])
    assert gains.min() > -20.01 and gains.max() < 3.01
    assert gains.min() < -18 and gains.max() > 2.5
    assert gains.median() > -8.5


def test_channels_polarity_and_silence():
    x = _noise()
    assert torch.equal(_mix(x, swap_channels=1), x.flip(2))
    assert torch.equal(_mix(x, flip_polarity=1), -x)
    assert not _mix(x, silence_stem=1).any()


@pytest.mark.parametrize("changes", [{"bus_equaliser": 1}, {"narrow": 1}, {"low_pass": 1}, {"master": 1}])
def test_what_is_done_on_the_bus_is_done_to_every_stem_alike(changes):
    """The same change of a mixture, and of its stems one by one."""
    x = _noise(3)
    changed = _mix(x, seed=2, **changes)
    assert not torch.allclose(changed, x, atol=1e-3)
    whole = torch.cat([x.sum(1, keepdim=True), torch.zeros_like(x[:, 1:])], 1)
    together = _mix(whole, seed=2, **changes)
    assert torch.allclose(changed.sum(1), together[:, 0], atol=1e-5)


def test_an_equaliser_is_smooth_and_changes_each_stem_in_its_own_way():
    impulse = torch.zeros(1, 2, 2, 8192)
    impulse[..., 0] = 1.0
    response = 20 * torch.log10(torch.fft.rfft(_mix(impulse, seed=3, equaliser=1))[0, :, 0].abs())
    assert not torch.allclose(response[0], response[1], atol=0.5)
    assert response.std() > 0.5 and response.abs().max() < 15
    assert response[:, 100:].diff().abs().max() < 0.5


def test_a_change_of_pitch_moves_a_tone():
    for ratio in PITCH_RATIOS:
        length = round(13230 * ratio)
        tone = torch.sin(2 * math.pi * 1000 / RATE * torch.arange(length)).expand(1, 4, 2, length)
        result = _mix(tone, 13230)
        assert result.shape == (1, 4, 2, 13230)
        peak = torch.fft.rfft(result[0, 0, 0] * torch.hann_window(13230)).abs().argmax() * RATE / 13230
        assert float(peak) == pytest.approx(1000 * ratio, abs=4)
        assert float(result.square().mean()) == pytest.approx(0.5, rel=0.02)


def test_mono_is_one_of_the_widths():
    sides = _mix(_noise(40), narrow=1.0).diff(dim=2).square().mean((1, 2, 3)) / _noise(40).diff(dim=2).square().mean()
    assert (sides < 1e-6).float().mean() == pytest.approx(0.5, abs=0.25)
    assert 0.01 < sides.max() < 1.1


def test_mastered_mixes_reach_their_loudness_and_stay_below_the_ceiling():
    torch.manual_seed(0)
    quiet_then_loud = torch.cat([_noise(200) * 0.1, _noise(200)], -1)
    settings = AugmentPart(**PLAIN, master=1, loudness_min_db=-18, loudness_max_db=-7)
    mixture = quiet_then_loud.sum(1)
    gain = master_gain(mixture, settings, torch.Generator().manual_seed(0), RATE)
    assert gain.shape == (200, 1, 1, mixture.shape[-1])
    mastered = mixture * gain[:, 0]
    assert mastered.abs().max() <= 1.0 and mastered.abs().max() > 0.9 * CEILING
    loudness = 10 * np.log10(mastered.square().mean((1, 2)).numpy())
    # Noise has peaks 13 dB above its level: the limiter holds the loudest there.
    assert -18.6 < loudness.min() < -17 and -15 < loudness.max() < -12
    ratio = gain[:, 0, 0, 2000] / gain[:, 0, 0, 14000]  # how much more the quiet half is raised
    assert ratio.max() > 1.5 and ratio.median() > 1.01


def test_silence_stays_silent_and_finite():
    everything = dict.fromkeys(("equaliser", "bus_equaliser", "low_pass", "narrow", "master"), 1.0)
    assert not _mix(torch.zeros(2, 4, 2, 3000), **everything).any()


def test_the_same_seed_gives_the_same_mix():
    everything = {"gain_min_db": -20, "equaliser": 0.5, "low_pass": 0.5, "narrow": 0.5, "master": 0.5}
    x = _noise(4)
    assert torch.equal(_mix(x, seed=4, **everything), _mix(x, seed=4, **everything))
    assert not torch.equal(_mix(x, seed=4, **everything), _mix(x, seed=5, **everything))
