"""A network for inference on a GPU: the same `forward`, its blocks computed by the kernels of `triton_kernels`.

Between the kernels there is one product for both directions of a unit. What depends on the weights alone is computed
once: the Mamba-2's output projection, its norm's weight and the unit's linear layer are one matrix per direction. The
residual stream, norms, decays and sums are float32; the matrix products are in the chosen number format.

K bands, B batch x channels, T frames, N features; S sequences of L steps; I inner width; G directions.
"""

from __future__ import annotations

import contextlib
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsbs_daw.network import triton_kernels as kernels
from tsbs_daw.network.blocks import EPS, DualNet, SequenceUnit, TransformAverageConcatenate
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.network import TwoStageSeparator

# Of the scan, for Hopper: 168 registers a thread and 40 KB of shared memory let three programs share a multiprocessor.
SCAN_WARPS, SCAN_STAGES = 4, 1


def supports(config: ModelConfig) -> bool:
    """Whether the kernels take this shape: their blocks are powers of two, and at least 16 wide."""
    sizes = (config.feature_dim, config.d_state, config.headdim)
    return all(size >= 16 and size & (size - 1) == 0 for size in sizes)


def for_gpu(network: TwoStageSeparator, dtype: torch.dtype) -> TwoStageSeparator:
    """A network that computes the same as `network` on its GPU, several times faster, and cannot be trained.

    Args:
        network: A plain one, on the device. Its other parts are shared with the result.
        dtype: Number format of the matrix products: bfloat16, or float32 with operands rounded to ten bits (TF32).
    """
    lean = copy.copy(network)
    lean._modules = dict(network._modules)
    for stage in ("mask_blocks", "map_blocks"):
        blocks: list[DualNet] = list(getattr(network, stage))
        lean._modules[stage] = nn.ModuleList(KernelDualNet(block, dtype) for block in blocks)
    return lean.eval().requires_grad_(False)


