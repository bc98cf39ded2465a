"""The fused kernels of mamba-ssm and causal-conv1d, used when they import and the tensor is on CUDA.

They compute what `Mamba2.mix` computes; nothing else in the network knows of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tsbs_daw.network.mamba2 import Mamba2

log = logging.getLogger(__name__)
_enabled = True


@cache
def _kernel() -> Any | None:
    try:
        import causal_conv1d  # noqa: F401  (the kernel below calls it)
        from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined
    except ModuleNotFoundError as error:
        if error.name not in ("causal_conv1d", "mamba_ssm"):
            log.warning("mamba-ssm is installed and cannot be used (%s); going on without it", error)
        return None
    except Exception as error:  # compiled for another torch, a Triton of another version, a driver it cannot load
        log.warning(
            "mamba-ssm is installed and cannot be used (%s: %s); going on without it", type(error).__name__, error
        )
        return None
    return mamba_split_conv1d_scan_combined


def available() -> bool:
    """Whether mamba-ssm is installed and works."""
    return _kernel() is not None


def usable(tensor: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return _enabled and tensor.is_cuda and tensor.dtype != torch.float64 and available()


@contextlib.contextmanager
def switched(enabled: bool) -> Iterator[None]:
    """Within, the kernels are used where they can be, or not at all."""
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def mix(projected: Tensor, layer: Mamba2) -> Tensor:
    """`Mamba2.mix` in one kernel a direction.

    Args:    projected: (G, B, L, inner + inner + 2 states + heads)
    Returns: (G, B, L, inner)
    """
    with torch.cuda.device(projected.device):  # Triton launches on the current device, not on the tensors'
        return torch.stack([_direction(part, layer, index) for index, part in enumerate(projected)])


def _chunk_size(length: int) -> int:
    """Short sequences in chunks of 64: a chunk's matrix is quadratic in it, whether the sequence fills it or not."""
    return 64 if length <= 64 else 128


def _direction(part: Tensor, layer: Mamba2, index: int) -> Tensor:
    """(B, L, W) -> (B, L, inner) in the direction `index`."""
    kernel = _kernel()
    assert kernel is not None, "only called where `usable` says yes"
    return kernel(
        part.contiguous(),
        layer.conv_weight[index],
        layer.conv_bias[index],
        layer.dt_bias[index],
        -layer.A_log[index].float().exp(),
        D=layer.D[index],
        chunk_size=_chunk_size(part.shape[1]),
        activation="silu",
        rmsnorm_weight=layer.norm_weight[index],
        rmsnorm_eps=1e-5,
        headdim=layer.config.headdim,
        ngroups=1,
        norm_before_gate=False,
    )
