"""The speed of a network on a device in one precision, compared with the speed of the device's matrix products.

floor   the time for the multiply-adds of the plain network at the rate of large matrix products on this device, in the
        same precision

Alternatives to the bundled model are timed in turn with this network, on the same machine and in the same minute. Only
the networks are compared, with random weights, which do not affect the speed, and each on a chunk of the length that it
was trained on. All of them are used with chunks that overlap by a quarter or more, so the figures apply to songs.

The baseline for the tiles of `tsbs_daw.network` is a straightforward implementation of the network: each Mamba-2 by
itself, the backward one on a reversed copy; the state space model as einsums over chunks of 64, with B and C repeated
for each head and the decays between all pairs of chunks (arXiv 2405.21060, sections 6 and 7); convolution, gate and
norm on whole activations. It is correct and short, but moves every activation through memory many times.

b sequences, l length, c (or z) chunks, q (or s) position in a chunk, h heads, p head width, n states.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tsbs_daw.models.kinds import KINDS
from tsbs_daw.models.registry import Description, bundled_descriptions
from tsbs_daw.network import FULL, LITE, TINY, ModelConfig, TwoStageSeparator
from tsbs_daw.network.blocks import SequenceUnit, group_norm
from tsbs_daw.network.mamba2 import Mamba2
from tsbs_daw.separation.engine import Engine

SIZES = {"full": FULL, "lite": LITE, "tiny": TINY}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SEED = 1

# Parts of the names of matrix products: of operators or, on CUDA, kernels. cuBLAS names those of Hopper "nvjet".
# The last two are kernels of `network.gpu_inference`.
_PRODUCTS = ("mm", "matmul", "linear", "conv", "nvjet", "cutlass", "xmma", "scan_kernel", "output_kernel")


def random_network(config: ModelConfig, device: torch.device) -> TwoStageSeparator:
    """Create the plain network with random weights, which do not affect the speed."""
    torch.manual_seed(SEED)
    return TwoStageSeparator(config).to(device).eval()


def random_engine(config: ModelConfig, device: torch.device, precision: str = "float32") -> Engine:
    """Create an engine with random weights, as the separator uses it."""
    return Engine(random_network(config, device), device, precision=precision)


def random_chunk(config: ModelConfig, device: torch.device) -> torch.Tensor:
    """Create a chunk of noise with the length of the separator's chunks: (1, 2, samples)."""
    return 0.1 * torch.randn(1, 2, config.chunk_samples, generator=torch.Generator().manual_seed(SEED)).to(device)


def held_against_floor(
    run: Callable[[], Any], macs: int, device: torch.device, dtype: torch.dtype, repetitions: int
) -> dict[str, float]:
    """Time `run` and large matrix products in turn, so that other processes on the machine affect both alike.

    Args:
        run: The network on a chunk.
        macs: Multiply-adds of a run.
        device: The device.
        dtype: Number format of the matrix products.
        repetitions: Number of measurements.

    Returns:
        Medians of "seconds" of a run, of "machine_macs_per_s", and of "over_floor", the ratio of a run to the floor.
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
    """Count the multiply-adds of matrix products and convolutions in `run`, without transforms and pointwise work."""
    with _one_thread(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


@cache
def own_macs(config: ModelConfig) -> int:
    """Count the multiply-adds of a chunk for the network in the paper, however it is computed here.

    Counting takes up to ten seconds, so it is done once for each config.
    """
    with torch.device("meta"):  # counts by shapes, without computing
        network, chunk = TwoStageSeparator(config).eval(), torch.zeros(1, 2, config.chunk_samples)
    with torch.inference_mode():
        return count_macs(lambda: network(chunk))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, because counter and profiler only see the operators of their own thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def time_s(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds until the device has finished one run."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def product_macs_per_s(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Measure the multiply-adds per second of large square matrix products, for about `seconds`."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        times.append(time_s(lambda: torch.mm(a, b, out=out), device))
    return size**3 / statistics.median(times)


def share_in_products(run: Callable[[], Any], device: torch.device) -> float:
    """Return the share of the operators' own time spent in matrix products and convolutions, 0 to 1."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with _one_thread(), profile(activities=activities) as profiler:
        run()
    return _share_of_products(profiler.key_averages(), device.type)


