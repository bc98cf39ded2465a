"""The DualNet block for inference on a CPU: the computation of `blocks` and `mamba2` in tiles that fit in the cache.

Computed as a whole, the activations would pass through memory for each of some thirty operations; a tile stays in the
cache from the first norm to the residual sum. Everything that depends only on the weights is computed once: the output
projection of the Mamba-2, the weight of its norm and the linear layer of the unit become one matrix per direction. The
directions run one after the other, so that each has the whole cache. Nothing is flipped: the backward direction reads
the same tensors with mirrored taps and the other triangle of its matrix.

Tiles run in parallel: each of torch's threads computes whole tiles instead of its share of every operation. A tile
then stays in one core's cache, threads do not wait for each other in each of some hundred operations, and a thread
whose core is busy with other work takes fewer tiles.

G directions, S sequences, L length, N features, H heads, P head width, I = H x P inner width.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsbs_daw.network.blocks import DualNet, SequenceUnit, TransformAverageConcatenate, group_norm
from tsbs_daw.network.mamba2 import ssd

T = TypeVar("T")

# More threads would contend for the interpreter lock. If torch has more, several of them share a tile.
MOST_SIDE_BY_SIDE = 8


_here = threading.local()


@contextmanager
def side_by_side() -> Iterator[None]:
    """Give all of torch's threads to `for_each` within a `with` block, and one thread to everything else.

    Threads that share an operation busy-wait for each other at its end. Measured: if other programs use all cores,
    that costs several times the work itself.
    """
    threads = torch.get_num_threads()
    _here.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.threads = 1
        torch.set_num_threads(threads)


def at_once() -> int:
    """Return how many tiles are computed in parallel."""
    return min(getattr(_here, "threads", 1), MOST_SIDE_BY_SIDE)


def for_each(work: Callable[[T], None], tiles: Iterable[T]) -> None:
    """Call `work` for each tile, in any order and possibly in parallel. Raises what `work` raises."""
    count, inference = at_once(), torch.is_inference_mode_enabled()
    if count == 1:
        for tile in tiles:
            work(tile)
        return

    def run(tile: T) -> None:
        with torch.inference_mode(inference):  # this mode is thread-local
            work(tile)

    for _ in _pool(count, _here.threads // count).map(run, tiles):
        pass


@lru_cache(maxsize=1)
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads, each of which uses `threads` threads of torch."""
    return ThreadPoolExecutor(count, "tile", initializer=torch.set_num_threads, initargs=(threads,))


# Maximum size of the widest intermediate of a tile, per thread. Measured on a Zen 4 with 1 MB of level-2 cache per
# core: below half this size, the overhead of calls dominates; above three times this size, memory traffic does.
TILE_BYTES = 3 * 2**20

# Rows per block of the triangular matrix C B^T. A block is multiplied only with the columns that are not zero.
ROWS = 87

# Up to this length, the matrix C B^T, quadratic in the length, is cheaper than carrying states of P x d_state per head.
LONGEST_MATRIX = 512

# Largest decay within a row block, as an exponent of 2. Beyond it, the factors would leave the range of float32, from
# 2^-126 to 2^127.
STEEPEST = 180.0


