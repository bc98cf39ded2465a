from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tsbs_daw.network import TINY
from tsbs_daw.network.blocks import BiMamba2
from tsbs_daw.network.mamba2 import Mamba2, causal_conv, ssd

LENGTHS = [1, 2, 57, 63, 64, 65, 259]


def recurrence(x, dt, A, B, C):
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t: the definition, one step after the other."""
    h = torch.zeros(*x.shape[:2], x.shape[3], x.shape[4], B.shape[-1], dtype=x.dtype)
    y = []
    for t in range(x.shape[2]):
        decay = (dt[:, :, t] * A[:, None]).exp()[..., None, None]
        h = decay * h + torch.einsum("gbh,gbhp,gbn->gbhpn", dt[:, :, t], x[:, :, t], B[:, :, t])
        y.append(torch.einsum("gbhpn,gbn->gbhp", h, C[:, :, t]))
    return torch.stack(y, dim=2)


def operands(length: int, dtype=torch.float64, batch: int = 2):
    torch.manual_seed(length)
    directions, heads, width, states = 2, 3, 4, 5
    x = torch.randn(directions, batch, length, heads, width, dtype=dtype)
    dt = F.softplus(torch.randn(directions, batch, length, heads, dtype=dtype))
    A = -torch.rand(directions, heads, dtype=dtype) * 15 - 1
    B, C = torch.randn(2, directions, batch, length, states, dtype=dtype)
    return x, dt, A, B, C


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_equal_the_plain_recurrence(length):
    parts = operands(length)
    torch.testing.assert_close(ssd(*parts), recurrence(*parts), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [3, 65, 130])
def test_the_state_carries_far_when_it_decays_slowly(length):
    x, dt, A, B, C = operands(length)
    slow = A * 1e-4
    torch.testing.assert_close(ssd(x, dt, slow, B, C), recurrence(x, dt, slow, B, C), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [2, 66])
def test_gradients_agree_with_finite_differences(length):
    parts = [part.requires_grad_() for part in operands(length, batch=1)]
    assert torch.autograd.gradcheck(ssd, parts, fast_mode=True)


def test_a_layer_s_gradients_agree_with_finite_differences():
    config = replace(TINY, feature_dim=4, headdim=4, d_state=3)
    torch.manual_seed(0)
    layer = Mamba2(config, directions=2).double()
    u = torch.randn(2, 1, 7, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(u, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    assert torch.autograd.gradcheck(run, (u, *layer.parameters()), fast_mode=True)


def test_the_convolution_is_causal_and_each_channel_s_own():
    x = torch.zeros(2, 1, 9, 3)
    x[:, 0, 4, 1] = 1
    weight = torch.arange(1.0, 25).reshape(2, 3, 4)
    y = causal_conv(x, weight, torch.zeros(2, 3))
    assert torch.equal(y[0, 0, 4:8, 1], weight[0, 1].flip(0))
    assert torch.equal(y[1, 0, 4:8, 1], weight[1, 1].flip(0))
    y[:, 0, 4:8, 1] = 0
    assert not y.any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_only_a_bidirectional_layer_hears_the_future(bidirectional):
    config = replace(TINY, feature_dim=8, headdim=8, d_state=4, bidirectional=bidirectional)
    layer, u = BiMamba2(config), torch.randn(1, 10, 8)
    changed = u.clone()
    changed[:, 7] += 1
    with torch.no_grad():
        past = (layer(u) - layer(changed))[:, :7].abs().max()
    assert bool(past > 0) == bidirectional


def test_training_in_bfloat16_has_the_gradients_of_the_plain_scan():
    torch.manual_seed(0)
    shapes = {"x": (2, 3, 40, 4, 8), "dt": (2, 3, 40, 4), "A": (2, 4), "B": (2, 3, 40, 6), "C": (2, 3, 40, 6)}
    parts = {name: torch.randn(shape) for name, shape in shapes.items()}
    parts["dt"], parts["A"] = parts["dt"].abs() * 0.3, -parts["A"].abs() - 0.2
    weight = torch.randn(2, 3, 40, 4, 8)

    def gradients(low: tuple[str, ...]) -> list[torch.Tensor]:
        leaves = {name: part.detach().clone().requires_grad_() for name, part in parts.items()}
        y = ssd(**{name: leaf.bfloat16() if name in low else leaf for name, leaf in leaves.items()})
        (y.float() * weight).sum().backward()
        return [y.detach().float(), *(leaf.grad for leaf in leaves.values())]

    for exact, rounded in zip(gradients(()), gradients(("x", "B", "C")), strict=True):
        assert (exact - rounded).norm() < 0.02 * exact.norm()


def test_decays_beyond_what_a_number_holds_leave_no_infinities():
    x = torch.ones(1, 1, 40, 1, 4).bfloat16().requires_grad_()
    dt, A = torch.full((1, 1, 40, 1), 20.0), torch.full((1, 1), -16.0)
    B = C = torch.ones(1, 1, 40, 2).bfloat16()
    y = ssd(x, dt, A, B, C)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
