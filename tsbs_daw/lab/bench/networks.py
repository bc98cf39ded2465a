"""A network on one device in one precision, held against what the device's own matrix products allow.

floor   the network's own multiply-adds, as the plain network has them, at the rate that large matrix products reach
        here, in the same precision

What a user would pick instead is timed in turn with this network: on the same machine, in the same minute. Only the
networks are compared, with random weights (these do not change the speed) and each on a chunk as long as it was trained
on. All of them are used with chunks that overlap by a quarter or more, so the figures carry over to songs.

The yardstick for what the tiles of `tsbs_daw.network` gain is the network as one first writes it down: each Mamba-2 by
itself, its backward one on a reversed copy; the state space model as einsums over chunks of 64 with B and C repeated
for each head, the decays of all chunks against all chunks (arXiv 2405.21060, sections 6 and 7); convolution, gate and
norm on whole activations. Correct, short, and all of it goes through memory again and again.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tsbs_daw.models.kinds import KINDS
from tsbs_daw.models.zoo import Description, bundled
from tsbs_daw.network import FULL, LITE, TINY, ModelConfig, TwoStageSeparator
from tsbs_daw.network.blocks import SequenceUnit, group_norm
from tsbs_daw.network.mamba2 import Mamba2
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
    times: list[float] = []
    began = time.perf_counter()
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


SAMPLE_RATE = 44100


@dataclass(frozen=True)
class Peer:
    """name: of its row; what: for the table; package: what must be installed; build: the network and its chunk in s"""

    name: str
    what: str
    package: str
    build: Callable[[torch.device], tuple[Callable[[torch.Tensor], Any], float]]


def _peer(known: Description) -> Peer:
    kind = KINDS[known.network]

    def build(device: torch.device) -> tuple[Callable[[torch.Tensor], Any], float]:
        config = kind.config(known.values())
        return kind.build(config).to(device).eval().estimate, config.chunk_samples / config.sample_rate

    return Peer(known.name, kind.title, kind.package, build)


# As they were published, behind the seam as a user runs them.
PEERS = tuple(_peer(known) for known in bundled().values() if KINDS[known.network].package)


def installed() -> list[Peer]:
    """The peers whose packages are here."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.package)]


LONG_S = 15.0  # a run that takes longer is past its warming up, and is not repeated


def time_in_turn(
    runs: dict[str, tuple[Callable[[], Any], float]], device: torch.device, rounds: int
) -> dict[str, float]:
    """Seconds of computing per second of audio, the median of `rounds` rounds in which each had its turn.

    Args: runs: {name: (what to run, the seconds of audio it treats)}
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
    """{"tiny": ..., "full": ..., peer: ...}: seconds per second of stereo for each network that is installed."""
    torch.manual_seed(SEED)
    sizes = ("tiny",) if quick else ("tiny", "full")
    runs = {name: (_own(SIZES[name], device), SIZES[name].chunk_s) for name in sizes}
    for peer in installed():
        network, chunk_s = peer.build(device)
        runs[peer.name] = (_fed(network, chunk_s, device), chunk_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        return time_in_turn(runs, device, rounds)


def time_reference(device: torch.device, rounds: int, quick: bool) -> dict[str, float]:
    """{"fast": ..., "reference": ...}: this network, and the same in its plain form (tsbs_daw.lab.bench.networks)."""

    config = SIZES["tiny" if quick else "full"]
    engine, chunk = random_engine(config, device), random_chunk(config, device)
    plain = as_reference(random_network(config, device))
    runs = {"fast": lambda: engine.run(chunk), "reference": lambda: plain(chunk, final_only=True)}
    return time_in_turn({name: (run, config.chunk_s) for name, run in runs.items()}, device, rounds)


def _own(config, device: torch.device) -> Callable[[], Any]:
    engine, chunk = random_engine(config, device), random_chunk(config, device)
    return lambda: engine.run(chunk)


def _fed(network: Callable[[torch.Tensor], Any], chunk_s: float, device: torch.device) -> Callable[[], Any]:
    audio = 0.1 * torch.randn(1, 2, round(chunk_s * SAMPLE_RATE), device=device)
    return lambda: network(audio)


CHUNK = 64


def as_reference(network: TwoStageSeparator) -> TwoStageSeparator:
    """A network of the same weights and results, plainly written. `network` is a plain one, not one for inference."""
    plain = copy.deepcopy(network)
    for block in (*plain.mask_blocks, *plain.map_blocks):
        block.time, block.band = ReferenceUnit(block.time), ReferenceUnit(block.band)
    return plain


class ReferenceUnit(nn.Module):
    """`blocks.SequenceUnit`."""

    def __init__(self, unit: SequenceUnit):
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, features)."""
        u = group_norm(x, self.unit.norm_weight, self.unit.norm_bias)
        outputs = []
        for direction in range(self.unit.mamba.directions):
            flipped = u.flip(1) if direction else u
            y = _mamba(flipped, self.unit.mamba.mamba, direction) + flipped
            outputs.append(y.flip(1) if direction else y)
        return x + self.unit.proj(torch.cat(outputs, dim=-1))


def _mamba(u: Tensor, layer: Mamba2, direction: int) -> Tensor:
    """u: (b, l, features) -> the same."""
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
    """x: (b, l, h, p); a: (b, l, h), logarithms of the decays; B, C: (b, l, h, n) -> (b, l, h, p)."""
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
    """(..., q) -> (..., q, s): the sum of a from s + 1 to q, and minus infinity where s is later."""
    total = a.cumsum(-1)
    later = torch.ones(a.shape[-1], a.shape[-1], dtype=torch.bool, device=a.device).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -math.inf)
