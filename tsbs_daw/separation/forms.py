"""In which form and which number format a network runs on a device, settled by trying.

tiles      `network.inference`, on a CPU
kernels    `network.gpu_inference`, Triton kernels on a GPU that Triton compiles for
mamba-ssm  the plain network with the fused kernels of that package
plain      the plain network

On a GPU the first form that computes the same as the plain network in float32, and not slower, is taken. What does not
work there (a package for another version, a card that is too old) costs a line in the log and nothing else.

Matrix products are computed in the number format; everything between them is float32 either way.

A form is then recorded as a CUDA graph, once for a shape of batch, and replayed with one launch: a small network is
some hundred kernels of a few microseconds each, and launching them one by one takes several times as long as computing
them. What cannot be recorded runs as before.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tsbs_daw.core.errors import UsageError, described
from tsbs_daw.network import ModelConfig
from tsbs_daw.network.mamba2 import fused_kernels
from tsbs_daw.network.seam import NetworkConfig, SeparationNetwork, standardised
from tsbs_daw.separation.devices import is_out_of_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NAMES = ("auto", *DTYPES)


def choose_precision(name: str, device: torch.device, config: NetworkConfig) -> torch.dtype:
    """ "auto" is bfloat16 where that was measured to be faster and to cost no quality, else float32.

    That is: a wide network on a processor that multiplies bfloat16 itself (AVX512-BF16, AMX). On CUDA `forms` measures
    the error of each format instead of asking here.

    Raises: UsageError: not one of NAMES
    """
    if name not in NAMES:
        raise UsageError(f"There is no precision {name!r}; choose from {', '.join(NAMES)}.")
    if name != "auto":
        return DTYPES[name]
    worthwhile = device.type == "cpu" and config.bfloat16_pays and native_bfloat16()
    return torch.bfloat16 if worthwhile else torch.float32


def mark(dtype: torch.dtype, config: NetworkConfig) -> str | None:
    """What results made in this precision are kept under.

    None for float32 in a network that gains nothing by bfloat16: nothing else was used for it before there was a
    choice, and what was kept then is still right. For others nobody can tell, so that is found no more.
    """
    if dtype == torch.float32 and not config.bfloat16_pays:
        return None
    return str(dtype).removeprefix("torch.")


def native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 without converting it first."""
    # Asked for by name: torch says so from 2.6 on, and not on every processor.
    questions = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(question() for question in questions if question)


log = logging.getLogger(__name__)

# Of the estimates' norm. At an SDR of 12 dB an error of 0.02 costs 0.03 dB.
LARGEST_ERROR = 0.02
TRIAL_S = 1.0
TRIAL_RUNS = 3


@dataclass(frozen=True)
class Form:
    """A network that is ready to run.

    tf32: whether products of float32 may round their operands to ten bits
    error: of the trial's estimates, as a ratio of norms; speed: in times the plain network; None: not tried
    """

    name: str
    network: SeparationNetwork
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    error: float | None = None
    speed: float | None = None

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """(B, C, samples) -> (B, S, C, samples), on the device that the network is on."""
        with number_format(mixture.device, self.dtype, self.tf32), fused_kernels(self.name == "mamba-ssm"):
            if not self.network.config.standardised:
                return self.network.estimate(mixture, stage)
            chunks, back = standardised(mixture)
            return back(self.network.estimate(chunks, stage))

    @property
    def format_name(self) -> str:
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    def chunk_bytes(self) -> int:
        return (
            kernel_chunk_bytes(cast("ModelConfig", self.network.config), self.dtype)
            if self.name == "kernels"
            else self.network.chunk_bytes()
        )


@contextlib.contextmanager
def number_format(device: torch.device, dtype: torch.dtype, tf32: bool) -> Iterator[None]:
    """Within, matrix products use this format. The tiled network on a CPU converts by itself."""
    if device.type == "cuda":
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
    try:
        with torch.autocast(device.type, torch.bfloat16) if _mixed(device, dtype) else contextlib.nullcontext():
            yield
    finally:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = before


