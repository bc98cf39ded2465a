"""A network for inference: the same `forward`, its parts exchanged for ones that work in tiles and in place.

K bands, B batch x channels, T frames, F bins, N features, S stems, w bins of a band.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tsbs_daw.network.blocks import DualNet, group_norm
from tsbs_daw.network.mamba2 import fused_available
from tsbs_daw.network.network import BandSplit, Estimator, GroupSplit, Separation, Transform, TwoStageSeparator
from tsbs_daw.network.tiles import TILE_BYTES, TiledDualNet, for_each, keep_freed_memory, side_by_side, tanh


def variants(network: TwoStageSeparator, device: torch.device) -> dict[str, Callable[[torch.dtype], TwoStageSeparator]]:
    """Tiles on a processor; Triton's kernels, or those of mamba-ssm, on CUDA. What builds each, the fastest first."""
    if device.type == "cpu":
        return {"tiles": lambda dtype: for_inference(network, dtype)}
    found: dict[str, Callable[[torch.dtype], TwoStageSeparator]] = {}
    if importlib.util.find_spec("triton"):
        from tsbs_daw.network.gpu_inference import for_gpu, supports

        if supports(network.config):
            found["kernels"] = lambda dtype: for_gpu(network, dtype)
    if fused_available():
        found["mamba-ssm"] = lambda dtype: network
    return found


def for_inference(network: TwoStageSeparator, dtype: torch.dtype = torch.float32) -> TwoStageSeparator:
    """What computes the same as `network` on a processor, several times faster, and cannot be trained.

    It holds weights of its own: what happens to `network` later does not reach it.

    Args: dtype: of the matrix products: float32, or bfloat16 where the processor multiplies that natively
    """
    keep_freed_memory()
    with torch.device("meta"):  # all its parameters are exchanged
        lean = LeanSeparator(network.config)
    lean.stft, lean.fusion = TiledSTFT(network.stft), copy.deepcopy(network.fusion)
    for stage in ("mask", "map"):
        setattr(lean, f"{stage}_split", TiledSplit(getattr(network, f"{stage}_split")))
        blocks: list[DualNet] = list(getattr(network, f"{stage}_blocks"))
        setattr(lean, f"{stage}_blocks", nn.ModuleList(TiledDualNet(block, dtype) for block in blocks))
        setattr(lean, f"{stage}_estimator", TiledEstimator(getattr(network, f"{stage}_estimator"), dtype))
    return lean.eval().requires_grad_(False)


class LeanSeparator(TwoStageSeparator):
    """The same `forward`, with its tiles side by side."""

    def forward(self, *args: Any, **options: Any) -> Separation:
        with side_by_side():
            return super().forward(*args, **options)


class TiledSTFT(nn.Module):
    """`network.STFT`; its inverse, of which there are many, one waveform at a time."""

    def __init__(self, stft: Transform):
        super().__init__()
        self.stft = copy.deepcopy(stft)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.stft(waveform)

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """(b, T, F) -> (b, samples)."""
        found = spectrum.real.new_empty(len(spectrum), samples)

        def one(place: int) -> None:
            found[place] = self.stft.inverse(spectrum[place, None], samples)[0]

        for_each(one, range(len(spectrum)))
        return found


class TiledSplit(nn.Module):
    """`network.BandSplit`, a group of bands at a time, written straight to its place."""

    def __init__(self, split: BandSplit):
        super().__init__()
        self.groups = copy.deepcopy(split.groups)

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, T, F), complex -> (K, B, T, N)."""
        parts = torch.view_as_real(spectrum)
        groups = cast("Sequence[GroupSplit]", self.groups)
        bands, features = sum(part.group.count for part in groups), groups[0].weight.shape[1]
        found = parts.new_empty(bands, *parts.shape[:2], features)

        def one(part: GroupSplit) -> None:
            found[part.group.first_band :][: part.group.count] = part(parts)

        for_each(one, reversed(groups))  # the widest first, so that none is left to one thread alone
        return found


class TiledEstimator(nn.Module):
    """`network.Estimator`, some neighbouring bands of one width at a time, written straight to their place."""

    norm_weight: Tensor
    norm_bias: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor

    def __init__(self, estimator: Estimator, dtype: torch.dtype):
        super().__init__()
        self.config, self.dtype = estimator.config, dtype
        self.register_buffer("norm_weight", estimator.norm_weight.detach()[:, None, None].clone())
        self.register_buffer("norm_bias", estimator.norm_bias.detach()[:, None, None].clone())
        for name in ("weight1", "bias1", "weight2", "bias2"):
            self.register_buffer(name, getattr(estimator, name).detach().to(dtype, copy=True))
        for index, (weight, bias) in enumerate(zip(estimator.weight3, estimator.bias3, strict=True)):
            self.register_buffer(f"weight3_{index}", weight.detach().to(dtype, copy=True))
            self.register_buffer(f"bias3_{index}", bias.detach().to(dtype, copy=True))

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, T, N) -> (B, S, T, F), complex."""
        _, batch, frames, _ = x.shape
        found = x.new_empty(batch, len(self.config.stems), frames, self.config.bins, 2)
        # The widest first, so that none is left to one thread alone.
        for_each(lambda run: self._run(x, run[0], run[1], found), reversed(self._runs(batch * frames)))
        return torch.view_as_complex(found)

    def _runs(self, tokens: int) -> list[tuple[int, slice]]:
        """As many neighbours as a tile holds: the index of their group, and which of its bands."""
        stems, runs = len(self.config.stems), []
        for index, group in enumerate(self.config.band_groups):
            widest = stems * max(self.config.feature_dim, 4 * group.band_width)
            at_once = max(1, TILE_BYTES // (2 * tokens * widest * self.dtype.itemsize))
            runs += [(index, slice(first, first + at_once)) for first in range(0, group.count, at_once)]
        return runs

    def _run(self, x: Tensor, index: int, places: slice, found: Tensor) -> None:
        """x: (K, B, T, N); found: (B, S, T, F, 2), where the result goes."""
        group, stems, dtype = self.config.band_groups[index], len(self.config.stems), self.dtype
        bands = slice(*(group.first_band + place for place in places.indices(group.count)[:2]))
        x = x[bands]
        h = group_norm(x, self.norm_weight[bands], self.norm_bias[bands]).to(dtype).flatten(1, 2)
        h = tanh(torch.baddbmm(self.bias1[bands, None], h, self.weight1[bands].mT)).to(dtype)
        h = h.unflatten(-1, (stems, -1)).transpose(1, 2).flatten(0, 1)
        h = tanh(_products(h, self.weight2[bands], self.bias2[bands])).to(dtype)
        y = _products(h, getattr(self, f"weight3_{index}")[places], getattr(self, f"bias3_{index}")[places]).float()
        # The order of the published network (see Estimator._group).
        y = y.unflatten(0, (-1, stems)).transpose(1, 2).reshape(*x.shape[:3], 2, 2, stems, group.band_width)
        value, gate = y.permute(3, 4, 1, 5, 2, 0, 6)
        bins = slice(*(group.first_bin + place * group.band_width for place in places.indices(group.count)[:2]))
        place = found[..., bins, :].unflatten(-2, (-1, group.band_width))
        gate = gate.sigmoid()
        for part in (0, 1):  # real and imaginary
            torch.mul(value[part], gate[part], out=place[..., part])


def _products(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h: (bands x S, tokens, n); weight: (bands, S, m, n); bias: (bands, S, m) -> (bands x S, tokens, m)."""
    return torch.baddbmm(bias.flatten(0, 1)[:, None], h, weight.flatten(0, 1).mT)
