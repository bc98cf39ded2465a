"""mamba-ssm's Triton operators from its unpacked sources, without its package's __init__ and without compiled parts.

For figures beside its module where nothing can be built. `causal_conv1d`, which it calls, is written in torch here.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import sys
import types
from pathlib import Path

import torch
import torch.nn.functional as F


def install(sources: Path) -> None:
    """Make `import mamba_ssm` find the operators in `sources`."""
    _package("mamba_ssm", [str(sources / "mamba_ssm")])
    conv = _package("causal_conv1d", [])
    functions = types.ModuleType("causal_conv1d.cpp_functions")
    functions.causal_conv1d_fwd_function = _forward
    functions.causal_conv1d_bwd_function = functions.causal_conv1d_update_function = None
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


def _forward(x, weight, bias, seq_idx, initial, final, silu):
    with torch.autocast(x.device.type, enabled=False):
        taps = weight.shape[1]
        bias = None if bias is None else bias.float()
        y = F.conv1d(x.float(), weight.float()[:, None], bias, padding=taps - 1, groups=len(weight))[..., : x.shape[-1]]
        return (F.silu(y) if silu else y).to(x.dtype).mT.contiguous().mT
