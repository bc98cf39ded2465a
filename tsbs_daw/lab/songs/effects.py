"""Effects of a production, on voices and on whole stems.

Voices are de-essed, compressed, saturated and doubled, and get echoes and plates, as on records. What producers do to
sound after it is played (gates, sweeps, stutters, tape stops, glitches, dub echoes, chops) takes and returns
(2, samples) float32 of the same length, and is linear in the signal where it can fall on several stems at once, so
that the stems still sum to the mixture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pedalboard import (
    Bitcrush,
    Chorus,
    Compressor,
    Delay,
    Distortion,
    HighpassFilter,
    HighShelfFilter,
    Limiter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Pedalboard,
    Phaser,
    Reverb,
)

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, gain
from tsbs_daw.lab.songs.instruments import read_at, shape
from tsbs_daw.lab.songs.mixing import process
from tsbs_daw.lab.songs.score import Score

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
    """Process a dry voice: (2, samples) float32.

    Args:
        voice: (1, samples) at about -20 LUFS.
        role: "lead", or that of a voice around it.
        rng: Random numbers.
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
    """Compress frequencies above 5 kHz only."""
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


EDGE = 160  # samples of a cross-fade where sound is cut
SWEEP_BLOCK = 2048
SECTION_BARS = (1, 2, 4)

# How often each effect falls on a stem of an electronic song; elsewhere a third as often.
EFFECTS: dict[str, dict[str, float]] = {
    "drums": {"stutter": 0.25, "crush": 0.1, "sweep": 0.15, "echo": 0.12, "tape stop": 0.06},
    "bass": {"gate": 0.06, "sweep": 0.12, "stutter": 0.06},
    "other": {"gate": 0.25, "sweep": 0.3, "echo": 0.2, "stutter": 0.1, "crush": 0.06, "tape stop": 0.05},
    "vocals": {"echo": 0.25, "stutter": 0.15, "gate": 0.04, "sweep": 0.06, "tape stop": 0.03},
    "everything": {"tape stop": 0.06, "stutter": 0.08, "sweep": 0.1},
}
ELECTRONIC_STYLES = ("house", "trance", "dnb", "synthwave", "trap", "pop", "hiphop")
ELSEWHERE = 1 / 3


