"""The form of a network and the number format in which it runs on a device, chosen by trial.

tiles      `network.inference`, on a CPU
kernels    `network.gpu_inference`, Triton kernels on a GPU that Triton compiles for
mamba-ssm  the plain network with the fused kernels of that package
plain      the plain network

On a GPU, the first form is chosen that gives the same results as the plain network in float32 and is not slower. A form
that does not work there (a package for another version, a card that is too old) is logged and skipped.

Matrix products are computed in the number format; everything between them is always float32.

The form is then recorded as a CUDA graph, once per batch shape, and replayed with one launch: a small network consists
of some hundred kernels of a few microseconds each, and launching them one by one takes several times as long as
computing them. A form that cannot be recorded runs as it is.
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
    """Choose a number format by name.

    "auto" is bfloat16 where that was measured to be faster without reducing quality: for a wide network on a CPU that
    multiplies bfloat16 natively (AVX512-BF16, AMX). Otherwise it is float32. On CUDA, `choose_form` measures the error
    of each format instead of relying on this.

    Raises:
        UsageError: The name is not in NAMES.
    """
    if name not in NAMES:
        raise UsageError(f"There is no precision {name!r}; choose from {', '.join(NAMES)}.")
    if name != "auto":
        return DTYPES[name]
    worthwhile = device.type == "cpu" and config.bfloat16_pays and native_bfloat16()
    return torch.bfloat16 if worthwhile else torch.float32


def mark(dtype: torch.dtype, config: NetworkConfig) -> str | None:
    """Return the name of a precision in the keys of stored results.

    None for float32 in a network that gains nothing from bfloat16: such a network always ran in float32 before the
    precision could be chosen, so results stored then are still valid. For other networks, the precision of those
    results is unknown, so they are not reused.
    """
    if dtype == torch.float32 and not config.bfloat16_pays:
        return None
    return str(dtype).removeprefix("torch.")


def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 without converting it first."""
    # Looked up by name: torch has these functions from 2.6 on, and not for every CPU.
    questions = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(question() for question in questions if question)


log = logging.getLogger(__name__)

# Relative to the estimates' norm. At an SDR of 12 dB, an error of 0.02 costs 0.03 dB.
LARGEST_ERROR = 0.02
TRIAL_S = 1.0
TRIAL_RUNS = 3


@dataclass(frozen=True)
class Form:
    """A network that is ready to run.

    Attributes:
        name: As in the module's docstring.
        network: The network.
        dtype: Number format of matrix products.
        tf32: Whether float32 products may round their operands to a 10-bit mantissa.
        error: Error of the trial's estimates, as a ratio of norms; None: not tried.
        speed: Relative to the plain network; None: not tried.
    """

    name: str
    network: SeparationNetwork
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    error: float | None = None
    speed: float | None = None

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """Run the network on the device it is on: (B, C, samples) -> (B, S, C, samples)."""
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
    """Make matrix products use this format inside the context. The tiled network on a CPU converts by itself."""
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
    """Choose the form in which a network runs on a device.

    Args:
        network: On any device; moved to `device` unless that is the CPU.
        device: The device.
        precision: One of `NAMES`.

    Raises:
        UsageError: The precision does not exist, or not for this network.
        RuntimeError: There is not enough memory for the weights.
    """
    dtype = choose_precision(precision, device, network.config)
    if device.type == "cpu":
        for name, build in network.variants(device).items():
            return Form(name, build(dtype), dtype)
        if dtype != torch.float32:
            raise UsageError("This network only supports float32 on a CPU; leave out --precision.")
    plain = Form("plain", network.to(device).eval(), dtype)
    if device.type != "cuda":
        return plain
    with torch.inference_mode():
        return _first_that_works(plain, precision)


