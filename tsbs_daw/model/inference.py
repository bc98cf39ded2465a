"""A network for inference: the same `forward`, its parts exchanged for ones that work in tiles and in place.

K bands, B batch x channels, T frames, F bins, N features, S stems, w bins of a band.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsbs_daw.model.bands import Estimator
from tsbs_daw.model.blocks import DualNet, group_norm
from tsbs_daw.model.network import TwoStageSeparator
from tsbs_daw.model.threads import for_each
from tsbs_daw.model.tiles import TiledDualNet, keep_freed_memory, tanh


def for_inference(network: TwoStageSeparator, dtype: torch.dtype = torch.float32) -> TwoStageSeparator:
    """What computes the same as `network` on a processor, several times faster, and cannot be trained.

    It holds weights of its own: what happens to `network` later does not reach it.

    Args: dtype: of the matrix products: float32, or bfloat16 where the processor multiplies that natively
    """
    keep_freed_memory()
    with torch.device("meta"):  # all its parameters are exchanged
        lean = TwoStageSeparator(network.config)
    for part in ("stft", "mask_split", "map_split", "fusion"):
        setattr(lean, part, copy.deepcopy(getattr(network, part)))
    for stage in ("mask", "map"):
        blocks: list[DualNet] = list(getattr(network, f"{stage}_blocks"))
        setattr(lean, f"{stage}_blocks", nn.ModuleList(TiledDualNet(block, dtype) for block in blocks))
        setattr(lean, f"{stage}_estimator", BandwiseEstimator(getattr(network, f"{stage}_estimator"), dtype))
    return lean.eval().requires_grad_(False)


class BandwiseEstimator(nn.Module):
    """`bands.Estimator`, a band at a time, written straight to its place."""

    def __init__(self, estimator: Estimator, dtype: torch.dtype):
        super().__init__()
        self.config, self.dtype = estimator.config, dtype
        # Where a band is: the index of its group, and its place in it.
        self._places = [(i, place) for i, group in enumerate(self.config.band_groups) for place in range(group.count)]
        self.register_buffer("norm_weight", estimator.norm_weight.detach().clone())
        self.register_buffer("norm_bias", estimator.norm_bias.detach().clone())
        for name in ("weight1", "bias1", "weight2", "bias2"):
            self.register_buffer(name, getattr(estimator, name).detach().to(dtype, copy=True))
        for index, (weight, bias) in enumerate(zip(estimator.weight3, estimator.bias3, strict=True)):
            self.register_buffer(f"weight3_{index}", weight.detach().to(dtype, copy=True))
            self.register_buffer(f"bias3_{index}", bias.detach().to(dtype, copy=True))

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, T, N) -> (B, S, T, F), complex."""
        _, batch, frames, _ = x.shape
        found = x.new_empty(batch, len(self.config.stems), frames, self.config.bins, 2)

        def one(band: int) -> None:
            index, place = self._places[band]
            group = self.config.band_groups[index]
            begin = group.first_bin + place * group.band_width
            weight, bias = getattr(self, f"weight3_{index}")[place], getattr(self, f"bias3_{index}")[place]
            self._band(x[band], band, weight, bias, found[..., begin : begin + group.band_width, :])

        for_each(one, reversed(range(self.config.bands)))  # the widest first, so that none is left to one thread alone
        return torch.view_as_complex(found)

    def _band(self, x: Tensor, band: int, weight: Tensor, bias: Tensor, found: Tensor) -> None:
        """x: (B, T, N); weight, bias: of the last layer; found: (B, S, T, w, 2), where the result goes."""
        stems, dtype = len(self.config.stems), self.dtype
        h = group_norm(x, self.norm_weight[band], self.norm_bias[band]).to(dtype).flatten(0, 1)
        h = tanh(F.linear(h, self.weight1[band], self.bias1[band]), dtype).unflatten(1, (stems, -1)).transpose(0, 1)
        h = tanh(torch.baddbmm(self.bias2[band][:, None], h, self.weight2[band].mT), dtype)
        y = torch.baddbmm(bias[:, None], h, weight.mT).float()
        # The order of the published network (see Estimator._group).
        y = y.transpose(0, 1).reshape(*x.shape[:2], 2, 2, stems, -1)
        value, gate = y.permute(2, 0, 4, 1, 5, 3)
        torch.mul(value, gate.sigmoid(), out=found)
