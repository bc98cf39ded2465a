"""Mamba-2 (arXiv 2405.21060): a selective state-space model, computed in chunks as matrix products.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t + D x_t

G directions (independent layers computed together), B sequences, L length, H heads, P head width, N states,
c chunks, q (or s) position in a chunk.

On CUDA, the fused kernels of mamba-ssm and causal-conv1d replace `Mamba2.mix` within `fused_kernels(True)`, if they can
be imported. They are used only in this module.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tsbs_daw.network.config import ModelConfig

log = logging.getLogger(__name__)

# Longest chunk, in steps. On a CPU, a chunk has to fit in the cache: the 57 bands make one chunk, and three seconds of
# frames make a few equal ones. On other devices, one chunk holds all 259 frames: that takes fewer kernel launches, and
# less memory than the states between chunks would.
MAX_CHUNK = 64
MAX_CHUNK_ON_DEVICE = 320


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Compute the recurrence above without D, for any length (section 6 of the paper, "block decomposition").

    Args:
        x: The inputs.
        dt: Step sizes, positive.
        A: Decay rates, negative.
        B: Input matrices, one column per step.
        C: Output matrices, one row per step.

    Returns:
        The outputs y.

    Shape:
        x: (G, B, L, H, P)
        dt: (G, B, L, H)
        A: (G, H)
        B, C: (G, B, L, N)
        y: (G, B, L, H, P)
    """
    length = x.shape[2]
    in_cache = x.device.type in ("cpu", "meta")  # meta tensors are used to count the operations of a CPU
    chunks = math.ceil(length / (MAX_CHUNK if in_cache else MAX_CHUNK_ON_DEVICE))
    size = math.ceil(length / chunks)
    if padding := chunks * size - length:  # dt = 0 leaves the state unchanged
        x = F.pad(x, (0, 0, 0, 0, 0, padding))
        dt, B, C = (F.pad(part, (0, 0, 0, padding)) for part in (dt, B, C))

    x = rearrange(x * dt[..., None].to(x.dtype), "g b (c q) h p -> g b c h q p", q=size)
    B, C = (rearrange(part, "g b (c q) n -> g b c q n", q=size) for part in (B, C))
    log_decay = rearrange(dt * A[:, None, None], "g b (c q) h -> g b c h q", q=size).cumsum(-1)

    # 1. within a chunk: y_q = sum over s <= q of exp(sum of dt A from s + 1 to q) (C_q . B_s) x_s
    if x.dtype == torch.bfloat16 and not torch.compiler.is_compiling():
        y = WithinChunk.apply(x, log_decay, B, C)
    else:
        later = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
        between = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(later, -math.inf).exp()
        y = ((C @ B.mT)[..., None, :, :] * between) @ x

    if chunks > 1:
        # 2. the state at the end of each chunk, if it started from zero: (g b c h p n)
        to_end = (log_decay[..., -1:] - log_decay).exp()
        left = (x * to_end[..., None]).mT @ B[..., None, :, :]
        # 3. the state at the start of each chunk
        whole = log_decay[..., -1].exp()[..., None, None]
        state, at_start = torch.zeros_like(left[:, :, 0]), []
        for index in range(chunks):
            at_start.append(state)
            state = whole[:, :, index] * state + left[:, :, index]
        # 4. the contribution of that state to each position
        y = y + (C[..., None, :, :] @ torch.stack(at_start, dim=2).mT) * log_decay.exp()[..., None]
    return rearrange(y, "g b c h q p -> g b (c q) h p")[:, :, :length].to(x.dtype)