def treat(stem: str, signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """A stem with the effects that fall on it."""
    if not signal.any():
        return signal
    for name in _drawn(stem, score, rng):
        signal = _EFFECTS[name](signal, score, rng)
    return signal


def treat_everything(stems: dict[str, np.ndarray], score: Score, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """All stems through the same effects at the same moments, as a finished mix goes through a sampler or a filter."""
    for name in _drawn("everything", score, rng):
        seed = int(rng.integers(2**31))
        stems = {
            stem: _EFFECTS[name](signal, score, np.random.default_rng(seed)) if signal.any() else signal
            for stem, signal in stems.items()
        }
    return stems


def _drawn(stem: str, score: Score, rng: np.random.Generator) -> list[str]:
    scale = 1.0 if score.style in ELECTRONIC_STYLES else ELSEWHERE
    return [name for name, share in EFFECTS[stem].items() if rng.random() < share * scale]


def _samples(beats: float, score: Score) -> int:
    return int(beats * 60.0 / score.tempo_bpm * SAMPLE_RATE)


def _moment(score: Score, rng: np.random.Generator, unit: float = 1.0) -> int:
    """A sample position on the grid of `unit` beats."""
    beats = int(score.duration_s * score.tempo_bpm / 60 / unit)
    return _samples(float(rng.integers(max(beats - 2, 1))) * unit, score)


def gate(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """A rhythm of steps that opens and closes the sound, for some bars or throughout."""
    step = _samples(float(rng.choice([0.25, 0.25, 0.5])), score)
    steps = rng.random(16) < rng.uniform(0.4, 0.75)
    steps[0] = True
    floor, width = float(rng.choice([0.0, 0.0, 0.2])), float(rng.uniform(0.5, 1.0))
    count = signal.shape[1] // step + 1
    curve = np.full(count * step, floor, dtype=np.float32)
    for index in range(count):
        if steps[index % 16]:
            curve[index * step : index * step + int(width * step)] = 1.0
    curve = curve[: signal.shape[1]]
    if rng.random() < 0.6:
        first, end = _stretch(score, signal.shape[1], rng)
        curve[:first] = curve[end:] = 1.0
    kernel = np.hanning(2 * EDGE + 1).astype(np.float32)
    smooth = np.convolve(np.pad(curve, EDGE, mode="edge"), kernel / kernel.sum(), mode="valid")
    return signal * smooth.astype(np.float32)


def _stretch(score: Score, samples: int, rng: np.random.Generator) -> tuple[int, int]:
    bar = _samples(score.bar_beats, score)
    first = int(rng.integers(max(samples // bar, 1))) * bar
    return first, min(first + int(rng.choice(SECTION_BARS)) * 2 * bar, samples)


def sweep(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """A resonant filter that opens or closes over some bars, and lets go at the end. Linear, unlike a ladder filter."""
    first, end = _stretch(score, signal.shape[1], rng)
    high = rng.random() < 0.4
    closed, opened = (float(rng.uniform(600, 3000)), 30.0) if high else (float(rng.uniform(150, 700)), 16_000.0)
    start, stop = (closed, opened) if rng.random() < 0.6 else (opened, closed)
    edges = [HighpassFilter(start) if high else LowpassFilter(start) for _ in range(3)]
    peak = PeakFilter(start, float(rng.uniform(0.0, 9.0)), 2.0)
    board = Pedalboard([*edges, peak])
    swept = signal.copy()
    for at in range(first, end, SWEEP_BLOCK):
        cutoff_hz = start * (stop / start) ** ((at - first) / max(end - first, 1))
        for part in (*edges, peak):
            part.cutoff_frequency_hz = cutoff_hz
        block = signal[:, at : min(at + SWEEP_BLOCK, end)]
        swept[:, at : at + block.shape[1]] = board(block, SAMPLE_RATE, reset=at == first)
    return _cross_fade(swept, signal, first, end)


def _cross_fade(changed: np.ndarray, original: np.ndarray, first: int, end: int) -> np.ndarray:
    """Cross-fade into what was changed after `first`, and back before `end`; in place."""
    length = min(EDGE, (end - first) // 2)
    rise = np.linspace(0, 1, max(length, 0), dtype=np.float32)
    if first > 0 and length > 0:
        span = slice(first, first + length)
        changed[:, span] = (1 - rise) * original[:, span] + rise * changed[:, span]
    if end < changed.shape[1] and length > 0:
        span = slice(end - length, end)
        changed[:, span] = rise * original[:, span] + (1 - rise) * changed[:, span]
    return changed


def stutter(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """The same slice of sound again and again, at the ends of one to four beats."""
    changed = signal.copy()
    for _ in range(int(rng.integers(1, 5))):
        slice_length = _samples(float(rng.choice([0.125, 0.25, 0.25, 0.5])), score)
        at = _moment(score, rng)
        piece = shape(signal[:, at : at + slice_length], slice_length / SAMPLE_RATE, 0.0, 0.002)
        repeats = int(rng.integers(2, 9))
        end = min(at + repeats * slice_length, signal.shape[1])
        if piece.shape[1] < slice_length:
            continue
        before = changed.copy()
        changed[:, at:end] = np.tile(piece, repeats)[:, : end - at]
        _cross_fade(changed, before, at, end)
    return changed


def tape_stop(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """The sound slows to a standstill within a beat or two, then goes on where the song is."""
    length, at = _samples(float(rng.choice([1.0, 1.0, 2.0])), score), _moment(score, rng, 1.0)
    end = min(at + length, signal.shape[1])
    if end - at < 4 * EDGE:
        return signal
    speed = (1.0 - np.arange(end - at) / (end - at)) ** 0.8
    slowed = read_at(signal[:, at:], np.cumsum(speed))[:, : end - at] * np.sqrt(speed).astype(np.float32)
    changed = signal.copy()
    changed[:, at:end] = 0.0
    changed[:, at : at + slowed.shape[1]] = slowed
    return _cross_fade(changed, signal, at, end)


def crush(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """Some beats as an early sampler holds them: few samples per second, few bits."""
    changed = signal.copy()
    hold, bits = int(rng.integers(3, 14)), int(rng.integers(5, 10))
    for _ in range(int(rng.integers(1, 6))):
        at = _moment(score, rng, 0.5)
        part = signal[:, at : at + _samples(float(rng.choice([0.5, 1.0, 2.0])), score)]
        held = np.repeat(part[:, ::hold], hold, axis=1)[:, : part.shape[1]]
        scale = np.float32(2 ** (bits - 1) / max(float(np.abs(part).max(initial=0.0)), 1e-6))
        changed[:, at : at + part.shape[1]] = np.round(held * scale) / scale
    return changed


def dub_echo(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """Dub: a few words or hits are thrown into a long, filtered delay that goes on while the rest stays dry."""
    sent = np.zeros_like(signal)
    for _ in range(int(rng.integers(2, 7))):
        at = _moment(score, rng, 0.5)
        length = min(_samples(float(rng.choice([0.25, 0.5, 1.0])), score), signal.shape[1] - at)
        window = np.minimum(1.0, np.minimum(np.arange(length), np.arange(length)[::-1]) / EDGE).astype(np.float32)
        sent[:, at : at + length] += signal[:, at : at + length] * window
    beats = float(rng.choice([0.5, 0.75, 0.75, 1.0]))
    chain = [
        Delay(beats * 60.0 / score.tempo_bpm, float(rng.uniform(0.45, 0.78)), 1.0),
        HighpassFilter(float(rng.uniform(150, 500))),
        LowpassFilter(float(rng.uniform(1500, 5000))),
        Reverb(0.7, 0.5, float(rng.uniform(0.05, 0.4)), 0.8),
    ]
    return signal + np.float32(rng.uniform(0.3, 0.8)) * process(sent, chain)


_EFFECTS: dict[str, Callable[[np.ndarray, Score, np.random.Generator], np.ndarray]] = {
    "gate": gate,
    "sweep": sweep,
    "stutter": stutter,
    "tape stop": tape_stop,
    "crush": crush,
    "echo": dub_echo,
}


def play_chops(
    sound: np.ndarray, notes: tuple, score: Score, samples: int, rng: np.random.Generator, most_s: float = 0.6
) -> np.ndarray:
    """Slices of one recording triggered by a part's notes, each pitch its own slice, moved by up to an octave.

    Args:
        sound: the recording, (channels, samples)
        notes: the part's events
        samples: length of the result
        most_s: the longest that a slice sounds
    Returns:
        (2, samples) float32
    """
    offsets = np.sort(rng.uniform(0, max(sound.shape[1] - SAMPLE_RATE // 2, 1), 12)).astype(int)
    root = float(np.median([note.pitch for note in notes])) if notes else 60.0
    output = np.zeros((2, samples), dtype=np.float32)
    pitched = rng.random() < 0.6
    for note in notes:
        start = int(score.seconds(note.beat) * SAMPLE_RATE)
        held_s = min(score.seconds(note.beat + note.beats) - score.seconds(note.beat), most_s)
        semitones = float(np.clip(note.pitch - root, -12, 12)) if pitched else 0.0
        offset = offsets[round(note.pitch) % (2 if pitched else len(offsets))]
        position = np.arange(int((held_s + 0.02) * SAMPLE_RATE)) * 2.0 ** (semitones / 12)
        piece = shape(read_at(sound[:, offset:], position), held_s, 0.02, 0.003) * np.float32(note.velocity)
        if start < samples:
            add_at(output, start, np.broadcast_to(piece, (2, piece.shape[1])) if len(piece) == 1 else piece)
    return output
