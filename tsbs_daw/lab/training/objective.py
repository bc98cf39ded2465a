"""The loss that training minimises, and the SDR on fixed excerpts that it is judged by.

B batch, S stems, C channels.

Per stage, as in BSRNN (Luo and Yu, arXiv 2209.15174):  |x - x'| + |Re(X - X')| + |Im(X - X')|,
means of absolute differences in time and in the spectrum, X = STFT(x). The final estimate and the mask stage's
estimate are both trained, each with its weight. Two additions, off unless a recipe asks for them: a tilt, because an
L1 of amplitudes hardly hears the treble, and the error's level in dB, because an L1 is content with the likeliest
value (silence, where a stem is rare) and SDR asks for the mean.

Validation takes the SDR of both stages, and of the mixture itself as the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tsbs_daw.lab.training.recipe import LossPart

LEVEL_FLOOR = 0.3  # of the mixture's mean level: a silent stem then weighs about twice as much as a usual one
SILENCE_FLOOR = 0.003  # full scale 1; about -50 dBFS
ERROR_FLOOR = 1e-3  # of the mixture's energy: an error 30 dB below the mixture is good enough
TILT_PIVOT_HZ = 200.0  # below, the tilt is level


@dataclass(frozen=True)
class LossTerms:
    """total: what is minimised; the others are its parts before weighting, detached."""

    total: Tensor
    final: Tensor
    mask: Tensor


class TwoStageLoss(torch.nn.Module):
    """Callable: (estimates, mask_estimates, targets), each (B, S, C, samples) -> LossTerms."""

    def __init__(self, settings: LossPart, sample_rate: int = 44100):
        super().__init__()
        self.settings = settings
        for n_fft in settings.n_ffts:
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)
            tilt = spectral_tilt(n_fft, sample_rate, settings.tilt_db_per_octave)
            self.register_buffer(f"tilt_{n_fft}", tilt, persistent=False)

    def forward(self, estimates: Tensor, mask_estimates: Tensor, targets: Tensor) -> LossTerms:
        targets = targets.float()
        weights = self._stem_weights(targets)
        # One transform for both stages: the STFT is linear, so the difference is transformed, not its two sides.
        difference = torch.stack([estimates.float() - targets, mask_estimates.float() - targets])
        distance = self._distance(difference, weights)
        if self.settings.sdr_weight:
            distance = distance + self.settings.sdr_weight * error_level_db(difference, targets)
        final, mask = distance
        total = self.settings.final_weight * final + self.settings.mask_weight * mask
        return LossTerms(total, final.detach(), mask.detach())

    def _stem_weights(self, targets: Tensor) -> Tensor:
        """(S,) one over the stem's mean level in the batch: quiet stems and quiet songs matter as much as loud ones.

        Where everything is silent a level of -50 dBFS stands in, so that silence is learnt, gently.
        """
        if not self.settings.equalise_stems:
            return targets.new_ones(targets.shape[1])
        stem_level = targets.abs().mean(dim=(0, 2, 3))
        mixture_level = targets.sum(dim=1).abs().mean()
        return 1.0 / (stem_level + LEVEL_FLOOR * mixture_level + SILENCE_FLOOR)

    def _distance(self, difference: Tensor, weights: Tensor) -> Tensor:
        """(stages, B, S, C, samples) -> (stages,)"""
        distance = self.settings.time_weight * difference.abs().mean(dim=(1, 3, 4))
        for n_fft in self.settings.n_ffts:
            share = self.settings.spectrum_weight / len(self.settings.n_ffts)
            distance = distance + share * self._spectral(difference, n_fft)
        return (distance * weights).mean(dim=1)

    def _spectral(self, difference: Tensor, n_fft: int) -> Tensor:
        """(stages, B, S, C, samples) -> (stages, S): the mean of |Re| + |Im|."""
        window = getattr(self, f"window_{n_fft}")
        if difference.shape[-1] <= n_fft // 2:
            difference = torch.nn.functional.pad(difference, (0, n_fft // 2 + 1 - difference.shape[-1]))
        spectrum = torch.stft(
            difference.flatten(0, 3), n_fft, hop_length=n_fft // 4, window=window, center=True, return_complex=True
        )
        # Divided by the window's norm, white noise has the same size in both domains.
        size = torch.view_as_real(spectrum).abs().mean(dim=(2, 3))
        parts = (size * getattr(self, f"tilt_{n_fft}")).mean(dim=1) * (2.0 / window.norm())
        return parts.reshape(difference.shape[:4]).mean(dim=(1, 3))


def error_level_db(difference: Tensor, targets: Tensor) -> Tensor:
    """How loud the errors are beside the mixture, in dB, averaged over examples and stems.

    Args:    difference: (stages, B, S, C, samples); targets: (B, S, C, samples)
    Returns: (stages,); at best -30: below that, and where everything is silent, nothing is gained
    """
    mixture = targets.sum(dim=1, keepdim=True).square().mean(dim=(2, 3)) + SILENCE_FLOOR**2  # (B, 1)
    error = difference.square().mean(dim=(3, 4))  # (stages, B, S)
    return 10.0 * torch.log10(error / mixture + ERROR_FLOOR).mean(dim=(1, 2))


def spectral_tilt(n_fft: int, sample_rate: int, db_per_octave: float) -> Tensor:
    """(bins,) weights that rise with frequency from 200 Hz on; their mean is one, so white noise weighs as without."""
    hz = torch.fft.rfftfreq(n_fft, 1.0 / sample_rate).clamp(min=TILT_PIVOT_HZ)
    tilt = 10.0 ** (torch.log2(hz / TILT_PIVOT_HZ) * db_per_octave / 20.0)
    return tilt / tilt.mean()


SILENT_RMS = 10.0 ** (-55.0 / 20.0)  # an excerpt whose target is quieter says nothing about separation
BATCH = {"cpu": 1}  # excerpts at a time; elsewhere 8


@dataclass(frozen=True)
class ValidationScore:
    """Mean SDR in dB per stem over the excerpts where it sounds."""

    estimate: dict[str, float]
    mask_estimate: dict[str, float]
    mixture: dict[str, float]

    @property
    def mean_db(self) -> float:
        return float(np.mean(list(self.estimate.values())))

    def as_row(self) -> dict:
        def rounded(values: dict[str, float]) -> dict[str, float]:
            return {stem: round(value, 3) for stem, value in values.items()}

        return {
            "mean_sdr_db": round(self.mean_db, 3),
            "sdr_db": rounded(self.estimate),
            "mask_sdr_db": rounded(self.mask_estimate),
            "mixture_sdr_db": rounded(self.mixture),
        }


@torch.no_grad()
def validate(model: nn.Module, targets: np.ndarray, stems: Sequence[str], fabric: Fabric) -> ValidationScore:
    """targets: (excerpts, S, C, samples); the mixture is their sum. The devices share the excerpts.

    Leaves the model in evaluation mode.
    """
    model.eval()
    # (S, 4): sums of the SDR of final, mask and mixture; and how many targets sound
    sums = torch.zeros(len(stems), 4, device=fabric.device)
    own = targets[fabric.global_rank :: fabric.world_size]
    size = BATCH.get(fabric.device.type, 8)
    for begin in range(0, len(own), size):
        wanted = torch.from_numpy(own[begin : begin + size]).to(fabric.device)
        mixture = wanted.sum(1)
        output = model(mixture)
        sounds = wanted.square().mean((2, 3)).sqrt() >= SILENT_RMS  # (B, S)
        triple = (output.estimates, output.mask_estimates, mixture[:, None])
        scores = [torch.where(sounds, sdr_db(wanted, part.float()), 0.0) for part in triple]
        sums += torch.stack([*scores, sounds.float()], dim=-1).sum(0)
    sums = fabric.all_reduce(sums, reduce_op="sum").cpu()
    means = sums[:, :3] / sums[:, 3:]
    sounding = [index for index in range(len(stems)) if sums[index, 3] > 0]
    final, mask, mixture = ({stems[index]: float(means[index, kind]) for index in sounding} for kind in range(3))
    return ValidationScore(final, mask, mixture)


def sdr_db(targets: Tensor, estimates: Tensor) -> Tensor:
    """As `evaluation.metrics.usdr`, for a batch where it lies: (B, S, C, samples) twice -> (B, S)."""
    error = (targets - estimates).square().sum((2, 3))
    return 10 * torch.log10((targets.square().sum((2, 3)) + 1e-7) / (error + 1e-7))
