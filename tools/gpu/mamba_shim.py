"""mamba-ssm's Triton operators from its unpacked sources, without its package's __init__ and without compiled parts.

For figures beside its module where nothing can be built. `causal_conv1d`, which it calls, is written in torch here.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import os
import sys
import types
from pathlib import Path

import torch
import torch.nn.functional as F

MODULES = ("mamba_ssm", "causal_conv1d")


def install_if_missing() -> bool:
    """Install the operators from the folder $MAMBA_SRC unless mamba-ssm can be imported. Return whether they were."""
    from tsbs_daw.network import mamba2

    sources = Path(os.environ.get("MAMBA_SRC", ".gpu/mamba"))
    if mamba2.fused_available() or not (sources / "mamba_ssm").is_dir():
        return False
    install(sources)
    pin_autotuning()
    mamba2._fused_kernel.cache_clear()
    return True


def remove() -> None:
    """Undo `install_if_missing`."""
    from tsbs_daw.network import mamba2

    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]
    mamba2._fused_kernel.cache_clear()


def install(sources: Path) -> None:
    """Make `import mamba_ssm` find the operators in `sources`."""
    _package("mamba_ssm", [str(sources / "mamba_ssm")])
    conv = _package("causal_conv1d", [])
    functions = types.ModuleType("causal_conv1d.cpp_functions")
    functions.causal_conv1d_fwd_function, functions.causal_conv1d_bwd_function = forward, backward
    functions.causal_conv1d_update_function = None
    conv.causal_conv1d_fn, conv.cpp_functions = None, functions
    sys.modules["causal_conv1d.cpp_functions"] = functions


def pin_autotuning() -> None:
    """One configuration a kernel, the smallest: its own choice among dozens takes minutes for each shape."""
    from triton.runtime.autotuner import Autotuner

    def cost(config) -> float:
        blocks = (value for name, value in config.kwargs.items() if name.startswith("BLOCK"))
        return math.prod(blocks) * (config.num_stages or 1)

    for name in (
        "ssd_combined",
        "ssd_bmm",
        "ssd_chunk_scan",
        "ssd_chunk_state",
        "ssd_state_passing",
        "layernorm_gated",
    ):
        module = importlib.import_module(f"mamba_ssm.ops.triton.{name}")
        for value in vars(module).values():
            if isinstance(value, Autotuner):
                value.configs = [min(value.configs, key=cost)]


def _package(name: str, places: list[str]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = places
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__spec__.submodule_search_locations = places
    sys.modules[name] = module
    return module


def _convolve(x, weight, bias, silu):
    y = F.conv1d(x.float(), weight.float()[:, None], bias, padding=weight.shape[1] - 1, groups=len(weight))
    y = y[..., : x.shape[-1]]
    return F.silu(y) if silu else y


def forward(x, weight, bias, seq_idx, initial, final, silu):
    """Compute causal_conv1d's forward function without states: (B, channels, L) -> the same."""
    with torch.autocast(x.device.type, enabled=False):
        y = _convolve(x, weight, None if bias is None else bias.float(), silu)
        return y.to(x.dtype).mT.contiguous().mT


def backward(x, weight, bias, grad, seq_idx, initial, grad_final, grad_x, return_grad_initial, silu):
    """Compute causal_conv1d's backward function without states.

    Args:
        grad_x: Receives the gradient of x, or is None.

    Returns:
        The gradients of x, the weight, the bias and the initial states.
    """
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        inputs = [part.detach().float().requires_grad_() for part in (x, weight, bias)]
        found, *rest = torch.autograd.grad(_convolve(*inputs, silu), inputs, grad.float())
    grad_x = torch.empty_like(x) if grad_x is None else grad_x
    return (grad_x.copy_(found), *rest, None)
