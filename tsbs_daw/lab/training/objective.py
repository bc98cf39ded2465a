"""The training loss, and the validation SDR on fixed excerpts.

B batch, S stems, C channels.

The loss of each stage is that of BSRNN (Luo and Yu, arXiv 2209.15174):  |x - x'| + |Re(X - X')| + |Im(X - X')|,
means of absolute differences in time and in the spectrum, X = STFT(x). The final estimate and the mask stage's
estimate are both trained, each with its weight. A recipe may add two terms: a spectral tilt, because an L1 loss of
amplitudes is insensitive to high frequencies, and the error's level in dB, because an L1 loss favours the median (which
is silence for a rare stem), while SDR depends on the mean.

Validation measures the SDR of both stages, and of the mixture as a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from tsbs_daw.lab.training.recipe import LossPart

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LEVEL_FLOOR = 0.3  # relative to the mixture's mean level; a silent stem then has about twice the weight of a usual one
SILENCE_FLOOR = 0.003  # full scale 1; about -50 dBFS
ERROR_FLOOR = 1e-3  # relative to the mixture's energy; an error 30 dB below the mixture is good enough
TILT_PIVOT_HZ = 200.0  # the tilt is flat below


@dataclass(frozen=True)
class LossTerms:
    """The loss and its parts.

    Attributes:
        total: The loss to minimise.
        final: Loss of the final estimate before weighting, detached.
        mask: Loss of the mask stage before weighting, detached.
    """

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
        # The STFT is linear, so it suffices to transform the differences, for both stages at once.
        difference = torch.stack([estimates.float() - targets, mask_estimates.float() - targets])
        distance = self._distance(difference, weights)
        if self.settings.sdr_weight:
            distance = distance + self.settings.sdr_weight * error_level_db(difference, targets)
        final, mask = distance
        total = self.settings.final_weight * final + self.settings.mask_weight * mask
        return LossTerms(total, final.detach(), mask.detach())

    def _stem_weights(self, targets: Tensor) -> Tensor:
        """Return the inverse of each stem's mean level in the batch, (S,), so that quiet stems and songs count equally.

        If everything is silent, a level of -50 dBFS is assumed, so that silence is learnt with a small weight.
        """
        if not self.settings.equalise_stems:
            return targets.new_ones(targets.shape[1])
        stem_level = targets.abs().mean(dim=(0, 2, 3))
        mixture_level = targets.sum(dim=1).abs().mean()
        return 1.0 / (stem_level + LEVEL_FLOOR * mixture_level + SILENCE_FLOOR)

    def _distance(self, difference: Tensor, weights: Tensor) -> Tensor:
        """Weighted distance in time and spectrum: (stages, B, S, C, samples) -> (stages,)."""
        distance = self.settings.time_weight * difference.abs().mean(dim=(1, 3, 4))
        for n_fft in self.settings.n_ffts:
            share = self.settings.spectrum_weight / len(self.settings.n_ffts)
            distance = distance + share * self._spectral(difference, n_fft)
        return (distance * weights).mean(dim=1)

    def _spectral(self, difference: Tensor, n_fft: int) -> Tensor:
        """Mean of |Re| + |Im|: (stages, B, S, C, samples) -> (stages, S)."""
        window = getattr(self, f"window_{n_fft}")
        if difference.shape[-1] <= n_fft // 2:
            difference = torch.nn.functional.pad(difference, (0, n_fft // 2 + 1 - difference.shape[-1]))
        spectrum = torch.stft(
            difference.flatten(0, 3), n_fft, hop_length=n_fft // 4, window=window, center=True, return_complex=True
        )
        # Divided by the window's norm, white noise has the same magnitude in both domains.
        size = torch.view_as_real(spectrum).abs().mean(dim=(2, 3))
        parts = (size * getattr(self, f"tilt_{n_fft}")).mean(dim=1) * (2.0 / window.norm())
        return parts.reshape(difference.shape[:4]).mean(dim=(1, 3))


def error_level_db(difference: Tensor, targets: Tensor) -> Tensor:
    """Return the level of the errors relative to the mixture in dB, averaged over examples and stems.

    The level is at least -30 dB, so that smaller errors, and errors in silence, bring no further gain.

    Shape:
        difference: (stages, B, S, C, samples)
        targets: (B, S, C, samples)
        result: (stages,)
    """
    mixture = targets.sum(dim=1, keepdim=True).square().mean(dim=(2, 3)) + SILENCE_FLOOR**2  # (B, 1)
    error = difference.square().mean(dim=(3, 4))  # (stages, B, S)
    return 10.0 * torch.log10(error / mixture + ERROR_FLOOR).mean(dim=(1, 2))


def spectral_tilt(n_fft: int, sample_rate: int, db_per_octave: float) -> Tensor:
    """Return weights (bins,) that rise with frequency above 200 Hz. Their mean is one, as without a tilt."""
    hz = torch.fft.rfftfreq(n_fft, 1.0 / sample_rate).clamp(min=TILT_PIVOT_HZ)
    tilt = 10.0 ** (torch.log2(hz / TILT_PIVOT_HZ) * db_per_octave / 20.0)
    return tilt / tilt.mean()


SILENT_RMS = 10.0 ** (-55.0 / 20.0)  # quieter targets are not scored
BATCH = {"cpu": 1}  # excerpts at a time; on other devices 8


@dataclass(frozen=True)
class ValidationScore:
    """Mean SDR in dB of each stem over the excerpts in which it sounds."""

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
    """Score a model on fixed excerpts, divided among the devices. Leaves the model in evaluation mode.

    Args:
        model: The network.
        targets: Targets of the excerpts; the mixture is their sum.
        stems: Names of the stems.
        fabric: The devices.

    Shape:
        targets: (excerpts, S, C, samples)
    """
    model.eval()
    # (S, 4): sums of the SDR of final estimate, mask stage and mixture, and the number of targets that sound
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
    sums = cast("Tensor", fabric.all_reduce(sums, reduce_op="sum")).cpu()  # whose type is that of any collection
    means = sums[:, :3] / sums[:, 3:]
    sounding = [index for index in range(len(stems)) if sums[index, 3] > 0]
    final, mask, untouched = ({stems[index]: float(means[index, kind]) for index in sounding} for kind in range(3))
    return ValidationScore(final, mask, untouched)


def sdr_db(targets: Tensor, estimates: Tensor) -> Tensor:
    """Like `evaluation.evaluate.usdr`, for a batch on its device: (B, S, C, samples) twice -> (B, S)."""
    error = (targets - estimates).square().sum((2, 3))
    return 10 * torch.log10((targets.square().sum((2, 3)) + 1e-7) / (error + 1e-7))
