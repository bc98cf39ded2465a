"""The doctor's checks that may take their process with them: `python -m tsbs_daw.doctor.probe REQUEST`.

REQUEST is JSON: which probe, settings, model, and the folder to work in. The findings go to `answer.json` there.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import TsbsDawError, described

Finding = dict[str, str]

# What importing proves and a version number does not: that the compiled parts load on this machine.
CORE = (
    *("torch", "numpy", "soundfile", "pedalboard", "watchdog", "yaml", "safetensors", "pydantic", "soxr", "typer"),
    *("rich", "platformdirs", "einops", "pyebur128", "filelock", "librosa", "scipy", "mutagen"),
)
SAME = 1e-4  # a difference below this part of the RMS is rounding
SAME_FUSED = 2e-2  # the fused kernels multiply in reduced precision


def finding(status: str, what: str, advice: str = "") -> Finding:
    return {"status": status, "what": what, "advice": advice}


def main(request: dict[str, Any]) -> None:
    settings = Settings.from_texts(request["settings"])
    folder = Path(request["folder"])
    probe: Callable[..., Iterator[Finding]] = {"imports": imports, "device": device, "job": job}[request["probe"]]
    found = list(probe(settings, request["model"], folder))
    (folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")


def imports(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """Import every needed package; one that is broken is named."""
    broken = False
    for name in CORE:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken wheel raises whatever it likes
            broken = True
            yield finding(
                "problem",
                f"{name} cannot be imported ({described(error)}).",
                f"`pip install --force-reinstall {name}`.",
            )
    if not broken:
        yield finding("ok", f"all {len(CORE)} packages import")


def device(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """Which device is chosen and why; then a matrix product and a Mamba-2 scan on it, held against float64."""
    import torch

    from tsbs_daw.separation.separator import choose_device

    yield from _cuda(torch)
    chosen = choose_device("auto")
    why = "CUDA answers" if chosen.type == "cuda" else "there is no CUDA device that answers"
    yield finding("ok", f"{chosen} will be used: {why}")
    if chosen.type == "cpu" and getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
        yield finding("note", "the graphics processor of this Mac answers too", "Try it with `--device mps`.")
    yield _same("a matrix product", _product_difference(torch, chosen), SAME, chosen)
    yield _same("a Mamba-2 scan", _scan_difference(torch, chosen), SAME, chosen)
    yield from _fused(torch, chosen)


def _cuda(torch: Any) -> Iterator[Finding]:
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    built = torch.version.cuda
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        yield finding("ok", f"{torch.cuda.get_device_name(0)}, {total / 1e9:.0f} GB, CUDA {built}")
    elif driver and built is None:
        advice = "Install torch for CUDA: https://pytorch.org/get-started shows the command."
        yield finding("note", "there is an NVIDIA driver, and this torch was built without CUDA", advice)
    elif driver:
        advice = f"Update the driver to one that knows CUDA {built}, then run the doctor again."
        yield finding("note", f"there is an NVIDIA driver, and it does not answer torch's CUDA {built}", advice)
    elif built is not None:
        yield finding("ok", f"torch was built for CUDA {built}; no NVIDIA driver is here")
    else:
        yield finding("ok", f"torch {torch.__version__} for the CPU, {torch.get_num_threads()} threads")


def _same(what: str, difference: float, limit: float, chosen: Any) -> Finding:
    if difference < limit:
        return finding("ok", f"{what} on {chosen} is right (off by {difference:.0e} of the RMS)")
    advice = "Use `--device cpu`, and update the device's driver and torch."
    return finding("problem", f"{what} on {chosen} is wrong (off by {difference:.0e} of the RMS).", advice)


def _difference(found: Any, expected: Any) -> float:
    """The largest difference as a part of the expectation's RMS; infinite if anything is not finite."""
    worst = (found.double().cpu() - expected).abs().max() / expected.square().mean().sqrt()
    return float(worst) if worst.isfinite() else float("inf")


def _product_difference(torch: Any, chosen: Any) -> float:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(512, 512, generator=generator, dtype=torch.float64) for _ in range(2))
    return _difference(a.float().to(chosen) @ b.float().to(chosen), a @ b)


def _layer(torch: Any) -> tuple[Any, Any]:
    """A Mamba-2 layer of the full model and a projection for it, with the same numbers every time."""
    from tsbs_daw.network import FULL
    from tsbs_daw.network.mamba2 import Mamba2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layer = Mamba2(FULL, 1).eval()
        projected = torch.randn(1, 2, 259, layer.in_proj.shape[1]) * 0.5
    return layer, projected


def _scan_difference(torch: Any, chosen: Any) -> float:
    layer, projected = _layer(torch)
    with torch.no_grad():
        expected = layer.double().mix(projected.double())
        return _difference(layer.float().to(chosen).mix(projected.to(chosen)), expected)


def _fused(torch: Any, chosen: Any) -> Iterator[Finding]:
    """The fused kernels of the extra [cuda], where they could be used, held against the plain path."""
    from tsbs_daw.network import fused

    if chosen.type != "cuda":
        return
    if not fused.available():
        advice = "Optional and faster: `pip install 'tsbs-daw[cuda]'` (Linux, with a CUDA compiler)."
        yield finding("note", "the fused kernels are not installed; plain torch is used", advice)
        return
    layer, projected = _layer(torch)
    with torch.no_grad():
        expected = layer.double().mix(projected.double())
        found = fused.mix(projected.to(chosen), layer.float().to(chosen))
    yield _same("the fused Mamba-2 kernel", _difference(found, expected), SAME_FUSED, chosen)


def job(settings: Settings, model: str, folder: Path) -> Iterator[Finding]:
    """One second of sound the whole way: read, separate, write, publish, as the daemon's worker does it."""
    from tsbs_daw.contracts.job import Job, Source
    from tsbs_daw.pipeline.run import run_job

    source = folder / "second.wav"
    _write_second(source)
    wanted = Job(schema=1, source=Source(path=source.absolute()), output=(folder / "out").absolute(), model=model)
    inside = Settings(folder / "home", folder / "cache", settings.models)
    options = {"fence": 1, "attempt": 1, "progress": lambda fraction, message: None, "cancelled": lambda: False}
    try:
        result = run_job(wanted, settings=inside, **options)
    except TsbsDawError as error:
        yield finding("problem", f"One second of sound could not be separated: {error}", "Do what the sentence says.")
        return
    missing = [
        path for path in (result.session, result.manifest, *(stem.path for stem in result.stems)) if not path.is_file()
    ]
    if missing or result.samples != SECOND or not result.stems:
        what = f"One second of sound came back incomplete ({len(result.stems)} stems, {len(missing)} files missing)."
        yield finding("problem", what, "Please report this line.")
    else:
        yield finding("ok", f"one second of sound was separated into {', '.join(stem.name for stem in result.stems)}")


SECOND = 44100


def _write_second(path: Path) -> None:
    """A chord with a beat: something for every stem, and not silence, which costs no work."""
    import numpy as np

    from tsbs_daw.audio.wav_writer import AudioWriter

    time_s = np.arange(SECOND) / SECOND
    chord = sum(np.sin(2 * np.pi * frequency_hz * time_s) for frequency_hz in (110, 440, 554, 659))
    beat = np.random.RandomState(3).standard_normal(SECOND) * np.exp(-30 * (time_s % 0.25))
    sound = (0.1 * chord + 0.2 * beat).astype(np.float32)
    with AudioWriter(path, SECOND, 2) as writer:
        writer.write(np.stack([sound, sound]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
