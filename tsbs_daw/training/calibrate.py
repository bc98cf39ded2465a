"""How much of what the map stage adds to keep, per stem and band: fitted on songs that it was not trained on.

The map stage learns its corrections on the training songs, and is surer of them than it may be. One factor for each
stem and band, the least squares solution on held-out songs, takes that back; it goes into the weights, and costs
nothing afterwards. S stems, K bands.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.model import TwoStageSeparator
from tsbs_daw.training.validate import SILENT_RMS

# As if each band added this share of the mean band more, without any use: bands that add little stay near zero.
RIDGE = 0.3


@torch.no_grad()
def fit_map_gains(network: TwoStageSeparator, songs: Iterable[np.ndarray]) -> Tensor:
    """The factors with which the map stage's additions lower the songs' mean error level most. Below zero where wrong.

    An error's level counts in dB, as SDR does, so a song weighs the more, the less the mask stage left to mend in it.

    Args:    songs: targets of each song's excerpts, (excerpts, S, C, samples); the mixture is their sum
    Returns: (S, K)
    """
    network.eval()
    along = energy = torch.zeros(len(network.config.stems), network.config.bands, dtype=torch.float64)
    for excerpts in songs:
        sums = [_sums(network, stems) for stems in excerpts]
        song_along, song_energy, left = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
        weight = (left > 0) / left.clamp(min=1e-12)
        along = along + weight[:, None] * song_along
        energy = energy + weight[:, None] * song_energy
    return (along / (energy + RIDGE * energy.mean(1, keepdim=True)).clamp(min=1e-12)).float()


def _sums(network: TwoStageSeparator, stems: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Of an excerpt: added x missing and added squared, (S, K), and the energy that is missing, (S,).

    All are zero for a stem that does not sound.
    """
    separation = network(torch.from_numpy(stems.sum(axis=0))[None])
    missing = torch.from_numpy(stems) - separation.mask_estimates[0]
    added = separation.estimates[0] - separation.mask_estimates[0]
    sounds = torch.from_numpy(np.sqrt(np.square(stems).mean(axis=(1, 2))) >= SILENT_RMS)
    ours, theirs = (network.spectrum(part).unflatten(0, part.shape[:2]) for part in (added, missing))
    along, energy = _by_band((ours.conj() * theirs).real, network), _by_band(ours.abs().square(), network)
    return sounds[:, None] * along, sounds[:, None] * energy, sounds * missing.double().square().sum((1, 2))


def _by_band(values: Tensor, network: TwoStageSeparator) -> Tensor:
    """(S, C, T, F) -> sums, (S, K)."""
    bands = values.double().sum((1, 2)).split(network.config.band_widths, dim=-1)
    return torch.stack([band.sum(-1) for band in bands], dim=-1)


@torch.no_grad()
def scale_map(network: TwoStageSeparator, gains: Tensor) -> None:
    """Multiply what the map stage adds to each stem in each band, by its last layer's weights. gains: (S, K)"""
    estimator, stems = network.map_estimator, len(gains)
    for group, weight, bias in zip(network.config.band_groups, estimator.weight3, estimator.bias3, strict=True):
        # Outputs are read as value/gate x real/imaginary x stem x bin, and only the value is a factor of the answer.
        factors = torch.ones(group.count, 2, 2, stems, group.band_width)
        factors[:, 0] = gains.T[group.first_band : group.first_band + group.count, None, :, None]
        factors = factors.reshape(group.count, stems, 4 * group.band_width)
        weight.mul_(factors[..., None])
        bias.mul_(factors)