class WithinChunk(torch.autograd.Function):
    """Step 1 of `ssd` in bfloat16 for training, with a quarter of the memory traffic of plain autograd.

    Of the matrices, only the decays and the products C B^T are saved, in bfloat16; others of their size are updated in
    place. The gradient of the log decays needs no matrix: with y = M x, the sum of dM_qs M_qs over s is dy_q . y_q, and
    the sum over q is x_s . dx_s.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """Compute the outputs within each chunk.

        Shape:
            x: (..., H, Q, P), bfloat16
            log_decay: (..., H, Q), float32
            B, C: (..., Q, N), bfloat16
            result: (..., H, Q, P)
        """
        decay = torch.empty(*log_decay.shape, log_decay.shape[-1], dtype=x.dtype, device=x.device)
        torch.sub(log_decay[..., :, None], log_decay[..., None, :], out=decay)
        decay.exp_().tril_()  # above the diagonal there may be infinities, which tril_ overwrites
        products = (C @ B.mT)[..., None, :, :]
        y = (products * decay) @ x
        ctx.save_for_backward(x, B, C, decay, products, y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, B, C, decay, products, y = ctx.saved_tensors
        grad = grad.to(x.dtype)
        grad_x = (products * decay).mT @ grad
        grad_products = (grad @ x.mT).mul_(decay).sum(-3)
        grad_log = (grad.float() * y).sum(-1).sub_((grad_x.float() * x).sum(-1))
        return grad_x, grad_log, grad_products.mT @ C, grad_products @ B


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute a short causal depthwise convolution.

    Shape:
        x: (G, B, L, channels)
        weight: (G, channels, taps)
        bias: (G, channels)
        result: (G, B, L, channels)
    """
    directions, _, length, _ = x.shape
    taps = weight.shape[-1]
    if torch.compiler.is_compiling():  # fused with its neighbours; uncompiled, it would be memory-bound
        padded = F.pad(x, (0, 0, taps - 1, 0))
        terms = (padded[:, :, tap : tap + length] * weight[:, None, None, :, tap] for tap in range(taps))
        return sum(terms, bias[:, None, None])
    # conv1d expects channels first; the directions are treated as additional channels.
    x = rearrange(x, "g b l d -> b (g d) l")
    kernel = rearrange(weight, "g d k -> (g d) 1 k")
    y = F.conv1d(x, kernel, bias.flatten(), padding=taps - 1, groups=kernel.shape[0])[..., :length]
    return rearrange(y, "b (g d) l -> g b l d", g=directions)


