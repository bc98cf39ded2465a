"""The form of a network and the number format in which it runs on a device, chosen by trial.

tiles      `network.inference`, on a CPU
kernels    `network.gpu_inference`, Triton kernels on a GPU that Triton compiles for
mamba-ssm  the plain network with the fused kernels of that package
plain      the plain network

On CUDA, the fastest form whose estimates agree with those of the plain network in float32 is chosen; see `Trials`. A
form that does not work there (a package for another version, a card that is too old) is logged and skipped.

Matrix products are computed in the number format; everything between them is always float32.

The form then runs as a CUDA graph where that is possible; see `devices.GraphedForm`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, FiniteFloat, TypeAdapter
from torch import Tensor

from tsbs_daw import __version__
from tsbs_daw.core.errors import UsageError, described
from tsbs_daw.core.files import private_folder, read_small, write_atomically
from tsbs_daw.network import ModelConfig
from tsbs_daw.network.inference import kernel_chunk_bytes
from tsbs_daw.network.mamba2 import fused_kernels
from tsbs_daw.network.seam import NetworkConfig, SeparationNetwork, standardised
from tsbs_daw.separation.devices import GraphedForm, fitting_batch, is_lost, is_out_of_memory, translate_cuda_errors

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
TRIAL_S = 1.0  # of sound, for the error
TRIAL_RUNS = 5  # the fastest counts; the first compiles, the second is recorded as a graph
TRIAL_BATCH = 8
RUNS_LIMIT_S = 1.0  # for the runs of one form and batch after the first
TRIALS_LIMIT_S = 30.0  # after which the forms that are left wait for the next start

RECORDS = "forms.json"  # in the cache folder
RECORDS_BYTES = 256 * 1024
MOST_RECORDS = 64


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
        alone: The form for a batch of one, in the same number format, if another is faster there.
    """

    name: str
    network: SeparationNetwork
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    error: float | None = None
    speed: float | None = None
    alone: Form | None = None

    def for_batch(self, batch: int) -> Form:
        return self.alone if self.alone and batch == 1 else self

    def __call__(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """Run the network on the device it is on: (B, C, samples) -> (B, S, C, samples)."""
        if (other := self.for_batch(len(mixture))) is not self:
            return other(mixture, stage)
        with number_format(mixture.device, self.dtype, self.tf32), fused_kernels(self.name == "mamba-ssm"):
            if not self.network.config.standardised:
                return self.network.estimate(mixture, stage)
            chunks, back = standardised(mixture)
            return back(self.network.estimate(chunks, stage))

    @property
    def label(self) -> str:
        return f"{self.name} form in {self.format_name}"

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


def choose_form(
    network: SeparationNetwork,
    device: torch.device,
    precision: str,
    cache: Path | None = None,
    *,
    patient: bool = False,
) -> Form:
    """Choose the form in which a network runs on a device.

    Args:
        network: On any device; moved to `device` unless that is the CPU.
        device: The device.
        precision: One of `NAMES`.
        cache: Folder in which measured times are kept; None keeps them in this process alone.
        patient: Measure however long it takes, and mamba-ssm too, whose kernels tune themselves for a minute.

    Raises:
        UsageError: The precision does not exist, or not for this network.
        DeviceLost: The GPU failed.
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
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")  # or mamba-ssm's kernels tune themselves in every process
    with torch.inference_mode(), translate_cuda_errors():
        try:
            trials = Trials(plain.network, cache)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            log.warning("not enough memory to try the forms of the network (%s); using the plain one", described(error))
            return plain
        form = trials.fastest(precision, patient)
    torch.cuda.empty_cache()
    return form


class Record(BaseModel):
    """What is known about the forms of one network on one card, with one set of versions.

    Attributes:
        seconds: Seconds that a chunk takes, by form and format: in a batch of one, and in a large batch.
        lost: The forms that made the device unusable.
    """

    seconds: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    lost: list[str] = []


_RECORDS: TypeAdapter[dict[str, Record]] = TypeAdapter(dict[str, Record])
_of_process: dict[str, Record] = {}  # what is kept without a cache folder
ALONE, MANY = 0, 1  # indices into `Record.seconds`


class Trials:
    """Trials of the forms of a network on CUDA, with plain float32 as the reference.

    Errors depend on the weights: a form is compared with the reference whenever a model is loaded. Times do not: they
    are measured once, for whole chunks, and kept. A form that makes the device unusable ends this process; that is kept
    too, so that the next process takes another.

    Raises:
        RuntimeError: The plain network failed.
    """

    def __init__(self, network: SeparationNetwork, cache: Path | None):
        self.network = network
        self.device = next(network.parameters()).device
        self._path = cache / RECORDS if cache else None
        self._key = _record_key(network.config, self.device)
        self.record = self._read().get(self._key, Record())
        self._mixture = _trial(network.config, TRIAL_S, self.device)
        self.exact = Form("plain", network, error=0.0, speed=1.0)
        self._wanted = self.exact(self._mixture).float()
        self._tried: dict[str, Form | None] = {self.exact.label: self.exact}

    def fastest(self, precision: str, patient: bool = False) -> Form:
        """Return the fastest form in large batches, with the fastest one in the same format for a batch of one."""
        forms = [form for form in _candidates(precision, self.network) if not self._is_lost(form)]
        began = time.monotonic()
        for form in (self.exact, *forms):
            if form.label in self.record.seconds:
                continue
            if not patient and (form.name == "mamba-ssm" or time.monotonic() - began > TRIALS_LIMIT_S):
                log.info("the %s is not measured yet; `tsbs-daw doctor` measures it", form.label)
            elif ready := self._ready(form):
                with self._surviving(form):
                    self._measure(ready)
        chosen = self._fastest_right(forms, MANY) or self.exact
        same_format = (form for form in forms if form.format_name == chosen.format_name)
        alone = self._fastest_right(same_format, ALONE) or chosen
        for batch, form in (("batches", chosen), ("single chunks", alone)):
            told = (form.label, batch, form.error, form.speed)
            log.info("using the %s for %s: off by %.1e, %.1f times as fast as plain float32", *told)
        return chosen if alone.label == chosen.label else replace(chosen, alone=alone)

    def _is_lost(self, form: Form) -> bool:
        lost = bool({form.name, form.label} & set(self.record.lost))
        if lost:
            log.warning("the %s made the GPU fail, so it is not used; delete %s to try again", form.label, self._path)
        return lost

    def _fastest_right(self, forms: Iterable[Form], batch: int) -> Form | None:
        seconds = self.record.seconds
        measured = sorted((seconds[form.label][batch], form.label, form) for form in forms if form.label in seconds)
        for taken, _, form in measured:
            if ready := self._ready(form):
                return replace(ready, speed=seconds.get(self.exact.label, seconds[form.label])[batch] / taken)
        return None

    def _ready(self, form: Form) -> Form | None:
        """Build a form and compare it, once; return None unless it computes right."""
        if form.label not in self._tried:
            self._tried[form.label] = None
            with self._surviving(form):
                built = replace(form, network=_network(form), speed=1.0)
                off = float((built(self._mixture).float() - self._wanted).norm() / self._wanted.norm())
                if off <= LARGEST_ERROR:
                    self._tried[form.label] = replace(built, error=off)
                else:
                    log.warning("the %s is off by %.1e here, so it is not used", form.label, off)
        return self._tried[form.label]

    @contextlib.contextmanager
    def _surviving(self, form: Form) -> Iterator[None]:
        """Log a failure of a form and go on, unless the device is lost: record that, and raise it."""
        try:
            yield
        except Exception as error:  # whatever a compiler or a package of another version raises
            log.warning("the %s cannot be used here (%s)", form.label, described(error))
            if isinstance(error, RuntimeError) and is_lost(error):
                self.record.lost.append(form.label if form.name == "plain" else form.name)
                self._keep()
                raise

    def _measure(self, form: Form) -> None:
        batch = fitting_batch(self.network.chunk_bytes(), self.device, TRIAL_BATCH)
        chunk, run = _trial(self.network.config, None, self.device), GraphedForm(form)
        seconds = {size: _shortest_s(run, chunk.repeat(size, 1, 1)) / size for size in dict.fromkeys((1, batch))}
        alone, many = seconds[1], seconds[batch]
        log.info(
            "the %s takes %.1f ms a chunk alone, %.1f ms in batches of %d", form.label, 1e3 * alone, 1e3 * many, batch
        )
        self.record.seconds[form.label] = (alone, many)
        self._keep()

    def _read(self) -> dict[str, Record]:
        if self._path is None:
            return _of_process
        try:
            return _RECORDS.validate_json(read_small(self._path, RECORDS_BYTES))
        except (OSError, ValueError):  # none yet, or a damaged one
            return {}

    def _keep(self) -> None:
        """Write the record into the cache. If that fails, it is measured again."""
        if self._path is None:
            _of_process[self._key] = self.record
            return
        with contextlib.suppress(OSError, Timeout):
            private_folder(self._path.parent, repair=False)
            with FileLock(f"{self._path}.lock", timeout=1):
                others = [(key, record) for key, record in self._read().items() if key != self._key]
                records = dict([*others[1 - MOST_RECORDS :], (self._key, self.record)])
                write_atomically(self._path, _RECORDS.dump_json(records, indent=1).decode())


def _record_key(config: NetworkConfig, device: torch.device) -> str:
    """Return everything that the times and failures of forms depend on."""
    shape = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode()).hexdigest()[:16]
    versions = [f"tsbs-daw {__version__}", f"torch {torch.__version__}"]
    for package in ("triton", "triton-windows", "mamba-ssm", "causal-conv1d"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join([f"{config.kind} {shape}", torch.cuda.get_device_name(device), *versions])


def _candidates(precision: str, network: SeparationNetwork) -> Iterator[Form]:
    """Yield forms that are not built yet. Strict float32 gains nothing from kernels for matrix units."""
    formats = {"auto": [(torch.bfloat16, False), (torch.float32, True)], "float32": [(torch.float32, False)]}
    names = [*network.variants(torch.device("cuda")), "plain"]
    for dtype, tf32 in formats.get(precision, [(DTYPES.get(precision, torch.float32), False)]):
        strict = dtype == torch.float32 and not tf32
        yield from (Form(name, network, dtype, tf32) for name in names if not (strict and name == "kernels"))


def _network(form: Form) -> SeparationNetwork:
    plain = form.network
    return plain if form.name == "plain" else plain.variants(torch.device("cuda"))[form.name](form.dtype)


def _trial(config: NetworkConfig, length_s: float | None, device: torch.device) -> Tensor:
    """Return a chord, a beat and some noise, (1, 2, samples), the same every time; None: as long as a chunk."""
    samples = config.chunk_samples if length_s is None else round(length_s * config.sample_rate)
    seconds = torch.arange(samples) / config.sample_rate
    noise = torch.randn(2, len(seconds), generator=torch.Generator().manual_seed(3))
    chord = sum(torch.sin(2 * torch.pi * frequency_hz * seconds) for frequency_hz in (55, 220, 277, 330))
    return (0.1 * chord + (0.01 + 0.2 * torch.exp(-30 * (seconds % 0.25))) * noise)[None].to(device)


def _shortest_s(run: GraphedForm, mixture: Tensor) -> float:
    """Return the seconds of the fastest of up to TRIAL_RUNS runs."""
    shortest, ends = float("inf"), float("inf")
    for count in range(TRIAL_RUNS):
        began = time.perf_counter()
        run(mixture)
        torch.cuda.synchronize(mixture.device)
        now = time.perf_counter()
        shortest = min(shortest, now - began)
        if count == 0:
            ends = now + RUNS_LIMIT_S
        elif now > ends:
            break
    return shortest
