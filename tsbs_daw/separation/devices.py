"""The device that computes: choosing it, interpreting its errors, transferring arrays to it and back, and CUDA graphs.

The device is an accelerator whose results are correct in a trial, or else the CPU. Candidates are the backends of
torch: CUDA (NVIDIA, and AMD with torch for ROCm), Intel's XPU and Apple's MPS. That torch reports one is not enough: a
driver may be too old, torch may lack kernels for the card, or the backend may compute wrong results. So the trial
compares a matrix product, a Mamba-2 scan and a small network, Fourier transforms included, with float64.

On CUDA, arrays go through pinned memory in both directions, each on a stream of its own: while one batch is computed,
the next is uploaded and the previous one downloaded. PyTorch reuses the pinned buffers for batches of the same size.
On other devices, copies are synchronous.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import DeviceError, DeviceLost, described
from tsbs_daw.network import FULL, TINY, TwoStageSeparator
from tsbs_daw.network.mamba2 import Mamba2, fused_kernels

if TYPE_CHECKING:
    from tsbs_daw.separation.forms import Form

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4  # relative to the RMS; float32 rounding is far below
LARGEST_NETWORK_DIFFERENCE = 1e-2  # likewise: some backends round convolutions to ten bits
MEMORY_SHARE = 0.6  # share of a device's free memory that a batch may plan to use
SONGS_ON_CUDA = 4  # while one is decoded and another written, the chunks of two more keep the device busy


def choose_device(name: str) -> torch.device:
    """Choose a device by name.

    Args:
        name: As torch names it, or "auto" for the first accelerator that computes correctly, or else the CPU.

    Raises:
        DeviceError: The device is not available.
    """
    if name == "auto":
        _look_for_unused_driver()
        return next((device for device in accelerators() if _passes(device)), torch.device("cpu"))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"Cannot use the device {name!r} ({error}); `tsbs-daw doctor` shows which work.") from error
    return device


def songs_at_once(device: str) -> int:
    """Return how many songs one process should separate at the same time on this device."""
    on_cuda = device.startswith("cuda") or (device == "auto" and choose_device("auto").type == "cuda")
    return SONGS_ON_CUDA if on_cuda else 1


def accelerators() -> Iterator[torch.device]:
    """Yield the accelerators that torch reports, the best first."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        yield torch.device("xpu")
    if torch.backends.mps.is_available():
        yield torch.device("mps")


def nvidia_driver() -> bool:
    """Return whether an NVIDIA driver is installed, whether torch can use it or not."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


@cache
def _look_for_unused_driver() -> None:
    """Log once if an NVIDIA driver is installed that torch cannot use."""
    if not torch.cuda.is_available() and nvidia_driver():
        built = torch.version.cuda
        why = "was built without CUDA" if built is None else f"cannot use it with CUDA {built}"
        log.warning("an NVIDIA driver is installed, but this torch %s; `tsbs-daw doctor` says what to do", why)


def _passes(device: torch.device) -> bool:
    reason = failure(device)
    if reason is not None:
        log.warning("%s is available but not used: %s", device, reason)
    return reason is None


@cache
def failure(device: torch.device) -> str | None:
    """Try a device and return why it cannot be used; None if it computes correctly."""
    try:
        for what, value, limit in differences(device):
            if not value <= limit:
                return f"{what} is off by {value:.0e} of the RMS"
    except Exception as error:  # a driver, a backend without an operation, a torch without kernels for the card
        return described(error)
    return None


def differences(device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Try a device; yield what was computed on it, the difference from float64, and the largest allowed difference."""
    yield "a matrix product", product_difference(device), LARGEST_DIFFERENCE
    yield "a Mamba-2 scan", scan_difference(device), LARGEST_DIFFERENCE
    yield "a small network", network_difference(device), LARGEST_NETWORK_DIFFERENCE


