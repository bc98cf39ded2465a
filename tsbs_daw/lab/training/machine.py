"""What makes training faster on a processor or a card, without changing what is trained."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def choose_precision(wanted: str, accelerator: str) -> str:
    """Fabric's name for it; `auto` is bfloat16 where it is multiplied in hardware."""
    if wanted != "auto":
        return wanted
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = accelerator == "cpu" or not torch.backends.mps.is_available()
    return "bf16-mixed" if on_cpu and _cpu_multiplies_bfloat16() else "32-true"


def _cpu_multiplies_bfloat16() -> bool:
    """torch tells it by functions that are not public, and not the same in every version."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def tune_device(device: torch.device, processes: int) -> None:
    """CUDA: matrices in TF32. CPU: share the cores among the processes of a run; flush denormals; keep freed memory.

    Decaying states sink into denormals, which a CPU computes many times slower. Activations of some tens of MB are
    mapped from and given back to the system at every operation by default: keeping them saves a sixth of a step.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if device.type != "cpu":
        return
    torch.set_flush_denormal(True)
    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
