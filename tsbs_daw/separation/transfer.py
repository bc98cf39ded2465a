"""Copies arrays to a device and back, and represents copies in flight.

On CUDA both directions go through pinned memory on streams of their own: while one batch is computed, the next is
uploaded and the previous one downloaded. PyTorch reuses the pinned buffers for batches of the same size. On other
devices a copy is synchronous.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceLost


def on_host(array: np.ndarray) -> Tensor:
    """An array as a float32 tensor in ordinary memory."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


# How allocators, cuDNN, cuBLAS, Triton and XPU report a lack of memory where they raise no exception of their own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "allocation_failed", "out_of_device_memory")
# After these errors every further call to the device fails.
LOST = ("cuda error", "hip error", "triton error [cuda]", "triton error [hip]", "execution_failed", "device_lost")


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
