from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import CASE_A, CASE_B, GoldenCase

from tsbs_daw.core.errors import CheckpointError
from tsbs_daw.network import FULL, LITE, TINY, TwoStageSeparator, load_reference_state_dict, reference_state_dict
from tsbs_daw.network.config import PAPER_BANDS, ModelConfig
from tsbs_daw.network.network import apply_masks

SHAPES = Path(__file__).parent / "data" / "state_dict_shapes.json"
SMALL = replace(TINY, feature_dim=16, mask_blocks=1, map_blocks=1, headdim=16, unit_level=False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", [CASE_A, CASE_B], ids=lambda case: case.name)
def test_the_published_network_s_outputs_are_reproduced(case: GoldenCase, dtype, tolerance):
    with torch.no_grad():
        found = case.network(dtype)(torch.tensor(case.mixture(), dtype=dtype))
    for output, golden in zip(found, (case.expected(), case.expected_masked()), strict=True):
        assert np.abs(output.numpy() - golden).max() < tolerance * np.sqrt(np.square(golden).mean())


@pytest.mark.parametrize(("name", "config", "count"), [("full", FULL, 35_517_480), ("lite", LITE, 27_708_648)])
def test_every_name_and_shape_of_the_published_weights_is_there(name, config, count):
    with torch.device("meta"):
        network = TwoStageSeparator(config)
        found = {key: list(part.shape) for key, part in reference_state_dict(network).items()}
    assert found == json.loads(SHAPES.read_text())[name]
    assert sum(part.numel() for part in network.parameters()) == count


def test_the_band_table_covers_every_bin_at_the_published_edges():
    edges_hz = np.cumsum(PAPER_BANDS) * 44100 / 2048
    for count, edge_hz in [(20, 861), (30, 1723), (38, 3618), (46, 7580), (54, 15504), (56, 19466), (57, 22072)]:
        assert edges_hz[count - 1] == pytest.approx(edge_hz, abs=1)


def test_reference_weights_survive_the_journey_there_and_back():
    network, other = TwoStageSeparator(SMALL), TwoStageSeparator(SMALL)
    load_reference_state_dict(other, reference_state_dict(network))
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_of_another_network_are_refused_and_change_nothing(change):
    network = TwoStageSeparator(SMALL)
    before = reference_state_dict(network)
    weights = {name: part + 1 for name, part in before.items()}
    if change == "missing":
        del weights["in_conv.bias"]
    elif change == "unknown":
        weights["in_conv.more"] = torch.zeros(1)
    else:
        weights["in_conv.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"in_conv\."):
        load_reference_state_dict(network, weights)
    assert all(torch.equal(part, before[name]) for name, part in reference_state_dict(network).items())


@pytest.mark.parametrize("samples", [1, 2, 511, 1024, 1025, 2047, 5000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_length_and_any_number_of_channels(samples, channels):
    with torch.no_grad():
        found = TwoStageSeparator(SMALL)(torch.randn(1, channels, samples))
    for output in found:
        assert output.shape == (1, 4, channels, samples)
        assert output.isfinite().all()


def test_the_mask_stage_s_stems_sum_to_the_mixture():
    mixture = torch.randn(2, 2, 12345, dtype=torch.float64)
    with torch.no_grad():
        found = TwoStageSeparator(SMALL).double()(mixture)
    torch.testing.assert_close(found.mask_estimates.sum(1), mixture, rtol=0, atol=1e-9)
    assert (found.estimates.sum(1) - mixture).abs().max() > 1e-3  # the map stage does not keep that sum


def test_masks_are_shifted_to_sum_to_one():
    masks, spectrum = (torch.randn(shape, dtype=torch.complex64) for shape in ((1, 4, 3, 5), (1, 3, 5)))
    torch.testing.assert_close(apply_masks(masks, spectrum).sum(1), spectrum)


def test_the_mask_stage_alone_is_what_the_whole_network_reports():
    network, mixture = TwoStageSeparator(SMALL), torch.randn(1, 2, 6000)
    with torch.no_grad():
        alone, whole = network(mixture, mask_only=True), network(mixture)
    torch.testing.assert_close(alone.estimates, whole.mask_estimates)


def test_every_parameter_receives_a_gradient():
    network = TwoStageSeparator(SMALL)
    found = network(torch.randn(1, 2, 6000))
    (found.estimates.square().mean() + found.mask_estimates.square().mean()).backward()
    for name, part in network.named_parameters():
        assert part.grad is not None and part.grad.abs().max() > 0, name


def test_checkpointing_changes_the_memory_and_not_the_gradient():
    network, mixture = TwoStageSeparator(SMALL).double(), torch.randn(1, 2, 6000, dtype=torch.float64)
    network.train()
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        network(mixture).estimates.square().mean().backward()
        gradients.append([part.grad.clone() for part in network.parameters() if part.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_unit_level_network_follows_the_gain_and_keeps_silence():
    network = TwoStageSeparator(replace(SMALL, unit_level=True)).double()
    mixture = torch.randn(1, 2, 6000, dtype=torch.float64) * 0.1
    with torch.no_grad():
        loud, soft = network(mixture).estimates, network(mixture * 0.01).estimates
        silent = network(torch.zeros(1, 2, 6000, dtype=torch.float64)).estimates
    torch.testing.assert_close(loud * 0.01, soft)
    assert silent.abs().max() < 1e-4  # -80 dBFS


def test_a_forward_only_network_is_the_same_class():
    network = TwoStageSeparator(replace(SMALL, bidirectional=False))
    assert network(torch.randn(1, 1, 3000)).estimates.shape == (1, 4, 1, 3000)


def test_a_config_survives_json_and_refuses_what_it_does_not_know():
    values = json.loads(json.dumps(LITE.to_dict()))
    assert ModelConfig.from_dict(values) == LITE
    with pytest.raises(TypeError, match="colour"):
        ModelConfig.from_dict({**values, "colour": 1})


@pytest.mark.parametrize("changes", [{"band_widths": (2, 3)}, {"headdim": 60}, {"stems": ("a", "a")}])
def test_an_impossible_config_is_refused(changes):
    with pytest.raises(ValueError, match=r"bins|headdim|stems"):
        replace(FULL, **changes)
