"""The WORLD vocoder: a recorded voice as pitch, spectral envelope and noisiness per frame, and sound from such frames.

Frames lie HOP samples apart. F frames, B = N_FFT // 2 + 1 bins, A bands of noisiness.

Reference: M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications", IEICE Transactions on Information and Systems, 2016.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from zipfile import BadZipFile

import numpy as np

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs.dsp import HOP, N_FFT, SAMPLE_RATE

FRAME_MS = 1000.0 * HOP / SAMPLE_RATE
LOWEST_HZ = 60.0
CACHE_VERSION = 1


@dataclass(frozen=True)
class Frames:
    """A voice taken apart."""

    f0_hz: np.ndarray  # (F,) float64, 0 where unvoiced
    log_power: np.ndarray  # (F, B) float32, natural logarithm of the envelope's power
    noise_db: np.ndarray  # (F, A) float32, noisiness in bands: 0 is all noise

    def __len__(self) -> int:
        return len(self.f0_hz)


def is_installed() -> bool:
    """Whether pyworld is there."""
    return importlib.util.find_spec("pyworld") is not None


@cache
def _pyworld() -> ModuleType:
    """pyworld's compiled module, loaded without the package around it, which needs an outdated setuptools.

    Raises:
        UsageError: pyworld is not installed
    """
    package = importlib.util.find_spec("pyworld")
    compiled = PathFinder.find_spec("pyworld", package.submodule_search_locations) if package else None
    if compiled is None or compiled.loader is None:
        raise UsageError("Singing with recorded voices needs pyworld; install tsbs-daw[train].")
    module = importlib.util.module_from_spec(compiled)
    compiled.loader.exec_module(module)
    return module


def analyse(audio: np.ndarray, highest_hz: float = 520.0) -> Frames:
    """Take a voice apart.

    Args:
        audio: (samples,) at 44.1 kHz
        highest_hz: of the pitches to look for; lower is safer for speech
    """
    world = _pyworld()
    signal = np.ascontiguousarray(audio, dtype=np.float64)
    rough, times = world.dio(signal, SAMPLE_RATE, f0_floor=LOWEST_HZ, f0_ceil=highest_hz, frame_period=FRAME_MS)
    f0_hz = world.stonemask(signal, rough, times, SAMPLE_RATE)
    power = world.cheaptrick(signal, f0_hz, times, SAMPLE_RATE, fft_size=N_FFT)
    noise = world.d4c(signal, f0_hz, times, SAMPLE_RATE, fft_size=N_FFT)
    return Frames(
        f0_hz,
        np.log(np.maximum(power, 1e-16)).astype(np.float32),
        world.code_aperiodicity(noise, SAMPLE_RATE).astype(np.float32),
    )


def synthesise(frames: Frames) -> np.ndarray:
    """Sound of frames: (F * HOP,) float32."""
    world = _pyworld()
    coded = np.ascontiguousarray(np.minimum(frames.noise_db, 0.0), dtype=np.float64)
    noise = np.ascontiguousarray(world.decode_aperiodicity(coded, SAMPLE_RATE, N_FFT))
    power = np.ascontiguousarray(np.exp(frames.log_power.astype(np.float64)))
    f0_hz = np.ascontiguousarray(frames.f0_hz, dtype=np.float64)
    sound = world.synthesize(f0_hz, power, noise, SAMPLE_RATE, FRAME_MS)
    output = np.zeros(len(frames) * HOP, dtype=np.float32)
    length = min(len(output), len(sound))
    output[:length] = sound[:length]
    return output


def move_formants(log_power: np.ndarray, factor: float) -> np.ndarray:
    """Envelopes with every frequency multiplied by `factor`; the edge is held where nothing is known above."""
    if abs(factor - 1.0) < 1e-3:
        return log_power
    bins = log_power.shape[1]
    position = np.minimum(np.arange(bins) / factor, bins - 1.001)
    low = position.astype(int)
    share = (position - low).astype(np.float32)
    return log_power[:, low] * (1 - share) + log_power[:, low + 1] * share


def analyse_cached(audio: np.ndarray, folder: Path | None, highest_hz: float = 520.0) -> Frames:
    """`analyse`, kept in a folder under the sound's hash, so that many melodies come from one analysis.

    It is the same whether it was kept or not: half precision, within 0.1 dB.
    """
    if folder is None:
        return _widened(_halved(analyse(audio, highest_hz)))
    digest = hashlib.sha256(np.ascontiguousarray(audio, dtype=np.float32).tobytes())
    digest.update(f"{CACHE_VERSION} {highest_hz}".encode())
    path = folder / f"{digest.hexdigest()[:32]}.npz"
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return _widened({name: kept[name] for name in ("f0_hz", "log_power", "noise_db")})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # not there yet, or cut off while it was written
    halved = _halved(analyse(audio, highest_hz))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, **halved)
    partial.replace(path)
    return _widened(halved)


def _halved(frames: Frames) -> dict[str, np.ndarray]:
    return {
        "f0_hz": frames.f0_hz.astype(np.float32),
        "log_power": frames.log_power.astype(np.float16),
        "noise_db": frames.noise_db.astype(np.float16),
    }


def _widened(halved: dict[str, np.ndarray]) -> Frames:
    return Frames(
        halved["f0_hz"].astype(np.float64),
        halved["log_power"].astype(np.float32),
        halved["noise_db"].astype(np.float32),
    )
