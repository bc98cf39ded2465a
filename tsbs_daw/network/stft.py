"""The STFT pair. Axes: b any leading axes flattened, samples, T frames, F bins: as the transform itself works.

Centred with reflect padding, periodic Hann window, no normalisation: the transform of the published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class STFT(nn.Module):
    """Short-time Fourier transform and its inverse for any length from one sample up."""

    def __init__(self, n_fft: int, hop_length: int):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """
        Args:    waveform: (b, samples)
        Returns: spectrum: (b, T, F) complex, T = 1 + max(samples, n_fft / 2 + 1) // hop_length
        """
        # Reflection needs more samples than it mirrors; what is shorter gets silence, which inverse() cuts off again.
        missing = self.n_fft // 2 + 1 - waveform.shape[-1]
        if missing > 0:
            waveform = F.pad(waveform, (0, missing))
        return torch.stft(
            waveform, self.n_fft, self.hop_length, window=self._window(waveform.dtype), pad_mode="reflect",
            return_complex=True,
        ).mT  # fmt: skip

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """
        Args:    spectrum: (b, T, F) complex; samples: the length to give back
        Returns: waveform: (b, samples)
        """
        whole = max(samples, self.n_fft // 2 + 1)
        if spectrum.device.type != "cpu" and self.n_fft % self.hop_length == 0:
            return self._inverse_on_device(spectrum, whole)[..., :samples]
        window = self._window(spectrum.real.dtype)
        waveform = torch.istft(spectrum.mT, self.n_fft, self.hop_length, window=window, length=whole)
        return waveform[..., :samples]

    def _inverse_on_device(self, spectrum: Tensor, samples: int) -> Tensor:
        """`torch.istft` without its look at the window on the host, which waits for the device at every call.

        Args:
            spectrum: (b, T, F) complex.
            samples: Length of the result, at most what the frames cover or zeros follow.
        Returns:
            (b, samples)
        """
        window = self._window(spectrum.real.dtype)
        begin = self.n_fft // 2  # the transform is centred
        waveform = self._overlap_add(torch.fft.irfft(spectrum, self.n_fft) * window)[:, begin : begin + samples]
        weights = (window * window).expand(1, spectrum.shape[-2], self.n_fft)
        waveform = waveform / self._overlap_add(weights)[:, begin : begin + samples].clamp(min=1e-11)
        return F.pad(waveform, (0, samples - waveform.shape[1]))

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(b, T, n_fft) -> (b, (T - 1) x hop + n_fft): as many shifted sums as frames overlap."""
        overlap = self.n_fft // self.hop_length
        parts = frames.unflatten(-1, (overlap, self.hop_length))
        return sum(F.pad(parts[:, :, k], (0, 0, k, overlap - 1 - k)) for k in range(overlap)).flatten(1)

    def _window(self, dtype: torch.dtype) -> Tensor:
        # Made anew in double precision: a float32 window converted would cost the last digits of a float64 run.
        if dtype == torch.float64:
            return torch.hann_window(self.n_fft, dtype=dtype, device=self.window.device)
        return self.window
