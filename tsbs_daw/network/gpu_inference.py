"""Networks for inference on a GPU: the same `forward`, with blocks computed by Triton kernels. Forward pass only.

A sequence unit has kernels for norm, convolution, decay, scan and output, and one matrix product that projects the
input for both directions. Everything that depends only on the weights is computed once: the output projection of the
Mamba-2, the weight of its norm and the linear layer of the unit become one matrix per direction. The residual stream,
norms, decays and sums are float32; the matrix products use the chosen number format.

A scan of a few hundred steps is computed as a masked product, like attention:

    y_q = sum over s <= q of exp(a_q - a_s) dt_s (C_q . B_s) x_s, where a is the running sum of dt A

No states are computed, no quadratic matrix leaves the chip, and nothing is flipped, because the backward direction
reads the same tensors in reverse order.

K bands, B batch x channels, T frames, N features; S sequences of L steps, M = S x L; G directions, H heads, P head
width, I = H x P inner width, n states; W = 2 I + 2 n + H columns of the input projection per direction:
z | x | B | C | dt.
"""

from __future__ import annotations

import contextlib
import copy

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from tsbs_daw.network.blocks import EPS, DualNet, SequenceUnit
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.network import TwoStageSeparator
from tsbs_daw.network.tiles import Prepared, PreparedChannelStep, merged_output

BLOCK = 64  # steps of a sequence that a program processes at a time


