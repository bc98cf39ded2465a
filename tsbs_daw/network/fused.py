"""The fused kernels of mamba-ssm and causal-conv1d, used when they import and the tensor is on CUDA.

They compute what `Mamba2.mix` computes; nothing else in the network knows of them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tsbs_daw.network.mamba2 import Mamba2


@cache
def _kernel() -> Any | None:
    try:
        import causal_conv1d  # noqa: F401  (the kernel below calls it)
        from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined
    except ImportError:
        return None
    return mamba_split_conv1d_scan_combined


def available() -> bool:
    """Whether the extra `[cuda]` is installed."""
    return _kernel() is not None


def usable(tensor: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return tensor.is_cuda and tensor.dtype != torch.float64 and available()


def mix(projected: Tensor, layer: Mamba2) -> Tensor:
    """`Mamba2.mix` in one kernel a direction.

    Args:    projected: (G, B, L, inner + inner + 2 states + heads)
    Returns: (G, B, L, inner)
    """
    kernel, config = _kernel(), layer.config
    directions = []
    for index, part in enumerate(projected):
        mixed = kernel(
            part.contiguous(),
            layer.conv_weight[index],
            layer.conv_bias[index],
            layer.dt_bias[index],
            -layer.A_log[index].float().exp(),
            D=layer.D[index],
            chunk_size=256,
            activation="silu",
            rmsnorm_weight=layer.norm_weight[index],
            rmsnorm_eps=1e-5,
            headdim=config.headdim,
            ngroups=1,
            norm_before_gate=False,
        )
        directions.append(mixed)
    return torch.stack(directions)
