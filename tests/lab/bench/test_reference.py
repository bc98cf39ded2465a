from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tsbs_daw.lab.bench.networks import as_reference
from tsbs_daw.network import TINY, TwoStageSeparator


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("samples", [3000, 90_000])
def test_the_yardstick_computes_what_the_network_computes(samples, bidirectional):
    torch.manual_seed(0)
    config = replace(TINY, feature_dim=8, headdim=4, mask_blocks=1, map_blocks=1, bidirectional=bidirectional)
    network = TwoStageSeparator(config).double()
    for part in network.parameters():
        part.data.add_(0.1 * torch.randn_like(part))
    mixture = 0.1 * torch.randn(1, 2, samples, dtype=torch.float64)
    with torch.inference_mode():
        for found, wanted in zip(as_reference(network)(mixture), network(mixture), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
