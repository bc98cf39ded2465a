"""Faster training on CPUs and GPUs, with the same results.

On CUDA, the network's blocks are compiled while training runs: a child process compiles one block for each batch size
and compares it with the plain one; its kernels stay in Inductor's disk cache. If the child succeeds, the blocks are
compiled here as well, mostly from that cache. If anything fails, training continues with plain blocks.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from tsbs_daw.network import ModelConfig, TwoStageSeparator
from tsbs_daw.network.blocks import DualNet

FabricPrecision = Literal["32-true", "bf16-mixed"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def choose_precision(wanted: Literal["auto", FabricPrecision], accelerator: str) -> FabricPrecision:
    """Return Fabric's name of a precision; `auto` chooses bfloat16 if the hardware multiplies it."""
    if wanted != "auto":
        return wanted
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = accelerator == "cpu" or not torch.backends.mps.is_available()
    return "bf16-mixed" if on_cpu and _cpu_multiplies_bfloat16() else "32-true"


def _cpu_multiplies_bfloat16() -> bool:
    """Ask torch, whose functions for this are private and differ between versions."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def tune_device(device: torch.device, processes: int) -> None:
    """Tune torch for a device. CUDA: TF32. CPU: share the cores between processes, flush denormals, keep freed memory.

    Decaying states become denormal numbers, which a CPU computes many times more slowly. By default, glibc returns
    activations of some tens of MB to the system after every operation; keeping that memory saves a sixth of a step.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if device.type != "cpu":
        return
    torch.set_flush_denormal(True)
    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


logger = logging.getLogger(__name__)

LIMIT_S = 180.0  # for the child process
LARGEST_DIFFERENCE = 0.05  # between plain and compiled blocks in bfloat16: output and gradients; measured: 0.01
LEAST_SPEEDUP = 1.05


class BlockCompiler:
    """Runs the child process, and compiles a network's blocks once it has succeeded.

    Args:
        network: The network that is being trained.
        sizes: (samples, examples) of every batch size.
        folder: The run's folder, for report and log.
        bfloat16: Whether to train in bfloat16.
    """

    def __init__(self, network: TwoStageSeparator, sizes: Sequence[tuple[int, int]], folder: Path, bfloat16: bool):
        self.blocks = [*network.mask_blocks, *network.map_blocks]
        self.active, self.report = False, folder / "compiled.json"
        self.report.unlink(missing_ok=True)
        job = {"config": network.config.to_dict(), "sizes": sizes, "bfloat16": bfloat16,
               "checkpointing": network.checkpointing, "report": str(self.report)}  # fmt: skip
        command = [sys.executable, "-m", "tsbs_daw.lab.training.acceleration", json.dumps(job)]
        self._began = time.monotonic()
        self._child: subprocess.Popen | None = None
        with (folder / "compiled.log").open("wb") as log:
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                logger.warning("blocks are not compiled: %s", error)

    def poll(self) -> None:
        """Compile the blocks if the child has succeeded. Call it between steps."""
        if self._child is None:
            return
        if self._child.poll() is None:
            if time.monotonic() - self._began > LIMIT_S:
                self.close()
                logger.warning("blocks are not compiled: the compiler took more than %.0f s", LIMIT_S)
            return
        self._child = None
        try:
            result = json.loads(self.report.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("blocks are not compiled: the compiler failed; see %s", self.report.with_suffix(".log"))
            return
        logger.info("compiled blocks: %s", result)
        if result["difference"] < LARGEST_DIFFERENCE and result["speedup"] > LEAST_SPEEDUP:
            for block in self.blocks:
                block.compile(dynamic=False)
            self.active = True

    def give_up(self, error: Exception) -> None:
        """Return to plain blocks after an error."""
        logger.warning("compiled blocks failed, plain ones go on: %s", str(error)[:500])
        uncompile(self.blocks)
        self.active = False

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def uncompile(blocks: Sequence[nn.Module]) -> None:
    for block in blocks:
        block._compiled_call_impl = None


def try_compiled(
    config: ModelConfig, sizes: Sequence[Sequence[int]], *, bfloat16: bool, checkpointing: bool, device: str = "cuda"
) -> dict:
    """Compile a block for each batch size, and compare it with the plain one, forward and backward.

    Returns:
        The largest difference as a ratio of norms, the smallest speed-up, the times of a pass, and the duration.
    """
    began = time.monotonic()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    block = DualNet(config).to(device).train()
    block.checkpointing = checkpointing
    inputs = [_features(config, samples, batch, device) for samples, batch in sizes]
    plain = [_run(block, x, bfloat16) for x in inputs]  # an eager pass first, so that one compilation fits all blocks
    plain_s = [_fastest(block, x, bfloat16) for x in inputs]
    block.compile(dynamic=False)
    compiled = [_run(block, x, bfloat16) for x in inputs]
    compiled_s = [_fastest(block, x, bfloat16) for x in inputs]
    pairs = [pair for one, other in zip(plain, compiled, strict=True) for pair in zip(one, other, strict=True)]
    return {
        "difference": max(float((one - other).norm() / one.norm().clamp(min=1e-12)) for one, other in pairs),
        "speedup": min(one / other for one, other in zip(plain_s, compiled_s, strict=True)),
        "block_ms": [round(1000 * seconds, 2) for seconds in (*plain_s, *compiled_s)],
        "seconds": round(time.monotonic() - began, 1),
    }


def _features(config: ModelConfig, samples: int, batch: int, device: str) -> torch.Tensor:
    frames = 1 + samples // config.hop_length
    return torch.randn(config.bands, 2 * batch, frames, config.feature_dim, device=device, requires_grad=True)


def _run(block: DualNet, x: torch.Tensor, bfloat16: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the block's residual, and the gradients of its input and of one weight."""
    block.zero_grad()
    x.grad = None
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        y = block(x.clone(), 2)  # the clone is not a leaf, just like inside the network
    y.backward(torch.ones_like(y) / y.numel() ** 0.5)
    weight = block.time.mamba.mamba.in_proj.grad
    assert x.grad is not None and weight is not None, "backward has run"
    return (y - x).detach().float(), x.grad.clone().float(), weight.clone().float()


def _fastest(block: DualNet, x: torch.Tensor, bfloat16: bool, tries: int = 4) -> float:
    times = []
    for _ in range(tries):
        _synchronise(x)
        begin = time.perf_counter()
        _run(block, x, bfloat16)
        _synchronise(x)
        times.append(time.perf_counter() - begin)
    return min(times)


def _synchronise(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=json.loads)
    job = parser.parse_args().job
    result = try_compiled(
        ModelConfig.from_dict(job["config"]), job["sizes"], bfloat16=job["bfloat16"], checkpointing=job["checkpointing"]
    )
    report = Path(job["report"])
    temporary = report.with_suffix(".tmp")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    temporary.replace(report)


if __name__ == "__main__":
    main()
