"""SDR on fixed excerpts while training: both stages, and the mixture itself as the floor. S stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tsbs_daw.evaluation.metrics import usdr

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
def validate(
    model: nn.Module, targets: np.ndarray, stems: Sequence[str], device: torch.device, batch: int
) -> ValidationScore:
    """targets: (excerpts, S, C, samples); the mixture is their sum. Leaves the model in evaluation mode."""
    model.eval()
    scores: dict[str, list[list[float]]] = {kind: [[] for _ in stems] for kind in ("estimate", "mask", "mixture")}
    for first in range(0, len(targets), batch):
        part = targets[first : first + batch]
        mixture = part.sum(axis=1)
        output = model(torch.from_numpy(mixture).to(device))
        estimates = output.estimates.float().cpu().numpy()
        mask_estimates = output.mask_estimates.float().cpu().numpy()
        for example in range(len(part)):
            for stem in range(len(stems)):
                target = part[example, stem]
                if np.sqrt(np.mean(target**2)) < SILENT_RMS:
                    continue
                scores["estimate"][stem].append(usdr(target, estimates[example, stem]))
                scores["mask"][stem].append(usdr(target, mask_estimates[example, stem]))
                scores["mixture"][stem].append(usdr(target, mixture[example]))

    def means(kind: str) -> dict[str, float]:
        return {stem: float(np.mean(values)) for stem, values in zip(stems, scores[kind], strict=True) if values}

    return ValidationScore(means("estimate"), means("mask"), means("mixture"))
