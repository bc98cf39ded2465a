"""SDR on fixed excerpts while training: both stages, and the mixture itself as the floor. S stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from tsbs_daw.lab.evaluation.metrics import usdr

SILENT_RMS = 10.0 ** (-55.0 / 20.0)  # an excerpt whose target is quieter says nothing about separation


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
    # (excerpts, S, 3) SDR of final, mask, mixture; one more plane marks the targets that sound
    table = torch.zeros(len(targets), len(stems), 4, dtype=torch.float64)
    for index in range(fabric.global_rank, len(targets), fabric.world_size):
        mixture = targets[index].sum(axis=0)
        output = model(torch.from_numpy(mixture)[None].to(fabric.device))
        estimates = output.estimates[0].float().cpu().numpy()
        mask_estimates = output.mask_estimates[0].float().cpu().numpy()
        for stem, target in enumerate(targets[index]):
            if np.sqrt(np.mean(target**2)) >= SILENT_RMS:
                pairs = (estimates[stem], mask_estimates[stem], mixture)
                scores = [usdr(target, estimate) for estimate in pairs]
                table[index, stem] = torch.tensor([*scores, 1.0], dtype=torch.float64)
    sums = fabric.all_reduce(table.sum(dim=0).to(fabric.device, torch.float32), reduce_op="sum").cpu()
    means = sums[:, :3] / sums[:, 3:]
    sounding = [index for index in range(len(stems)) if sums[index, 3] > 0]
    final, mask, mixture = ({stems[index]: float(means[index, kind]) for index in sounding} for kind in range(3))
    return ValidationScore(final, mask, mixture)