def _first_that_works(plain: Form, precision: str) -> Form:
    """Return the first form for a GPU that works; log the choice and each failure in one line."""
    mixture = _trial(plain.network.config, next(plain.network.parameters()).device)
    exact = Form("plain", plain.network)
    try:
        wanted, plain_s = _timed(exact, mixture)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log.warning("not enough memory to try the forms of the network (%s); using the plain one", described(error))
        return plain
    for name, dtype, tf32 in _candidates(precision, plain.network):
        try:
            form = Form(name, _network(name, plain.network, dtype), dtype, tf32)
            found, seconds = _timed(form, mixture)
        except Exception as error:  # whatever a compiler or a package of another version raises
            log.warning("the %s form cannot be used here (%s)", name, described(error))
            continue
        off = float((found - wanted).norm() / wanted.norm())
        if not off <= LARGEST_ERROR:
            log.warning("the %s form in %s is off by %.1e here, so it is not used", name, form.format_name, off)
        elif name != "plain" and seconds > plain_s:
            log.info("the %s form is slower than plain torch here, so it is not used", name)
        else:
            chosen = Form(name, form.network, dtype, tf32, off, plain_s / seconds)
            measured = (name, chosen.format_name, off, chosen.speed)
            log.info("using the %s form in %s: off by %.1e, %.1f times as fast as plain float32", *measured)
            return chosen
    return exact


def _candidates(precision: str, network: SeparationNetwork) -> Iterator[tuple[str, torch.dtype, bool]]:
    """Yield (form, number format, TF32), the best first. Strict float32 gains nothing from kernels for matrix units."""
    formats = {"auto": [(torch.bfloat16, False), (torch.float32, True)], "float32": [(torch.float32, False)]}
    names = [*network.variants(torch.device("cuda")), "plain"]
    for dtype, tf32 in formats.get(precision, [(DTYPES.get(precision, torch.float32), False)]):
        strict = dtype == torch.float32 and not tf32
        yield from ((name, dtype, tf32) for name in names if not (strict and name == "kernels"))


def _network(name: str, network: SeparationNetwork, dtype: torch.dtype) -> SeparationNetwork:
    return network if name == "plain" else network.variants(torch.device("cuda"))[name](dtype)


def _trial(config: NetworkConfig, device: torch.device) -> Tensor:
    """Return a chord, a beat and some noise, (1, 2, samples), the same every time."""
    seconds = torch.arange(round(TRIAL_S * config.sample_rate)) / config.sample_rate
    noise = torch.randn(2, len(seconds), generator=torch.Generator().manual_seed(3))
    chord = sum(torch.sin(2 * torch.pi * frequency_hz * seconds) for frequency_hz in (55, 220, 277, 330))
    return (0.1 * chord + (0.01 + 0.2 * torch.exp(-30 * (seconds % 0.25))) * noise)[None].to(device)


def _timed(form: Form, mixture: Tensor) -> tuple[Tensor, float]:
    """Return the estimates, and the seconds of the fastest of TRIAL_RUNS runs after a first one."""
    found, fastest = form(mixture).float(), float("inf")
    for _ in range(TRIAL_RUNS):
        torch.cuda.synchronize(mixture.device)
        began = time.perf_counter()
        form(mixture)
        torch.cuda.synchronize(mixture.device)
        fastest = min(fastest, time.perf_counter() - began)
    return found, fastest


def kernel_chunk_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Estimate a chunk's memory with the kernels: what one unit keeps between them, and the estimators' outputs."""
    frames = 2 * (1 + config.chunk_samples // config.hop_length)
    directions = 2 if config.bidirectional else 1
    values = directions * (4 * config.d_inner + 4 * config.d_state + config.heads) + config.feature_dim
    token = values * dtype.itemsize + 4 * (3 * config.feature_dim + 3 * directions * config.heads)
    return config.bands * frames * token + 40 * len(config.stems) * config.bins * frames


MOST_SHAPES = 3  # a graph keeps the memory that its shape needs
MOST_BYTES = 3_000_000_000  # planned for a batch; in larger ones, computing outweighs launching
LARGEST_REPLAY_ERROR = 1e-3  # relative to the norm; the same kernels may add in another order


class Recording(NamedTuple):
    """A recorded run; it always reads and writes the same memory."""

    graph: torch.cuda.CUDAGraph
    mixture: Tensor
    estimates: Tensor


class GraphedForm:
    """A form on CUDA. The first batch of a shape runs as it is, the second is recorded, the others are replayed."""

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
