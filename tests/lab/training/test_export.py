from __future__ import annotations

import numpy as np
import pytest
import torch

from tsbs_daw.lab.evaluation.evaluate import usdr
from tsbs_daw.lab.training.run_folder import fit_map_gains, scale_map
from tsbs_daw.network import TwoStageSeparator


@pytest.fixture
def network(small_recipe) -> TwoStageSeparator:
    torch.manual_seed(1)
    return TwoStageSeparator(small_recipe().model_config_value()).eval()


def added(network: TwoStageSeparator, mixture: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        separation = network(mixture)
    return separation.estimates - separation.mask_estimates


def test_each_stem_s_additions_follow_its_own_factor(network):
    mixture, gains = torch.randn(1, 2, 8000) * 0.1, torch.tensor([0.0, -0.25, 0.5, 1.0])
    before = added(network, mixture)
    scale_map(network, gains[:, None].expand(4, network.config.bands))
    torch.testing.assert_close(added(network, mixture), before * gains[:, None, None], atol=1e-6, rtol=1e-4)


def test_a_band_s_additions_follow_its_own_factor(network):
    mixture, gains = torch.randn(1, 2, 8000) * 0.1, torch.ones(4, network.config.bands)
    gains[2, 5] = 0.0  # bins 80 to 95
    before = network.spectrum(added(network, mixture)[0])
    scale_map(network, gains)
    after = network.spectrum(added(network, mixture)[0])
    quiet = after[4:6, :, 83:93].abs().mean() / before[4:6, :, 83:93].abs().mean()  # inside, where no neighbour leaks
    assert quiet < 0.1
    torch.testing.assert_close(after[:4], before[:4], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after[4:6, :, 100:], before[4:6, :, 100:], atol=1e-2, rtol=1e-2)


def lacking(network: TwoStageSeparator, share: float, seed: int) -> np.ndarray:
    """Targets whose mask estimate lacks `share` of what the map stage adds to the first stem, at the second's cost."""
    generator, targets = torch.Generator().manual_seed(seed), []
    for _ in range(3):
        mixture = torch.randn(1, 2, 8000, generator=generator) * 0.1
        with torch.no_grad():
            masked = network(mixture).mask_estimates[0]
        take = share * added(network, mixture)[0, 0]
        masked[0] += take
        masked[1] -= take
        targets.append((masked + (mixture[0] - masked.sum(0)) / 4).numpy())
    return np.stack(targets)


@pytest.mark.parametrize("songs", [1, 4])
@pytest.mark.parametrize("share", [0.4, -0.5])
def test_the_factor_is_what_the_targets_ask_for(network, share, songs):
    targets = [lacking(network, share, seed) for seed in range(songs)]
    gains = fit_map_gains(network, targets)
    assert gains.shape == (4, network.config.bands)
    assert (gains[0] / share).median().item() == pytest.approx(1 / 1.3, abs=0.1)  # the ridge takes a little of all
    scores = []
    for _ in range(2):
        with torch.no_grad():
            estimate = network(torch.from_numpy(targets[0][0].sum(0))[None]).estimates[0, 0].numpy()
        scores.append(usdr(targets[0][0][0], estimate))
        scale_map(network, gains)
    assert scores[1] > scores[0] + 6


def test_where_songs_disagree_the_factor_is_nothing(network):
    agreed = fit_map_gains(network, [lacking(network, 0.4, seed) for seed in range(4)])
    apart = fit_map_gains(network, [lacking(network, share, seed) for seed, share in enumerate((0.4, -0.3, 0.4, -0.3))])
    assert agreed[0].median() > 0.25
    assert (apart[0] == 0).float().mean() > 0.9


def test_a_stem_that_never_sounds_is_left_without_additions(network):
    targets = np.random.default_rng(0).standard_normal((2, 4, 2, 8000)).astype(np.float32) * 0.1
    targets[:, 3] = 0
    assert (fit_map_gains(network, [targets])[3] == 0).all()
