"""Sound from arithmetic: random streams, envelopes, wavetables, noise, time-varying filters, and a vocoder of voices.

L levels of an evolving wavetable, K harmonics, F frames of a filter or of a voice, B = N_FFT // 2 + 1 bins, A bands of
noisiness; mono signals are (samples,) float32.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Protocol, overload
from zipfile import BadZipFile

import numpy as np

from tsbs_daw.core.errors import UsageError

SAMPLE_RATE = 44100
TABLE = 8192  # samples per wavetable cycle; read by nearest neighbour, which keeps the error near -65 dB
HOP = 256  # samples between two frames of a time-varying filter or of a voice
WINDOW = 2 * HOP
N_FFT = 2048  # zero-padded so that a filter's ringing does not wrap around


def stream(seed: int, *names: object) -> np.random.Generator:
    """A random stream of its own for every named purpose, so that one part can change without the others."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


@overload
def midi_hz(pitch: float) -> float: ...
@overload
def midi_hz(pitch: np.ndarray) -> np.ndarray: ...
def midi_hz(pitch: np.ndarray | float) -> np.ndarray | float:
    """MIDI pitches, fractions included, in Hz."""
    return 440.0 * 2.0 ** ((np.asarray(pitch, dtype=np.float64) - 69.0) / 12.0)


def gain(level_db: float) -> float:
    """The factor of a level."""
    return float(10.0 ** (level_db / 20.0))


def adsr(held: int, attack_s: float, decay_s: float, sustain: float, release_s: float) -> np.ndarray:
    """Envelope of a note held for `held` samples: (held + release,) float32, ends at zero."""
    release = max(int(release_s * SAMPLE_RATE), 64)
    total = held + release
    envelope = np.ones(total, dtype=np.float32)
    attack = max(int(attack_s * SAMPLE_RATE), 16)
    time_s = np.arange(max(total - attack, 0), dtype=np.float32) / SAMPLE_RATE
    envelope[attack:] = sustain + (1.0 - sustain) * np.exp(-time_s / max(decay_s, 1e-3))
    rise = np.arange(min(attack, total), dtype=np.float32) / attack
    envelope[: len(rise)] = np.sin(0.5 * np.pi * rise) ** 2
    fall = np.arange(release, dtype=np.float32) / release
    envelope[held:] *= np.exp(-4.0 * fall) * (1.0 - fall)
    return envelope


