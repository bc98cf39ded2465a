"""Networks for inference: the same `forward`, with parts that work in tiles and in place.

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
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.mamba2 import fused_available
from tsbs_daw.network.network import BandSplit, Estimator, GroupSplit, Separation, Transform, TwoStageSeparator
from tsbs_daw.network.tiles import TILE_BYTES, TiledDualNet, for_each, keep_freed_memory, side_by_side, tanh


def variants(network: TwoStageSeparator, device: torch.device) -> dict[str, Callable[[torch.dtype], TwoStageSeparator]]:
    """Return functions that build the faster forms of a network in a dtype, by name, fastest first.

    On a CPU, this is a tiled network; on CUDA, networks with Triton kernels or with those of mamba-ssm.
    """
    if device.type == "cpu":
        return {"tiles": lambda dtype: for_inference(network, dtype)}
    builders: dict[str, Callable[[torch.dtype], TwoStageSeparator]] = {}
    if importlib.util.find_spec("triton"):
        from tsbs_daw.network.gpu_inference import for_gpu, supports

        if supports(network.config):
            builders["kernels"] = lambda dtype: for_gpu(network, dtype)
    if fused_available():
        builders["mamba-ssm"] = lambda dtype: network
    return builders


def kernel_chunk_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Estimate the memory that a stereo chunk needs with the Triton kernels.

    The terms are what one unit keeps between the kernels, and the estimators' outputs.
    """
    frames = 2 * (1 + config.chunk_samples // config.hop_length)
    directions = 2 if config.bidirectional else 1
    values = directions * (4 * config.d_inner + 4 * config.d_state + config.heads) + config.feature_dim
    token = values * dtype.itemsize + 4 * (3 * config.feature_dim + 3 * directions * config.heads)
    return config.bands * frames * token + 40 * len(config.stems) * config.bins * frames


def for_inference(network: TwoStageSeparator, dtype: torch.dtype = torch.float32) -> TwoStageSeparator:
    """Build an equivalent of `network` that is several times faster on a CPU, but cannot be trained.

    It copies the weights, so later changes to `network` do not affect it.

    Args:
        network: The network.
        dtype: Number format of the matrix products: float32, or bfloat16 if the CPU supports it natively.
    """
    keep_freed_memory()
    with torch.device("meta"):  # all its parameters are replaced
        lean = LeanSeparator(network.config)
    lean.stft, lean.fusion = TiledSTFT(network.stft), copy.deepcopy(network.fusion)
    for stage in ("mask", "map"):
        setattr(lean, f"{stage}_split", TiledSplit(getattr(network, f"{stage}_split")))
        blocks: list[DualNet] = list(getattr(network, f"{stage}_blocks"))
        setattr(lean, f"{stage}_blocks", nn.ModuleList(TiledDualNet(block, dtype) for block in blocks))
        setattr(lean, f"{stage}_estimator", TiledEstimator(getattr(network, f"{stage}_estimator"), dtype))
    return lean.eval().requires_grad_(False)


class LeanSeparator(TwoStageSeparator):
    """`TwoStageSeparator` with the same `forward`, which computes its tiles in parallel."""

    def forward(self, *args: Any, **options: Any) -> Separation:
        with side_by_side():
            return super().forward(*args, **options)


class TiledSTFT(nn.Module):
    """`network.STFT`, whose inverse has one task per waveform."""

    def __init__(self, stft: Transform):
        super().__init__()
        self.stft = copy.deepcopy(stft)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.stft(waveform)

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Compute the waveforms: (b, T, F), complex -> (b, samples)."""
        waveforms = spectrum.real.new_empty(len(spectrum), samples)

        def inverse_one(index: int) -> None:
            waveforms[index] = self.stft.inverse(spectrum[index, None], samples)[0]

        for_each(inverse_one, range(len(spectrum)))
        return waveforms


class TiledSplit(nn.Module):
    """`network.BandSplit`, with one task per group of bands, which writes directly into the result."""

    def __init__(self, split: BandSplit):
        super().__init__()
        self.groups = copy.deepcopy(split.groups)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Compute the features: (B, T, F), complex -> (K, B, T, N)."""
        parts = torch.view_as_real(spectrum)
        groups = cast("Sequence[GroupSplit]", self.groups)
        bands, features = sum(split.group.count for split in groups), groups[0].weight.shape[1]
        result = parts.new_empty(bands, *parts.shape[:2], features)

        def split_group(split: GroupSplit) -> None:
            result[split.group.first_band :][: split.group.count] = split(parts)

        for_each(split_group, reversed(groups))  # widest first, so that no long task is left for the end
        return result


class TiledEstimator(nn.Module):
    """`network.Estimator`, with one task for a few adjacent bands, which writes directly into the result."""

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
        """Compute the masks or maps: (K, B, T, N) -> (B, S, T, F), complex."""
        _, batch, frames, _ = x.shape
        result = x.new_empty(batch, len(self.config.stems), frames, self.config.bins, 2)
        # Widest first, so that no long task is left for the end.
        for_each(lambda run: self._run(x, run[0], run[1], result), reversed(self._runs(batch * frames)))
        return torch.view_as_complex(result)

    def _runs(self, tokens: int) -> list[tuple[int, slice]]:
        """Divide the bands into runs that fit in a tile: (index of the group, bands within the group)."""
        stems, runs = len(self.config.stems), []
        for index, group in enumerate(self.config.band_groups):
            widest = stems * max(self.config.feature_dim, 4 * group.band_width)
            at_once = max(1, TILE_BYTES // (2 * tokens * widest * self.dtype.itemsize))
            runs += [(index, slice(first, first + at_once)) for first in range(0, group.count, at_once)]
        return runs

    def _run(self, x: Tensor, index: int, places: slice, result: Tensor) -> None:
        """Compute one run of bands and write it into the result.

        Args:
            x: The features of all bands.
            index: Index of the group.
            places: Bands within the group.
            result: Written in place.

        Shape:
            x: (K, B, T, N)
            result: (B, S, T, F, 2)
        """
        group, stems, dtype = self.config.band_groups[index], len(self.config.stems), self.dtype
        bands = slice(*(group.first_band + place for place in places.indices(group.count)[:2]))
        x = x[bands]
        h = group_norm(x, self.norm_weight[bands], self.norm_bias[bands]).to(dtype).flatten(1, 2)
        h = tanh(torch.baddbmm(self.bias1[bands, None], h, self.weight1[bands].mT)).to(dtype)
        h = h.unflatten(-1, (stems, -1)).transpose(1, 2).flatten(0, 1)
        h = tanh(_products(h, self.weight2[bands], self.bias2[bands])).to(dtype)
        y = _products(h, getattr(self, f"weight3_{index}")[places], getattr(self, f"bias3_{index}")[places]).float()
        # The published network's order of outputs; see `Estimator._group`.
        y = y.unflatten(0, (-1, stems)).transpose(1, 2).reshape(*x.shape[:3], 2, 2, stems, group.band_width)
        value, gate = y.permute(3, 4, 1, 5, 2, 0, 6)
        bins = slice(*(group.first_bin + place * group.band_width for place in places.indices(group.count)[:2]))
        place = result[..., bins, :].unflatten(-2, (-1, group.band_width))
        gate = gate.sigmoid()
        for part in (0, 1):  # real and imaginary
            torch.mul(value[part], gate[part], out=place[..., part])


def _products(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a linear layer per band and stem.

    Shape:
        h: (bands x S, tokens, n)
        weight: (bands, S, m, n)
        bias: (bands, S, m)
        result: (bands x S, tokens, m)
    """
    return torch.baddbmm(bias.flatten(0, 1)[:, None], h, weight.flatten(0, 1).mT)