def keep_freed_memory() -> None:
    """Make glibc reuse the memory that tiles free, instead of returning it to the system.

    glibc keeps blocks up to the size of the largest block freed so far, 32 MB at most; this allocates and frees a large
    one. Otherwise each tile would get fresh pages, and zeroing them would double its time. Other allocators are not
    affected.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def tiles(x: Tensor, row_bytes: int) -> list[Tensor]:
    """Split along the first axis so that all threads get the same amount of work.

    Args:
        x: The tensor to split.
        row_bytes: Size of the widest intermediate for one row of x.
    """
    rounds = math.ceil(len(x) * row_bytes / (TILE_BYTES * at_once()))
    return list(x.tensor_split(min(rounds * at_once(), len(x))))


def tanh(x: Tensor) -> Tensor:
    """Compute tanh as 2 sigmoid(2 x) - 1, which torch vectorises, in float32. May overwrite x."""
    return x.float().mul_(2).sigmoid_().mul_(2).sub_(1)


class Prepared(nn.Module):
    """Base class of the steps of a block for inference. Weights are copied and converted once to their final dtype."""

    def _keep(self, name: str, tensor: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, tensor.detach().to(dtype, copy=True).contiguous())


def merged_output(unit: SequenceUnit) -> tuple[Tensor, Tensor]:
    """Merge a unit's linear layer with the output projection of its Mamba-2 and the weight of its gated norm.

    proj(cat(out_proj_g(norm_weight_g y_g) + u)) = sum_g (proj_g out_proj_g norm_weight_g) y_g + (sum_g proj_g) u

    Returns:
        The matrix of each direction, (G, N, I), and that of the unit's normalised input, (N, N), both in float64.
    """
    mamba = unit.mamba.mamba
    proj = unit.proj.weight.double().unflatten(1, (unit.mamba.directions, -1)).transpose(0, 1)
    return proj @ (mamba.out_proj.double() * mamba.norm_weight.double()[:, None]), proj.sum(0)


class TiledSequenceUnit(Prepared):
    """`blocks.SequenceUnit`, in place. Matrix products use `dtype`; norms, decays and sums use float32."""

    z_weight: Tensor
    xBC_weight: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    rate: Tensor
    D: Tensor
    out_weight: Tensor
    skip_weight: Tensor
    skip_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor

    def __init__(self, unit: SequenceUnit, dtype: torch.dtype):
        super().__init__()
        mamba = unit.mamba.mamba
        config = mamba.config
        self.config, self.dtype, self.directions = config, dtype, unit.mamba.directions
        self.mixed = config.d_inner + 2 * config.d_state  # x, B and C go through the convolution together

        z, xBC, dt = mamba.in_proj.split([config.d_inner, self.mixed, config.heads], dim=1)
        self._keep("z_weight", z, dtype)
        self._keep("xBC_weight", xBC, dtype)
        self._keep("dt_weight", dt.flatten(0, 1))
        self._keep("dt_bias", mamba.dt_bias.flatten())

        mirrored = [taps if index == 0 else taps.flip(-1) for index, taps in enumerate(mamba.conv_weight)]
        self._keep("conv_weight", torch.stack(mirrored)[:, :, None, None], dtype)
        self._keep("conv_bias", mamba.conv_bias, dtype)
        self._keep("rate", -mamba.A_log.double().exp() * math.log2(math.e), torch.float64)  # for exp2
        self._keep("D", mamba.D.repeat_interleave(config.headdim, 1), dtype)

        out, skip = merged_output(unit)
        self._keep("out_weight", out, dtype)
        self._keep("skip_weight", skip, dtype)
        self._keep("skip_bias", unit.proj.bias)
        self._keep("norm_weight", unit.norm_weight)
        self._keep("norm_bias", unit.norm_bias)

    def forward(self, x: Tensor) -> None:
        """Run the unit along L on x: (S, L, N) with any strides, changed in place."""
        for_each(self._tile, tiles(x, x.shape[1] * self.mixed * self.dtype.itemsize))

    def _tile(self, x: Tensor) -> None:
        config = self.config
        u = group_norm(x, self.norm_weight, self.norm_bias)
        low = u.to(self.dtype)
        dt = F.softplus(F.linear(u, self.dt_weight, self.dt_bias)).unflatten(-1, (self.directions, config.heads))
        out = F.linear(low, self.skip_weight).float().add_(self.skip_bias)
        for index in range(self.directions):
            y = self._mix(self._convolve(low, index), dt[:, :, index].double(), index)
            gated = F.silu(F.linear(low, self.z_weight[index]), inplace=True).mul_(y)
            scale = torch.linalg.vector_norm(gated, dim=-1, keepdim=True, dtype=torch.float32)
            scale = scale.square_().div_(config.d_inner).add_(1e-5).rsqrt_()  # gated norm, applied to the product
            out.addcmul_(F.linear(gated, self.out_weight[index]).float(), scale)
        x.add_(out)

    def _convolve(self, low: Tensor, index: int) -> Tensor:
        """Project, convolve and activate x, B and C of one direction: (S, L, N) -> (S, L, I + 2 states)."""
        taps, reach = self.conv_weight[index], self.config.d_conv - 1
        xBC = F.linear(low, self.xBC_weight[index]).mT[:, :, None]
        # Padded at both ends: the forward outputs begin at 0, the backward outputs at `reach`.
        xBC = F.conv2d(xBC, taps, self.conv_bias[index], padding=(0, reach), groups=len(taps))[:, :, 0].mT
        return F.silu(xBC, inplace=True)[:, index * reach : index * reach + low.shape[1]]

    def _mix(self, xBC: Tensor, dt: Tensor, index: int) -> Tensor:
        """Compute the recurrence of `mamba2`, with D: xBC (S, L, I + 2 states), dt (S, L, H), float64 -> (S, L, I)."""
        config, rate, backward = self.config, self.rate[index], index == 1
        x, B, C = xBC.split([config.d_inner, config.d_state, config.d_state], dim=-1)
        by_head = x.unflatten(-1, (config.heads, config.headdim))
        y = torch.empty_like(by_head, memory_format=torch.contiguous_format)
        if x.shape[1] > LONGEST_MATRIX:
            steep = torch.arange(config.heads)
        else:
            steep = self._multiply(by_head, dt, rate, B, C, backward, y)
        if len(steep):
            y[:, :, steep] = self._carry(by_head[:, :, steep], dt[..., steep], rate[steep], B, C, backward)
        return y.flatten(2).addcmul_(x, self.D[index])

    def _multiply(self, x: Tensor, dt: Tensor, rate: Tensor, B: Tensor, C: Tensor, backward: bool, y: Tensor) -> Tensor:
        """Compute y_q = sum over s up to q of 2^(a_q - a_s) dt_s (C_q . B_s) x_s, where a is the cumulated log2 decay.

        The decay factors into 2^(a_q - c) and 2^(c - a_s), with a centre c for each block of rows. All heads therefore
        share C B^T, and nothing else is quadratic in the length. In float64, a stays precise far from c.

        Returns:
            The heads that decay too fast for this; their y is invalid.

        Shape:
            x: (S, L, H, P)
            y: (S, L, H, P), written in place
        """
        a = (dt * rate).cumsum(1)
        if backward:
            a = dt * rate - a
        blocks = _row_blocks(x.shape[1])
        begins, ends = (torch.tensor(edges) for edges in zip(*blocks, strict=True))
        at_begin, at_end = a[:, begins], a[:, ends - 1]
        centre = (at_begin + at_end) / 2
        rows = (a - centre.repeat_interleave(ends - begins, 1)).exp2_().to(self.dtype)[..., None]
        columns = (centre[:, :, None] - a[:, None]).exp2_().mul_(dt[:, None]).to(self.dtype)[..., None]
        B = B.mT.contiguous()
        for place, (begin, end) in enumerate(blocks):
            first, last = (begin, x.shape[1]) if backward else (0, end)
            shared = torch.bmm(C[:, begin:end], B[..., first:last])
            shared = shared.triu_() if backward else shared.tril_(begin)
            product = torch.bmm(shared, (x[:, first:last] * columns[:, place, first:last]).flatten(2))
            torch.mul(product.unflatten(-1, x.shape[2:]), rows[:, begin:end], out=y[:, begin:end])
        return ((at_begin - at_end).abs_().amax((0, 1)) > STEEPEST).nonzero().flatten()

    def _carry(self, x: Tensor, dt: Tensor, rate: Tensor, B: Tensor, C: Tensor, backward: bool) -> Tensor:
        """Compute the same with `mamba2.ssd`, which carries states and supports any length and any decay."""
        parts = [part.float() for part in (x, dt, B, C)]
        if backward:
            parts = [part.flip(1) for part in parts]
        x, dt, B, C = (part[None] for part in parts)
        y = ssd(x, dt, rate.float()[None] / math.log2(math.e), B, C)[0]
        return (y.flip(1) if backward else y).to(self.dtype)


def _row_blocks(length: int) -> list[tuple[int, int]]:
    """Divide 0..length into equal parts of at most ROWS."""
    size = math.ceil(length / math.ceil(length / ROWS))
    return [(begin, min(begin + size, length)) for begin in range(0, length, size)]


class PreparedChannelStep(Prepared):
    """The weights of `blocks.TransformAverageConcatenate`. The last layer is split: for each channel, and for the mean.

    Args:
        step: The step to compute.
        dtype: Number format of the matrix products; the norm uses float32.
    """

    transform_weight: Tensor
    transform_bias: Tensor
    average_weight: Tensor
    average_bias: Tensor
    own_weight: Tensor
    shared_weight: Tensor
    concatenate_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor

    def __init__(self, step: TransformAverageConcatenate, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        own, shared = step.concatenate.weight.chunk(2, dim=1)
        weights = {"transform": step.transform.weight, "average": step.average.weight, "own": own, "shared": shared}
        for name, weight in weights.items():
            self._keep(f"{name}_weight", weight, dtype)
        for name in ("transform", "average", "concatenate"):
            self._keep(f"{name}_bias", getattr(step, name).bias, dtype)
        self._keep("norm_weight", step.norm_weight)
        self._keep("norm_bias", step.norm_bias)
        self.slopes = None if step.slopes is None else step.slopes.tolist()  # of PReLU, one per layer; None: tanh


class TiledChannelStep(PreparedChannelStep):
    """`blocks.TransformAverageConcatenate`, in place."""

    def forward(self, x: Tensor, channels: int) -> None:
        """Run the step on x: (K, B, T, N), B = batch x channels with channels as the faster index; changed in place."""
        width = 3 * x.shape[-1] * self.dtype.itemsize
        for_each(lambda tile: self._tile(tile, channels), tiles(x, x.shape[1] * x.shape[2] * width))

    def _tile(self, x: Tensor, channels: int) -> None:
        h = group_norm(x, self.norm_weight, self.norm_bias).to(self.dtype)
        h = self._activate(F.linear(h, self.transform_weight, self.transform_bias), 0).unflatten(1, (-1, channels))
        average = h.mean(2, keepdim=True).to(self.dtype)
        average = self._activate(F.linear(average, self.average_weight, self.average_bias), 1).to(self.dtype)
        out = F.linear(h.to(self.dtype), self.own_weight)
        out.add_(F.linear(average, self.shared_weight, self.concatenate_bias))
        x.add_(self._activate(out, 2).flatten(1, 2))

    def _activate(self, x: Tensor, layer: int) -> Tensor:
        """Apply the activation of a layer. May overwrite x."""
        return tanh(x) if self.slopes is None else F.leaky_relu_(x, self.slopes[layer])


class TiledDualNet(nn.Module):
    """`blocks.DualNet`, in place."""

    def __init__(self, block: DualNet, dtype: torch.dtype):
        super().__init__()
        self.time = TiledSequenceUnit(block.time, dtype)
        self.band = TiledSequenceUnit(block.band, dtype)
        self.channel = TiledChannelStep(block.channel, dtype)

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """Run the block on x: (K, B, T, N), contiguous; changed in place and returned."""
        self.time(x.flatten(0, 1))
        self.band(x.flatten(1, 2).transpose(0, 1))
        self.channel(x, channels)
        return x
