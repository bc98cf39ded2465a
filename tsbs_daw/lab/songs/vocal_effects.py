"""Effects on voices as records have them: de-essing, compression, saturation, doublers, echoes and plates."""

from __future__ import annotations

import numpy as np
from pedalboard import (
    Bitcrush,
    Chorus,
    Compressor,
    Distortion,
    HighpassFilter,
    HighShelfFilter,
    Limiter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Phaser,
    Reverb,
)

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, gain
from tsbs_daw.lab.songs.mixing import process

# How often each is heard.
CHANCES = {
    "de-ess": 0.75, "fast compressor": 0.6, "saturation": 0.35, "telephone": 0.05, "crushed": 0.03, "phaser": 0.04,
    "doubler": 0.3, "slap": 0.3, "echo": 0.45, "plate": 0.75, "hall": 0.2, "gated echo": 0.1,
}  # fmt: skip
SIBILANT_HZ = 5200.0
LONGEST_TAIL = 7  # repeats of an echo


def _u(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def channel_strip(voice: np.ndarray, role: str, rng: np.random.Generator) -> np.ndarray:
    """A dry voice through its channel strip: (2, samples) float32.

    Args:
        voice: (1, samples) at about -20 LUFS
        role: "lead", or one of those around it
        rng: what is chosen
    """

    def chance(name: str) -> bool:
        return bool(rng.random() < CHANCES[name])

    low_cut = _u(rng, 70, 130) if role == "lead" else _u(rng, 110, 260)
    voice = process(
        voice,
        [
            HighpassFilter(low_cut),
            LowShelfFilter(_u(rng, 150, 300), _u(rng, -4, 2)),
            PeakFilter(float(np.exp(_u(rng, np.log(250), np.log(900)))), _u(rng, -5, 1), _u(rng, 0.6, 1.6)),
            PeakFilter(float(np.exp(_u(rng, np.log(1500), np.log(4500)))), _u(rng, -2, 4), _u(rng, 0.5, 1.4)),
        ],
    )
    if chance("fast compressor"):
        voice = process(voice, [Compressor(_u(rng, -22, -12), _u(rng, 4, 10), _u(rng, 0.5, 2), _u(rng, 40, 90))])
    voice = process(voice, [Compressor(_u(rng, -32, -20), _u(rng, 2, 5), _u(rng, 5, 25), _u(rng, 80, 250))])
    voice = process(voice, [HighShelfFilter(_u(rng, 5000, 11000), _u(rng, -1, 6))])
    if chance("de-ess"):
        voice = de_ess(voice, _u(rng, -40, -28), _u(rng, 3, 8))
    if chance("saturation"):
        driven = process(voice, [Distortion(_u(rng, 4, 18)), LowpassFilter(_u(rng, 6000, 16000))])
        voice = _blend(voice, driven, _u(rng, 0.15, 0.7))
    if chance("telephone"):
        narrow = [HighpassFilter(500), HighpassFilter(450), LowpassFilter(2800), Distortion(_u(rng, 6, 20))]
        voice = process(voice, narrow)
    if chance("crushed"):
        voice = process(voice, [Bitcrush(_u(rng, 6, 9)), LowpassFilter(_u(rng, 5000, 11000))])
    if chance("phaser"):
        voice = process(voice, [Phaser(_u(rng, 0.1, 1.0), _u(rng, 0.3, 0.8), _u(rng, 700, 2000), 0.2, 0.45)])
    if role != "lead" and rng.random() < 0.35:
        voice = process(voice, [Chorus(_u(rng, 0.4, 1.2), 0.15, 8, 0.0, 0.4)])
    voice = np.concatenate([voice, voice])
    return doubled(voice, _u(rng, 0.3, 0.8), rng) if chance("doubler") else voice


def space(voices: np.ndarray, beat_s: float, rng: np.random.Generator) -> np.ndarray:
    """All voices of a song in their room: a slap, an echo in time, a plate or a hall: (2, samples) float32."""

    def chance(name: str) -> bool:
        return bool(rng.random() < CHANCES[name])

    wet = np.zeros_like(voices)
    if chance("slap"):
        wet += gain(_u(rng, -20, -9)) * echo(voices, _u(rng, 0.07, 0.14), 0.0, (200, _u(rng, 3000, 8000)), False)
    if chance("echo"):
        time_s = beat_s * float(rng.choice([0.25, 0.5, 0.75, 0.75, 1.0, 1.5]))
        sent = voices
        if chance("gated echo"):  # thrown on single words
            sent = voices * _throws(voices.shape[1], beat_s, rng)
        band = (_u(rng, 150, 500), _u(rng, 2000, 7000))
        wet += gain(_u(rng, -22, -8)) * echo(sent, time_s, _u(rng, 0.15, 0.6), band, bool(rng.random() < 0.6))
    if chance("plate"):
        wet += gain(_u(rng, -24, -9)) * plate(voices + 0.5 * wet, _u(rng, 0.0, 0.09), _u(rng, 0.35, 0.75), rng)
    if chance("hall"):
        wet += gain(_u(rng, -24, -11)) * plate(voices, _u(rng, 0.02, 0.12), _u(rng, 0.75, 0.97), rng)
    bus = voices + wet
    return process(bus, [Compressor(_u(rng, -20, -10), 2.0, 10, 120), Limiter(-0.5, 60)]).astype(np.float32)


def de_ess(voice: np.ndarray, threshold_db: float, ratio: float) -> np.ndarray:
    """What lies above 5 kHz compressed by itself; below, nothing changes."""
    high = process(voice, [HighpassFilter(SIBILANT_HZ)])
    return (voice - high + process(high, [Compressor(threshold_db, ratio, 0.5, 50)])).astype(np.float32)


def doubled(voice: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """A voice with a late copy on either side, each slightly off in pitch as its delay moves."""
    output = voice.copy()
    time_s = np.arange(voice.shape[1]) / SAMPLE_RATE
    middle = voice.mean(axis=0)
    for channel in range(2):
        delay_s = _u(rng, 0.009, 0.024) + 0.0012 * np.sin(2 * np.pi * _u(rng, 0.2, 0.7) * time_s + _u(rng, 0, 6))
        position = np.maximum((time_s - delay_s) * SAMPLE_RATE, 0.0)
        copy = np.interp(position, np.arange(len(middle)), middle)
        output[channel] += (0.7 * amount * copy).astype(np.float32)
    return output


def echo(
    voice: np.ndarray, time_s: float, feedback: float, band_hz: tuple[float, float], ping_pong: bool
) -> np.ndarray:
    """Repeats only, without the voice itself, each duller than the last."""
    step = max(int(time_s * SAMPLE_RATE), 1)
    tape = [HighpassFilter(band_hz[0]), LowpassFilter(band_hz[1])]
    output = np.zeros_like(voice)
    sent = voice
    for turn in range(1, LONGEST_TAIL + 1):
        if turn * step >= voice.shape[1]:
            break
        sent = process(np.ascontiguousarray(sent), tape)
        level = feedback ** (turn - 1)
        if level < 0.02:
            break
        repeat = sent[:, : voice.shape[1] - turn * step] * np.float32(level)
        if ping_pong:
            left, right = (1.0, 0.15) if turn % 2 else (0.15, 1.0)
            repeat = repeat.mean(axis=0)[None] * np.array([[left], [right]], dtype=np.float32)
        output[:, turn * step :] += repeat
    return output


def plate(voice: np.ndarray, before_s: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """A bright reverb alone, begun `before_s` after the voice."""
    late = int(before_s * SAMPLE_RATE)
    sent = np.zeros_like(voice)
    sent[:, late:] = voice[:, : voice.shape[1] - late]
    chain = [
        HighpassFilter(_u(rng, 150, 450)),
        Reverb(size, _u(rng, 0.05, 0.6), 1.0, 0.0, _u(rng, 0.7, 1.0)),
        LowpassFilter(_u(rng, 5000, 14000)),
    ]
    return process(sent, chain)


def _throws(samples: int, beat_s: float, rng: np.random.Generator) -> np.ndarray:
    """Gain (samples,) that opens on single beats."""
    beats = np.arange(int(samples / SAMPLE_RATE / beat_s) + 2)
    opened = np.repeat((rng.random(len(beats)) < 0.15).astype(np.float32), 2)
    at = np.stack([beats * beat_s + 0.01, (beats + 1) * beat_s - 0.01], axis=1).ravel() * SAMPLE_RATE
    return np.interp(np.arange(samples), at, opened).astype(np.float32)


def _blend(dry: np.ndarray, driven: np.ndarray, share: float) -> np.ndarray:
    """A mix of a signal with a louder form of it, brought to its level first."""
    level = float(np.sqrt(np.mean(dry**2)) / max(float(np.sqrt(np.mean(driven**2))), 1e-9))
    return (dry * (1 - share) + driven * (share * level)).astype(np.float32)
