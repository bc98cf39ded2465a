"""Between bins and bands: the split into bands, and the estimators that give bins back.

K bands, B batch x channels, T frames, F bins, N features, S stems, w bins of a band. Bands of one width stand
next to each other and are computed together.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from tsbs_daw.network.blocks import group_norm
from tsbs_daw.network.config import BandGroup, ModelConfig


def _per_band(count: int, fan_in: int, *shape: int) -> nn.Parameter:
    """A stack of `count` linear layers' weights, with the initial values of torch's own."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(count, *shape).uniform_(-bound, bound))


class BandSplit(nn.Module):
    """Spectrum -> N features a band (the paper's section 2.2): GroupNorm, then a linear layer, per band."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.groups = nn.ModuleList(_GroupSplit(group, config.feature_dim) for group in config.band_groups)

    def forward(self, spectrum: Tensor) -> Tensor:
        """
        Args:    spectrum: (B, T, F), complex
        Returns: (K, B, T, N)
        """
        parts = torch.view_as_real(spectrum)
        return torch.cat([group(parts) for group in self.groups])


class _GroupSplit(nn.Module):
    def __init__(self, group: BandGroup, feature_dim: int):
        super().__init__()
        self.group = group
        inputs = 2 * group.band_width
        self.norm_weight = nn.Parameter(torch.ones(group.count, inputs))
        self.norm_bias = nn.Parameter(torch.zeros(group.count, inputs))
        self.weight = _per_band(group.count, inputs, feature_dim, inputs)
        self.bias = _per_band(group.count, inputs, feature_dim)

    def forward(self, spectrum: Tensor) -> Tensor:
        """spectrum: (B, T, F, 2), real and imaginary part."""
        _, first_bin, count, width = self.group
        part = spectrum[:, :, first_bin : first_bin + count * width]
        x = rearrange(part, "b t (k w) i -> k b t (i w)", w=width)
        x = group_norm(x, self.norm_weight[:, None, None], self.norm_bias[:, None, None])
        return torch.einsum("kbti,kni->kbtn", x, self.weight) + self.bias[:, None, None]


class Estimator(nn.Module):
    """Features -> a complex mask, or map, for every stem and bin (the paper's section 2.4).

    Per band: GroupNorm, N -> S x N, tanh, S groups of N -> N, tanh, S groups of N -> 4 w, read as
    (value/gate) x (real/imaginary) x S x w; the estimate is value * sigmoid(gate).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        bands, features, stems = config.bands, config.feature_dim, len(config.stems)
        self.config = config
        self.norm_weight = nn.Parameter(torch.ones(bands, features))
        self.norm_bias = nn.Parameter(torch.zeros(bands, features))
        self.weight1 = _per_band(bands, features, stems * features, features)
        self.bias1 = _per_band(bands, features, stems * features)
        self.weight2 = _per_band(bands, features, stems, features, features)
        self.bias2 = _per_band(bands, features, stems, features)
        self.weight3 = nn.ParameterList(
            _per_band(g.count, features, stems, 4 * g.band_width, features) for g in config.band_groups
        )
        self.bias3 = nn.ParameterList(_per_band(g.count, features, stems, 4 * g.band_width) for g in config.band_groups)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:    x: (K, B, T, N)
        Returns: (B, S, T, F), complex
        """
        stems = len(self.config.stems)
        x = group_norm(x, self.norm_weight[:, None, None], self.norm_bias[:, None, None])
        x = torch.tanh(self._add(torch.einsum("kbtn,kmn->kbtm", x, self.weight1), self.bias1[:, None, None]))
        x = rearrange(x, "k b t (s n) -> k s b t n", s=stems)
        x = torch.tanh(self._add(torch.einsum("ksbtn,ksmn->ksbtm", x, self.weight2), self.bias2[:, :, None, None]))
        groups = zip(self.config.band_groups, self.weight3, self.bias3, strict=True)
        parts = torch.cat([self._group(x, *group) for group in groups], dim=-2)
        return torch.view_as_complex(parts if parts.dtype == torch.float64 else parts.float())

    def _group(self, x: Tensor, group: BandGroup, weight: Tensor, bias: Tensor) -> Tensor:
        part = x[group.first_band : group.first_band + group.count]
        y = self._add(torch.einsum("ksbtn,ksmn->ksbtm", part, weight), bias[:, :, None, None])
        # The published network reads the groups' outputs, one stem after the other, as gate x part x stem x bin.
        y = rearrange(y, "k s b t m -> k b t (s m)")
        stems, width = len(self.config.stems), group.band_width
        value, gate = rearrange(y, "k b t (v i s w) -> v b s t (k w) i", v=2, i=2, s=stems, w=width)
        return value * torch.sigmoid(gate)

    def _add(self, products: Tensor, bias: Tensor) -> Tensor:
        """In training in the products' type, which in bfloat16 halves the memory traffic of all that follows."""
        return products + (bias.to(products.dtype) if self.training else bias)
