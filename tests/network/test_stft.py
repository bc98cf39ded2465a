from __future__ import annotations

import pytest
import torch

from tsbs_daw.network.network import STFT


@pytest.mark.parametrize("samples", [1, 100, 1024, 1025, 2048, 10007])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (2048, 1024)])
def test_the_inverse_gives_the_waveform_back(samples, n_fft, hop_length):
    stft, waveform = STFT(n_fft, hop_length), torch.randn(3, samples, dtype=torch.float64)
    torch.testing.assert_close(stft.inverse(stft(waveform), samples), waveform, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [1025, 2048, 10007, 132300])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (2048, 1024)])
def test_the_inverse_for_other_devices_equals_torch_s(samples, n_fft, hop_length):
    """It is the one that needs no answer from the device in the middle."""
    stft = STFT(n_fft, hop_length)
    spectrum = torch.view_as_complex(torch.randn(2, 1 + samples // hop_length, n_fft // 2 + 1, 2, dtype=torch.float64))
    torch.testing.assert_close(stft._inverse_on_device(spectrum, samples), stft.inverse(spectrum, samples))


def test_a_tone_lands_in_its_bin():
    stft = STFT(2048, 512)
    tone = torch.sin(2 * torch.pi * 100 / 2048 * torch.arange(20480, dtype=torch.float64))
    spectrum = stft(tone[None])[0].abs()
    assert spectrum.shape == (41, 1025)
    assert (spectrum[5:-5].argmax(1) == 100).all()