def product_difference(device: torch.device) -> float:
    """Return how far a matrix product in float32 is from float64; see `difference`."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(512, 512, generator=generator, dtype=torch.float64) for _ in range(2))
    return difference(a.float().to(device) @ b.float().to(device), a @ b)


def scan_difference(device: torch.device) -> float:
    """Return how far the plain Mamba-2 scan in float32 is from float64; see `difference`."""
    layer, projected = trial_layer()
    with torch.no_grad():
        expected = layer.double().mix(projected.double())
        return difference(layer.float().to(device).mix(projected.to(device)), expected)


def network_difference(device: torch.device) -> float:
    """Return how far a network of one block per stage is from float64, from mixture to stems; see `difference`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = TwoStageSeparator(replace(TINY, mask_blocks=1, map_blocks=1)).eval()
        mixture = 0.1 * torch.randn(1, 2, TINY.sample_rate // 5)
    with torch.no_grad(), fused_kernels(False):
        expected = network.double().estimate(mixture.double())
        return difference(network.float().to(device).estimate(mixture.to(device)), expected)


def trial_layer() -> tuple[Mamba2, Tensor]:
    """Return a Mamba-2 layer of the full model and a projection for it, with the same numbers every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layer = Mamba2(FULL, 1).eval()
        projected = torch.randn(1, 2, 259, layer.in_proj.shape[1]) * 0.5
    return layer, projected


def fitting_batch(chunk_bytes: int, device: torch.device, most: int) -> int:
    """Return the number of chunks per batch: on CUDA, as many as its free memory should hold; elsewhere one.

    Other devices gain nothing from batches.
    """
    if device.type != "cuda":
        return 1
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(min(most, max(1, MEMORY_SHARE * free_bytes // chunk_bytes)))


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the RMS of `expected`; infinite if any value is not finite."""
    worst = (found.cpu().double() - expected).abs().max() / expected.square().mean().sqrt()
    return float(worst) if worst.isfinite() else float("inf")


# How allocators, cuDNN, cuBLAS, cuFFT, Triton, MPS and XPU report a lack of memory without torch.OutOfMemoryError.
# cuFFT's internal error and XPU's lack of resources can have almost any cause; a lack of memory is the usual one.
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "alloc_failed", "allocation_failed", "out_of_device_memory"),
    *("out_of_resources", "cufft_internal_error", "invalid buffer size"),
)
# After these errors, every further call to the device fails.
LOST = (
    *("cuda error", "cuda driver error", "hip error", "triton error [cuda]", "triton error [hip]"),
    *("execution_failed", "exec_failed", "device_lost"),
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the error is a lack of memory, so that smaller batches could help."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in OUT_OF_MEMORY)


def is_lost(error: RuntimeError) -> bool:
    """Whether the device is unusable for the rest of this process."""
    text = str(error).lower()
    return not is_out_of_memory(error) and any(words in text for words in LOST)


@contextlib.contextmanager
def translate_cuda_errors() -> Iterator[None]:
    """Replace a CUDA error after which the device is unusable.

    Raises:
        DeviceLost: Replaces such an error.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        what = str(error).partition("\n")[0]
        raise DeviceLost(f"The GPU failed ({what}); start again, or use --device cpu if it keeps failing.") from error


def on_host(array: np.ndarray) -> Tensor:
    """Return an array as a float32 tensor in ordinary memory."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class Pending(Protocol):
    """An array that may still be in flight."""

    def wait(self) -> None:
        """Wait until the array has arrived.

        Raises:
            DeviceLost: The device failed.
        """

    def array(self) -> np.ndarray:
        """Wait for the array and return it.

        Raises:
            DeviceLost: The device failed.
        """


class Transfer:
    """Copies to `device` and back."""

    def __init__(self, device: torch.device):
        self.device = device
        cuda = device.type == "cuda"
        self._upload_stream, self._download_stream = (torch.cuda.Stream(device) if cuda else None for _ in range(2))

    def upload(self, array: np.ndarray) -> Tensor:
        """Copy an array to the device as a float32 tensor. Kernels launched afterwards wait for the copy."""
        host_tensor = on_host(array)
        if self._upload_stream is None:
            return host_tensor.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._upload_stream):
            device_tensor = host_tensor.pin_memory().to(self.device, non_blocking=True)
        computing.wait_stream(self._upload_stream)
        device_tensor.record_stream(computing)
        return device_tensor

    def download(self, device_tensor: Tensor) -> Pending:
        """Copy a tensor to the host as a float32 array; the copy starts once the tensor is computed."""
        device_tensor = device_tensor.float()
        if self._download_stream is None or not device_tensor.is_cuda:
            return HostTensor(device_tensor.cpu())
        self._download_stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._download_stream):
            host_tensor = torch.empty(device_tensor.shape, dtype=device_tensor.dtype, pin_memory=True)
            host_tensor.copy_(device_tensor, non_blocking=True)
            device_tensor.record_stream(self._download_stream)
            ready = torch.cuda.Event(blocking=True)  # a waiting thread sleeps instead of spinning
            self._download_stream.record_event(ready)
            return HostTensor(host_tensor, ready)


