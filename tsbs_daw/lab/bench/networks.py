"""A network on one device in one precision, held against what the device's own matrix products allow.

floor   the network's own multiply-adds, as the plain network has them, at the rate that large matrix products reach
        here, in the same precision
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tsbs_daw.network import FULL, LITE, TINY, ModelConfig, TwoStageSeparator
from tsbs_daw.separation.engine import Engine

SIZES = {"full": FULL, "lite": LITE, "tiny": TINY}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SEED = 1

# In the names of the operators, or on CUDA of the kernels, that are matrix products; cuBLAS calls Hopper's "nvjet".
_PRODUCTS = ("mm", "matmul", "linear", "conv", "nvjet", "cutlass", "xmma")


def random_network(config: ModelConfig, device: torch.device) -> TwoStageSeparator:
    """The plain network. Weights do not change the speed, so no checkpoint is needed."""
    torch.manual_seed(SEED)
    return TwoStageSeparator(config).to(device).eval()


def random_engine(config: ModelConfig, device: torch.device, precision: str = "float32") -> Engine:
    """The network as the separator runs it."""
    return Engine(random_network(config, device), device, precision=precision)


def random_chunk(config: ModelConfig, device: torch.device) -> torch.Tensor:
    """(1, 2, samples): a chunk as the separator cuts them."""
    return 0.1 * torch.randn(1, 2, config.chunk_samples, generator=torch.Generator().manual_seed(SEED)).to(device)


def held_against_floor(
    run: Callable[[], Any], macs: int, device: torch.device, dtype: torch.dtype, repetitions: int
) -> dict[str, float]:
    """Time `run` and large matrix products in turn, so that whatever else the machine does meets both.

    Returns: seconds: the median run; machine_macs_per_s: the median; over_floor: the median of the ratios
    """
    seconds, rates, ratios = [], [], []
    run()
    for _ in range(repetitions):
        seconds.append(time_s(run, device))
        rates.append(product_macs_per_s(device, dtype, max(0.2, min(2.0, 0.2 * seconds[-1]))))
        ratios.append(seconds[-1] * rates[-1] / macs)
    return {
        "seconds": statistics.median(seconds),
        "machine_macs_per_s": statistics.median(rates),
        "over_floor": statistics.median(ratios),
    }


def count_macs(run: Callable[[], Any]) -> int:
    """Multiply-adds of the matrix products and convolutions in `run`; transforms and pointwise work do not count."""
    with _one_thread(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def own_macs(config: ModelConfig) -> int:
    """Multiply-adds of a chunk through the network as the paper draws it: what it is, not how it is computed here."""
    with torch.device("meta"):  # counted from the shapes, nothing is computed
        network, chunk = TwoStageSeparator(config).eval(), torch.zeros(1, 2, config.chunk_samples)
    with torch.inference_mode():
        return count_macs(lambda: network(chunk))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """What looks at every operator sees those of its own thread only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def time_s(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has finished one run."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def product_macs_per_s(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """What large square matrix products reach here, over about so many seconds."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    times, began = [], time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        times.append(time_s(lambda: torch.mm(a, b, out=out), device))
    return size**3 / statistics.median(times)


def share_in_products(run: Callable[[], Any], device: torch.device) -> float:
    """0..1: how much of the operators' own time is spent in matrix products and convolutions."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with _one_thread(), profile(activities=activities) as profiler:
        run()
    return _share_of_products(profiler.key_averages(), device.type)


def _share_of_products(events: Iterable[Any], device_type: str) -> float:
    """On CUDA each operator's time stands in its own row and in its kernels'; the kernels' rows alone count."""
    from torch.autograd import DeviceType

    if device_type == "cuda":
        events = [event for event in events if event.device_type == DeviceType.CUDA]
    field = "self_device_time_total" if device_type == "cuda" else "self_cpu_time_total"
    own = [(event.key, getattr(event, field)) for event in events]
    products = sum(value for key, value in own if any(part in key for part in _PRODUCTS))
    return products / max(sum(value for _, value in own), 1e-12)