class Mamba2(nn.Module):
    """`directions` independent Mamba-2 layers with a gated RMSNorm (norm after the gate), computed together."""

    def __init__(self, config: ModelConfig, directions: int):
        super().__init__()
        self.config = config
        inner, heads = config.d_inner, config.heads
        mixed = inner + 2 * config.d_state  # x, B and C go through the convolution together
        self.in_proj = nn.Parameter(torch.empty(directions, inner + mixed + heads, config.feature_dim))
        self.conv_weight = nn.Parameter(torch.empty(directions, mixed, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(directions, mixed))
        self.dt_bias = nn.Parameter(torch.empty(directions, heads))
        self.A_log = nn.Parameter(torch.empty(directions, heads))
        self.D = nn.Parameter(torch.ones(directions, heads))
        self.norm_weight = nn.Parameter(torch.ones(directions, inner))
        self.out_proj = nn.Parameter(torch.empty(directions, config.feature_dim, inner))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as in Mamba-2: dt log-uniform in [1e-3, 1e-1] after softplus, A uniform in [1, 16]."""
        for weight in (*self.in_proj, *self.out_proj):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.config.d_conv)
        nn.init.uniform_(self.conv_weight, -bound, bound)
        nn.init.uniform_(self.conv_bias, -bound, bound)
        with torch.no_grad():
            dt = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
            self.A_log.copy_(torch.empty_like(self.A_log).uniform_(1, 16).log())

    def forward(self, u: Tensor) -> Tensor:
        """Run every layer on its own sequences.

        Shape:
            (G, B, L, N) -> (G, B, L, N)
        """
        projected = torch.einsum("gbln,gdn->gbld", u, self.in_proj)
        y = fused_mix(projected, self) if fuses(projected) else self.mix(projected)
        return torch.einsum("gbld,gnd->gbln", y, self.out_proj)

    def mix(self, projected: Tensor) -> Tensor:
        """Compute everything between the input and the output projection, in plain torch.

        Shape:
            (G, B, L, inner + inner + 2 states + heads) -> (G, B, L, inner)
        """
        config = self.config
        inner, states = config.d_inner, config.d_state
        z, xBC, dt = projected.split([inner, inner + 2 * states, config.heads], dim=-1)
        xBC = F.silu(causal_conv(xBC, self.conv_weight, self.conv_bias))
        x, B, C = xBC.split([inner, states, states], dim=-1)
        x = rearrange(x, "g b l (h p) -> g b l h p", p=config.headdim)
        dt = F.softplus(dt + self.dt_bias[:, None, None])
        y = ssd(x, dt, -self.A_log.exp(), B, C) + x * self.D[:, None, None, :, None].to(x.dtype)
        gated = rearrange(y, "g b l h p -> g b l (h p)") * F.silu(z)
        return F.rms_norm(gated, (inner,), eps=1e-5) * self.norm_weight[:, None, None].to(gated.dtype)


# Off until somebody has measured them (separation.forms): their first call tunes itself for a minute.
_fused_enabled = False


@cache
def _fused_kernel() -> Any | None:
    try:
        import causal_conv1d  # noqa: F401  (the kernel below calls it)
        from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined
    except ModuleNotFoundError as error:
        if error.name not in ("causal_conv1d", "mamba_ssm"):
            log.warning("mamba-ssm is installed but cannot be used (%s); continuing without it", error)
        return None
    except Exception as error:  # built for another version of torch or Triton, or the driver cannot be loaded
        log.warning(
            "mamba-ssm is installed but cannot be used (%s: %s); continuing without it", type(error).__name__, error
        )
        return None
    return mamba_split_conv1d_scan_combined


def fused_available() -> bool:
    """Return whether mamba-ssm is installed and can be imported."""
    return _fused_kernel() is not None


def fuses(tensor: Tensor) -> bool:
    """Return whether the fused kernels are enabled and support this tensor."""
    return _fused_enabled and tensor.is_cuda and tensor.dtype != torch.float64 and fused_available()


@contextlib.contextmanager
def fused_kernels(enabled: bool) -> Iterator[None]:
    """Enable or disable the fused kernels for the duration of a `with` block."""
    global _fused_enabled
    before, _fused_enabled = _fused_enabled, enabled
    try:
        yield
    finally:
        _fused_enabled = before


def fused_mix(projected: Tensor, layer: Mamba2) -> Tensor:
    """Compute `Mamba2.mix` with one fused kernel per direction.

    Shape:
        (G, B, L, inner + inner + 2 states + heads) -> (G, B, L, inner)
    """
    with torch.cuda.device(projected.device):  # Triton launches on the current device, not on that of the tensors
        return torch.stack([_fused_direction(part, layer, index) for index, part in enumerate(projected)])


def _fused_chunk_size(length: int) -> int:
    """Return 64 for short sequences: the cost of a chunk is quadratic in its size, even if it is mostly padding."""
    return 64 if length <= 64 else 128


def _fused_direction(part: Tensor, layer: Mamba2, index: int) -> Tensor:
    """Compute `Mamba2.mix` for the direction `index`.

    Shape:
        (B, L, inner + inner + 2 states + heads) -> (B, L, inner)
    """
    kernel = _fused_kernel()
    assert kernel is not None, "only called if `fuses` returns True"
    return kernel(
        part.contiguous(),
        layer.conv_weight[index],
        layer.conv_bias[index],
        layer.dt_bias[index],
        -layer.A_log[index].float().exp(),
        D=layer.D[index],
        chunk_size=_fused_chunk_size(part.shape[1]),
        activation="silu",
        rmsnorm_weight=layer.norm_weight[index],
        rmsnorm_eps=1e-5,
        headdim=layer.config.headdim,
        ngroups=1,
        norm_before_gate=False,
    )
