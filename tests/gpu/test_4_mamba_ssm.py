"""mamba-ssm's kernels on a GPU. They come last: they take most of a minute to compile, and nothing depends on them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tsbs_daw.network import FULL
from tsbs_daw.network.mamba2 import Mamba2, fused_mix

pytestmark = pytest.mark.gpu


def ratio(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.detach().double(), wanted.detach()
    return float((found - wanted).norm() / wanted.norm()) if found.isfinite().all() else float("inf")


@pytest.mark.parametrize("length", [57, 259])
@pytest.mark.usefixtures("mamba_ssm")
def test_mamba_ssm_s_kernels_equal_the_plain_layer(length, device, measured):
    torch.manual_seed(2)
    layer = Mamba2(FULL, 2).to(device)
    projected = 0.5 * torch.randn(2, 3, length, layer.in_proj.shape[1], device=device)
    exact, ours = projected.double().requires_grad_(), projected.clone().requires_grad_()
    wanted = copy.deepcopy(layer).double().mix(exact)
    found = fused_mix(ours, layer)
    measured(f"mamba-ssm {length}", ratio(found, wanted), 3e-3)
    gradient = torch.randn_like(found)
    wanted.backward(gradient.double())
    found.backward(gradient)
    measured(f"mamba-ssm {length} gradient", ratio(ours.grad, exact.grad), 6e-3)
