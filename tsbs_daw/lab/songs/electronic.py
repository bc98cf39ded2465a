"""What producers do to sound after it is played: gates, sweeps, stutters, tape stops, glitches, dub echoes, chops.

Every effect takes and returns (2, samples) float32 of the same length, and is linear in the signal where it can fall on
several stems at once, so that the stems still sum to the mixture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pedalboard import Delay, HighpassFilter, LowpassFilter, PeakFilter, Pedalboard, Reverb

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.mixing import process
from tsbs_daw.lab.songs.sampler import read_at, shape
from tsbs_daw.lab.songs.score import Score

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
    return _blend(swept, signal, first, end)


def _blend(changed: np.ndarray, original: np.ndarray, first: int, end: int) -> np.ndarray:
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
        _blend(changed, before, at, end)
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
    return _blend(changed, signal, at, end)


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


def echo(signal: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
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
    "echo": echo,
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