def kernels_of(events: Iterable[Any]) -> list[Any]:
    """Keep the profiler events of CUDA kernels; operators and the calls that launch them repeat times and counts."""
    from torch.autograd import DeviceType

    return [event for event in events if event.device_type == DeviceType.CUDA]


def _share_of_products(events: Iterable[Any], device_type: str) -> float:
    """Compute the share from profiler events. On CUDA, only kernels count."""
    if device_type == "cuda":
        events = kernels_of(events)
    field = "self_device_time_total" if device_type == "cuda" else "self_cpu_time_total"
    own = [(event.key, getattr(event, field)) for event in events]
    products = sum(value for key, value in own if any(part in key for part in _PRODUCTS))
    return products / max(sum(value for _, value in own), 1e-12)


SAMPLE_RATE = 44100


@dataclass(frozen=True)
class Peer:
    """An alternative to the bundled model.

    Attributes:
        name: Name of its row.
        what: Description for the table.
        package: Package that must be installed.
        build: Creates the network on a device; also returns the length of its chunk in seconds.
    """

    name: str
    what: str
    package: str
    build: Callable[[torch.device], tuple[Callable[[torch.Tensor], Any], float]]


def _peer(known: Description) -> Peer:
    kind = KINDS[known.network]

    def build(device: torch.device) -> tuple[Callable[[torch.Tensor], Any], float]:
        config = kind.config(known.values())
        engine = Engine(kind.build(config), device, precision=_precision(device))
        return engine.run, config.chunk_samples / config.sample_rate

    return Peer(known.name, kind.title, kind.package, build)


# The published networks, called through the same interface as in the program.
PEERS = tuple(_peer(known) for known in bundled_descriptions().values() if KINDS[known.network].package)


def installed() -> list[Peer]:
    """Return the peers whose packages are installed."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.package)]


LONG_S = 15.0  # a longer run needs no warm-up, and is not repeated


def time_in_turn(
    runs: Mapping[str, tuple[Callable[[], Any], float]], device: torch.device, rounds: int
) -> dict[str, float]:
    """Time several runs in turn.

    Args:
        runs: {name: (what to run, seconds of audio that it processes)}
        device: The device.
        rounds: Number of rounds in which each runs once.

    Returns:
        The median of the computing time per second of audio, by name.
    """
    with torch.inference_mode():
        first_s = {name: time_s(run, device) for name, (run, _) in runs.items()}
        found = {name: [first_s[name]] if first_s[name] > LONG_S else [] for name in runs}
        for _ in range(rounds):
            for name, (run, _) in runs.items():
                if first_s[name] <= LONG_S:
                    found[name].append(time_s(run, device))
    return {name: statistics.median(values) / runs[name][1] for name, values in found.items()}


def time_peers(device: torch.device, rounds: int, quick: bool) -> dict[str, float]:
    """Return {"tiny": ..., "full": ..., peer: ...}: seconds per second of stereo for each installed network."""
    torch.manual_seed(SEED)
    sizes = ("tiny",) if quick else ("tiny", "full")
    runs = {name: (_own(SIZES[name], device), SIZES[name].chunk_s) for name in sizes}
    for peer in installed():
        network, chunk_s = peer.build(device)
        runs[peer.name] = (_fed(network, chunk_s, device), chunk_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers' packages
        return time_in_turn(runs, device, rounds)


def time_reference(device: torch.device, rounds: int, quick: bool) -> dict[str, float]:
    """Return {"fast": ..., "reference": ...}: seconds per second of stereo of the engine and of the baseline."""
    config = SIZES["tiny" if quick else "full"]
    engine, chunk = random_engine(config, device, _precision(device)), random_chunk(config, device)
    plain = as_reference(random_network(config, device))
    runs = {"fast": lambda: engine.run(chunk), "reference": lambda: plain(chunk, final_only=True)}
    return time_in_turn({name: (run, config.chunk_s) for name, run in runs.items()}, device, rounds)


def _own(config: ModelConfig, device: torch.device) -> Callable[[], Any]:
    engine, chunk = random_engine(config, device, _precision(device)), random_chunk(config, device)
    return lambda: engine.run(chunk)


def _precision(device: torch.device) -> str:
    """Return the precision for comparisons of networks: as songs are separated on CUDA, float32 elsewhere."""
    return "auto" if device.type == "cuda" else "float32"


def _fed(network: Callable[[torch.Tensor], Any], chunk_s: float, device: torch.device) -> Callable[[], Any]:
    audio = 0.1 * torch.randn(1, 2, round(chunk_s * SAMPLE_RATE), device=device)
    return lambda: network(audio)


CHUNK = 64


def as_reference(network: TwoStageSeparator) -> TwoStageSeparator:
    """Return a straightforward implementation with the same weights and results. `network` must be a plain one."""
    plain = copy.deepcopy(network)
    for block in (*plain.mask_blocks, *plain.map_blocks):
        block.time, block.band = ReferenceUnit(block.time), ReferenceUnit(block.band)
    return plain


class ReferenceUnit(nn.Module):
    """A straightforward `blocks.SequenceUnit`."""

    def __init__(self, unit: SequenceUnit):
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit: (b, l, features) -> (b, l, features)."""
        u = group_norm(x, self.unit.norm_weight, self.unit.norm_bias)
        outputs = []
        for direction in range(self.unit.mamba.directions):
            flipped = u.flip(1) if direction else u
            y = _mamba(flipped, self.unit.mamba.mamba, direction) + flipped
            outputs.append(y.flip(1) if direction else y)
        return x + self.unit.proj(torch.cat(outputs, dim=-1))


