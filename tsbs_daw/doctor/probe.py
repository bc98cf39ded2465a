"""The doctor's checks that may crash their process, which is therefore separate.

The request names the probe, the settings, the model and a folder to work in. The answer is a list of findings.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tsbs_daw.core import child
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import TsbsDawError, described

Finding = dict[str, str]

# Packages that are imported, because a version number does not prove that their compiled parts load on this machine.
CORE = (
    *("torch", "numpy", "soundfile", "pedalboard", "watchdog", "yaml", "safetensors", "pydantic", "soxr", "typer"),
    *("rich", "platformdirs", "einops", "pyebur128", "filelock", "librosa", "scipy", "mutagen"),
)


def finding(status: str, what: str, advice: str = "") -> Finding:
    return {"status": status, "what": what, "advice": advice}


def main(request: dict[str, Any]) -> list[Finding]:
    """Run a probe in the child process; see `core.child`."""
    settings = Settings.from_texts(request["settings"])
    folder = Path(request["folder"])
    probe: Callable[..., Iterator[Finding]] = {"imports": imports, "device": device, "job": job}[request["probe"]]
    return list(probe(settings, request["model"], folder))


def imports(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """Import every required package, and report each that is broken."""
    broken = False
    for name in CORE:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken wheel may raise anything
            broken = True
            yield finding(
                "problem",
                f"{name} cannot be imported ({described(error)}).",
                f"`pip install --force-reinstall {name}`.",
            )
    if not broken:
        yield finding("ok", f"all {len(CORE)} packages can be imported")


def device(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """Check what each accelerator computes, and report the chosen device, the reason, and the network's form on it."""
    import torch

    from tsbs_daw.separation.devices import accelerators, choose_device, failure

    yield from _cuda(torch)
    failures = {place: failure(place) for place in accelerators()}
    for place, reason in failures.items():
        if reason is not None:
            advice = "It is not used. Update its driver, or install a torch that was built for it."
            yield finding("problem" if place.type == "cuda" else "note", f"{place} failed its check: {reason}.", advice)
    chosen = choose_device(settings.device)
    if settings.device != "auto":
        why = f"TSBS_DAW_DEVICE is {settings.device}"
    elif chosen.type == "cpu":
        why = "no accelerator computes correctly" if failures else "torch sees no accelerator"
    else:
        why = "it computes correctly"
    yield finding("ok", f"{chosen} will be used: {why}")
    yield from _right(chosen)
    if chosen.type == "cuda":
        yield from _forms(settings, model, chosen)


def _right(chosen: Any) -> Iterator[Finding]:
    from tsbs_daw.separation.devices import differences

    for what, difference, limit in differences(chosen):
        yield _same(what, difference, limit, chosen)


def _cuda(torch: Any) -> Iterator[Finding]:
    """Report what torch was built for, and whether it finds such a GPU."""
    from tsbs_daw.separation.devices import nvidia_driver

    hip, built = getattr(torch.version, "hip", None), torch.version.cuda
    driver = nvidia_driver()
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        yield finding(
            "ok", f"{torch.cuda.get_device_name(0)}, {total / 1e9:.0f} GB, {f'ROCm {hip}' if hip else f'CUDA {built}'}"
        )
    elif driver and built is None:
        advice = "Install torch for CUDA: https://pytorch.org/get-started shows the command."
        yield finding("note", "an NVIDIA driver is installed, but this torch was built without CUDA", advice)
    elif driver:
        advice = f"Update the driver to one that supports CUDA {built}, then run the doctor again."
        yield finding("note", f"an NVIDIA driver is installed, but torch's CUDA {built} cannot use it", advice)
    elif hip is not None:
        yield finding("ok", f"torch was built for ROCm {hip}, but finds no AMD GPU")
    elif built is not None:
        yield finding("ok", f"torch was built for CUDA {built}, but no NVIDIA driver is installed")
    else:
        yield finding("ok", f"torch {torch.__version__} for the CPU, {torch.get_num_threads()} threads")


def _same(what: str, difference: float, limit: float, chosen: Any) -> Finding:
    if difference < limit:
        return finding("ok", f"{what} on {chosen} is correct (off by {difference:.0e} of the RMS)")
    advice = "Use `--device cpu`, and update the device's driver and torch."
    return finding("problem", f"{what} on {chosen} is wrong (off by {difference:.0e} of the RMS).", advice)


