"""Arrays to a device and back, and what is on its way.

On CUDA both ways go through pinned memory, on streams of their own: while a batch is computed, the next one comes and
the last one goes. PyTorch keeps the pinned buffers for the next batch of that size. On other devices a copy is a copy.
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


# What lacks memory says so in these words where it has no exception of its own: allocators, cuDNN, cuBLAS, Triton, XPU.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "allocation_failed", "out_of_device_memory")
# After these a device answers nothing but the same again.
LOST = ("cuda error", "hip error", "triton error [cuda]", "triton error [hip]", "execution_failed", "device_lost")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less work at once could help."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in OUT_OF_MEMORY)


def is_lost(error: RuntimeError) -> bool:
    """Whether the device answers nothing any more in this process."""
    text = str(error).lower()
    return not is_out_of_memory(error) and any(words in text for words in LOST)


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """Raises: DeviceLost: in place of CUDA's own error, after which it answers nothing but the same again"""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        what = str(error).partition("\n")[0]
        raise DeviceLost(f"The GPU failed ({what}); start again, and if it stays so, use --device cpu.") from error


class Pending(Protocol):
    """An array that may not be there yet."""

    def wait(self) -> None:
        """Until it is there. Raises: DeviceLost"""

    def array(self) -> np.ndarray:
        """It, waited for."""


class Transfer:
    """Copies to `device` and back."""

    def __init__(self, device: torch.device):
        self.device = device
        cuda = device.type == "cuda"
        self._way_in, self._way_out = (torch.cuda.Stream(device) if cuda else None for _ in range(2))

    def upload(self, array: np.ndarray) -> Tensor:
        """float32, on the device; what is computed of it next waits for it by itself."""
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
        """float32, on its way once it is computed."""
        there = there.float()
        if self._way_out is None or not there.is_cuda:
            return Arriving(there.cpu())
        self._way_out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._way_out):
            here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            here.copy_(there, non_blocking=True)
            there.record_stream(self._way_out)
            ready = torch.cuda.Event(blocking=True)  # whoever waits for it sleeps, instead of keeping a core busy
            self._way_out.record_event(ready)
            return Arriving(here, ready)


class Arriving:
    """A tensor in the host's memory, whole once its event has happened."""

    def __init__(self, here: Tensor, event: torch.cuda.Event | None = None):
        self._here, self._event = here, event

    def wait(self) -> None:
        if self._event is not None:
            with losses_named():
                self._event.synchronize()

    def array(self) -> np.ndarray:
        self.wait()
        return self._here.numpy()


class Joined:
    """Several that become one, put together when it is asked for."""

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
