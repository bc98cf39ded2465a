"""How much of what the map stage adds to keep, per stem: fitted on songs that it was not trained on.

The map stage learns its corrections on the training songs and is surer of them than it may be. One factor a stem, the
least squares solution on held-out songs, takes that back; it goes into the weights, and costs nothing afterwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.model import TwoStageSeparator
from tsbs_daw.training.validate import SILENT_RMS


@torch.no_grad()
def fit_map_gains(network: TwoStageSeparator, targets: np.ndarray) -> Tensor:
    """The factors, 0 to 1, with which the map stage's additions lower the mean error level most.

    An error's level counts in dB, as SDR does, so an excerpt weighs the more, the less the mask stage left to mend.

    Args:    targets: (excerpts, S, C, samples); the mixture is their sum
    Returns: (S,)
    """
    network.eval()
    along, energy = (torch.zeros(targets.shape[1], dtype=torch.float64) for _ in range(2))
    for stems in targets:
        separation = network(torch.from_numpy(stems.sum(axis=0))[None])
        missing = torch.from_numpy(stems) - separation.mask_estimates[0]
        added = separation.estimates[0] - separation.mask_estimates[0]
        sounds = torch.from_numpy(np.sqrt(np.square(stems).mean(axis=(1, 2))) >= SILENT_RMS)
        weight = sounds / missing.double().square().sum((1, 2)).clamp(min=1e-12)
        along += weight * (added.double() * missing).sum((1, 2))
        energy += weight * added.double().square().sum((1, 2))
    return (along / energy.clamp(min=1e-12)).clamp(0, 1).float()


@torch.no_grad()
def scale_map(network: TwoStageSeparator, gains: Tensor) -> None:
    """Multiply what the map stage adds to each stem by its factor, by its last layer's weights. gains: (S,)"""
    estimator, stems = network.map_estimator, len(gains)
    for group, weight, bias in zip(network.config.band_groups, estimator.weight3, estimator.bias3, strict=True):
        # Outputs are read as value/gate x real/imaginary x stem x bin, and only the value is a factor of the answer.
        factors = torch.ones(2, 2, stems, group.band_width)
        factors[0] = gains[:, None]
        factors = factors.reshape(stems, 4 * group.band_width)
        weight.mul_(factors[..., None])
        bias.mul_(factors)