class HostTensor:
    """A tensor in host memory, complete once its event has occurred."""

    def __init__(self, tensor: Tensor, event: torch.cuda.Event | None = None):
        self._tensor, self._event = tensor, event

    def wait(self) -> None:
        if self._event is not None:
            with translate_cuda_errors():
                self._event.synchronize()

    def array(self) -> np.ndarray:
        self.wait()
        return self._tensor.numpy()


class JoinedFuture:
    """Several arrays in flight, joined into one on request."""

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


MOST_SHAPES = 3  # a graph keeps the memory that its shape needs
MOST_BYTES = 3_000_000_000  # planned for a batch; in larger ones, computing outweighs launching
LARGEST_REPLAY_ERROR = 1e-3  # relative to the norm; the same kernels may add in another order


class Recording(NamedTuple):
    """A recorded run; it always reads and writes the same memory."""

    graph: torch.cuda.CUDAGraph
    mixture: Tensor
    estimates: Tensor


class GraphedForm:
    """A form on CUDA. The first batch of a shape runs as it is, the second is recorded, the others are replayed.

    A replay is one launch: a small network consists of some hundred kernels of a few microseconds each, and launching
    them one by one takes several times as long as computing them. A form that cannot be recorded runs as it is.
    """

    def __init__(self, form: Form):
        self.form = form
        self._recordings: dict[tuple, Recording | None] = {}  # None: seen once
        self._possible = form.network.recordable and form.speed is not None

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        key = (*mixture.shape, stage)
        form = self.form.for_batch(len(mixture))
        tunes_itself = form.name not in ("kernels", "plain")
        if not self._possible or tunes_itself or len(mixture) * form.chunk_bytes() > MOST_BYTES:
            return self.form(mixture, stage)
        if key not in self._recordings:
            if len(self._recordings) < MOST_SHAPES:
                self._recordings[key] = None
            return self.form(mixture, stage)
        recording = self._recordings[key]
        if recording is None:
            return self._record_and_check(key, mixture, stage)
        return _replay(recording, mixture)

    def _record_and_check(self, key: tuple, mixture: Tensor, stage: str) -> Tensor:
        """Record this shape, and check that a replay gives the same result as a plain run."""
        wanted = self.form(mixture, stage)
        if self._record(key, mixture, stage):
            found = _replay(cast("Recording", self._recordings[key]), mixture)
            if not float((found - wanted).norm()) <= LARGEST_REPLAY_ERROR * float(wanted.norm()):
                self._give_up("a replay gives a different result")
        return wanted

    def _give_up(self, reason: str) -> None:
        self._possible = False
        self._recordings.clear()
        log.info("CUDA graphs are not used (%s)", reason)

    def _record(self, key: tuple, mixture: Tensor, stage: str) -> bool:
        """Record this shape without computing anything; return whether that worked."""
        try:
            graph, fixed = torch.cuda.CUDAGraph(), mixture.clone()
            # Other threads may allocate and copy meanwhile.
            with torch.cuda.device(mixture.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                estimates = self.form(fixed, stage)
        except Exception as error:  # torch raises a dozen different types here
            self._give_up(described(error))
            return False
        self._recordings[key] = Recording(graph, fixed, estimates)
        return True


def _replay(recording: Recording, mixture: Tensor) -> Tensor:
    recording.mixture.copy_(mixture)
    recording.graph.replay()
    return recording.estimates.clone()
