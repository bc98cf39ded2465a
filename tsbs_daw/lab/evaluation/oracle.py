"""The ideal ratio mask: what a perfect real-valued mask would reach. No estimate of a model takes part in it."""

from __future__ import annotations

import numpy as np
import torch

N_FFT, HOP_LENGTH = 2048, 512


def ideal_ratio_mask(targets: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Each target's share of the magnitudes, applied to the mixture.

    Args:    targets: (S, channels, samples); mixture: (channels, samples)
    Returns: (S, channels, samples) float32
    """
    window = torch.hann_window(N_FFT)
    samples = mixture.shape[-1]
    if samples <= N_FFT // 2:
        padding = N_FFT - samples
        padded = ideal_ratio_mask(_pad(targets, padding), _pad(mixture, padding))
        return padded[..., :samples]

    def stft(audio: np.ndarray) -> torch.Tensor:
        return torch.stft(torch.from_numpy(audio).float(), N_FFT, HOP_LENGTH, window=window, return_complex=True)

    # One stem at a time: a song's spectra of all stems at once would take gigabytes.
    total = sum(stft(target).abs() for target in targets) + 1e-10
    spectrum = stft(np.ascontiguousarray(mixture))
    estimates = [
        torch.istft(spectrum * (stft(target).abs() / total), N_FFT, HOP_LENGTH, window=window, length=samples)
        for target in targets
    ]
    return torch.stack(estimates).numpy()


def _pad(audio: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, samples)])
