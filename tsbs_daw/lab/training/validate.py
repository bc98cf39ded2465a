"""SDR on fixed excerpts while training: both stages, and the mixture itself as the floor. S stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

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