@triton.jit(do_not_specialize=["length"])
def norm_kernel(
    x, out, weight, bias, length, seq_stride, step_stride, eps,
    N: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """GroupNorm over a whole sequence: x, with any strides, -> out (S, L, N). One program per sequence."""
    seq = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, N)
    first = x + seq * seq_stride
    total = tl.zeros((BLOCK_L, N), tl.float32)
    for begin in range(0, length, BLOCK_L):
        step = begin + tl.arange(0, BLOCK_L)
        total += tl.load(first + step[:, None] * step_stride + n[None, :], mask=(step < length)[:, None], other=0.0)
    mean = tl.sum(tl.sum(total, 1), 0) / (length * N)
    total = tl.zeros((BLOCK_L, N), tl.float32)
    for begin in range(0, length, BLOCK_L):
        step = begin + tl.arange(0, BLOCK_L)
        inside = (step < length)[:, None]
        value = tl.load(first + step[:, None] * step_stride + n[None, :], mask=inside, other=0.0)
        centred = tl.where(inside, value - mean, 0.0)
        total += centred * centred
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(total, 1), 0) / (length * N) + eps)
    gain, offset = tl.load(weight + n)[None, :], tl.load(bias + n)[None, :]
    for begin in range(0, length, BLOCK_L):
        step = begin + tl.arange(0, BLOCK_L)
        inside = (step < length)[:, None]
        value = tl.load(first + step[:, None] * step_stride + n[None, :], mask=inside, other=0.0)
        value = (value - mean) * scale * gain + offset
        tl.store(out + (seq * length + step)[:, None] * N + n[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length", "blocks"])
def conv_kernel(
    projected, weight, bias, out, length, blocks,
    INNER: tl.constexpr, MIXED: tl.constexpr, W: tl.constexpr, G: tl.constexpr, TAPS: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """SiLU of the causal convolution of x | B | C: projected (S, L, G, W) -> out (S, L, G, MIXED)."""
    seq, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    g = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    step = block * BLOCK_L + tl.arange(0, BLOCK_L)
    known = channel < MIXED
    past = tl.where(g == 1, -1, 1)  # in the backward direction, earlier steps have higher indices
    first = projected + seq * length * (G * W) + g * W + INNER
    total = tl.zeros((BLOCK_L, BLOCK_C), tl.float32)
    total += tl.load(bias + g * MIXED + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(TAPS):
        place = step - past * (TAPS - 1 - k)
        inside = ((place >= 0) & (place < length))[:, None] & known[None, :]
        value = tl.load(first + place[:, None] * (G * W) + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        tap = tl.load(weight + (g * MIXED + channel) * TAPS + k, mask=known, other=0.0).to(tl.float32)
        total += value * tap[None, :]
    total = total * tl.sigmoid(total)
    inside = (step < length)[:, None] & known[None, :]
    place = out + seq * length * (G * MIXED) + g * MIXED
    tl.store(place + step[:, None] * (G * MIXED) + channel[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length"])
def decay_kernel(
    projected, dt_bias, rate, dt, decay, length,
    W: tl.constexpr, G: tl.constexpr, H: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """dt = softplus(projected + bias), and the running sum of dt x rate along the direction, both (S, L, G, H)."""
    seq, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.arange(0, BLOCK_H)
    known = head < H
    bias = tl.load(dt_bias + g * H + head, mask=known, other=0.0)[None, :]
    per_step = tl.load(rate + g * H + head, mask=known, other=0.0)[None, :]
    before = tl.zeros((BLOCK_H,), tl.float32)
    for begin in range(0, length, BLOCK_L):
        order = begin + tl.arange(0, BLOCK_L)
        place = tl.where(g == 1, length - 1 - order, order)
        inside = (order < length)[:, None] & known[None, :]
        at = projected + (seq * length + place)[:, None] * (G * W) + g * W + (W - H) + head[None, :]
        value = tl.load(at, mask=inside, other=0.0).to(tl.float32) + bias
        value = tl.where(value > 20.0, value, tl.log(1.0 + tl.exp(tl.minimum(value, 20.0))))
        value = tl.where(inside, value, 0.0)
        step = value * per_step
        at = ((seq * length + place)[:, None] * G + g) * H + head[None, :]
        tl.store(dt + at, value, mask=inside)
        tl.store(decay + at, before[None, :] + tl.cumsum(step, 0), mask=inside)
        before += tl.sum(step, 0)


@triton.jit(do_not_specialize=["length", "blocks"])
def scan_kernel(
    mixed, projected, dt, decay, skip, gated, squares, length, blocks,
    INNER: tl.constexpr, STATES: tl.constexpr, H: tl.constexpr, P: tl.constexpr, MIXED: tl.constexpr, W: tl.constexpr,
    G: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Scan with D and gate: -> gated (S, L, G, I), and the sum of its squares per head, (S, L, G, H).

    One program per block of steps, head and direction; the heads of a sequence share B and C in the cache.
    """
    h, g = tl.program_id(0) % H, tl.program_id(1)
    block = (tl.program_id(0) // H) % blocks
    seq = (tl.program_id(0) // (H * blocks)).to(tl.int64)
    kind = mixed.dtype.element_ty
    state, p = tl.arange(0, STATES), tl.arange(0, P)
    first = mixed + seq * length * (G * MIXED) + g * MIXED
    scalar = (seq * length * G + g) * H + h  # offset in dt, decay and squares
    row = block * BLOCK_L + tl.arange(0, BLOCK_L)  # along the direction
    keep = row < length
    place = tl.where(g == 1, length - 1 - row, row)
    C = tl.load(first + place[:, None] * (G * MIXED) + (INNER + STATES + state)[None, :], mask=keep[:, None], other=0.0)
    own_decay = tl.load(decay + scalar + place * (G * H), mask=keep, other=0.0)
    total = tl.zeros((BLOCK_L, P), tl.float32)
    for j in range(0, block + 1):
        column = j * BLOCK_L + tl.arange(0, BLOCK_L)
        there = column < length
        from_ = tl.where(g == 1, length - 1 - column, column)
        B = tl.load(first + from_[None, :] * (G * MIXED) + (INNER + state)[:, None], mask=there[None, :], other=0.0)
        x = tl.load(first + from_[:, None] * (G * MIXED) + (h * P + p)[None, :], mask=there[:, None], other=0.0)
        its_decay = tl.load(decay + scalar + from_ * (G * H), mask=there, other=0.0)
        its_dt = tl.load(dt + scalar + from_ * (G * H), mask=there, other=0.0)
        shared = tl.dot(C, B, input_precision="tf32")
        before = (row[:, None] >= column[None, :]) & there[None, :]
        factor = tl.exp(tl.where(before, own_decay[:, None] - its_decay[None, :], -1e30))
        shared = shared * factor * its_dt[None, :]
        total = tl.dot(shared.to(kind), x, total, input_precision="tf32")
    x = tl.load(first + place[:, None] * (G * MIXED) + (h * P + p)[None, :], mask=keep[:, None], other=0.0)
    at = projected + (seq * length + place)[:, None] * (G * W) + g * W + (h * P + p)[None, :]
    z = tl.load(at, mask=keep[:, None], other=0.0).to(tl.float32)
    y = (total + x.to(tl.float32) * tl.load(skip + g * H + h)) * z * tl.sigmoid(z)
    at = gated + ((seq * length + place)[:, None] * G + g) * INNER + (h * P + p)[None, :]
    tl.store(at, y.to(kind), mask=keep[:, None])
    tl.store(squares + scalar + place * (G * H), tl.sum(y * y, 1), mask=keep)


@triton.jit(do_not_specialize=["tokens", "length"])
def output_kernel(
    gated, squares, u, weight, skip_weight, bias, x, tokens, length, seq_stride, step_stride, eps,
    INNER: tl.constexpr, H: tl.constexpr, G: tl.constexpr, N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, SKIP_K: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """x += sum over directions of rms_norm(gated) @ weight, + u @ skip_weight + bias; x may have any strides.

    The scale of the gated norm is one number per step, so it is applied to the product.
    """
    token = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    keep = token < tokens
    n, k, head = tl.arange(0, N), tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_H)
    total = tl.zeros((BLOCK_M, N), tl.float32) + tl.load(bias + n)[None, :]
    for g in tl.static_range(G):
        part = tl.zeros((BLOCK_M, N), tl.float32)
        for begin in range(0, INNER, BLOCK_K):
            y = tl.load(
                gated + (token * (G * INNER))[:, None] + (g * INNER + begin + k)[None, :], mask=keep[:, None], other=0.0
            )
            w = tl.load(weight + (g * INNER + begin + k)[:, None] * N + n[None, :])
            part = tl.dot(y, w, part, input_precision="tf32")
        at = squares + (token * (G * H))[:, None] + (g * H + head)[None, :]
        power = tl.sum(tl.load(at, mask=keep[:, None] & (head < H)[None, :], other=0.0), 1) / INNER
        total += part * (1.0 / tl.sqrt(power + eps))[:, None]
    k = tl.arange(0, SKIP_K)
    for begin in range(0, N, SKIP_K):
        y = tl.load(u + (token * N)[:, None] + (begin + k)[None, :], mask=keep[:, None], other=0.0)
        w = tl.load(skip_weight + (begin + k)[:, None] * N + n[None, :])
        total = tl.dot(y, w, total, input_precision="tf32")
    at = x + ((token // length) * seq_stride + (token % length) * step_stride)[:, None] + n[None, :]
    tl.store(at, tl.load(at, mask=keep[:, None], other=0.0) + total, mask=keep[:, None])


# Scan on Hopper: with 168 registers per thread and 40 KB of shared memory, three programs share a multiprocessor.
SCAN_WARPS, SCAN_STAGES = 4, 1


def supports(config: ModelConfig) -> bool:
    """Return whether the kernels support this config: their blocks must be powers of two of at least 16."""
    sizes = (config.feature_dim, config.d_state, config.headdim)
    return all(size >= 16 and size & (size - 1) == 0 for size in sizes)


def for_gpu(network: TwoStageSeparator, dtype: torch.dtype) -> TwoStageSeparator:
    """Build an equivalent of `network` that is several times faster on its GPU, but cannot be trained.

    Args:
        network: A plain network on the GPU. The result shares its parts other than the blocks.
        dtype: Number format of the matrix products: bfloat16, or float32 with operands rounded to ten bits (TF32).
    """
    lean = copy.copy(network)
    lean._modules = dict(network._modules)
    for stage in ("mask_blocks", "map_blocks"):
        blocks: list[DualNet] = list(getattr(network, stage))
        lean._modules[stage] = nn.ModuleList(KernelDualNet(block, dtype) for block in blocks)
    return lean.eval().requires_grad_(False)


class KernelSequenceUnit(Prepared):
    """`blocks.SequenceUnit`, in place."""

    in_weight: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
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
        self.config, self.dtype, self.directions = mamba.config, dtype, unit.mamba.directions
        self._keep("in_weight", mamba.in_proj.flatten(0, 1), dtype)
        for name in ("conv_weight", "conv_bias", "dt_bias", "D"):
            self._keep(name, getattr(mamba, name))
        self._keep("rate", -mamba.A_log.double().exp())
        out, skip = merged_output(unit)
        self._keep("out_weight", out.mT.flatten(0, 1), dtype)  # (G x I, N)
        self._keep("skip_weight", skip.mT, dtype)
        self._keep("skip_bias", unit.proj.bias)
        self._keep("norm_weight", unit.norm_weight)
        self._keep("norm_bias", unit.norm_bias)

    def forward(self, x: Tensor, sequences: int, strides: tuple[int, int]) -> None:
        """Run the unit.

        Args:
            x: (K, B, T, N), float32 and contiguous, changed in place.
            sequences: Number of sequences in x.
            strides: Distance from one sequence to the next, and from one step to the next.
        """
        config, directions = self.config, self.directions
        length = x.shape[0] * x.shape[1] * x.shape[2] // sequences
        tokens, inner, heads = sequences * length, config.d_inner, config.heads
        mixed_width = inner + 2 * config.d_state
        width = inner + mixed_width + heads
        blocks = -(-length // BLOCK)
        u = group_norm(x, self.norm_weight, self.norm_bias, sequences, length, strides, self.dtype)
        projected = F.linear(u, self.in_weight)  # (M, G x W)

        mixed = u.new_empty(tokens, directions * mixed_width)
        channels = 64 if mixed_width % 64 == 0 else 32
        conv_kernel[(sequences * blocks, -(-mixed_width // channels), directions)](
            projected, self.conv_weight, self.conv_bias, mixed, length, blocks,
            INNER=inner, MIXED=mixed_width, W=width, G=directions, TAPS=config.d_conv,
            BLOCK_L=BLOCK, BLOCK_C=channels, num_warps=4,
        )  # fmt: skip
        dt, decay, squares = (x.new_empty(tokens, directions, heads) for _ in range(3))
        decay_kernel[(sequences, directions)](
            projected, self.dt_bias, self.rate, dt, decay, length,
            W=width, G=directions, H=heads, BLOCK_L=BLOCK, BLOCK_H=_power_of_two(heads), num_warps=4,
        )  # fmt: skip
        gated = u.new_empty(tokens, directions * inner)
        scan_kernel[(sequences * blocks * heads, directions)](
            mixed, projected, dt, decay, self.D, gated, squares, length, blocks,
            INNER=inner, STATES=config.d_state, H=heads, P=config.headdim, MIXED=mixed_width, W=width, G=directions,
            BLOCK_L=BLOCK, num_warps=SCAN_WARPS, num_stages=SCAN_STAGES,
        )  # fmt: skip
        rows = 64
        output_kernel[(-(-tokens // rows),)](
            gated, squares, u, self.out_weight, self.skip_weight, self.skip_bias, x, tokens, length, *strides, 1e-5,
            INNER=inner, H=heads, G=directions, N=config.feature_dim, BLOCK_M=rows, BLOCK_K=min(64, config.headdim),
            SKIP_K=min(64, config.feature_dim), BLOCK_H=_power_of_two(heads),
            num_warps=8 if config.feature_dim > 64 else 4, num_stages=3,
        )  # fmt: skip


class KernelChannelStep(PreparedChannelStep):
    """`blocks.TransformAverageConcatenate`, in place."""

    def forward(self, x: Tensor, channels: int) -> None:
        """Run the step on x: (K, B, T, N), float32 and contiguous, changed in place.

        In B = batch x channels, channels is the faster index.
        """
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
        """Apply the activation of a layer in place."""
        return x.tanh_() if self.slopes is None else F.leaky_relu_(x, self.slopes[layer])


class KernelDualNet(nn.Module):
    """`blocks.DualNet`, in place."""

    def __init__(self, block: DualNet, dtype: torch.dtype):
        super().__init__()
        self.time = KernelSequenceUnit(block.time, dtype)
        self.band = KernelSequenceUnit(block.band, dtype)
        self.channel = KernelChannelStep(block.channel, dtype)

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """Run the block on x: (K, B, T, N); changed in place if it is float32 and contiguous."""
        x = x.float().contiguous()
        bands, batch, frames, features = x.shape
        # Triton launches on the current device, not on that of the tensors.
        on_device = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
        # The weights already have the number format of the products; autocast would only add conversions.
        with on_device, torch.autocast(x.device.type, enabled=False):
            self.time(x, bands * batch, (frames * features, features))
            self.band(x, batch * frames, (features, batch * frames * features))
            self.channel(x, channels)
        return x


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, sequences: int, length: int, strides: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """Apply `blocks.group_norm` to each sequence -> (S x L, N) in `dtype`."""
    features = x.shape[-1]
    out = torch.empty(sequences * length, features, dtype=dtype, device=x.device)
    norm_kernel[(sequences,)](
        x, out, weight, bias, length, *strides, EPS, N=features, BLOCK_L=max(16, 4096 // features), num_warps=8
    )
    return out


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
