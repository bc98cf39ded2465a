from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from golden_weights import CASE_A, CASE_B, GoldenCase

from tsbs_daw.network import TINY, TwoStageSeparator, tiles
from tsbs_daw.network.blocks import SequenceUnit
from tsbs_daw.network.inference import for_inference
from tsbs_daw.network.tiles import TiledSequenceUnit

SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16)


def agreement_db(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum()))


def uneven(module: torch.nn.Module) -> torch.nn.Module:
    """Weights that are one or zero at first would hide a mistake."""
    for part in module.parameters():
        with torch.no_grad():
            part.add_(0.1 * torch.randn_like(part))
    return module.eval()


@pytest.mark.parametrize("case", [CASE_A, CASE_B], ids=lambda case: case.name)
def test_the_published_network_s_outputs_are_reproduced(case: GoldenCase):
    network = for_inference(case.network(torch.float32))
    with torch.inference_mode():
        found = network(torch.tensor(case.mixture(), dtype=torch.float32))
    for output, golden in zip(found, (case.expected(), case.expected_masked()), strict=True):
        wanted = torch.from_numpy(golden)
        assert (output - wanted).abs().max() < 1e-5 * wanted.square().mean().sqrt()


@pytest.mark.parametrize("changes", [{}, {"bidirectional": False}, {"channel_activation": "prelu"}], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_tiles_equal_the_plain_network(changes, channels):
    torch.manual_seed(0)
    network = uneven(TwoStageSeparator(replace(SMALL, **changes)))
    mixture = 0.1 * torch.randn(2, channels, 20_000)
    with torch.inference_mode():
        for found, wanted in zip(for_inference(network)(mixture), network(mixture), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.square().mean().sqrt()))


@pytest.mark.parametrize("length", [1, 2, 57, 64, 88, 131, 259, tiles.LONGEST_MATRIX + 3])
def test_a_unit_in_tiles_equals_the_plain_one_at_any_length(length, monkeypatch):
    torch.manual_seed(length)
    unit = uneven(SequenceUnit(SMALL))
    x = torch.randn(length, 5, 16).transpose(0, 1)
    with torch.inference_mode():
        wanted = unit(x)
        monkeypatch.setattr(tiles, "TILE_BYTES", 2 * length * 64 * 4)  # two sequences a tile, and one left
        TiledSequenceUnit(unit, torch.float32)(x)
    torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-5)


def test_states_that_decay_at_once_leave_nothing_undefined():
    torch.manual_seed(0)
    unit = uneven(SequenceUnit(SMALL))
    x = torch.randn(2, 130, 16)
    with torch.inference_mode():
        unit.mamba.mamba.dt_bias[:, 0] = -200.0  # a step of zero
        unit.mamba.mamba.dt_bias[:, 1] = 200.0  # one that forgets everything
        wanted = unit(x)
        TiledSequenceUnit(unit, torch.float32)(x)
    torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_decays_at_once_does_not_reach_the_others(dtype):
    torch.manual_seed(0)
    unit = uneven(SequenceUnit(replace(SMALL, expand=4)))
    x = torch.randn(3, 130, 16)
    with torch.inference_mode():
        unit.mamba.mamba.dt_bias[:, 1] = 30.0
        wanted = unit(x)
        TiledSequenceUnit(unit, dtype)(x)
    if dtype == torch.float32:
        torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-5)
    assert agreement_db(x, wanted) > 40


def test_decays_up_to_the_steepest_lose_nothing(monkeypatch):
    torch.manual_seed(0)
    unit = uneven(SequenceUnit(SMALL)).double()
    x = torch.randn(2, 130, 16, dtype=torch.float64)
    with torch.inference_mode():
        unit.mamba.mamba.in_proj[:, -unit.mamba.mamba.config.heads :] = 0.0
        rate = unit.mamba.mamba.A_log.exp() / math.log(2)
        step = 0.99 * tiles.STEEPEST / tiles.ROWS / rate  # every head as steep as may be
        unit.mamba.mamba.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))
        wanted, found = unit(x), x.float()
        monkeypatch.setattr(TiledSequenceUnit, "_carry", None)  # which would be exact
        TiledSequenceUnit(unit.float(), torch.float32)(found)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_several_threads_give_what_one_gives():
    torch.manual_seed(0)
    network, mixture = for_inference(TwoStageSeparator(SMALL)), 0.1 * torch.randn(1, 2, 20_000)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, tiles.MOST_SIDE_BY_SIDE + 9):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(network(mixture).estimates)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    for estimates in found[1:]:
        torch.testing.assert_close(estimates, found[0], rtol=0, atol=1e-6 * float(found[0].abs().max()))


def test_what_fails_in_one_thread_is_told():
    before = torch.get_num_threads()
    found = []

    def fail(place: int) -> None:
        found.append(place)
        if place == 3:
            raise ValueError("the third")

    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="the third"), tiles.side_by_side():
            tiles.for_each(fail, range(4))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert sorted(found) == [0, 1, 2, 3]


def test_bfloat16_agrees_with_float32_above_40_db():
    torch.manual_seed(0)
    network = TwoStageSeparator(replace(SMALL, mask_blocks=2))
    mixture = 0.1 * torch.randn(1, 2, 30_000)
    with torch.inference_mode():
        wanted = network(mixture).estimates
        assert agreement_db(for_inference(network, torch.bfloat16)(mixture).estimates, wanted) > 40


def test_what_is_trained_later_does_not_reach_it():
    network, mixture = TwoStageSeparator(SMALL), 0.1 * torch.randn(1, 1, 4000)
    lean = for_inference(network)
    with torch.inference_mode():
        before = lean(mixture).estimates
        for part in network.parameters():
            part.mul_(0.5)
        assert torch.equal(lean(mixture).estimates, before)


def test_only_what_is_wanted_is_given():
    network, mixture = for_inference(TwoStageSeparator(SMALL)), 0.1 * torch.randn(1, 2, 4000)
    with torch.inference_mode():
        both = network(mixture)
        assert torch.equal(network(mixture, final_only=True).estimates, both.estimates)
        assert torch.equal(network(mixture, mask_only=True).estimates, both.mask_estimates)
