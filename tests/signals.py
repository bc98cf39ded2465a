"""Every sound that a test needs. Deterministic; float32, (channels, samples)."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np

RATE = 44100


def times(samples: int, sample_rate: int = RATE) -> np.ndarray:
    """Seconds of each sample, float64."""
    return np.arange(samples) / sample_rate


def tone(frequency_hz: float, samples: int, sample_rate: int = RATE, *, channels: int = 2, amplitude: float = 0.5):
    """A sine that is the same on every channel."""
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * times(samples, sample_rate))
    return np.tile(wave.astype(np.float32), (channels, 1))


def noise(samples: int, *, channels: int = 2, amplitude: float = 0.1, seed: int = 0) -> np.ndarray:
    """Gaussian noise, independent between channels."""
    return np.random.default_rng(seed).normal(0, amplitude, (channels, samples)).astype(np.float32)


def silence(samples: int, *, channels: int = 2) -> np.ndarray:
    return np.zeros((channels, samples), np.float32)


def impulses(samples: int, positions: list[int], *, channels: int = 2, amplitude: float = 0.8) -> np.ndarray:
    """Single samples of `amplitude` in silence."""
    wave = silence(samples, channels=channels)
    wave[:, positions] = amplitude
    return wave


def sweep(samples: int, sample_rate: int = RATE, *, low_hz: float = 40.0, high_hz: float = 12_000.0, channels: int = 2):
    """An exponential sine sweep at half scale."""
    duration = samples / sample_rate
    rate = np.log(high_hz / low_hz)
    phase = 2 * np.pi * low_hz * duration / rate * np.expm1(times(samples, sample_rate) / duration * rate)
    return np.tile((0.5 * np.sin(phase)).astype(np.float32), (channels, 1))


def _decay(samples: int, sample_rate: int, seconds: float) -> np.ndarray:
    return np.exp(-times(samples, sample_rate) / seconds)


def song(
    duration_s: float = 4.0, sample_rate: int = RATE, *, channels: int = 2, seed: int = 0
) -> dict[str, np.ndarray]:
    """Four stems of a little song at 120 beats per minute; the mixture is their sum, below full scale.

    Returns: {"vocals", "drums", "bass", "other"}, each (channels, samples)
    """
    samples, beat = round(duration_s * sample_rate), sample_rate // 2
    rng = np.random.default_rng(seed)
    at = times(samples, sample_rate)
    drums, bass, other = np.zeros(samples), np.zeros(samples), np.zeros(samples)
    for number, start in enumerate(range(0, samples, beat)):
        length = min(beat, samples - start)
        t = at[:length]
        kick = np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 30)))) * _decay(length, sample_rate, 0.12)
        snare = rng.normal(0, 0.4, length) * _decay(length, sample_rate, 0.06)
        drums[start : start + length] += snare if number % 2 else kick
        note_hz = (55.0, 65.4, 73.4, 49.0)[number // 2 % 4]
        bass[start : start + length] += sum(np.sin(2 * np.pi * note_hz * k * t) / k for k in (1, 2, 3)) * 0.6
        for ratio in (4, 5, 6):
            other[start : start + length] += (
                np.sin(2 * np.pi * note_hz * ratio * t) * _decay(length, sample_rate, 0.4) / 3
            )
    vibrato = 220 * at + 0.6 * np.sin(2 * np.pi * 5 * at)
    voice = sum(np.sin(2 * np.pi * k * vibrato) / k for k in range(1, 9)) * (0.5 - 0.5 * np.cos(2 * np.pi * 0.5 * at))
    level = {"vocals": 0.12, "drums": 0.25, "bass": 0.15, "other": 0.12}
    waves = {"vocals": voice, "drums": drums, "bass": bass, "other": other}
    pan = {"vocals": 0.0, "drums": 0.0, "bass": 0.1, "other": -0.4}
    stems = {}
    for name, wave in waves.items():
        sides = [1 + pan[name] * (1 if channel % 2 else -1) for channel in range(channels)]
        stems[name] = np.stack([level[name] * side * wave for side in sides]).astype(np.float32)
    return stems


def mixture(stems: dict[str, np.ndarray]) -> np.ndarray:
    """The sum of the stems, (channels, samples)."""
    return np.sum(list(stems.values()), axis=0, dtype=np.float32)


def write_file(path: Path, audio: np.ndarray, sample_rate: int = RATE, container: str = "WAV", subtype: str = "FLOAT"):
    """Write `audio` as libsndfile does it, which is another opinion than this package's own writer.

    In blocks: its Vorbis encoder overflows the stack when given a minute at once.
    """
    import soundfile

    with soundfile.SoundFile(str(path), "w", sample_rate, audio.shape[0], subtype=subtype, format=container) as file:
        for start in range(0, audio.shape[1], 8192):
            file.write(np.ascontiguousarray(audio[:, start : start + 8192].T))
    return path


def encoded(audio: np.ndarray, sample_rate: int = RATE, container: str = "WAV", subtype: str = "FLOAT") -> bytes:
    """The bytes of such a file."""
    with tempfile.TemporaryDirectory() as folder:
        return write_file(Path(folder, "sound"), audio, sample_rate, container, subtype).read_bytes()


def wav_bytes(
    audio: np.ndarray,
    sample_rate: int = RATE,
    *,
    magic: bytes = b"RIFF",
    data_size: int | None = None,
    riff_size: int | None = None,
    channels: int | None = None,
    block_align: int | None = None,
    bits: int = 16,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A 16-bit WAV, each of whose header's numbers can be a lie.

    Args: before, after: whole chunks around the `fmt ` chunk's place and behind the sound
    """
    sound = np.rint(audio.T * 32767).astype("<i2").tobytes()
    count = audio.shape[0] if channels is None else channels
    block = 2 * count if block_align is None else block_align
    form = struct.pack("<HHIIHH", 1, count, sample_rate, sample_rate * block % (1 << 32), block, bits)
    size = len(sound) if data_size is None else data_size
    body = b"WAVE" + before + chunk(b"fmt ", form) + b"data" + struct.pack("<I", size) + sound + after
    return magic + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def chunk(name: bytes, body: bytes) -> bytes:
    """A RIFF chunk."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def bext(time_reference_samples: int) -> bytes:
    """A BWF chunk that says where the sound starts."""
    return chunk(b"bext", bytes(338) + struct.pack("<Q", time_reference_samples) + bytes(256))


def without_xing(mp3: bytes) -> bytes:
    """An MP3 of the same sound that does not say how long it is: the first frame, which only counts, is left out."""
    rate_hz, padding = (44100, 48000, 32000)[mp3[2] >> 2 & 3], mp3[2] >> 1 & 1
    kbit_per_s = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[mp3[2] >> 4]
    assert b"Xing" in mp3[:64] or b"Info" in mp3[:64]
    return mp3[144_000 * kbit_per_s // rate_hz + padding :]


def drum_kit(beats_s, duration_s: float, *, bar: int = 4, sample_rate: int = RATE, channels: int = 2) -> np.ndarray:
    """A kick on the first beat of each bar (and the third of four), a snare on others, hats on and between beats."""
    samples = round(duration_s * sample_rate)
    rng, out = np.random.default_rng(1), np.zeros(samples)
    at = times(round(0.12 * sample_rate), sample_rate)
    kick = np.sin(2 * np.pi * 60 * at) * np.exp(-at / 0.04)
    snare = (0.5 * np.sin(2 * np.pi * 190 * at) + rng.normal(0, 0.3, len(at))) * np.exp(-at / 0.03)
    hat = np.diff(rng.normal(0, 0.15, len(at) + 1)) * np.exp(-at / 0.012)

    def hit(wave: np.ndarray, seconds: float, level: float) -> None:
        start = round(seconds * sample_rate)
        if 0 <= start < samples:
            out[start : start + len(wave)] += level * wave[: samples - start]

    for number, beat in enumerate(beats_s):
        place = number % bar
        if place == 0 or (bar == 4 and place == 2):
            hit(kick, beat, 0.7 if place == 0 else 0.5)
        else:
            hit(snare, beat, 0.5)
        hit(hat, beat, 0.5)
        if number + 1 < len(beats_s):
            hit(hat, (beat + beats_s[number + 1]) / 2, 0.3)
    return np.tile(out.astype(np.float32), (channels, 1))


def chords(
    pitches, chord_s: float, duration_s: float, *, start_s: float = 0.0, cents: float = 0.0, sample_rate: int = RATE
) -> np.ndarray:
    """Chords of MIDI pitches, each with overtones, one after another and from the first again. Two channels."""
    out, at = np.zeros(round(duration_s * sample_rate)), times(round(chord_s * sample_rate), sample_rate)
    start, number = start_s, 0
    while start < duration_s:
        first = round(start * sample_rate)
        length = min(len(at), len(out) - first)
        for pitch in pitches[number % len(pitches)]:
            hz = 440.0 * 2 ** ((pitch + cents / 100 - 69) / 12)
            note = sum(np.sin(2 * np.pi * hz * k * at[:length]) / k**2 for k in (1, 2, 3, 4))
            out[first : first + length] += 0.08 * note * np.exp(-at[:length] / 0.8)
        start, number = start + chord_s, number + 1
    return np.tile(out.astype(np.float32), (2, 1))
