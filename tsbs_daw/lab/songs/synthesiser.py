"""The built-in synthesiser: plays notes on any built-in timbre, (2, samples) float32, and has families of its own.

L levels of an evolving spectrum, K harmonics.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import (
    SAMPLE_RATE,
    TABLE,
    add_at,
    adsr,
    bandpass,
    curve_phase,
    midi_hz,
    play_tables,
    shaped_noise,
    steady_phase,
    tables_from_spectra,
)
from tsbs_daw.lab.songs.score import Note, Score
from tsbs_daw.lab.songs.timbres import Timbre, log_uniform, uniform

LEVELS_S = np.array([0.0, 0.015, 0.04, 0.09, 0.2, 0.45, 1.0, 2.2, 5.0])
TOP_HZ = 19000.0


def play_part(
    notes: tuple[Note, ...],
    timbre: Timbre,
    score: Score,
    samples: int,
    rng: np.random.Generator,
    humanise_s: float = 0.006,
) -> np.ndarray:
    """All notes of a part, at their times, with small human deviations of time and level."""
    output = np.zeros((2, samples), dtype=np.float32)
    cache: dict = {}
    noise = shaped_noise(rng, SAMPLE_RATE * 2, bandpass(*timbre.noise_hz)) if timbre.noise else None
    for note in notes:
        start_s = score.seconds(note.beat) + float(rng.normal(0.0, humanise_s * 0.5))
        end_s = score.seconds(note.beat + note.beats)
        start = max(int(start_s * SAMPLE_RATE), 0)
        held = max(int((end_s - start_s) * SAMPLE_RATE), int(0.03 * SAMPLE_RATE))
        if start >= samples:
            continue
        add_at(output, start, _note(note, timbre, held, rng, cache, noise))
    return output


def _note(note: Note, timbre: Timbre, held: int, rng, cache: dict, noise) -> np.ndarray:
    envelope = adsr(held, timbre.attack_s, timbre.decay_s, timbre.sustain, timbre.release_s)
    length = len(envelope)
    if timbre.kind == "sweep":
        return _noise_sweep(timbre, length, rng) * (envelope * np.float32(note.velocity))
    stereo = np.zeros((2, length), dtype=np.float32)
    for octave in timbre.octaves:
        pitch = note.pitch + octave + timbre.transpose
        for voice in range(timbre.unison):
            place = (voice / max(timbre.unison - 1, 1) - 0.5) * 2.0 if timbre.unison > 1 else 0.0
            cents = place * timbre.detune_cents + float(rng.normal(0, 1.0))
            wave = _wave(pitch, cents, note, timbre, length, rng, cache)
            side = place * timbre.spread * (1 if voice % 2 else -1)
            stereo[0] += wave * np.float32(np.sqrt(0.5 * (1 - side)))
            stereo[1] += wave * np.float32(np.sqrt(0.5 * (1 + side)))
    stereo *= np.float32(1.0 / np.sqrt(timbre.unison * len(timbre.octaves)))
    if noise is not None:
        burst = length if timbre.noise_s == 0.0 else min(length, int(timbre.noise_s * 4 * SAMPLE_RATE))
        offset = int(rng.integers(0, max(len(noise) - burst, 1)))
        part = noise[offset : offset + burst] * np.float32(timbre.noise * 0.35)
        if timbre.noise_s:
            part = part * np.exp(-np.arange(len(part), dtype=np.float32) / (timbre.noise_s * SAMPLE_RATE))
        stereo[:, : len(part)] += part
    return stereo * (envelope * np.float32(note.velocity**1.5))


def _wave(pitch: float, cents: float, note: Note, timbre: Timbre, length: int, rng, cache: dict) -> np.ndarray:
    frequency_hz = float(midi_hz(pitch + cents / 100.0))
    if timbre.kind == "modal":
        return _modal(frequency_hz, note.velocity, timbre, length)
    key = (round(pitch), round(note.velocity * 6))
    if key not in cache:
        cache[key] = _tables(float(midi_hz(round(pitch))), round(note.velocity * 6) / 6, timbre, rng)
    phase_start = float(rng.random())
    if note.glide_from is not None:
        time_s = np.arange(length) / SAMPLE_RATE
        bend = (note.glide_from - note.pitch) * np.exp(-time_s / 0.06)
        phase = curve_phase(frequency_hz * 2.0 ** (bend / 12.0), phase_start)
    elif timbre.vibrato_cents > 0.5 and length > 0.3 * SAMPLE_RATE:
        time_s = np.arange(length) / SAMPLE_RATE
        depth = timbre.vibrato_cents * np.clip((time_s - 0.15) / 0.4, 0.0, 1.0)
        wobble = depth * np.sin(2 * np.pi * (timbre.vibrato_hz * time_s + phase_start))
        phase = curve_phase(frequency_hz * (1.0 + wobble * (np.log(2) / 1200.0)), phase_start)
    else:
        phase = steady_phase(frequency_hz, length, phase_start)
    return play_tables(cache[key], LEVELS_S, phase)


def _tables(f0_hz: float, velocity: float, timbre: Timbre, rng) -> np.ndarray:
    count = max(int(TOP_HZ / f0_hz), 1)
    k = np.arange(1, count + 1, dtype=np.float64)
    if timbre.kind == "fm":
        return _fm_tables(f0_hz, velocity, timbre)
    levels = {"subtractive": _subtractive, "struck": _struck, "blown": _blown}[timbre.kind](k, f0_hz, velocity, timbre)
    for centre_hz, width_hz, strength in timbre.body:
        levels = levels * (1.0 + strength / (1.0 + ((k * f0_hz - centre_hz) / width_hz) ** 2))
    phases = rng.uniform(0, 2 * np.pi, count) if timbre.kind != "subtractive" else np.full(count, -np.pi / 2)
    power = np.sqrt(np.sum(levels.max(axis=0) ** 2) / 2)
    return tables_from_spectra(levels * (0.25 / max(power, 1e-6)), phases)


def _subtractive(k, f0_hz, velocity, timbre: Timbre) -> np.ndarray:
    odd = (k % 2 == 1).astype(float)
    shapes = {
        "saw": 1.0 / k,
        "square": odd / k,
        "triangle": odd / k**2,
        "sine": (k == 1) * 1.0,
        "sine2": (k == 1) + 0.25 * (k == 2) + 0.12 * (k == 3),
        "pulse": np.abs(np.sin(np.pi * k * timbre.pulse_width)) / k,
    }
    key_follow = (f0_hz / 261.6) ** 0.6
    opening = 1.0 + timbre.sweep * velocity * np.exp(-LEVELS_S / timbre.sweep_s)
    cutoff = np.maximum(timbre.cutoff_hz * key_follow * opening, 1.2 * f0_hz)[:, None]
    ratio = np.minimum(k[None] * f0_hz / cutoff, 30.0)
    response = 1.0 / np.sqrt((1 - ratio**2) ** 2 + (ratio / max(timbre.resonance, 0.5)) ** 2)
    if timbre.slopes == 2:
        response = response / np.sqrt((1 - ratio**2) ** 2 + (ratio / 0.6) ** 2)
    return shapes[timbre.wave][None] * response


def _struck(k, f0_hz, velocity, timbre: Timbre) -> np.ndarray:
    hardness = timbre.cutoff_hz * (0.4 + 0.8 * velocity)
    shape = (
        (0.05 + np.abs(np.sin(np.pi * k * timbre.strike))) * k**-timbre.tilt / np.sqrt(1 + (k * f0_hz / hardness) ** 4)
    )
    ring_s = timbre.ring_s * (220.0 / f0_hz) ** 0.45
    decay_s = ring_s / (1.0 + (k * f0_hz / timbre.damp_hz) ** 1.5)
    # Two rates per string: a quick one for the first part of the decay, a slow one for what remains.
    time_s = LEVELS_S[:, None]
    return shape[None] * (0.7 * np.exp(-time_s / (0.5 * decay_s)) + 0.3 * np.exp(-time_s / (1.6 * decay_s)))


def _blown(k, f0_hz, velocity, timbre: Timbre) -> np.ndarray:
    if timbre.harmonics:
        base = np.zeros(len(k))
        base[: len(timbre.harmonics)] = timbre.harmonics[: len(k)]
    else:
        base = k**-timbre.tilt
    opening = 0.25 + 0.75 * (1.0 - np.exp(-LEVELS_S / timbre.sweep_s))
    cutoff = np.maximum(timbre.cutoff_hz * (0.4 + 0.7 * velocity) * opening, 1.5 * f0_hz)[:, None]
    return base[None] / (1.0 + (k[None] * f0_hz / cutoff) ** 2)


def _fm_tables(f0_hz: float, velocity: float, timbre: Timbre) -> np.ndarray:
    angle = 2 * np.pi * np.arange(TABLE) / TABLE
    ratio = timbre.ratio if timbre.ratio * f0_hz < 7000 else 1.0
    # Carson's rule bounds the index so that the sidebands stay below the top.
    most = max(0.0, (TOP_HZ / f0_hz - 1) / ratio - 1)
    index = np.minimum(
        timbre.fm_index * (0.4 + 0.8 * velocity) * (0.25 + 0.75 * np.exp(-LEVELS_S / timbre.sweep_s)), most
    )
    return (0.35 * np.sin(angle[None] + index[:, None] * np.sin(ratio * angle)[None])).astype(np.float32)


def _modal(frequency_hz: float, velocity: float, timbre: Timbre, length: int) -> np.ndarray:
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    wave = np.zeros(length, dtype=np.float32)
    ring_s = timbre.ring_s * (440.0 / frequency_hz) ** 0.5
    for rank, ratio in enumerate(timbre.ratios):
        partial_hz = frequency_hz * ratio
        if partial_hz > TOP_HZ:
            continue
        level = (rank + 1.0) ** -timbre.tilt * (0.3 + 0.7 * velocity) ** rank
        wave += (
            np.float32(0.35 * level)
            * np.sin(np.float32(2 * np.pi * partial_hz) * time_s)
            * np.exp(-time_s * np.float32(ratio**0.7 / ring_s))
        )
    if timbre.family == "vibes" and timbre.vibrato_hz:
        wave *= 1.0 + 0.3 * np.sin(np.float32(2 * np.pi * timbre.vibrato_hz) * time_s)
    return wave


def _noise_sweep(timbre: Timbre, length: int, rng) -> np.ndarray:
    """Noise that swells and brightens (a riser), or dies away when the note is short: (2, length)."""
    place = np.linspace(0, 1, length, dtype=np.float32)
    low_hz, high_hz = timbre.noise_hz
    output = np.zeros((2, length), dtype=np.float32)
    for step in range(4):
        centre_hz = low_hz * (high_hz / low_hz) ** (step / 3)
        weight = np.clip(1.0 - np.abs(place * 3 - step), 0, 1)
        common = shaped_noise(rng, length, bandpass(centre_hz * 0.6, centre_hz * 1.8))
        for channel in output:
            own = shaped_noise(rng, length, bandpass(centre_hz * 0.6, centre_hz * 1.8))
            channel += weight * ((1 - timbre.spread) * common + timbre.spread * own)
    return output * (0.15 * place**1.5)


# Families of synthesiser timbres; every call draws a new one.


def synth(family: str, rng) -> Timbre:
    wave = {"square": "square", "pulse": "pulse"}.get(family, "saw")
    unison = int(rng.choice([1, 1, 2, 3])) if family != "supersaw" else int(rng.choice([5, 7]))
    plucky = rng.random() < 0.5 and family != "supersaw"
    return Timbre(
        family,
        "subtractive",
        attack_s=log_uniform(rng, 0.002, 0.02),
        decay_s=log_uniform(rng, 0.1, 0.6),
        sustain=uniform(rng, 0.1, 0.4) if plucky else uniform(rng, 0.6, 1.0),
        release_s=log_uniform(rng, 0.04, 0.4),
        wave=wave,
        pulse_width=uniform(rng, 0.1, 0.45),
        cutoff_hz=log_uniform(rng, 500, 6000),
        resonance=uniform(rng, 0.6, 3.5),
        slopes=int(rng.choice([1, 2])),
        sweep=uniform(rng, 0.0, 6.0),
        sweep_s=log_uniform(rng, 0.05, 0.8),
        unison=unison,
        detune_cents=uniform(rng, 3, 22),
        spread=uniform(rng, 0.2, 1.0),
        vibrato_hz=uniform(rng, 4, 6),
        vibrato_cents=uniform(rng, 0, 8),
        octaves=(0,) if rng.random() < 0.7 else (0, -12),
    )


def warm(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=log_uniform(rng, 0.05, 0.6),
        decay_s=2.0,
        sustain=uniform(rng, 0.7, 1.0),
        release_s=log_uniform(rng, 0.3, 1.5),
        wave=str(rng.choice(["saw", "pulse", "square"])),
        pulse_width=uniform(rng, 0.2, 0.5),
        cutoff_hz=log_uniform(rng, 350, 2200),
        resonance=uniform(rng, 0.6, 1.6),
        slopes=2,
        sweep=uniform(rng, -0.4, 1.5),
        sweep_s=log_uniform(rng, 0.4, 2.0),
        unison=int(rng.choice([2, 3, 4])),
        detune_cents=uniform(rng, 5, 18),
        spread=uniform(rng, 0.4, 1.0),
        noise=uniform(rng, 0.0, 0.03),
        noise_s=0.0,
    )


def pluck(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=0.002,
        decay_s=log_uniform(rng, 0.08, 0.4),
        sustain=uniform(rng, 0.0, 0.1),
        release_s=log_uniform(rng, 0.08, 0.5),
        wave=str(rng.choice(["saw", "square", "triangle"])),
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 400, 2500),
        resonance=uniform(rng, 0.7, 3.0),
        slopes=2,
        sweep=uniform(rng, 2.0, 10.0),
        sweep_s=log_uniform(rng, 0.04, 0.25),
        unison=int(rng.choice([1, 2, 3])),
        detune_cents=uniform(rng, 4, 15),
        spread=uniform(rng, 0.2, 0.9),
    )


def fm(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "fm",
        attack_s=log_uniform(rng, 0.002, 0.02),
        decay_s=log_uniform(rng, 0.2, 2.0),
        sustain=uniform(rng, 0.1, 0.8),
        release_s=log_uniform(rng, 0.06, 0.4),
        ratio=float(rng.choice([1, 1, 2, 3, 4, 5])),
        fm_index=log_uniform(rng, 0.5, 4.0),
        sweep_s=log_uniform(rng, 0.08, 0.8),
        unison=int(rng.choice([1, 2])),
        detune_cents=uniform(rng, 2, 10),
        spread=uniform(rng, 0.2, 0.8),
    )


def bass_synth(family: str, rng) -> Timbre:
    kinds = {"fm": _fm_bass, "sub": _sub_bass, "808": _sub_bass}
    return kinds.get(family, _filtered_bass)(family, rng)


def _fm_bass(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "fm",
        attack_s=0.003,
        decay_s=log_uniform(rng, 0.2, 1.0),
        sustain=uniform(rng, 0.3, 0.9),
        release_s=0.05,
        ratio=float(rng.choice([1, 1, 2, 3])),
        fm_index=log_uniform(rng, 0.8, 3.0),
        sweep_s=log_uniform(rng, 0.05, 0.4),
    )


def _sub_bass(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=0.004,
        decay_s=log_uniform(rng, 0.5, 2.0) if family == "808" else 2.0,
        sustain=uniform(rng, 0.0, 0.3) if family == "808" else uniform(rng, 0.7, 1.0),
        release_s=uniform(rng, 0.05, 0.2),
        wave=str(rng.choice(["sine", "triangle", "sine2"])),
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 800, 2500),
        resonance=0.7,
        slopes=1,
        sweep=1.0,
        sweep_s=0.1,
    )


def _filtered_bass(family: str, rng) -> Timbre:
    reese = family == "reese"
    return Timbre(
        family,
        "subtractive",
        attack_s=0.004,
        decay_s=log_uniform(rng, 0.1, 0.6),
        sustain=uniform(rng, 0.3, 1.0),
        release_s=uniform(rng, 0.03, 0.12),
        wave="square" if family == "square" else "saw",
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 350, 1600),
        resonance=uniform(rng, 0.7, 4.0),
        slopes=2,
        sweep=uniform(rng, 0.0, 5.0),
        sweep_s=log_uniform(rng, 0.05, 0.4),
        unison=int(rng.choice([2, 3])) if reese else int(rng.choice([1, 1, 2])),
        detune_cents=uniform(rng, 15, 35) if reese else uniform(rng, 2, 8),
        spread=0.15,
    )


def sweep(family: str, rng) -> Timbre:
    low_hz = log_uniform(rng, 300, 1500)
    return Timbre(
        family,
        "sweep",
        attack_s=0.01,
        decay_s=30.0,
        sustain=1.0,
        release_s=uniform(rng, 0.05, 0.6),
        noise_hz=(low_hz, low_hz * uniform(rng, 4.0, 12.0)),
        spread=uniform(rng, 0.0, 1.0),
    )


def acid(rng) -> Timbre:
    """A bass that squeals: one oscillator into a filter close to whistling, opened by every accent."""
    return Timbre(
        "acid",
        "subtractive",
        attack_s=0.003,
        decay_s=log_uniform(rng, 0.15, 0.6),
        sustain=uniform(rng, 0.1, 0.6),
        release_s=0.02,
        wave=str(rng.choice(["saw", "saw", "square"])),
        cutoff_hz=log_uniform(rng, 250, 900),
        resonance=uniform(rng, 4.0, 11.0),
        slopes=2,
        sweep=uniform(rng, 3.0, 9.0),
        sweep_s=log_uniform(rng, 0.06, 0.3),
    )
