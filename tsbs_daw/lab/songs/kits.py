"""Drum kits: every piece is synthesised once per song in a few strengths, then struck where the score says."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, bandpass, shaped_noise
from tsbs_daw.lab.songs.score import Part, Score

ELECTRONIC = {"808", "909", "electro"}
PAN = {
    "hat": 0.3,
    "open": 0.3,
    "ride": -0.4,
    "crash": -0.3,
    "tom_high": 0.35,
    "tom": 0.0,
    "tom_low": -0.4,
    "shaker": 0.5,
    "tambourine": -0.5,
    "conga": -0.3,
    "bongo": 0.4,
    "cowbell": 0.3,
    "rim": 0.1,
    "clave": -0.2,
}
VARIANTS = 3


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE


def _sweep(high_hz: float, low_hz: float, bend_s: float, decay_s: float, seconds: float) -> np.ndarray:
    """A sine whose pitch falls: the body of kicks and toms."""
    time_s = _time(seconds)
    phase = 2 * np.pi * (low_hz * time_s + (high_hz - low_hz) * bend_s * (1 - np.exp(-time_s / bend_s)))
    return (np.sin(phase) * np.exp(-time_s / decay_s)).astype(np.float32)


def _burst(rng, low_hz: float, high_hz: float, decay_s: float, seconds: float) -> np.ndarray:
    time_s = _time(seconds)
    noise = shaped_noise(rng, len(time_s), bandpass(low_hz, high_hz))
    attack = np.minimum(time_s / 0.0006, 1.0)
    return noise * attack * np.exp(-time_s / decay_s)


def _metal(rng, low_hz: float, decay_s: float, seconds: float, modes: int, grain: float) -> np.ndarray:
    """Cymbals: many inharmonic modes and noise; high partials die faster."""
    time_s = _time(seconds)
    size = 1 << int(np.ceil(np.log2(len(time_s))))
    output = np.zeros(len(time_s), dtype=np.float32)
    for fraction, low in ((1.0, low_hz), (0.55, low_hz * 2.2), (0.3, 9000.0)):
        output += 0.5 * _burst(rng, low, min(low * 3.5, 19000), decay_s * fraction, seconds)
    frequencies = low_hz * np.sort(rng.uniform(0.5, 6.0, modes))
    spectrum = np.zeros(size // 2 + 1, dtype=np.complex64)
    bins = np.minimum((frequencies / SAMPLE_RATE * size).astype(int), size // 2 - 1)
    spectrum[bins] = np.exp(2j * np.pi * rng.random(modes)) * (frequencies / low_hz) ** -0.4
    ring = np.fft.irfft(spectrum, n=size)[: len(time_s)].astype(np.float32)
    ring *= np.exp(-time_s / decay_s) / max(float(np.sqrt(np.mean(ring**2))), 1e-9)
    attack = np.minimum(time_s / 0.0008, 1.0)
    return (output + grain * ring) * attack


def _modes(frequencies, decays, levels, seconds: float) -> np.ndarray:
    time_s = _time(seconds)
    output = np.zeros(len(time_s), dtype=np.float32)
    for frequency, decay, level in zip(frequencies, decays, levels, strict=True):
        output += (
            np.float32(level) * np.sin(np.float32(2 * np.pi * frequency) * time_s) * np.exp(-time_s / np.float32(decay))
        )
    return output


def _u(rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _kick(kit: str, rng) -> np.ndarray:
    low = _u(rng, 42, 62)
    if kit == "808":
        return _sweep(_u(rng, 90, 160), _u(rng, 38, 52), 0.02, _u(rng, 0.25, 0.7), 1.4) + 0.15 * _burst(
            rng, 1000, 5000, 0.003, 1.4
        )
    if kit in ("909", "electro", "gated"):
        click = _burst(rng, 1500, 9000, _u(rng, 0.002, 0.006), 0.6)
        return (
            _sweep(_u(rng, 180, 420), low, _u(rng, 0.015, 0.045), _u(rng, 0.12, 0.28), 0.6)
            + _u(rng, 0.05, 0.25) * click
        )
    hard = {"metal": 0.5, "room": 0.3, "jazz": 0.08, "brush": 0.08, "hand": 0.05}.get(kit, 0.2)
    body = _sweep(_u(rng, 110, 220), low + 6, _u(rng, 0.008, 0.025), _u(rng, 0.09, 0.2), 0.5)
    shell = _modes((low * 1.6, low * 2.7, low * 3.6), (0.08, 0.05, 0.03), (0.3, 0.15, 0.1), 0.5)
    beater = _burst(rng, _u(rng, 1500, 3500), 9000, 0.005, 0.5)
    air = _burst(rng, 60, 400, 0.05, 0.5)
    return body + shell + hard * beater + 0.12 * air


def _snare(kit: str, rng) -> np.ndarray:
    pitch = _u(rng, 165, 260)
    if kit in ELECTRONIC:
        tone = _modes((pitch, pitch * 1.83), (0.06, 0.05), (0.8, 0.4), 0.5)
        return tone + _u(rng, 0.5, 1.0) * _burst(rng, _u(rng, 700, 2000), 12000, _u(rng, 0.05, 0.16), 0.5)
    long = {"brush": 0.06, "jazz": 0.09, "room": 0.16, "gated": 0.2, "dusty": 0.1}.get(kit, 0.12) * _u(rng, 0.7, 1.3)
    drum = _modes(
        (pitch, pitch * 1.59, pitch * 2.14, pitch * 2.65, pitch * 3.5),
        (0.11, 0.08, 0.06, 0.045, 0.03),
        (0.8, 0.5, 0.35, 0.25, 0.15),
        0.6,
    )
    wires = _burst(rng, _u(rng, 1200, 2600), _u(rng, 8000, 14000), long, 0.6)
    stick = _burst(rng, 2500, 12000, 0.003, 0.6)
    return drum * _u(rng, 0.4, 1.0) + wires * _u(rng, 0.5, 0.9) + 0.5 * stick


def _clap(rng) -> np.ndarray:
    output = np.zeros(int(0.4 * SAMPLE_RATE), dtype=np.float32)
    for index in range(4):
        add_at(
            output,
            int(index * _u(rng, 0.008, 0.013) * SAMPLE_RATE),
            _burst(rng, 800, 4500, 0.006 if index < 3 else _u(rng, 0.05, 0.13), 0.3),
        )
    return output


def _piece(piece: str, kit: str, rng) -> np.ndarray:
    electronic = kit in ELECTRONIC
    if piece == "kick":
        return _kick(kit, rng)
    if piece == "snare":
        return _snare(kit, rng)
    if piece == "clap":
        return _clap(rng)
    if piece in ("hat", "open"):
        low = _u(rng, 4500, 8000) if electronic else _u(rng, 2800, 5500)
        decay = _u(rng, 0.018, 0.05) if piece == "hat" else _u(rng, 0.15, 0.45)
        return 0.5 * _metal(rng, low, decay, 0.25 if piece == "hat" else 1.0, 40, 0.5 if electronic else 0.3)
    if piece == "ride":
        ping = _modes(rng.uniform(2500, 6500, 4), (0.3,) * 4, (0.2,) * 4, 1.6)
        return 0.35 * _metal(rng, _u(rng, 2500, 4500), _u(rng, 0.35, 0.8), 1.6, 60, 0.5) + ping * 0.6
    if piece == "crash":
        return 0.6 * _metal(rng, _u(rng, 1200, 3000), _u(rng, 0.6, 1.4), 3.0, 90, 0.3)
    if piece.startswith("tom"):
        pitch = {"tom_high": 190.0, "tom": 135.0, "tom_low": 88.0}[piece] * _u(rng, 0.85, 1.15)
        skin = 0.15 * _burst(rng, 800, 5000, 0.012, 0.8)
        return (
            _sweep(pitch * 1.5, pitch, 0.03, _u(rng, 0.15, 0.3), 0.8)
            + 0.3 * _modes((pitch * 1.6, pitch * 2.3), (0.1, 0.06), (1, 0.5), 0.8)
            + skin
        )
    return _percussion(piece, rng)


def _percussion(piece: str, rng) -> np.ndarray:
    if piece == "rim":
        return _modes((_u(rng, 1500, 1900), 480, 2700), (0.012, 0.02, 0.008), (0.8, 0.4, 0.4), 0.15) + 0.2 * _burst(
            rng, 2000, 9000, 0.004, 0.15
        )
    if piece == "clave":
        return _modes((_u(rng, 2200, 2700),), (0.025,), (1.0,), 0.2)
    if piece == "cowbell":
        return _modes(
            (_u(rng, 530, 570), _u(rng, 790, 860), 1650, 2480), (0.08, 0.1, 0.04, 0.03), (0.6, 0.6, 0.2, 0.2), 0.4
        )
    if piece in ("conga", "bongo"):
        pitch = _u(rng, 170, 260) if piece == "conga" else _u(rng, 320, 480)
        return _modes((pitch, pitch * 1.6, pitch * 2.3), (0.1, 0.05, 0.03), (1, 0.4, 0.2), 0.4) + 0.15 * _burst(
            rng, 700, 5000, 0.008, 0.4
        )
    if piece == "tambourine":
        return 0.6 * _metal(rng, 5500, _u(rng, 0.06, 0.12), 0.4, 24, 0.6)
    if piece == "snap":
        return _burst(rng, 1200, 5000, 0.012, 0.2)
    if piece == "brush":
        time_s = _time(0.3)
        return (
            0.5
            * shaped_noise(rng, len(time_s), bandpass(1200, 8000))
            * np.minimum(time_s / 0.02, 1)
            * np.exp(-time_s / _u(rng, 0.04, 0.08))
        )
    time_s = _time(0.15)  # shaker
    return (
        0.5
        * shaped_noise(rng, len(time_s), bandpass(4500, 12000))
        * np.sin(np.pi * np.minimum(time_s / 0.07, 1.0)) ** 2
    )


LEVEL = {
    "kick": 1.0,
    "snare": 0.8,
    "clap": 0.55,
    "hat": 0.3,
    "open": 0.3,
    "ride": 0.3,
    "crash": 0.5,
    "rim": 0.4,
    "shaker": 0.22,
    "tambourine": 0.25,
    "cowbell": 0.28,
    "clave": 0.3,
    "conga": 0.5,
    "bongo": 0.4,
    "snap": 0.4,
    "brush": 0.4,
    "tom": 0.8,
    "tom_high": 0.75,
    "tom_low": 0.85,
}


def group_of(piece: str) -> str:
    """The mixing group of a piece."""
    return "kick" if piece == "kick" else "snare" if piece in ("snare", "clap", "snap") else "top"


def play_kit(part: Part, score: Score, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Strike every hit: one (2, samples) signal per mixing group "kick", "snare", "top"."""
    kit = part.timbre["family"]
    groups = {name: np.zeros((2, samples), dtype=np.float32) for name in ("kick", "snare", "top")}
    width, balance = _u(rng, 0.2, 1.0), {piece: float(10 ** (rng.normal(0, 1.8) / 20)) for piece in sorted(LEVEL)}
    mirrored = -1 if rng.random() < 0.5 else 1
    humanise_s = 0.0005 if kit in ELECTRONIC else _u(rng, 0.002, 0.006)
    sounds: dict[str, list[np.ndarray]] = {}
    for hit in part.events:
        if hit.piece not in sounds:
            piece_rng = np.random.default_rng(rng.integers(2**63))
            state = piece_rng.bit_generator.state
            sounds[hit.piece] = []
            variants = 1 if kit in ELECTRONIC else VARIANTS
            for variant in range(variants):
                piece_rng.bit_generator.state = state  # the same drum, struck a little differently
                sound = _piece(hit.piece, kit, piece_rng)
                tilt = np.float32(0.12 * variant)
                sound = sound - tilt * np.concatenate([np.zeros(1, np.float32), sound[:-1]])
                fade = min(len(sound), 2000)
                sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
                sounds[hit.piece].append(sound / max(float(np.max(np.abs(sound))), 1e-6))
        takes = sounds[hit.piece]
        sound = takes[int(rng.integers(len(takes)))]
        level = np.float32(0.7 * LEVEL[hit.piece] * balance[hit.piece] * hit.velocity**1.6)
        pan = PAN.get(hit.piece, 0.0) * width * mirrored
        start = int((score.seconds(hit.beat) + abs(float(rng.normal(0, humanise_s)))) * SAMPLE_RATE)
        group = groups[group_of(hit.piece)]
        add_at(group[0], start, sound * (level * np.float32(np.sqrt(0.5 * (1 - pan)))))
        add_at(group[1], start, sound * (level * np.float32(np.sqrt(0.5 * (1 + pan)))))
    return groups
