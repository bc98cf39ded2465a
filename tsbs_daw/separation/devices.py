"""Which device computes: an accelerator that gives right results when tried, else the CPU.

CUDA (NVIDIA, and AMD with torch for ROCm), Intel's XPU and Apple's MPS are what torch gives by itself. None of them is
taken for being there: a driver that is too old, a torch without kernels for the card, or a backend that computes
something else shows when a product and a Mamba-2 scan are held against float64.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceError, described
from tsbs_daw.network import FULL
from tsbs_daw.network.mamba2 import Mamba2

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4  # as a part of the RMS; float32 rounds far below
SONGS_ON_CUDA = 4  # while one is decoded and another written, there are two whose chunks keep the device busy


def choose_device(name: str) -> torch.device:
    """ "auto" is the first accelerator that computes right, else the CPU.

    Raises: DeviceError: a device that is not there
    """
    if name == "auto":
        return next((device for device in accelerators() if _passes(device)), torch.device("cpu"))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"The device {name!r} cannot be used ({error}); `tsbs-daw doctor` says which can.") from error
    return device


def songs_at_once(device: str) -> int:
    """How many songs one process had best separate at a time on this device."""
    on_cuda = device.startswith("cuda") or (device == "auto" and choose_device("auto").type == "cuda")
    return SONGS_ON_CUDA if on_cuda else 1


def accelerators() -> Iterator[torch.device]:
    """Those that torch says are there, the best first."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        yield torch.device("xpu")
    if torch.backends.mps.is_available():
        yield torch.device("mps")


def _passes(device: torch.device) -> bool:
    reason = failure(device)
    if reason is not None:
        log.warning("%s is there and not used: %s", device, reason)
    return reason is None


@cache
def failure(device: torch.device) -> str | None:
    """Why a device cannot be used, found by computing on it; None: it computes right."""
    try:
        for what, difference in (("a matrix product", product_difference), ("a Mamba-2 scan", scan_difference)):
            if not (value := difference(device)) <= LARGEST_DIFFERENCE:
                return f"{what} on it is off by {value:.0e} of the RMS"
    except Exception as error:  # a driver, a backend without an operation, a torch without kernels for the card
        return described(error)
    return None


def product_difference(device: torch.device) -> float:
    """Of a matrix product in float32 from float64."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(512, 512, generator=generator, dtype=torch.float64) for _ in range(2))
    return difference(a.float().to(device) @ b.float().to(device), a @ b)


def scan_difference(device: torch.device) -> float:
    """Of the plain Mamba-2 scan in float32 from float64."""
    layer, projected = trial_layer()
    with torch.no_grad():
        expected = layer.double().mix(projected.double())
        return difference(layer.float().to(device).mix(projected.to(device)), expected)


def trial_layer() -> tuple[Mamba2, Tensor]:
    """A Mamba-2 layer of the full model and a projection for it, with the same numbers every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layer = Mamba2(FULL, 1).eval()
        projected = torch.randn(1, 2, 259, layer.in_proj.shape[1]) * 0.5
    return layer, projected


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a part of the expectation's RMS; infinite if anything is not finite."""
    worst = (found.cpu().double() - expected).abs().max() / expected.square().mean().sqrt()
    return float(worst) if worst.isfinite() else float("inf")
