"""The device that computes: which one it is, what its errors mean, and arrays on their way to it and back.

It is an accelerator that gives right results when tried, else the CPU. CUDA (NVIDIA, and AMD with torch for ROCm),
Intel's XPU and Apple's MPS are what torch gives by itself. None of them is taken for being there: a driver that is too
old, a torch without kernels for the card, or a backend that computes something else shows when a product and a Mamba-2
scan are held against float64.

On CUDA arrays go through pinned memory in both directions, on streams of their own: while one batch is computed, the
next is uploaded and the previous one downloaded. PyTorch reuses the pinned buffers for batches of the same size. On
other devices a copy is synchronous.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceError, DeviceLost, described
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


# How allocators, cuDNN, cuBLAS, cuFFT, Triton, MPS and XPU report a lack of memory without an exception of their own.
# cuFFT reports an internal error, and XPU a lack of resources, for almost any reason; this is the usual one.
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "alloc_failed", "allocation_failed", "out_of_device_memory"),
    *("out_of_resources", "cufft_internal_error", "invalid buffer size"),
)
# After these errors every further call to the device fails.
LOST = (
    *("cuda error", "cuda driver error", "hip error", "triton error [cuda]", "triton error [hip]"),
    *("execution_failed", "exec_failed", "device_lost"),
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less work at a time could help."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in OUT_OF_MEMORY)


def is_lost(error: RuntimeError) -> bool:
    """Whether the device is unusable for the rest of this process."""
    text = str(error).lower()
    return not is_out_of_memory(error) and any(words in text for words in LOST)


@contextlib.contextmanager
def translate_cuda_errors() -> Iterator[None]:
    """Raises: DeviceLost: in place of a CUDA error after which the device is unusable"""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        what = str(error).partition("\n")[0]
        raise DeviceLost(f"The GPU failed ({what}); start again, and if it stays so, use --device cpu.") from error


def on_host(array: np.ndarray) -> Tensor:
    """An array as a float32 tensor in ordinary memory."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class Pending(Protocol):
    """An array that may still be in flight."""

    def wait(self) -> None:
        """Wait until it has arrived. Raises: DeviceLost"""

    def array(self) -> np.ndarray:
        """The array; waits for it. Raises: DeviceLost"""


class Transfer:
    """Copies to `device` and back."""

    def __init__(self, device: torch.device):
        self.device = device
        cuda = device.type == "cuda"
        self._way_in, self._way_out = (torch.cuda.Stream(device) if cuda else None for _ in range(2))

    def upload(self, array: np.ndarray) -> Tensor:
        """A float32 tensor on the device. Kernels launched next wait for the copy by themselves."""
        here = on_host(array)
        if self._way_in is None:
            return here.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._way_in):
            there = here.pin_memory().to(self.device, non_blocking=True)
        computing.wait_stream(self._way_in)
        there.record_stream(computing)
        return there

    def download(self, there: Tensor) -> Pending:
        """A float32 array in flight; the copy starts once it is computed."""
        there = there.float()
        if self._way_out is None or not there.is_cuda:
            return HostTensor(there.cpu())
        self._way_out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._way_out):
            here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            here.copy_(there, non_blocking=True)
            there.record_stream(self._way_out)
            ready = torch.cuda.Event(blocking=True)  # a waiting thread sleeps instead of spinning
            self._way_out.record_event(ready)
            return HostTensor(here, ready)


class HostTensor:
    """A tensor in host memory, complete once its event has occurred."""

    def __init__(self, here: Tensor, event: torch.cuda.Event | None = None):
        self._here, self._event = here, event

    def wait(self) -> None:
        if self._event is not None:
            with translate_cuda_errors():
                self._event.synchronize()

    def array(self) -> np.ndarray:
        self.wait()
        return self._here.numpy()


class JoinedFuture:
    """Several arrays in flight that are joined into one on request."""

    def __init__(self, parts: Sequence[Pending], join: Callable[[list[np.ndarray]], np.ndarray]):
        self._parts, self._join = parts, join
        self._whole: np.ndarray | None = None

    def wait(self) -> None:
        for part in self._parts:
            part.wait()

    def array(self) -> np.ndarray:
        if self._whole is None:
            self._whole = self._join([part.array() for part in self._parts])
        return self._whole