def _forms(settings: Settings, model: str, chosen: Any) -> Iterator[Finding]:
    """Report the form in which this model and a large network run on the GPU, and why any other form does not work.

    For this model, mamba-ssm is measured, too; the result is stored for its jobs.
    """
    from dataclasses import replace
    from importlib.util import find_spec

    from tsbs_daw.models import kinds, registry
    from tsbs_daw.network import FULL, TwoStageSeparator, mamba2
    from tsbs_daw.network.seam import SeparationNetwork
    from tsbs_daw.separation import forms

    told = _Lines()
    for log in (forms.log, mamba2.log):
        log.addHandler(told)
    try:
        networks: list[tuple[str, SeparationNetwork]] = [
            ("a full-size network", TwoStageSeparator(replace(FULL, mask_blocks=1, map_blocks=1)))
        ]
        with contextlib.suppress(TsbsDawError):  # the check of a job reports the error
            for name in registry.members(model):
                networks.insert(0, (f"the model {name}", kinds.load(registry.resolve(name, settings))))
        for name, network in networks:
            patient = name != "a full-size network"
            form = forms.choose_form(network, chosen, "auto", settings.cache, patient=patient)
            speed = "" if form.speed is None else f", {form.speed:.1f} times as fast as plain torch"
            alone = f"; single chunks as {form.alone.name}" if form.alone else ""
            yield finding("ok", f"{name} runs as {form.name} in {form.format_name}{speed}{alone}")
        if find_spec("mamba_ssm") and not mamba2.fused_available() and not any("mamba-ssm" in x for x in told.lines):
            told.lines.append("mamba-ssm is installed but not used, because causal-conv1d is missing")
    finally:
        for log in (forms.log, mamba2.log):
            log.removeHandler(told)
    for line in dict.fromkeys(told.lines):
        yield finding("note", line, _missing_step())


def _missing_step() -> str:
    """Return advice on the next package to install for more speed."""
    from importlib.util import find_spec

    if find_spec("triton") is None:
        return "Install Triton: `pip install triton` (part of torch for CUDA on Linux; on Windows `triton-windows`)."
    if sys.platform == "linux" and not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "Install a C compiler and Python's headers for Triton (Debian: `apt install gcc python3-dev`)."
    if find_spec("mamba_ssm") is None:
        return "No action is required. mamba-ssm is an alternative; see the page on GPUs."
    if find_spec("causal_conv1d") is None:
        return "mamba-ssm also needs `pip install --no-build-isolation causal-conv1d` (with CUDA's compiler)."
    return "No action is required. To use mamba-ssm, build it again for this torch; see the page on GPUs."


class _Lines(logging.Handler):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def job(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """Read, separate, write and publish one second of sound, as the daemon's worker does."""
    from tsbs_daw.contracts.job import Job, Source
    from tsbs_daw.pipeline.run import run_job

    source = folder / "second.wav"
    _write_second(source)
    wanted = Job(schema=1, source=Source(path=source.absolute()), output=(folder / "out").absolute(), model=model)
    inside = replace(settings, home=folder / "home", cache=folder / "cache", cluster="")
    try:
        result = run_job(
            wanted,
            settings=inside,
            fence=1,
            attempt=1,
            progress=lambda fraction, message: None,
            cancelled=lambda: False,
        )
    except TsbsDawError as error:
        yield finding("problem", f"Cannot separate one second of sound: {error}", "Follow the advice in this message.")
        return
    files = (result.session, result.manifest, *(stem.path for stem in result.stems))
    missing = [path for path in files if path is None or not path.is_file()]
    if missing or result.samples != SECOND or not result.stems:
        what = f"The separated second of sound is incomplete ({len(result.stems)} stems, {len(missing)} files missing)."
        yield finding("problem", what, "Please report this line.")
    else:
        yield finding("ok", f"one second of sound was separated into {', '.join(stem.name for stem in result.stems)}")


SECOND = 44100


def _write_second(path: Path) -> None:
    """Write a chord with a beat, so that every stem has content; silence would skip the work."""
    import numpy as np

    from tsbs_daw.audio.writer import AudioWriter

    time_s = np.arange(SECOND) / SECOND
    chord = sum(np.sin(2 * np.pi * frequency_hz * time_s) for frequency_hz in (110, 440, 554, 659))
    beat = np.random.RandomState(3).standard_normal(SECOND) * np.exp(-30 * (time_s % 0.25))
    sound = (0.1 * chord + 0.2 * beat).astype(np.float32)
    with AudioWriter(path, SECOND, 2) as writer:
        writer.write(np.stack([sound, sound]))


if __name__ == "__main__":
    child.answer(main)
