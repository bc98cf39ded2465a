from __future__ import annotations

import numpy as np
import pytest
import torch

from tsbs_daw.model import TwoStageSeparator
from tsbs_daw.training.calibrate import fit_map_gains, scale_map


@pytest.fixture
def network(small_recipe) -> TwoStageSeparator:
    torch.manual_seed(1)
    return TwoStageSeparator(small_recipe().model_config_value()).eval()


def added(network: TwoStageSeparator, mixture: torch.Tensor) -> torch.Tensor:
    separation = network(mixture)
    return (separation.estimates - separation.mask_estimates).detach()


def test_each_stem_s_additions_follow_its_own_factor(network):
    mixture, gains = torch.randn(1, 2, 8000) * 0.1, torch.tensor([0.0, 0.25, 0.5, 1.0])
    before = added(network, mixture)
    scale_map(network, gains)
    torch.testing.assert_close(added(network, mixture), before * gains[:, None, None], atol=1e-6, rtol=1e-4)


def targets_missing(network: TwoStageSeparator, share: float) -> np.ndarray:
    """Targets for which the mask stage lacks exactly `share` of what the map stage adds to the first stem.

    The mixture must stay what it is, so the second stem gives what the first one takes.
    """
    mixture = torch.randn(1, 2, 8000) * 0.1
    separation = network(mixture)
    targets = separation.mask_estimates[0].detach().clone()
    take = share * added(network, mixture)[0, 0]
    targets[0] += take
    targets[1] -= take
    return (targets + (mixture[0] - targets.sum(0)) / len(targets)).numpy()


@pytest.mark.parametrize(("share", "expected"), [(0.4, 0.4), (-0.5, 0.0), (3.0, 1.0)])
def test_the_factor_is_what_the_targets_ask_for_and_stays_between_none_and_all(network, share, expected):
    targets = np.stack([targets_missing(network, share) for _ in range(3)])
    gains = fit_map_gains(network, targets)
    assert gains.shape == (4,)
    assert gains[0].item() == pytest.approx(expected, abs=0.02)


def test_a_stem_that_never_sounds_is_left_without_additions(network):
    targets = np.random.default_rng(0).standard_normal((2, 4, 2, 8000)).astype(np.float32) * 0.1
    targets[:, 3] = 0
    assert fit_map_gains(network, targets)[3] == 0
