"""What a user would pick instead, timed in turn with this network: the same machine, the same minute.

Only the networks are compared, with random weights (these do not change the speed) and each on a chunk as long as it
was trained on. All of them are used with chunks that overlap by a quarter or more, so the figures carry over to songs.
"""

from __future__ import annotations

import importlib.util
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tsbs_daw.lab.bench.networks import SEED, SIZES, random_chunk, random_engine, random_network, time_s

SAMPLE_RATE = 44100
STEMS = ["drums", "bass", "other", "vocals"]


@dataclass(frozen=True)
class Peer:
    """name: of its row; what: for the table; package: what must be installed; build: the network and its chunk in s"""

    name: str
    what: str
    package: str
    build: Callable[[torch.device], tuple[Callable[[torch.Tensor], Any], float]]


def _htdemucs(device: torch.device):
    """As `htdemucs` was published: 41 M parameters, trained on 7.8 s."""
    from demucs.htdemucs import HTDemucs

    return HTDemucs(STEMS, bottom_channels=512, segment=7.8).to(device).eval(), 7.8


def _bs_roformer(device: torch.device):
    """As a published four-stem checkpoint has it: width 384, 8 blocks, 11 s."""
    from bs_roformer import BSRoformer

    network = BSRoformer(dim=384, depth=8, stereo=True, num_stems=4, time_transformer_depth=1, freq_transformer_depth=1)
    return network.to(device).eval(), 11.0


PEERS = (
    Peer("htdemucs", "HTDemucs", "demucs", _htdemucs),
    Peer("bs_roformer", "BS-RoFormer", "bs_roformer", _bs_roformer),
)


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
    """{"fast": ..., "reference": ...}: this network, and the same in its plain form (tsbs_daw.lab.bench.reference)."""
    from tsbs_daw.lab.bench.reference import as_reference

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
