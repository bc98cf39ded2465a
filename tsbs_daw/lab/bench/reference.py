"""The network as one first writes it down: the yardstick for what the tiles of `tsbs_daw.network` gain.

Each Mamba-2 by itself, its backward one on a reversed copy; the state space model as einsums over chunks of 64 with
B and C repeated for each head, the decays of all chunks against all chunks (arXiv 2405.21060, sections 6 and 7);
convolution, gate and norm on whole activations. Correct, short, and all of it goes through memory again and again.

b sequences, l length, c (or z) chunks, q (or s) position in a chunk, h heads, p head width, n states.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from tsbs_daw.network import TwoStageSeparator
from tsbs_daw.network.blocks import SequenceUnit, group_norm
from tsbs_daw.network.mamba2 import Mamba2

CHUNK = 64


def as_reference(network: TwoStageSeparator) -> TwoStageSeparator:
    """A network of the same weights and results, plainly written. `network` is a plain one, not one for inference."""
    plain = copy.deepcopy(network)
    for block in (*plain.mask_blocks, *plain.map_blocks):
        block.time, block.band = ReferenceUnit(block.time), ReferenceUnit(block.band)
    return plain


class ReferenceUnit(nn.Module):
    """`blocks.SequenceUnit`."""

    def __init__(self, unit: SequenceUnit):
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, features)."""
        u = group_norm(x, self.unit.norm_weight, self.unit.norm_bias)
        outputs = []
        for direction in range(self.unit.mamba.directions):
            flipped = u.flip(1) if direction else u
            y = _mamba(flipped, self.unit.mamba.mamba, direction) + flipped
            outputs.append(y.flip(1) if direction else y)
        return x + self.unit.proj(torch.cat(outputs, dim=-1))


def _mamba(u: Tensor, layer: Mamba2, direction: int) -> Tensor:
    """u: (b, l, features) -> the same."""
    config = layer.config
    inner, states = config.d_inner, config.d_state
    z, xBC, dt = F.linear(u, layer.in_proj[direction]).split([inner, inner + 2 * states, config.heads], dim=-1)
    taps = layer.conv_weight[direction][:, None]
    xBC = F.conv1d(xBC.mT, taps, layer.conv_bias[direction], padding=config.d_conv - 1, groups=len(taps))
    x, B, C = F.silu(xBC[..., : u.shape[1]].mT).split([inner, states, states], dim=-1)
    x = rearrange(x, "b l (h p) -> b l h p", p=config.headdim)
    B, C = (repeat(part, "b l n -> b l h n", h=config.heads) for part in (B, C))
    dt = F.softplus(dt + layer.dt_bias[direction])
    y = _ssd(x * dt[..., None], dt * -layer.A_log[direction].exp(), B, C) + x * layer.D[direction][:, None]
    y = rearrange(y, "b l h p -> b l (h p)") * F.silu(z)
    y = F.rms_norm(y, (inner,), layer.norm_weight[direction], 1e-5)
    return F.linear(y, layer.out_proj[direction])


def _ssd(x: Tensor, a: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """x: (b, l, h, p); a: (b, l, h), logarithms of the decays; B, C: (b, l, h, n) -> (b, l, h, p)."""
    length = x.shape[1]
    padding = -length % CHUNK
    x, B, C = (F.pad(part, (0, 0, 0, 0, 0, padding)) for part in (x, B, C))
    x, B, C = (rearrange(part, "b (c q) h n -> b c q h n", q=CHUNK) for part in (x, B, C))
    a = rearrange(F.pad(a, (0, 0, 0, padding)), "b (c q) h -> b h c q", q=CHUNK)
    total = a.cumsum(-1)

    within = torch.einsum("bcqhn,bcshn,bhcqs,bcshp->bcqhp", C, B, _sums_between(a).exp(), x)
    states = torch.einsum("bcshn,bhcs,bcshp->bchpn", B, (total[..., -1:] - total).exp(), x)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
    carried = _sums_between(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", carried, states)[:, :-1]
    across = torch.einsum("bcqhn,bchpn,bhcq->bcqhp", C, states, total.exp())
    return rearrange(within + across, "b c q h p -> b (c q) h p")[:, :length]


def _sums_between(a: Tensor) -> Tensor:
    """(..., q) -> (..., q, s): the sum of a from s + 1 to q, and minus infinity where s is later."""
    total = a.cumsum(-1)
    later = torch.ones(a.shape[-1], a.shape[-1], dtype=torch.bool, device=a.device).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -math.inf)
