"""Benchmark of a GPU: ceilings; sizes by form, number format and batch; memory; launches; a song; training; SDR.

Times are medians of the wall time of synchronised runs. A chunk of 3 s gives 2.25 s of new audio, which "x real time"
refers to. A row is a dictionary with a `name`, and with an `error` if it failed. The most important rows come first, in
case a run is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tsbs_daw.core.errors import described
from tsbs_daw.lab.bench.networks import SIZES, as_reference, kernels_of, own_macs, random_network
from tsbs_daw.network import ModelConfig, TwoStageSeparator
from tsbs_daw.network.mamba2 import fused_available, fused_kernels
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.forms import Form, GraphedForm

SONG_SEED = 9701  # of the test split, on which no model was trained
NEW_SHARE = 0.75  # share of a chunk that does not overlap its neighbour
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
Row = dict[str, Any]
# For a rehearsal; in Triton's interpreter a run takes seconds.
QUICK = replace(
    SIZES["tiny"], chunk_s=0.05, feature_dim=16, headdim=16, mask_blocks=1, map_blocks=0, band_widths=(512, 513)
)  # fmt: skip
# Figures of a row for the table: description and unit of each.
FIGURES = {
    "ms": ("a batch", "ms"),
    "reached": ("of the rate of large products, reached", "%"),
    "real_time": ("new sound per second", "x real time"),
    "off": ("its difference from float32, as a ratio of norms", ""),
    "peak_gb": ("peak memory", "GB"),
    "planned_gb": ("planned for it", "GB"),
    "first_s": ("the first run, with what is compiled for it", "s"),
    "kernel_ms": ("kernels of one run together", "ms"),
    "launches": ("kernels of one run", ""),
    "wall_s": ("from file to session", "s"),
    "examples_per_s": ("a whole step of training", "examples/s"),
    "float32_sdr_db": ("the bundled model's SDR in float32", "dB"),
    "tf32_sdr_db": ("the same in TF32", "dB"),
    "bfloat16_sdr_db": ("the same in bfloat16", "dB"),
    "sdr_lost_db": ("of that, the worse format loses", "dB"),
    "copy_tb_per_s": ("a large copy, read and written", "TB/s"),
    "bfloat16_tflop_per_s": ("large products in bfloat16", "TFLOP/s"),
    "tf32_tflop_per_s": ("large products in TF32", "TFLOP/s"),
    "float32_tflop_per_s": ("large products in float32", "TFLOP/s"),
    "small_launch_us": ("a small launch", "us"),
}
TARGETS = {"sdr_lost_db": 0.05}


def measure(
    device: torch.device, quick: bool, profile_file: Path | None = None, before_mamba: Callable[[], None] = lambda: None
) -> Iterator[Row]:
    """Measure a GPU, and yield each row once it is known.

    Args:
        device: The device.
        quick: Use a tiny network, to test that everything runs; the figures are meaningless.
        profile_file: File for the table of the slowest kernels.
        before_mamba: Called before mamba-ssm's module is measured; may install it.
    """
    sizes = {name: QUICK if quick else config for name, config in SIZES.items()}
    half = FLOAT32 if device.type == "cpu" else BFLOAT16  # Triton's interpreter cannot compute bfloat16
    batches = (1, 2) if quick else (1, 16)
    reachable = ceilings(device, quick)
    yield reachable
    full, lite, tiny = (_SizeOnDevice(name, config, device, quick, reachable) for name, config in sizes.items())
    yield from full.rows([("kernels", half, False, batch) for batch in batches])
    with contextlib.suppress(Exception):  # if it is missing, its rows say so
        before_mamba()
    if device.type == "cuda":
        yield from full.rows([("mamba-ssm", half, False, batches[1])])
    yield song_from_file_to_session(sizes["full"], device, 6.0 if quick else 240.0)
    yield training(sizes["tiny"], device, 2 if quick else 32)
    yield quality(device, quick)
    yield from tiny.rows(
        [("kernels", half, False, batch) for batch in batches]
        + [("kernels graphed", half, False, batch) for batch in (*batches, 2 * batches[1])]
        + [("kernels graphed", FLOAT32, True, batches[1]), ("plain", FLOAT32, False, batches[1])]
    )
    for size in (full, tiny):
        yield size.profile("kernels", half, batches[1], profile_file)
    yield from full.rows(
        [("plain", FLOAT32, False, 1), ("kernels", FLOAT32, True, batches[1]), ("plain", half, False, batches[1])]
    )
    yield from full.rows([("reference", FLOAT32, True, 1)])
    yield from lite.rows([("kernels", half, False, batch) for batch in batches])
    yield from lite.rows([("plain", FLOAT32, True, batches[1])])


def ceilings(device: torch.device, quick: bool = False) -> Row:
    """Measure a large copy, large matrix products and small launches."""
    row: Row = {"name": "ceilings", "device": str(device), "torch": torch.__version__}
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        row["device"] = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, {facts.multi_processor_count} processors"
    count, size = (2**20, 256) if quick or device.type == "cpu" else (2**28, 8192)
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    row["copy_tb_per_s"] = 8e-12 * count / _median_s(lambda: target.copy_(source), device)
    for name, dtype, tf32 in (("bfloat16", BFLOAT16, False), ("tf32", FLOAT32, True), ("float32", FLOAT32, False)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        matrix = torch.randn(size, size, device=device).to(dtype)
        row[f"{name}_tflop_per_s"] = 2e-12 * size**3 / _median_s(partial(torch.matmul, matrix, matrix), device)
    torch.backends.cuda.matmul.allow_tf32 = False
    small = torch.randn(16, device=device)
    _synchronize(device)
    began = time.perf_counter()
    for _ in range(1000):
        small.mul_(1.0)
    _synchronize(device)
    return row | {"small_launch_us": 1e3 * (time.perf_counter() - began)}


class _SizeOnDevice:
    """A size with random weights, and its estimates in float32 for comparison.

    Args:
        name: Start of the rows' names.
        config: The size.
        device: The device.
        quick: Whether the figures are meaningless.
        reachable: The row of `ceilings`.
    """

    def __init__(self, name: str, config: ModelConfig, device: torch.device, quick: bool, reachable: Row):
        self.name, self.config, self.device, self.quick, self.reachable = name, config, device, quick, reachable
        self._plain: TwoStageSeparator | None = None
        self._wanted: Tensor | None = None

    def rows(self, kinds: list[tuple[str, torch.dtype, bool, int]]) -> Iterator[Row]:
        """Yield a row for each (form, number format, TF32, batch). A failure becomes a row with an error."""
        for form, dtype, tf32, batch in kinds:
            name = f"{self.name}.{form}.{_format_name(dtype, tf32)}.{batch}"
            try:
                with torch.inference_mode():
                    yield {"name": name, **self._row(form, dtype, tf32, batch)}
            except Exception as error:
                yield {"name": name, "error": described(error)}

    def form(self, name: str, dtype: torch.dtype, tf32: bool) -> Form:
        """Create a form of the network."""
        if self._plain is None:
            self._plain = random_network(self.config, self.device)
        return _form(self._plain, name, dtype, tf32)

    def _row(self, name: str, dtype: torch.dtype, tf32: bool, batch: int) -> Row:
        form = self.form(name.partition(" ")[0], dtype, tf32)
        run = GraphedForm(form) if name.endswith("graphed") else form
        mixture = _chunks(self.config, batch, self.device)
        if self._wanted is None:
            self._wanted = self.form("plain", FLOAT32, False)(mixture[:1])
        began = time.perf_counter()
        run(mixture)
        _synchronize(self.device)
        first_s = time.perf_counter() - began
        found = run(mixture)[:1].float()
        off = float((found - self._wanted).norm() / self._wanted.norm())
        del found
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = _median_s(lambda: run(mixture), self.device, 0.0 if self.quick else 0.5)
        macs_per_s = batch * own_macs(self.config) / seconds
        ceiling = 0.5e12 * self.reachable[f"{_format_name(form.dtype, form.tf32)}_tflop_per_s"]
        row = {
            "ms": 1e3 * seconds,
            "real_time": batch * NEW_SHARE * self.config.chunk_s / seconds,
            "off": off,
            "first_s": first_s,
            "planned_gb": 1e-9 * batch * form.chunk_bytes(),
            "macs_per_s": macs_per_s,
            "reached": 100 * macs_per_s / ceiling,
        }
        if self.device.type == "cuda":
            row["peak_gb"] = 1e-9 * torch.cuda.max_memory_allocated(self.device)
        return row

    def profile(self, name: str, dtype: torch.dtype, batch: int, file: Path | None) -> Row:
        """Count the launches of a run and list the slowest kernels; their table is appended to `file`."""
        row: Row = {"name": f"{self.name}.{name}.profile.{batch}"}
        if self.device.type != "cuda":
            return row
        from torch.profiler import ProfilerActivity, profile

        try:
            form, mixture = self.form(name, dtype, False), _chunks(self.config, batch, self.device)
            with torch.inference_mode():
                form(mixture)
                with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                    form(mixture)
                    _synchronize(self.device)
            events = profiler.key_averages()
            kernels = kernels_of(events)
            slowest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]
            row["launches"] = sum(event.count for event in kernels)
            row["kernel_ms"] = 1e-3 * sum(event.self_device_time_total for event in kernels)
            row["slowest_ms"] = {event.key[:60]: round(1e-3 * event.self_device_time_total, 2) for event in slowest}
            if file is not None:
                with file.open("a", encoding="utf-8") as out:
                    table = events.table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=90)
                    out.write(f"{row['name']}\n{table}\n")
        except Exception as error:
            row["error"] = described(error)
        return row


def _form(plain: TwoStageSeparator, name: str, dtype: torch.dtype, tf32: bool) -> Form:
    """Create a form of a network; `reference` is a straightforward implementation.

    Raises:
        RuntimeError: mamba-ssm is not installed.
    """
    network: SeparationNetwork = plain
    if name == "kernels":
        from tsbs_daw.network.gpu_inference import for_gpu

        network = for_gpu(plain, dtype)
    if name == "reference":
        network = as_reference(plain)
    if name == "mamba-ssm" and not fused_available():
        raise RuntimeError("mamba-ssm is not installed")
    return Form(name, network, dtype, tf32, speed=1.0)


def _format_name(dtype: torch.dtype, tf32: bool) -> str:
    return "tf32" if tf32 else str(dtype).removeprefix("torch.")


def quality(device: torch.device, quick: bool) -> Row:
    """Measure the SDR of the bundled model on a generated song in each number format, without overlap of its chunks."""
    row: Row = {"name": "quality"}
    try:
        from tsbs_daw.core.config import Settings
        from tsbs_daw.lab.evaluation.evaluate import usdr
        from tsbs_daw.lab.songs.compose import compose
        from tsbs_daw.lab.songs.render import render
        from tsbs_daw.models import kinds, registry

        network = cast("TwoStageSeparator", kinds.load(registry.resolve("default", Settings.from_environment())))
        network, chunk_samples = network.to(device).eval(), network.config.chunk_samples
        chunks = 1 if quick else 4
        stems = render(compose(SONG_SEED, chunks * network.config.chunk_s, complete=True))
        targets = {name: stem[:, : chunks * chunk_samples] for name, stem in stems.items()}
        mixture = torch.from_numpy(sum(targets.values())).float().unflatten(1, (chunks, chunk_samples)).transpose(0, 1)
        kernels = "plain" if device.type == "cpu" else "kernels"  # Triton's interpreter would take hours
        for form, dtype, tf32 in (("plain", FLOAT32, False), (kernels, FLOAT32, True), (kernels, BFLOAT16, False)):
            with torch.inference_mode():
                found = _form(network, form, dtype, tf32)(mixture.to(device)).float().cpu()
            estimates = dict(zip(network.config.stems, found.permute(1, 2, 0, 3).flatten(2).numpy(), strict=True))
            scores = [usdr(target, estimates[name]) for name, target in targets.items()]
            row[f"{_format_name(dtype, tf32)}_sdr_db"] = statistics.mean(scores)
        row["sdr_lost_db"] = row["float32_sdr_db"] - min(row["tf32_sdr_db"], row["bfloat16_sdr_db"])
    except Exception as error:
        row["error"] = described(error)
    return row


def song_from_file_to_session(config: ModelConfig, device: torch.device, seconds: float) -> Row:
    """Run the pipeline on two songs of noise bursts; for the second, everything is loaded."""
    row: Row = {"name": "song", "seconds": seconds}
    try:
        with tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-") as folder:
            row |= _song(Path(folder), config, device, seconds)
    except Exception as error:
        row["error"] = described(error)
    return row


def _song(folder: Path, config: ModelConfig, device: torch.device, seconds: float) -> Row:
    import numpy as np

    from tsbs_daw.audio.writer import AudioWriter
    from tsbs_daw.contracts.job import Job, Source
    from tsbs_daw.core.config import Settings
    from tsbs_daw.network.checkpoint import save
    from tsbs_daw.pipeline.run import run_job

    model = folder / "random.safetensors"
    save(random_network(config, torch.device("cpu")), model)
    settings, walls = Settings(folder / "home", folder / "cache", folder / "models"), []
    for seed in range(2):
        song, dice = folder / f"song {seed}.wav", np.random.default_rng(seed)
        with AudioWriter(song, 44100, 2) as writer:
            for _ in range(round(seconds)):
                block = 0.1 * dice.standard_normal((2, 44100)) * np.exp(-4 * (np.arange(44100) % 22050) / 22050)
                writer.write(block.astype(np.float32))
        job = Job(schema=1, source=Source(path=song), output=folder / "out", model=str(model), preset="none")
        began = time.perf_counter()
        result = run_job(job, settings=settings, fence=1, attempt=1, progress=lambda *_: None, cancelled=lambda: False)
        walls.append(time.perf_counter() - began)
    assert result.manifest is not None
    timings = json.loads(result.manifest.read_text(encoding="utf-8"))["timings_s"]
    return {"first_wall_s": walls[0], "wall_s": walls[1], "timings_s": timings}


def training(config: ModelConfig, device: torch.device, batch: int) -> Row:
    """Measure a step of training as the trainer takes it: forward, loss, backward, clipping and Muon."""
    row: Row = {"name": f"training.{batch}"}
    try:
        from tsbs_daw.lab.training.acceleration import choose_precision, tune_device
        from tsbs_daw.lab.training.objective import TwoStageLoss
        from tsbs_daw.lab.training.optimiser import clip_gradients, make_optimiser
        from tsbs_daw.lab.training.recipe import LossPart, OptimiserPart

        tune_device(device, processes=1)
        settings = OptimiserPart(kind="muon")
        network = random_network(config, device).train()
        optimiser = make_optimiser(network, settings)
        loss = TwoStageLoss(LossPart(), config.sample_rate).to(device)
        targets = torch.stack([_chunks(config, batch, device)] * len(config.stems), dim=1)
        in_bfloat16 = choose_precision("auto", device.type) == "bf16-mixed"

        def step() -> None:
            with torch.autocast(device.type, BFLOAT16, enabled=in_bfloat16):
                found = network(targets.sum(1))
                total = loss(found.estimates, found.mask_estimates, targets).total
            total.backward()
            clip_gradients(network.parameters(), settings.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        with fused_kernels(False):  # mamba-ssm may have been installed for its row only
            row["examples_per_s"] = batch / _median_s(step, device, 1.0)
    except Exception as error:
        row["error"] = described(error)
    torch.set_float32_matmul_precision("highest")  # training tuned it, and the next rows choose for themselves
    return row


def _chunks(config: ModelConfig, batch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    # Drawn one by one: together, the last samples of the first chunk would depend on the size of the batch.
    chunks = [torch.randn(2, config.chunk_samples, generator=generator) for _ in range(batch)]
    return 0.1 * torch.stack(chunks).to(device)


def _median_s(run: Callable[[], Any], device: torch.device, budget_s: float = 0.5) -> float:
    if budget_s > 0:
        run()
    times: list[float] = []
    _synchronize(device)
    began = time.perf_counter()
    while len(times) < (2 if budget_s > 0 else 1) or (len(times) < 20 and time.perf_counter() - began < budget_s):
        start = time.perf_counter()
        run()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