def _mamba(u: Tensor, layer: Mamba2, direction: int) -> Tensor:
    """Apply one direction of a Mamba-2 layer: (b, l, features) -> (b, l, features)."""
    config = layer.config
    inner, states = config.d_inner, config.d_state
    z, xBC, dt = F.linear(u, layer.in_proj[direction]).split([inner, inner + 2 * states, config.heads], dim=-1)
    taps = layer.conv_weight[direction][:, None]
    xBC = F.conv1d(xBC.mT, taps, layer.conv_bias[direction], padding=config.d_conv - 1, groups=len(taps))
    x, B, C = F.silu(xBC[..., : u.shape[1]].mT).split([inner, states, states], dim=-1)
    x = rearrange(x, "b l (h p) -> b l h p", p=config.headdim)
    B, C = (repeat(part, "b l n -> b l h n", h=config.heads) for part in (B, C))
    dt = F.softplus(dt + layer.dt_bias[direction])
    y = _ssd(x * dt[..., None], dt * -layer.A_log[direction].exp(), B, C) + x * layer.D[direction][:, None]
    y = rearrange(y, "b l h p -> b l (h p)") * F.silu(z)
    y = F.rms_norm(y, (inner,), layer.norm_weight[direction], 1e-5)
    return F.linear(y, layer.out_proj[direction])


def _ssd(x: Tensor, a: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Apply the state space model: x (b, l, h, p); log decays a (b, l, h); B, C (b, l, h, n) -> (b, l, h, p)."""
    length = x.shape[1]
    padding = -length % CHUNK
    x, B, C = (F.pad(part, (0, 0, 0, 0, 0, padding)) for part in (x, B, C))
    x, B, C = (rearrange(part, "b (c q) h n -> b c q h n", q=CHUNK) for part in (x, B, C))
    a = rearrange(F.pad(a, (0, 0, 0, padding)), "b (c q) h -> b h c q", q=CHUNK)
    total = a.cumsum(-1)

    within = torch.einsum("bcqhn,bcshn,bhcqs,bcshp->bcqhp", C, B, _sums_between(a).exp(), x)
    states = torch.einsum("bcshn,bhcs,bcshp->bchpn", B, (total[..., -1:] - total).exp(), x)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
    carried = _sums_between(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", carried, states)[:, :-1]
    across = torch.einsum("bcqhn,bchpn,bhcq->bcqhp", C, states, total.exp())
    return rearrange(within + across, "b c q h p -> b (c q) h p")[:, :length]


def _sums_between(a: Tensor) -> Tensor:
    """Sum a from s + 1 to q: (..., q) -> (..., q, s); minus infinity if s is later than q."""
    total = a.cumsum(-1)
    later = torch.ones(a.shape[-1], a.shape[-1], dtype=torch.bool, device=a.device).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -math.inf)