class KernelSequenceUnit(nn.Module):
    """`blocks.SequenceUnit`, in place."""

    def __init__(self, unit: SequenceUnit, dtype: torch.dtype):
        super().__init__()
        mamba = unit.mamba.mamba
        self.config, self.dtype, self.directions = mamba.config, dtype, unit.mamba.directions
        self._keep("in_weight", mamba.in_proj.flatten(0, 1), dtype)
        for name in ("conv_weight", "conv_bias", "dt_bias", "D"):
            self._keep(name, getattr(mamba, name))
        self._keep("rate", -mamba.A_log.double().exp())
        # proj(cat(out_proj_g(norm_weight_g y_g) + u)) = sum_g (proj_g out_proj_g norm_weight_g) y_g + (sum_g proj_g) u
        proj = unit.proj.weight.double().unflatten(1, (self.directions, -1)).transpose(0, 1)
        out = proj @ (mamba.out_proj.double() * mamba.norm_weight.double()[:, None])
        self._keep("out_weight", out.mT.flatten(0, 1), dtype)  # (G x I, N)
        self._keep("skip_weight", proj.sum(0).mT, dtype)
        self._keep("skip_bias", unit.proj.bias)
        self._keep("norm_weight", unit.norm_weight)
        self._keep("norm_bias", unit.norm_bias)

    def _keep(self, name: str, tensor: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, tensor.detach().to(dtype, copy=True).contiguous())

    def forward(self, x: Tensor, sequences: int, strides: tuple[int, int]) -> None:
        """
        Args:
            x: (K, B, T, N), float32 and contiguous, changed in place.
            sequences: S; their steps are the rest of x.
            strides: From a sequence to the next, and from a step to the next.
        """
        config, directions = self.config, self.directions
        length = x.shape[0] * x.shape[1] * x.shape[2] // sequences
        tokens, inner, heads = sequences * length, config.d_inner, config.heads
        mixed_width = inner + 2 * config.d_state
        width = inner + mixed_width + heads
        blocks = -(-length // kernels.BLOCK)
        u = group_norm(x, self.norm_weight, self.norm_bias, sequences, length, strides, self.dtype)
        projected = F.linear(u, self.in_weight)  # (M, G x W)

        mixed = u.new_empty(tokens, directions * mixed_width)
        channels = 64 if mixed_width % 64 == 0 else 32
        kernels.conv_kernel[(sequences * blocks, -(-mixed_width // channels), directions)](
            projected, self.conv_weight, self.conv_bias, mixed, length, blocks,
            INNER=inner, MIXED=mixed_width, W=width, G=directions, TAPS=config.d_conv,
            BLOCK_L=kernels.BLOCK, BLOCK_C=channels, num_warps=4,
        )  # fmt: skip
        dt, decay, squares = (x.new_empty(tokens, directions, heads) for _ in range(3))
        kernels.decay_kernel[(sequences, directions)](
            projected, self.dt_bias, self.rate, dt, decay, length,
            W=width, G=directions, H=heads, BLOCK_L=kernels.BLOCK, BLOCK_H=_power_of_two(heads), num_warps=4,
        )  # fmt: skip
        gated = u.new_empty(tokens, directions * inner)
        kernels.scan_kernel[(sequences * blocks * heads, directions)](
            mixed, projected, dt, decay, self.D, gated, squares, length, blocks,
            INNER=inner, STATES=config.d_state, H=heads, P=config.headdim, MIXED=mixed_width, W=width, G=directions,
            BLOCK_L=kernels.BLOCK, num_warps=SCAN_WARPS, num_stages=SCAN_STAGES,
        )  # fmt: skip
        rows = 64
        kernels.output_kernel[(-(-tokens // rows),)](
            gated, squares, u, self.out_weight, self.skip_weight, self.skip_bias, x, tokens, length, *strides, 1e-5,
            INNER=inner, H=heads, G=directions, N=config.feature_dim, BLOCK_M=rows, BLOCK_K=min(64, config.headdim),
            SKIP_K=min(64, config.feature_dim), BLOCK_H=_power_of_two(heads),
            num_warps=8 if config.feature_dim > 64 else 4, num_stages=3,
        )  # fmt: skip


class KernelChannelStep(nn.Module):
    """`blocks.TransformAverageConcatenate`, in place."""

    def __init__(self, step: TransformAverageConcatenate, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        own, shared = step.concatenate.weight.detach().chunk(2, dim=1)
        weights = {"transform": step.transform.weight, "average": step.average.weight, "own": own, "shared": shared}
        for name, weight in weights.items():
            self.register_buffer(f"{name}_weight", weight.detach().to(dtype, copy=True).contiguous())
        for name in ("transform", "average", "concatenate"):
            self.register_buffer(f"{name}_bias", getattr(step, name).bias.detach().to(dtype, copy=True))
        slopes = getattr(step, "slopes", None)  # of PReLU, one a layer; None: tanh
        self.slopes = None if slopes is None else slopes.tolist()
        self.register_buffer("norm_weight", step.norm_weight.detach().float().clone())
        self.register_buffer("norm_bias", step.norm_bias.detach().float().clone())
        self.slopes = None if step.slopes is None else step.slopes.tolist()

    def forward(self, x: Tensor, channels: int) -> None:
        """x: (K, B, T, N) with B = batch x channels, channels fastest; float32 and contiguous, changed in place."""
        bands, batch, frames, features = x.shape
        strides = (frames * features, features)
        u = group_norm(x, self.norm_weight, self.norm_bias, bands * batch, frames, strides, self.dtype)
        h = self._activate(F.linear(u, self.transform_weight, self.transform_bias), 0)
        h = h.view(bands * batch // channels, channels, frames, -1)
        average = self._activate(F.linear(h.mean(1), self.average_weight, self.average_bias), 1)
        out = F.linear(h, self.own_weight)
        out += F.linear(average, self.shared_weight, self.concatenate_bias)[:, None]
        x += self._activate(out, 2).view(x.shape)

    def _activate(self, x: Tensor, layer: int) -> Tensor:
        """In place."""
        return x.tanh_() if self.slopes is None else F.leaky_relu_(x, self.slopes[layer])


class KernelDualNet(nn.Module):
    """`blocks.DualNet`, in place."""

    def __init__(self, block: DualNet, dtype: torch.dtype):
        super().__init__()
        self.time = KernelSequenceUnit(block.time, dtype)
        self.band = KernelSequenceUnit(block.band, dtype)
        self.channel = KernelChannelStep(block.channel, dtype)

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """x: (K, B, T, N); returned, and changed where it is float32 and contiguous."""
        x = x.float().contiguous()
        bands, batch, frames, features = x.shape
        # Triton launches on the current device, not on the tensors'.
        there = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
        # Weights are in the format of the products already; autocast would convert the rest to and fro.
        with there, torch.autocast(x.device.type, enabled=False):
            self.time(x, bands * batch, (frames * features, features))
            self.band(x, batch * frames, (features, batch * frames * features))
            self.channel(x, channels)
        return x


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, sequences: int, length: int, strides: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """`blocks.group_norm` of each sequence -> (S x L, N) in `dtype`."""
    features = x.shape[-1]
    out = torch.empty(sequences * length, features, dtype=dtype, device=x.device)
    kernels.norm_kernel[(sequences,)](
        x, out, weight, bias, length, *strides, EPS, N=features, BLOCK_L=max(16, 4096 // features), num_warps=8
    )
    return out


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
