from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tsbs_daw.lab.training.optimiser import (
    Clock,
    Muon,
    band_levels,
    clip_gradients,
    ema_decay,
    is_decayed,
    is_matrix,
    learning_rate,
    make_optimiser,
    orthogonalise,
)
from tsbs_daw.lab.training.recipe import OptimiserPart
from tsbs_daw.network import TwoStageSeparator

SETTINGS = {"learning_rate": 1e-3, "warmup_steps": 10, "total_steps": 110, "final_share": 0.1}


def test_the_rate_climbs_from_the_first_step():
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(0, settings) == pytest.approx(1e-4)
    assert learning_rate(9, settings) == pytest.approx(1e-3)


@pytest.mark.parametrize(("decay", "half"), [("cosine", 5.5e-4), ("exponential", 1e-3 * 0.1**0.5), ("constant", 1e-3)])
def test_the_rate_falls_as_the_recipe_says(decay, half):
    settings = OptimiserPart(**SETTINGS, decay=decay)
    assert learning_rate(60, settings) == pytest.approx(half)
    rates = [learning_rate(step, settings) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_after_the_last_step_the_rate_stays():
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(110, settings) == learning_rate(10**6, settings) == pytest.approx(1e-4)


def test_the_average_forgets_the_start():
    settings = OptimiserPart(ema_decay=0.999)
    assert ema_decay(0, settings) == pytest.approx(0.1)
    assert ema_decay(10**6, settings) == 0.999


def test_a_clock_lets_the_rate_fall_with_time_and_counts_what_earlier_calls_spent():
    now = 100.0
    clock = Clock(200.0, 0.0, lambda: now)
    settings = OptimiserPart(**SETTINGS)
    assert learning_rate(10**6, settings, clock.share) == pytest.approx(1e-3)
    now = 150.0
    assert clock.share == pytest.approx(0.5) and not clock.over
    clock.reserve(20.0)
    assert clock.share == pytest.approx(50 / 80)
    now = 180.0
    assert clock.over and learning_rate(10**6, settings, clock.share) == pytest.approx(1e-4)
    resumed = Clock(280.0, 100.0, lambda: now)
    assert resumed.share == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_weight_decay_leaves_norms_biases_and_the_scan_s_own_parameters_alone(small_recipe, kind):
    model = TwoStageSeparator(small_recipe().model_config_value())
    decayed = {name.split(".")[-2 if name[-1].isdigit() and name[-2] == "." else -1]
               for name, _ in model.named_parameters() if is_decayed(name)}  # fmt: skip
    assert decayed == {"weight", "weight1", "weight2", "weight3", "in_proj", "out_proj", "conv_weight"}
    groups = make_optimiser(model, OptimiserPart(kind=kind)).param_groups
    kept = {parameter for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    assert kept == {parameter for name, parameter in model.named_parameters() if not is_decayed(name)}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_muon_turns_every_matrix_and_nothing_else(small_recipe):
    model = TwoStageSeparator(small_recipe().model_config_value())
    turned = {parameter for group in make_optimiser(model, OptimiserPart(kind="muon")).param_groups
              if group["orthogonal"] for parameter in group["params"]}  # fmt: skip
    names = {name.rsplit(".", 1)[-1] for name, parameter in model.named_parameters() if parameter in turned}
    assert {"in_proj", "out_proj", "weight1", "weight2", "weight"} < names
    assert all(parameter.ndim >= 2 for parameter in turned)
    assert not is_matrix("map_blocks.0.time.mamba.mamba.conv_weight")
    assert not is_matrix("map_blocks.0.time.norm_weight")


@pytest.mark.parametrize("shape", [(8, 8), (3, 20, 8), (2, 3, 8, 20)])
def test_every_matrix_of_a_stack_keeps_its_directions_and_loses_its_scale(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * 10.0 ** torch.randint(-3, 4, (*shape[:-2], 1, 1))
    found = orthogonalise(matrices)
    left, sizes, right = torch.linalg.svd(found, full_matrices=False)
    assert sizes.min() > 0.3 and sizes.max() < 1.3
    exact = torch.linalg.svd(matrices, full_matrices=False)
    likeness = ((left @ right) * (exact.U @ exact.Vh)).sum((-2, -1)) / min(shape[-2:])
    assert likeness.min() > 0.9


def test_what_is_no_matrix_moves_as_in_adamw():
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    settings = {"lr": 0.05, "betas": (0.9, 0.99)}
    optimisers = [
        (ours, Muon([{"params": [ours], "weight_decay": 0.1}], **settings)),
        (theirs, torch.optim.AdamW([theirs], weight_decay=0.1, **settings)),
    ]
    for _ in range(20):
        for parameter, optimiser in optimisers:
            optimiser.zero_grad()
            (parameter - 2).pow(4).sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_a_step_has_the_size_that_the_learning_rate_says():
    matrix = nn.Parameter(torch.zeros(4, 32, 64))
    optimiser = Muon([{"params": [matrix], "weight_decay": 0.0, "orthogonal": True}], lr=1e-2, betas=(0.9, 0.99))
    matrix.grad = torch.randn(matrix.shape) * 1e6
    optimiser.step()
    size = matrix.detach().square().mean((1, 2)).sqrt()
    assert ((size > 0.1e-2) & (size < 0.3e-2)).all()  # 0.2 of the rate, which is what a step of AdamW's has


def test_the_map_stage_s_answers_go_further_in_louder_bands(small_recipe):
    torch.manual_seed(0)
    model = TwoStageSeparator(small_recipe().model_config_value())
    levels = torch.linspace(1, 17, 17)
    optimiser = make_optimiser(model, OptimiserPart(kind="muon", weight_decay=0), levels)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    after = dict(model.named_parameters())
    bias = (after["map_estimator.bias3.0"] - before["map_estimator.bias3.0"]).abs().flatten(1)
    values, gates = bias.chunk(2, dim=1)
    torch.testing.assert_close(values, values[:1] * levels[:16, None], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gates, values[:1].expand_as(gates), rtol=1e-3, atol=1e-6)
    same = [name for name in before if name.startswith("mask_estimator.bias3")]
    assert all((after[name] - before[name]).abs().max() < 1.01e-3 for name in same)


def test_band_levels_are_those_of_the_mixture_that_the_network_sees(small_recipe):
    model = TwoStageSeparator(small_recipe().model_config_value())
    tone = np.sin(2 * np.pi * 3000 * np.arange(44_100) / 44_100).astype(np.float32)  # bin 34.8 of 512: band 2
    targets = np.stack([tone, 0 * tone, 0 * tone, 0 * tone])[None, :, None].repeat(2, axis=2)
    levels = band_levels(model, targets)
    assert levels.argmax() == 2 and levels.shape == (17,)
    louder = band_levels(model, targets * 10)
    ratio = 1.0 if model.config.unit_level else 10.0
    torch.testing.assert_close(louder, levels * ratio, rtol=1e-4, atol=1e-6)


def test_matrices_of_one_shape_move_as_if_each_were_alone():
    torch.manual_seed(0)
    shapes = [(3, 6, 4), (6, 4), (2, 4, 6)]
    together, alone = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.9, 0.99)}
    common = [Muon([{"params": together, "weight_decay": 0.1, "orthogonal": True}], **settings)]
    single = [Muon([{"params": [one], "weight_decay": 0.1, "orthogonal": True}], **settings) for one in alone]
    for _ in range(3):
        for one, other in zip(together, alone, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        for optimiser in (*common, *single):
            optimiser.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_clipping_scales_all_gradients_alike_and_drops_those_of_a_step_that_is_not_finite():
    parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.full((3, 2), 3.0), torch.full((5,), -4.0)
    norm = clip_gradients(parameters, 1.0)
    assert float(norm) == pytest.approx((6 * 9 + 5 * 16) ** 0.5)
    torch.testing.assert_close(parameters[0].grad, torch.full((3, 2), 3.0) / norm)
    torch.testing.assert_close(parameters[1].grad, torch.full((5,), -4.0) / norm)
    parameters[0].grad[0, 0] = float("nan")
    assert not clip_gradients(parameters, 1.0).isfinite()
    assert not any(parameter.grad.any() for parameter in parameters[:2])
