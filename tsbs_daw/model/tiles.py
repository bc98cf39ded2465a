"""The DualNet block for inference on a processor: the same sums as in `blocks` and `mamba2`, a cacheful at a time.

Whole activations would pass through memory once for each of some thirty operations; a tile of them stays in the
cache from the first norm to the residual sum. What depends on the weights alone is computed once: the Mamba-2's output
projection, its norm's weight and the unit's linear layer are one matrix per direction. One direction follows the
other, so that each has the cache for itself, and nothing is ever turned around: the backward one runs over the same
tensors with its taps mirrored and the other triangle of its decay matrix.

G directions, S sequences, L length, N features, H heads, P head width, I = H x P inner width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsbs_daw.model.blocks import DualNet, SequenceUnit, TransformAverageConcatenate, group_norm
from tsbs_daw.model.mamba2 import ssd

# Bytes that the widest intermediate of a tile may take, for each thread. Measured on a Zen 4 with 1 MB of level-2 cache
# per core: below half of it the calls themselves cost more than the misses, above thrice of it memory does.
TILE_BYTES = 3 * 2**20

# Rows of the decay matrix at a time. A row block meets only the columns that are not zero.
ROWS = 65

# Up to here the decay matrix, quadratic in the length, is cheaper than carrying states of P x d_state per head.
LONGEST_MATRIX = 512


def keep_freed_memory() -> None:
    """Make glibc keep what tiles free, instead of giving it back to the system and fetching it again.

    It keeps blocks up to the size of the largest one it was ever given back, 32 MB at most. Without that, each tile
    finds fresh pages, and their zeroing doubles its time. Other libraries' allocators lose nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def tile_length(width: int, dtype: torch.dtype) -> int:
    """How many tokens a tile has when the widest intermediate has `width` values for each."""
    return max(1, TILE_BYTES * torch.get_num_threads() // (width * dtype.itemsize))


def tanh(x: Tensor, dtype: torch.dtype) -> Tensor:
    """2 sigmoid(2 x) - 1, which is vectorised where tanh is not; computed in float32. May overwrite x."""
    return x.float().mul_(2).sigmoid_().mul_(2).sub_(1).to(dtype)


class TiledSequenceUnit(nn.Module):
    """`blocks.SequenceUnit`, in place. `dtype` is of the matrix products; norms, decays and sums are float32."""

    def __init__(self, unit: SequenceUnit, dtype: torch.dtype):
        super().__init__()
        mamba = unit.mamba.mamba
        config = mamba.config
        self.config, self.dtype, self.directions = config, dtype, unit.mamba.directions
        self.mixed = config.d_inner + 2 * config.d_state  # x, B and C pass the convolution together

        z, xBC, dt = mamba.in_proj.split([config.d_inner, self.mixed, config.heads], dim=1)
        self._keep("z_weight", z, dtype)
        self._keep("xBC_weight", xBC, dtype)
        self._keep("dt_weight", dt.flatten(0, 1))
        self._keep("dt_bias", mamba.dt_bias.flatten())

        mirrored = [taps if index == 0 else taps.flip(-1) for index, taps in enumerate(mamba.conv_weight)]
        self._keep("conv_weight", torch.stack(mirrored)[:, :, None, None], dtype)
        self._keep("conv_bias", mamba.conv_bias, dtype)
        self._keep("rate", -mamba.A_log.double().exp()[..., None] * math.log2(math.e), torch.float64)  # for exp2
        self._keep("D", mamba.D[..., None])

        # proj(cat(out_proj_g(norm_weight_g y_g) + u)) = sum_g (proj_g out_proj_g norm_weight_g) y_g + (sum_g proj_g) u
        proj = unit.proj.weight.double().unflatten(1, (self.directions, config.feature_dim)).transpose(0, 1)
        self._keep("out_weight", proj @ (mamba.out_proj.double() * mamba.norm_weight.double()[:, None]), dtype)
        self._keep("skip_weight", proj.sum(0), dtype)
        self._keep("skip_bias", unit.proj.bias)
        self._keep("norm_weight", unit.norm_weight)
        self._keep("norm_bias", unit.norm_bias)

    def _keep(self, name: str, tensor: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, tensor.detach().to(dtype, copy=True).contiguous())

    def forward(self, x: Tensor) -> None:
        """x: (S, L, N) with any strides, changed along L in place."""
        tokens = tile_length(self.mixed, self.dtype)
        for tile in x.split(max(1, tokens // x.shape[1])):
            self._tile(tile)

    def _tile(self, x: Tensor) -> None:
        config = self.config
        u = group_norm(x, self.norm_weight, self.norm_bias)
        low = u.to(self.dtype)
        dt = F.softplus(F.linear(u, self.dt_weight, self.dt_bias)).mT.unflatten(1, (self.directions, config.heads))
        out = F.linear(low, self.skip_weight).float().add_(self.skip_bias)
        for index in range(self.directions):
            y = self._mix(self._convolve(low, index), dt[:, index].double(), index).transpose(1, 2)
            gated = F.silu(F.linear(low, self.z_weight[index]), inplace=True)
            gated.unflatten(-1, y.shape[2:]).mul_(y)
            scale = torch.linalg.vector_norm(gated, dim=-1, keepdim=True, dtype=torch.float32)
            scale = scale.square_().div_(config.d_inner).add_(1e-5).rsqrt_()  # the gated norm, after the product
            out.addcmul_(F.linear(gated, self.out_weight[index]).float(), scale)
        x.add_(out)

    def _convolve(self, low: Tensor, index: int) -> Tensor:
        """(S, L, N) -> (S, L, I + 2 states): projected and convolved, of one direction."""
        taps, reach = self.conv_weight[index], self.config.d_conv - 1
        xBC = F.linear(low, self.xBC_weight[index]).mT[:, :, None]
        # Padded at both ends: the forward taps' outputs begin at 0, the backward ones' `reach` later.
        xBC = F.conv2d(xBC, taps, self.conv_bias[index], padding=(0, reach), groups=len(taps))[:, :, 0].mT
        return xBC[:, index * reach : index * reach + low.shape[1]]

    def _mix(self, xBC: Tensor, dt: Tensor, index: int) -> Tensor:
        """xBC: (S, L, I + 2 states); dt: (S, H, L) -> y + D x: (S, H, L, P)."""
        config = self.config
        x, BC = xBC.split([config.d_inner, 2 * config.d_state], dim=-1)
        x = F.silu(x.unflatten(-1, (config.heads, config.headdim)).transpose(1, 2).contiguous(), inplace=True)
        B, C = F.silu(BC).chunk(2, dim=-1)
        return (self._carry if x.shape[2] > LONGEST_MATRIX else self._multiply)(x, dt, B, C, index)

    def _multiply(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, index: int) -> Tensor:
        """y_q = sum over the s before q of exp(sum of dt A from s to q) dt_s (C_q . B_s) x_s, as one matrix per head.

        D stands on the diagonal, which is cheaper than a pass over x. (S, H, L, P) -> the same.
        """
        length, backward = x.shape[2], index == 1
        decay = dt * self.rate[index]
        decay = decay.flip(-1).cumsum(-1).flip(-1) if backward else decay.cumsum(-1)
        y = torch.empty_like(x)
        for begin, end in _row_blocks(length):
            first, last = (begin, length) if backward else (0, end)
            # Counted from the block's own begin, in double precision, so that no digits are lost far from it.
            since = (decay[..., first:last] - decay[..., begin, None]).float()
            matrix = torch.sub(since[..., begin - first : end - first, None], since[..., None, :]).exp2_()
            matrix.mul_((C[:, begin:end] @ B[:, first:last].mT).float()[:, None])
            matrix.mul_(dt[..., None, first:last].float())
            matrix = matrix.triu_() if backward else matrix.tril_(begin)
            matrix.diagonal(begin - first, dim1=-2, dim2=-1).add_(self.D[index])
            matrix = matrix.to(self.dtype).flatten(0, 1)
            torch.bmm(matrix, x.flatten(0, 1)[:, first:last], out=y.flatten(0, 1)[:, begin:end])
        return y

    def _carry(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, index: int) -> Tensor:
        """The same for sequences that are too long for a matrix: `mamba2.ssd`, which carries states."""
        parts = [x.transpose(1, 2).float(), dt.mT.float(), B.float(), C.float()]
        if index == 1:
            parts = [part.flip(1) for part in parts]
        rate = self.rate[index].float().T / math.log2(math.e)
        x, dt, B, C = (part[None] for part in parts)
        y = ssd(x, dt, rate, B, C)[0] + x[0] * self.D[index]
        return (y.flip(1) if index == 1 else y).transpose(1, 2).to(self.dtype)


def _row_blocks(length: int) -> list[tuple[int, int]]:
    """0..length in equal parts of at most ROWS."""
    size = math.ceil(length / math.ceil(length / ROWS))
    return [(begin, min(begin + size, length)) for begin in range(0, length, size)]


class TiledChannelStep(nn.Module):
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
        self.register_buffer("norm_weight", step.norm_weight.detach().clone())
        self.register_buffer("norm_bias", step.norm_bias.detach().clone())

    def forward(self, x: Tensor, channels: int) -> None:
        """x: (K, B, T, N) with B = batch x channels, channels fastest; changed in place."""
        tokens = tile_length(3 * x.shape[-1], self.dtype)
        for tile in x.split(max(1, tokens // (x.shape[1] * x.shape[2]))):
            self._tile(tile, channels)

    def _tile(self, x: Tensor, channels: int) -> None:
        h = group_norm(x, self.norm_weight, self.norm_bias).to(self.dtype)
        h = tanh(F.linear(h, self.transform_weight, self.transform_bias), self.dtype).unflatten(1, (-1, channels))
        average = tanh(F.linear(h.mean(2, keepdim=True), self.average_weight, self.average_bias), self.dtype)
        out = F.linear(h, self.own_weight).add_(F.linear(average, self.shared_weight, self.concatenate_bias))
        x.add_(tanh(out, torch.float32).flatten(1, 2))


class TiledDualNet(nn.Module):
    """`blocks.DualNet`, in place."""

    def __init__(self, block: DualNet, dtype: torch.dtype):
        super().__init__()
        self.time = TiledSequenceUnit(block.time, dtype)
        self.band = TiledSequenceUnit(block.band, dtype)
        self.channel = TiledChannelStep(block.channel, dtype)

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """x: (K, B, T, N), contiguous; changed and returned."""
        self.time(x.flatten(0, 1))
        self.band(x.flatten(1, 2).transpose(0, 1))
        self.channel(x, channels)
        return x