def _mixed(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and device.type != "cpu"


def choose_form(network: SeparationNetwork, device: torch.device, precision: str) -> Form:
    """
    Args:
        network: On any device; moved to `device` unless that is the CPU.
        precision: One of `NAMES`.
    Raises: UsageError: no such precision, or not for this network; RuntimeError: out of memory for the weights
    """
    dtype = choose_precision(precision, device, network.config)
    if device.type == "cpu":
        for name, build in network.variants(device).items():
            return Form(name, build(dtype), dtype)
        if dtype != torch.float32:
            raise UsageError("This network computes in float32 alone on a processor; leave out --precision.")
    plain = Form("plain", network.to(device).eval(), dtype)
    if device.type != "cuda":
        return plain
    with torch.inference_mode():
        return _first_that_works(plain, precision)


def _first_that_works(plain: Form, precision: str) -> Form:
    """Of the forms for a GPU. Its choice is told in one line, and so is each failure."""
    mixture = _trial(plain.network.config, next(plain.network.parameters()).device)
    exact = Form("plain", plain.network)
    try:
        wanted, plain_s = _timed(exact, mixture)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log.warning("no memory to try the forms of the network (%s); taking the plain one", described(error))
        return plain
    for name, dtype, tf32 in _candidates(precision, plain.network):
        try:
            form = Form(name, _network(name, plain.network, dtype), dtype, tf32)
            found, seconds = _timed(form, mixture)
        except Exception as error:  # whatever a compiler or a package of another version raises
            log.warning("the form %s cannot be used here (%s)", name, described(error))
            continue
        off = float((found - wanted).norm() / wanted.norm())
        if not off <= LARGEST_ERROR:
            log.warning("the form %s in %s is off by %.1e here and not used", name, form.format_name, off)
        elif name != "plain" and seconds > plain_s:
            log.info("the form %s is slower than plain torch here and not used", name)
        else:
            chosen = Form(name, form.network, dtype, tf32, off, plain_s / seconds)
            told = (name, chosen.format_name, off, chosen.speed)
            log.info("form %s in %s: off by %.1e, %.1f times as fast as plain float32", *told)
            return chosen
    return exact


def _candidates(precision: str, network: SeparationNetwork) -> Iterator[tuple[str, torch.dtype, bool]]:
    """(form, number format, TF32), the best first. Strict float32 gains nothing from kernels for matrix units."""
    formats = {"auto": [(torch.bfloat16, False), (torch.float32, True)], "float32": [(torch.float32, False)]}
    names = [*network.variants(torch.device("cuda")), "plain"]
    for dtype, tf32 in formats.get(precision, [(DTYPES.get(precision, torch.float32), False)]):
        strict = dtype == torch.float32 and not tf32
        yield from ((name, dtype, tf32) for name in names if not (strict and name == "kernels"))


def _network(name: str, network: SeparationNetwork, dtype: torch.dtype) -> SeparationNetwork:
    return network if name == "plain" else network.variants(torch.device("cuda"))[name](dtype)


def _trial(config: NetworkConfig, device: torch.device) -> Tensor:
    """(1, 2, samples): a chord, a beat and some noise, the same every time."""
    seconds = torch.arange(round(TRIAL_S * config.sample_rate)) / config.sample_rate
    noise = torch.randn(2, len(seconds), generator=torch.Generator().manual_seed(3))
    chord = sum(torch.sin(2 * torch.pi * frequency_hz * seconds) for frequency_hz in (55, 220, 277, 330))
    return (0.1 * chord + (0.01 + 0.2 * torch.exp(-30 * (seconds % 0.25))) * noise)[None].to(device)


def _timed(form: Form, mixture: Tensor) -> tuple[Tensor, float]:
    """The estimates, and the seconds of the fastest of some runs after the first."""
    found, fastest = form(mixture).float(), float("inf")
    for _ in range(TRIAL_RUNS):
        torch.cuda.synchronize(mixture.device)
        began = time.perf_counter()
        form(mixture)
        torch.cuda.synchronize(mixture.device)
        fastest = min(fastest, time.perf_counter() - began)
    return found, fastest


def kernel_chunk_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """About what it needs with the kernels: what one unit keeps between them, and the estimators' outputs."""
    frames = 2 * (1 + config.chunk_samples // config.hop_length)
    directions = 2 if config.bidirectional else 1
    values = directions * (4 * config.d_inner + 4 * config.d_state + config.heads) + config.feature_dim
    token = values * dtype.itemsize + 4 * (3 * config.feature_dim + 3 * directions * config.heads)
    return config.bands * frames * token + 40 * len(config.stems) * config.bins * frames


MOST_SHAPES = 3  # a graph keeps the memory that its shape needs
MOST_BYTES = 3_000_000_000  # planned for a batch; above it computing outweighs launching
LARGEST_REPLAY_ERROR = 1e-3  # of a replay's norm: the same kernels in another order of their sums


class Recording(NamedTuple):
    """A recorded run; it always reads and writes the same memory."""

    graph: torch.cuda.CUDAGraph
    mixture: Tensor
    estimates: Tensor


class GraphedForm:
    """A form on CUDA: a shape's first batch runs as it is, its second is recorded, the others are replayed."""

    def __init__(self, form: Form):
        self.form = form
        self._recordings: dict[tuple, Recording | None] = {}  # None: seen once
        # mamba-ssm tunes itself while it runs.
        recordable = form.network.recordable and form.name in ("kernels", "plain")
        self._possible = recordable and form.speed is not None

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        key = (*mixture.shape, stage)
        if not self._possible or len(mixture) * self.form.chunk_bytes() > MOST_BYTES:
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
        """Record this shape. What comes out once it is replayed must be what came out before."""
        wanted = self.form(mixture, stage)
        if self._record(key, mixture, stage):
            found = _replay(cast("Recording", self._recordings[key]), mixture)
            if not float((found - wanted).norm()) <= LARGEST_REPLAY_ERROR * float(wanted.norm()):
                self._give_up("a replay gives something else")
        return wanted

    def _give_up(self, reason: str) -> None:
        self._possible = False
        self._recordings.clear()
        log.info("CUDA graphs are not used (%s)", reason)

    def _record(self, key: tuple, mixture: Tensor, stage: str) -> bool:
        """Whether it worked. Recording computes nothing."""
        try:
            graph, fixed = torch.cuda.CUDAGraph(), mixture.clone()
            # Other threads may go on allocating and copying meanwhile.
            with torch.cuda.device(mixture.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                estimates = self.form(fixed, stage)
        except Exception as error:  # torch names a dozen reasons, of as many kinds
            self._give_up(described(error))
            return False
        self._recordings[key] = Recording(graph, fixed, estimates)
        return True


def _replay(recording: Recording, mixture: Tensor) -> Tensor:
    recording.mixture.copy_(mixture)
    recording.graph.replay()
    return recording.estimates.clone()
