"""A sung voice from arithmetic: a glottal pulse train and noise through moving formants.

A line of syllables becomes control curves, one value per frame (HOP samples): pitch, voicing, breath, friction,
three moving formants. A band-limited pulse train at the pitch curve and white noise then pass a time-varying filter.
F frames, B = N_FFT // 2 + 1 bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsbs_daw.songs.dsp import HOP, N_FFT, SAMPLE_RATE, bandpass, filter_frames, midi_hz
from tsbs_daw.songs.phonation import FRAME_S, pitch_curve, pulses, smooth
from tsbs_daw.songs.phonemes import CONSONANTS, VOWEL_HZ
from tsbs_daw.songs.score import Score, Sung

BINS_HZ = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
GRID_HZ = 20.0  # formants are rounded to this, so that their responses can be looked up


@dataclass(frozen=True)
class Singer:
    """What stays the same for a singer. Levels are linear, frequencies in Hz."""

    tract: float  # formant scale: 1 an adult man, 1.18 a woman
    upper_hz: tuple[float, ...]  # fixed formants above the third
    tilt_hz: float  # above it the glottal pulse loses another 6 dB per octave: low is soft, high is pressed
    breath: float
    vibrato_hz: float
    vibrato_cents: float
    vibrato_after_s: float
    glide_s: float
    scoop: float  # semitones below the first note of a phrase
    jitter_cents: float
    drift_cents: float
    friction: float
    bandwidth: float  # of formants, relative
    brilliance_db: float  # how much brighter than speech a speaker's vowels are sung


def random_singer(voice: str, kind: str, rng: np.random.Generator) -> Singer:
    base = {"soprano": 1.2, "alto": 1.15, "tenor": 1.03, "baritone": 0.98, "bass": 0.93}[voice]
    tract = float(base * rng.uniform(0.95, 1.05))
    upper = tuple(float(hz * tract * rng.uniform(0.95, 1.05)) for hz in (3400, 4300, 5400, 6500, 7600, 8800, 10200))
    rap = kind == "rap"
    return Singer(
        tract,
        upper,
        float(np.exp(rng.uniform(np.log(1500), np.log(7000)))),
        float(np.exp(rng.uniform(np.log(0.015), np.log(0.14)))),
        float(rng.uniform(4.6, 6.6)),
        0.0 if rap else float(rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(10, 60)),
        float(rng.uniform(0.15, 0.5)),
        float(rng.uniform(0.02, 0.09)),
        float(rng.uniform(0.0, 2.0)),
        float(rng.uniform(4, 14)),
        float(rng.uniform(4, 18)),
        float(rng.uniform(0.5, 1.3)),
        float(rng.uniform(0.8, 1.5)),
        float(rng.uniform(0.0, 14.0)),
    )


def sing(
    line: tuple[Sung, ...], singer: Singer, score: Score, samples: int, rng: np.random.Generator, loose_s: float = 0.012
) -> np.ndarray:
    """Sing a line: (samples,) float32. `loose_s` is how far syllables stray from the beat."""
    frames = samples // HOP + 2
    curves = _curves(line, singer, score, frames, rng, loose_s)
    active = np.flatnonzero(curves["voiced"] + curves["breath"] + curves["noise"] > 1e-4)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    pitch = pitch_curve(curves["pitch"], curves["start"], singer, rng)
    f0_hz = midi_hz(pitch)
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(frames)
    source = pulses(per_sample(f0_hz)) * per_sample(curves["voiced"] * shimmer)
    # Breath is strongest while the glottis is open: the noise pulses with the voice.
    white = rng.standard_normal(samples).astype(np.float32)
    breath = white * per_sample(curves["breath"] + singer.breath * curves["voiced"])
    tract = _formant_response(curves, singer, active)
    glottis = _glottal_response(f0_hz[active], curves["effort"][active], singer)
    voiced = filter_frames(source, tract * glottis, active)
    voiced += 0.02 * filter_frames(breath, tract * _breath_response(), active)
    noisy = np.flatnonzero(curves["noise"] > 1e-4)
    if len(noisy):
        friction = white[::-1] * per_sample(curves["noise"] * singer.friction)
        voiced += 0.09 * filter_frames(friction, _friction_response(curves, noisy), noisy)
    return voiced


def _curves(line, singer: Singer, score: Score, frames: int, rng, loose_s: float) -> dict[str, np.ndarray]:
    """Lay syllables on the frame grid: consonants before the beat, the vowel on it."""
    curves = {name: np.zeros(frames) for name in ("voiced", "breath", "noise", "low_hz", "high_hz", "nasal")}
    curves["pitch"], curves["effort"] = np.full(frames, np.nan), np.ones(frames)
    curves["start"] = np.full(frames, np.nan)  # seconds since the note began, for vibrato
    formants = np.full((3, frames), np.nan)
    previous_end = 0
    for index, note in enumerate(line):
        start_s = score.seconds(note.beat) + float(rng.normal(0, loose_s))
        end_s = score.seconds(note.beat + note.beats)
        following = line[index + 1] if index + 1 < len(line) else None
        if following is not None:
            next_s = score.seconds(following.beat)
            lead = sum(CONSONANTS[name].duration_s for name in following.onset)
            end_s = min(end_s, max(next_s - lead, start_s + 0.06))
        first, last = int(start_s / FRAME_S), int(end_s / FRAME_S)
        if first < 3 or last >= frames - 2 or last - first < 6:
            continue
        vowels = np.array([VOWEL_HZ[name] for name in note.vowel], dtype=float) * singer.tract
        squeeze = min(1.0, (last - first) * FRAME_S / 0.2)
        coda = [(CONSONANTS[name], max(int(CONSONANTS[name].duration_s * squeeze / FRAME_S), 4)) for name in note.coda]
        tail = sum(length for _, length in coda)
        vowel_end = max(last - tail, first + 5)
        level = note.velocity * (0.75 + 0.25 * rng.random())
        _vowel(curves, formants, first, vowel_end, vowels, level)
        at = vowel_end
        for consonant, length in coda:
            at = _consonant(curves, formants, consonant, at, length, vowels[-1], level, singer, frames)
        at = first
        for name in reversed(note.onset):
            consonant = CONSONANTS[name]
            length = max(int(consonant.duration_s * max(squeeze, 0.7) / FRAME_S), 4)
            at = max(at - length, previous_end + 1, 1)
            _consonant(
                curves, formants, consonant, at, min(length, max(first - at, 3)), vowels[0], level, singer, frames
            )
        curves["pitch"][at : min(last + tail, frames)] = note.pitch
        curves["start"][first : min(last + tail, frames)] = (
            np.arange(first, min(last + tail, frames)) - first
        ) * FRAME_S
        curves["effort"][at:last] = note.velocity
        if note.phrase_start:
            _breathe_in(curves, formants, at, previous_end, singer, rng)
            curves["pitch"][at : at + 1] = note.pitch - singer.scoop * rng.random()
        previous_end = last
    for row in range(3):
        formants[row] = smooth(_without_gaps(formants[row], 500.0 * (2 * row + 1)), 7)
    curves["formants"] = formants
    for name, width in (("voiced", 5), ("breath", 5), ("noise", 3), ("nasal", 5), ("effort", 15)):
        curves[name] = smooth(curves[name], width)
    return curves


def _breathe_in(curves, formants, at: int, previous_end: int, singer: Singer, rng) -> None:
    """An audible breath before a phrase, when there is time for one."""
    inhale = int(0.25 / FRAME_S)
    if at - previous_end > inhale + 8 and rng.random() < 0.6:
        span = slice(at - inhale - 4, at - 4)
        swell = np.sin(np.pi * np.arange(inhale) / inhale) ** 2
        curves["breath"][span] += 2.2 * swell * rng.uniform(0.3, 1.0)
        formants[:, span] = np.array([[550], [1500], [2500]]) * singer.tract


def _without_gaps(curve: np.ndarray, otherwise: float) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(curve))
    if not len(known):
        return np.full(len(curve), otherwise)
    return np.interp(np.arange(len(curve)), known, curve[known])


def _vowel(curves, formants, first: int, last: int, vowels: np.ndarray, level: float) -> None:
    length = last - first
    place = np.linspace(0, 1, length)
    shape = level * (1.0 - 0.25 * place**3)  # a note swells off towards its end
    curves["voiced"][first:last] = shape
    if len(vowels) == 1:
        formants[:, first:last] = vowels[0][:, None]
    else:  # a diphthong stays on its first vowel and moves late
        move = np.clip((place - 0.6) / 0.3, 0, 1)[None]
        formants[:, first:last] = vowels[0][:, None] * (1 - move) + vowels[1][:, None] * move


def _consonant(
    curves, formants, consonant, at: int, length: int, vowel: np.ndarray, level: float, singer: Singer, frames: int
) -> int:
    end = min(at + length, frames - 1)
    if end <= at:
        return at
    for row, hz in enumerate(consonant.formants_hz):
        formants[row, at:end] = hz * singer.tract if hz else vowel[row]
    curves["voiced"][at:end] = consonant.voiced * level
    curves["nasal"][at:end] = 1.0 if consonant.nasal else 0.0
    noise_from = at
    if consonant.burst:  # closure, then a burst, then breath while the voice starts
        noise_from = at + int(0.55 * (end - at))
        curves["noise"][noise_from : min(noise_from + 3, end)] = consonant.noise
        curves["breath"][noise_from:end] += consonant.breath * 3.0
    else:
        curves["noise"][at:end] = consonant.noise
        curves["breath"][at:end] += consonant.breath * 3.0
    if consonant.noise:
        curves["low_hz"][max(at - 2, 0) : end + 2] = consonant.noise_hz[0]
        curves["high_hz"][max(at - 2, 0) : end + 2] = consonant.noise_hz[1]
    return end


_tables: dict[float, np.ndarray] = {}


def _resonances(bandwidth: float) -> np.ndarray:
    """Responses (G, B) of one resonance at every multiple of GRID_HZ, gain one at zero frequency."""
    if bandwidth not in _tables:
        centres = np.arange(1, int(4200 / GRID_HZ)) * GRID_HZ
        _tables[bandwidth] = np.stack([_resonance(hz, bandwidth * (45.0 + 0.045 * hz)) for hz in centres]).astype(
            np.complex64
        )
    return _tables[bandwidth]


def _resonance(centre_hz: float, width_hz: float) -> np.ndarray:
    s = 1j * BINS_HZ
    return (centre_hz**2 + (width_hz / 2) ** 2) / ((s + width_hz / 2) ** 2 + centre_hz**2)


def _formant_response(curves, singer: Singer, active: np.ndarray) -> np.ndarray:
    fixed = np.ones(len(BINS_HZ), dtype=np.complex128)
    for hz in singer.upper_hz:
        fixed *= _resonance(hz, singer.bandwidth * (80 + 0.06 * hz))
    table = _resonances(round(singer.bandwidth, 1))
    response = np.broadcast_to(fixed.astype(np.complex64), (len(active), len(BINS_HZ))).copy()
    for row in range(3):
        index = np.clip((curves["formants"][row][active] / GRID_HZ).round().astype(int) - 1, 0, len(table) - 1)
        response *= table[index]
    nasal = curves["nasal"][active].astype(np.float32)
    damped = (1.0 / (1.0 + (BINS_HZ / 900.0) ** 2)).astype(np.float32)
    response *= 1.0 - nasal[:, None] * (1.0 - damped[None])
    return response


def _glottal_response(f0_hz: np.ndarray, effort: np.ndarray, singer: Singer) -> np.ndarray:
    """Pulse and lip radiation: minus 6 dB per octave from the fundamental up, more above the tilt frequency."""
    tilt_hz = singer.tilt_hz * (0.4 + 0.8 * effort)
    slope = 1.0 / (1.0 + BINS_HZ[None] / f0_hz[:, None])
    soft = 1.0 / np.sqrt(1.0 + (BINS_HZ[None] / tilt_hz[:, None]) ** 2)
    return (0.05 * slope * soft).astype(np.float32)


def _breath_response() -> np.ndarray:
    return (bandpass(400, 14000, 1)(BINS_HZ) * 0.5)[None].astype(np.float32)


def _friction_response(curves, rows: np.ndarray) -> np.ndarray:
    pairs = np.stack([curves["low_hz"][rows], curves["high_hz"][rows]], axis=1)
    response = np.zeros((len(rows), len(BINS_HZ)), dtype=np.float32)
    for pair in np.unique(pairs, axis=0):
        if pair[1] > 0:
            response[np.all(pairs == pair, axis=1)] = bandpass(pair[0], pair[1], 3)(BINS_HZ)
    return response