def tables_from_spectra(amplitudes: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """(L, K) harmonic amplitudes and (K,) phases -> (L, TABLE) float32 cycles."""
    levels, harmonics = amplitudes.shape
    spectrum = np.zeros((levels, TABLE // 2 + 1), dtype=np.complex64)
    harmonics = min(harmonics, TABLE // 2 - 1)
    spectrum[:, 1 : harmonics + 1] = amplitudes[:, :harmonics] * np.exp(1j * phases[:harmonics])
    return np.fft.irfft(spectrum, n=TABLE, axis=1).astype(np.float32) * (TABLE / 2)


def play_tables(tables: np.ndarray, times_s: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Read an evolving wavetable: between times_s[l] and times_s[l + 1] table l fades into l + 1.

    Args:
        tables: The wavetables.
        times_s: Their times, rising from 0.
        phase: Phase in cycles.

    Shape:
        tables: (L, TABLE)
        times_s: (L,)
        phase, result: (samples,)
    """
    index = (phase * TABLE).astype(np.int64) & (TABLE - 1)
    output = np.empty(len(index), dtype=np.float32)
    edges = np.minimum((np.asarray(times_s) * SAMPLE_RATE).astype(np.int64), len(index))
    for level in range(len(edges)):
        start, stop = edges[level], edges[level + 1] if level + 1 < len(edges) else len(index)
        if stop <= start:
            continue
        part = index[start:stop]
        if level + 1 == len(edges):
            output[start:stop] = tables[level][part]
            continue
        full = (times_s[level + 1] - times_s[level]) * SAMPLE_RATE
        weight = np.arange(stop - start, dtype=np.float32) / np.float32(full)
        first = tables[level][part]
        output[start:stop] = first + weight * (tables[level + 1][part] - first)
    return output


def steady_phase(frequency_hz: float, samples: int, start: float = 0.0) -> np.ndarray:
    """Phase in cycles of a constant frequency: (samples,)."""
    return start + (frequency_hz / SAMPLE_RATE) * np.arange(samples)


def curve_phase(frequency_hz: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Phase in cycles of a frequency curve, one value per sample."""
    return start + np.cumsum(frequency_hz) / SAMPLE_RATE


def shaped_noise(rng: np.random.Generator, samples: int, response) -> np.ndarray:
    """White noise through `response(frequency_hz) -> gain`; unit RMS."""
    size = 1 << int(np.ceil(np.log2(max(samples, 64))))
    spectrum = np.fft.rfft(rng.standard_normal(size).astype(np.float32))
    frequency_hz = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * response(frequency_hz), n=size)[:samples]
    return (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)).astype(np.float32)


def bandpass(low_hz: float, high_hz: float, order: int = 2):
    """A smooth band-pass response for `shaped_noise`."""

    def response(frequency_hz: np.ndarray) -> np.ndarray:
        safe = np.maximum(frequency_hz, 1.0)
        return 1.0 / np.sqrt((1.0 + (low_hz / safe) ** (2 * order)) * (1.0 + (safe / high_hz) ** (2 * order)))

    return response


_frame_window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def frames_of(signal: np.ndarray) -> int:
    """Return the number of frames that `filter_frames` uses for a signal of this length."""
    return (len(signal) + HOP - 1) // HOP + 1


class FrameResponses(Protocol):
    """Responses of a filter, frame by frame: an array, or what makes a block of them when it is asked for."""

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def filter_frames(signal: np.ndarray, response: FrameResponses, rows: np.ndarray) -> np.ndarray:
    """Apply a time-varying filter: response[i] to the frame centred on sample rows[i] * HOP; other frames are silent.

    Shape:
        signal, result: (samples,)
        response: (R, N_FFT // 2 + 1), complex or real
        rows: (R,)
    """
    samples = len(signal)
    padded = np.zeros(HOP + (frames_of(signal) + 1) * HOP + N_FFT, dtype=np.float32)
    padded[HOP : HOP + samples] = signal
    output = np.zeros_like(padded)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    for begin in range(0, len(rows), 512):  # blocks keep the working set in the cache
        part = rows[begin : begin + 512]
        spectra = np.fft.rfft(windows[part] * _frame_window, n=N_FFT, axis=1)
        pieces = np.fft.irfft(spectra * response[begin : begin + 512], n=N_FFT, axis=1).astype(np.float32)
        for row, piece in zip(part, pieces, strict=True):
            output[row * HOP : row * HOP + N_FFT] += piece
    return output[HOP : HOP + samples]


def add_at(target: np.ndarray, start: int, signal: np.ndarray) -> None:
    """Add a signal (samples,) or (channels, samples) at a sample position, cut to the target."""
    if start < 0:
        signal, start = signal[..., -start:], 0
    length = min(signal.shape[-1], target.shape[-1] - start)
    if length > 0:
        target[..., start : start + length] += signal[..., :length]


# The WORLD vocoder: a recorded voice as pitch, spectral envelope and noisiness per frame, and sound from such frames.
# M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
# applications", IEICE Transactions on Information and Systems, 2016.
FRAME_MS = 1000.0 * HOP / SAMPLE_RATE
LOWEST_HZ = 60.0
CACHE_VERSION = 1


@dataclass(frozen=True)
class VoiceFrames:
    """A voice taken apart."""

    f0_hz: np.ndarray  # (F,) float64, 0 where unvoiced
    log_power: np.ndarray  # (F, B) float32, natural logarithm of the envelope's power
    noise_db: np.ndarray  # (F, A) float32, noisiness in bands: 0 is all noise

    def __len__(self) -> int:
        return len(self.f0_hz)


def has_pyworld() -> bool:
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


def analyse_voice(audio: np.ndarray, highest_hz: float = 520.0) -> VoiceFrames:
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
    return VoiceFrames(
        f0_hz,
        np.log(np.maximum(power, 1e-16)).astype(np.float32),
        world.code_aperiodicity(noise, SAMPLE_RATE).astype(np.float32),
    )


def synthesise_voice(frames: VoiceFrames) -> np.ndarray:
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


def analyse_cached(audio: np.ndarray, folder: Path | None, highest_hz: float = 520.0) -> VoiceFrames:
    """`analyse_voice`, kept in a folder under the sound's hash, so that many melodies come from one analysis.

    It is the same whether it was kept or not: half precision, within 0.1 dB.
    """
    if folder is None:
        return _widened(_halved(analyse_voice(audio, highest_hz)))
    digest = hashlib.sha256(np.ascontiguousarray(audio, dtype=np.float32).tobytes())
    digest.update(f"{CACHE_VERSION} {highest_hz}".encode())
    path = folder / f"{digest.hexdigest()[:32]}.npz"
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return _widened({name: kept[name] for name in ("f0_hz", "log_power", "noise_db")})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # not there yet, or cut off while it was written
    halved = _halved(analyse_voice(audio, highest_hz))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as written:
        np.savez(written, f0_hz=halved["f0_hz"], log_power=halved["log_power"], noise_db=halved["noise_db"])
    partial.replace(path)
    return _widened(halved)


def _halved(frames: VoiceFrames) -> dict[str, np.ndarray]:
    return {
        "f0_hz": frames.f0_hz.astype(np.float32),
        "log_power": frames.log_power.astype(np.float16),
        "noise_db": frames.noise_db.astype(np.float16),
    }


def _widened(halved: dict[str, np.ndarray]) -> VoiceFrames:
    return VoiceFrames(
        halved["f0_hz"].astype(np.float64),
        halved["log_power"].astype(np.float32),
        halved["noise_db"].astype(np.float32),
    )
