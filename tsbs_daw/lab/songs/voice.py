"""A singer, and a sung voice from arithmetic: a glottal pulse train and noise through moving formants.

What every sung voice needs, whatever shapes its vowels, comes first: a singer, a pitch curve and the pulses. A line of
syllables then becomes curves of pitch, voicing, breath, friction and formants on a grid of frames (HOP samples each),
with consonants before the beat and the vowel on it. A band-limited pulse train at the pitch curve and white noise pass
a time-varying filter. G formants of the grid, B = N_FFT // 2 + 1 bins.

Formants of vowels are averages of a male tract in Hz (a textbook table); the length of the tract scales them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tsbs_daw.lab.songs.dsp import HOP, N_FFT, SAMPLE_RATE, bandpass, curve_phase, filter_frames, midi_hz
from tsbs_daw.lab.songs.score import Score, Sung


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
    """Draw a singer. `voice` is "soprano" to "bass"; `kind` is "sung", or "rap" without vibrato."""
    base = {"soprano": 1.2, "alto": 1.15, "tenor": 1.03, "baritone": 0.98, "bass": 0.93}[voice]
    tract = float(base * rng.uniform(0.95, 1.05))
    upper = tuple(float(hz * tract * rng.uniform(0.95, 1.05)) for hz in (3400, 4300, 5400, 6500, 7600, 8800, 10200))
    rap = kind == "rap"
    return Singer(
        tract=tract,
        upper_hz=upper,
        tilt_hz=float(np.exp(rng.uniform(np.log(1500), np.log(7000)))),
        breath=float(np.exp(rng.uniform(np.log(0.015), np.log(0.14)))),
        vibrato_hz=float(rng.uniform(4.6, 6.6)),
        vibrato_cents=0.0 if rap else float(rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(10, 60)),
        vibrato_after_s=float(rng.uniform(0.15, 0.5)),
        glide_s=float(rng.uniform(0.02, 0.09)),
        scoop=float(rng.uniform(0.0, 2.0)),
        jitter_cents=float(rng.uniform(4, 14)),
        drift_cents=float(rng.uniform(4, 18)),
        friction=float(rng.uniform(0.5, 1.3)),
        bandwidth=float(rng.uniform(0.8, 1.5)),
        brilliance_db=float(rng.uniform(0.0, 14.0)),
    )


FRAME_S = HOP / SAMPLE_RATE


def smooth(curve: np.ndarray, width: int) -> np.ndarray:
    """A curve of the same length, averaged over `width` frames (odd) with a raised cosine."""
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(curve, width // 2, mode="edge"), kernel / kernel.sum(), mode="valid")[: len(curve)]


def pitch_curve(notes: np.ndarray, since_s: np.ndarray, singer, rng: np.random.Generator) -> np.ndarray:
    """Compute the MIDI pitch per frame: portamento between notes, growing vibrato on long ones, drift and jitter.

    Args:
        notes: Written pitch; NaN where nothing is sung.
        since_s: Time since the note began.
        singer: Any object with the fields glide_s, vibrato_*, drift_cents and jitter_cents.
        rng: Random numbers.

    Shape:
        notes, since_s, result: (frames,)
    """
    frames = len(notes)
    known = np.flatnonzero(~np.isnan(notes))
    latest = np.maximum.accumulate(np.where(np.isnan(notes), 0, np.arange(frames)))
    pitch = smooth(notes[np.maximum(latest, known[0])], max(int(singer.glide_s * 2 / FRAME_S) | 1, 3))
    depth = singer.vibrato_cents * np.clip((np.nan_to_num(since_s) - singer.vibrato_after_s) / 0.35, 0.0, 1.0)
    rate_hz = singer.vibrato_hz * (1.0 + 0.24 * smooth(rng.standard_normal(frames), 41))
    vibrato = smooth(depth, 9) * np.sin(2 * np.pi * np.cumsum(rate_hz) * FRAME_S + rng.uniform(0, 6))
    drift = singer.drift_cents * 5 * smooth(rng.standard_normal(frames), 61)
    jitter = singer.jitter_cents * rng.standard_normal(frames)
    return pitch + (vibrato + drift + jitter) / 100.0


def pulses(f0_hz: np.ndarray) -> np.ndarray:
    """Band-limited pulses at a pitch curve (samples,): all harmonics up to 18 kHz, of amplitude two.

    sum over |k| <= K of exp(2 pi i k x) = sin(pi (2K + 1) x) / sin(pi x); the constant term is taken off.
    """
    phase = curve_phase(f0_hz.astype(np.float64)) % 1.0
    count = 2 * np.floor(18000.0 / f0_hz) + 1
    below = np.sin(np.pi * phase)
    near = np.abs(below) < 1e-4
    ratio = np.sin(np.pi * count * phase) / np.where(near, 1.0, below)
    return np.where(near, count, ratio).astype(np.float32) - 1.0


VOWEL_HZ = {
    "ah": (730, 1150, 2500),
    "ae": (680, 1700, 2450),
    "eh": (550, 1800, 2500),
    "ee": (290, 2250, 3000),
    "ih": (400, 1950, 2550),
    "oh": (470, 880, 2450),
    "oo": (320, 850, 2300),
    "uh": (600, 1180, 2450),
    "aw": (600, 900, 2450),
    "er": (480, 1330, 1700),
}


@dataclass(frozen=True)
class Consonant:
    """Levels are 0..1; a formant of 0 means that of the vowel."""

    duration_s: float
    voiced: float
    formants_hz: tuple[float, float, float] = (0, 0, 0)
    breath: float = 0.0
    noise: float = 0.0
    noise_hz: tuple[float, float] = (0, 0)  # band
    burst: bool = False  # silence first, then the noise as a short burst
    nasal: bool = False


CONSONANTS = {
    "s": Consonant(0.11, 0.0, noise=0.55, noise_hz=(4800, 10500)),
    "z": Consonant(0.08, 0.35, noise=0.3, noise_hz=(4800, 10000)),
    "sh": Consonant(0.11, 0.0, noise=0.6, noise_hz=(2200, 6500)),
    "f": Consonant(0.09, 0.0, noise=0.16, noise_hz=(1500, 12000)),
    "v": Consonant(0.06, 0.4, (300, 1100, 2300), noise=0.07, noise_hz=(1500, 10000)),
    "th": Consonant(0.09, 0.0, noise=0.12, noise_hz=(3500, 12000)),
    "dh": Consonant(0.05, 0.4, (300, 1400, 2500), noise=0.05, noise_hz=(3000, 10000)),
    "h": Consonant(0.07, 0.0, breath=0.6),
    "p": Consonant(0.085, 0.0, (300, 800, 2200), noise=0.4, noise_hz=(400, 2500), burst=True, breath=0.35),
    "t": Consonant(0.085, 0.0, (320, 1750, 2700), noise=0.6, noise_hz=(3200, 9500), burst=True, breath=0.3),
    "k": Consonant(0.095, 0.0, (300, 1900, 2400), noise=0.5, noise_hz=(1400, 4200), burst=True, breath=0.35),
    "b": Consonant(0.06, 0.12, (250, 800, 2200), noise=0.25, noise_hz=(300, 2000), burst=True),
    "d": Consonant(0.06, 0.12, (280, 1750, 2700), noise=0.35, noise_hz=(2800, 8000), burst=True),
    "g": Consonant(0.065, 0.12, (260, 1900, 2400), noise=0.3, noise_hz=(1300, 4000), burst=True),
    "ch": Consonant(0.12, 0.0, (300, 1900, 2700), noise=0.6, noise_hz=(2300, 7000), burst=True, breath=0.1),
    "j": Consonant(0.09, 0.15, (300, 1900, 2700), noise=0.35, noise_hz=(2300, 6500), burst=True),
    "m": Consonant(0.075, 0.55, (250, 1000, 2200), nasal=True),
    "n": Consonant(0.07, 0.55, (250, 1500, 2500), nasal=True),
    "ng": Consonant(0.08, 0.5, (260, 2000, 2600), nasal=True),
    "l": Consonant(0.06, 0.65, (340, 1050, 2700)),
    "r": Consonant(0.065, 0.7, (340, 1150, 1600)),
    "w": Consonant(0.065, 0.65, (300, 680, 2200)),
    "y": Consonant(0.06, 0.65, (280, 2200, 2950)),
}


_SHORTEST = 6  # frames; shorter syllables are omitted
_SMOOTHED = {"voiced": 5, "breath": 5, "noise": 3, "nasal": 5, "effort": 15}  # width of smoothing, in frames


class Articulation:
    """The control curves of one line.

    Attributes:
        voiced, breath, noise: Levels of the glottis, of air through it, and of a consonant's friction.
        low_hz, high_hz: Band of the friction; 0 before the first.
        nasal: 1 while the nose is open.
        effort: How hard the voice is pressed.
        pitch, since_s: Written MIDI pitch, and time since the note began; NaN where nothing is sung.
        formants_hz: Formant frequencies.

    Args:
        frames: Length of the curves.
        tract: Factor of the singer for formants.

    Shape:
        formants_hz: (3, frames)
        others: (frames,)
    """

    def __init__(self, frames: int, tract: float):
        self.frames, self._tract = frames, tract
        self.voiced, self.breath, self.noise = np.zeros((3, frames))
        self.low_hz, self.high_hz, self.nasal = np.zeros((3, frames))
        self.effort = np.ones(frames)
        self.pitch, self.since_s = np.full((2, frames), np.nan)
        self.formants_hz = np.full((3, frames), np.nan)

    def syllable(self, note: Sung, first: int, last: int, after: int, level: float) -> int:
        """Place a syllable: its vowel begins at frame `first`, its last consonant ends at about `last`.

        Returns the first frame of its first consonant, which is not before `after`, the end of the previous syllable.
        """
        vowel_hz = np.array([VOWEL_HZ[name] for name in note.vowel], dtype=float) * self._tract
        squeeze = min(1.0, (last - first) * FRAME_S / 0.2)  # short syllables have short consonants
        coda = [(CONSONANTS[name], _frames_of(CONSONANTS[name], squeeze)) for name in note.coda]
        tail = sum(length for _, length in coda)
        at = max(last - tail, first + 5)
        self._vowel(first, at, vowel_hz, level)
        for consonant, length in coda:
            at = self._consonant(consonant, at, length, vowel_hz[-1], level)
        begin = first
        for name in reversed(note.onset):
            length = _frames_of(CONSONANTS[name], max(squeeze, 0.7))
            begin = max(begin - length, after + 1, 1)
            self._consonant(CONSONANTS[name], begin, min(length, max(first - begin, 3)), vowel_hz[0], level)
        end = min(last + tail, self.frames)
        self.pitch[begin:end] = note.pitch
        self.since_s[first:end] = np.arange(end - first) * FRAME_S
        self.effort[begin:last] = note.velocity
        return begin

    def breathe_in(self, before: int, after: int, rng: np.random.Generator) -> None:
        """An audible breath before a phrase, when there is time for one."""
        inhale = int(0.25 / FRAME_S)
        if before - after > inhale + 8 and rng.random() < 0.6:
            span = slice(before - inhale - 4, before - 4)
            swell = np.sin(np.pi * np.arange(inhale) / inhale) ** 2
            self.breath[span] += 2.2 * swell * rng.uniform(0.3, 1.0)
            self.formants_hz[:, span] = np.array([[550], [1500], [2500]]) * self._tract

    def settle(self) -> None:
        """Let everything move as flesh does: from sound to sound, not in steps."""
        for row in range(3):
            self.formants_hz[row] = smooth(_without_gaps(self.formants_hz[row], 500.0 * (2 * row + 1)), 7)
        for name, width in _SMOOTHED.items():
            setattr(self, name, smooth(getattr(self, name), width))

    def _vowel(self, first: int, last: int, vowel_hz: np.ndarray, level: float) -> None:
        """Place a vowel. `vowel_hz` has its formants: (1, 3), or (2, 3) for a diphthong."""
        place = np.linspace(0, 1, last - first)
        self.voiced[first:last] = level * (1.0 - 0.25 * place**3)  # a note swells off towards its end
        if len(vowel_hz) == 1:
            self.formants_hz[:, first:last] = vowel_hz[0][:, None]
        else:  # a diphthong stays on its first vowel and moves late
            move = np.clip((place - 0.6) / 0.3, 0, 1)[None]
            self.formants_hz[:, first:last] = vowel_hz[0][:, None] * (1 - move) + vowel_hz[1][:, None] * move

    def _consonant(self, consonant: Consonant, first: int, length: int, vowel_hz: np.ndarray, level: float) -> int:
        """Place a consonant and return the next frame. `vowel_hz`, (3,), replaces missing formants of the consonant."""
        end = min(first + length, self.frames - 1)
        if end <= first:
            return first
        for row, hz in enumerate(consonant.formants_hz):
            self.formants_hz[row, first:end] = hz * self._tract if hz else vowel_hz[row]
        self.voiced[first:end] = consonant.voiced * level
        self.nasal[first:end] = 1.0 if consonant.nasal else 0.0
        noise_from, noise_to = first, end
        if consonant.burst:  # closure, then a burst, then breath while the voice starts
            noise_from = first + int(0.55 * (end - first))
            noise_to = min(noise_from + 3, end)
        self.noise[noise_from:noise_to] = consonant.noise
        self.breath[noise_from:end] += consonant.breath * 3.0
        if consonant.noise:
            around = slice(max(first - 2, 0), end + 2)
            self.low_hz[around], self.high_hz[around] = consonant.noise_hz
        return end


def articulate(
    line: Sequence[Sung], singer: Singer, score: Score, frames: int, rng: np.random.Generator, loose_s: float
) -> Articulation:
    """The curves of a line. loose_s: how far syllables stray from the beat"""
    curves, previous = Articulation(frames, singer.tract), 0
    for note, following in zip(line, (*line[1:], None), strict=False):
        first, last = _span(note, following, score, float(rng.normal(0, loose_s)))
        if first < 3 or last >= frames - 2 or last - first < _SHORTEST:
            continue
        begin = curves.syllable(note, first, last, previous, note.velocity * (0.75 + 0.25 * rng.random()))
        if note.phrase_start:
            curves.breathe_in(begin, previous, rng)
            curves.pitch[begin : begin + 1] = note.pitch - singer.scoop * rng.random()
        previous = last
    curves.settle()
    return curves


def _span(note: Sung, following: Sung | None, score: Score, late_s: float) -> tuple[int, int]:
    """(first, last) frame of a syllable without its first consonants; it leaves time for those of the next."""
    start_s, end_s = score.seconds(note.beat) + late_s, score.seconds(note.beat + note.beats)
    if following is not None:
        lead_s = sum(CONSONANTS[name].duration_s for name in following.onset)
        end_s = min(end_s, max(score.seconds(following.beat) - lead_s, start_s + 0.06))
    return int(start_s / FRAME_S), int(end_s / FRAME_S)


def _frames_of(consonant: Consonant, squeeze: float) -> int:
    return max(int(consonant.duration_s * squeeze / FRAME_S), 4)


def _without_gaps(curve: np.ndarray, otherwise: float) -> np.ndarray:
    """NaN filled from both sides; a curve of nothing else is `otherwise`."""
    known = np.flatnonzero(~np.isnan(curve))
    if not len(known):
        return np.full(len(curve), otherwise)
    return np.interp(np.arange(len(curve)), known, curve[known])


BINS_HZ = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
GRID_HZ = 20.0  # formants are rounded to this, so that their responses can be looked up
_AUDIBLE = 1e-4


def sing(
    line: tuple[Sung, ...], singer: Singer, score: Score, samples: int, rng: np.random.Generator, loose_s: float = 0.012
) -> np.ndarray:
    """Sing a line: (samples,) float32. `loose_s` is how far syllables stray from the beat."""
    frames = samples // HOP + 2
    curves = articulate(line, singer, score, frames, rng, loose_s)
    active = np.flatnonzero(curves.voiced + curves.breath + curves.noise > _AUDIBLE)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    f0_hz = midi_hz(pitch_curve(curves.pitch, curves.since_s, singer, rng))
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(frames)
    source = pulses(per_sample(f0_hz)) * per_sample(curves.voiced * shimmer)
    # Breath is strongest while the glottis is open: the noise pulses with the voice.
    white = rng.standard_normal(samples).astype(np.float32)
    breath = white * per_sample(curves.breath + singer.breath * curves.voiced)
    tract = _formant_response(curves, singer, active)
    glottis = _glottal_response(f0_hz[active], curves.effort[active], singer)
    voice = filter_frames(source, tract * glottis, active)
    voice += 0.02 * filter_frames(breath, tract * _breath_response(), active)
    noisy = np.flatnonzero(curves.noise > _AUDIBLE)
    if len(noisy):
        friction = white[::-1] * per_sample(curves.noise * singer.friction)
        voice += 0.09 * filter_frames(friction, _friction_response(curves, noisy), noisy)
    return voice


@cache
def _resonances(bandwidth: float) -> np.ndarray:
    """Responses (G, B) of one resonance at every multiple of GRID_HZ, gain one at zero frequency."""
    centres_hz = np.arange(1, int(4200 / GRID_HZ)) * GRID_HZ
    return np.stack([_resonance(hz, bandwidth * (45.0 + 0.045 * hz)) for hz in centres_hz]).astype(np.complex64)


def _resonance(centre_hz: float, width_hz: float) -> np.ndarray:
    s = 1j * BINS_HZ
    return (centre_hz**2 + (width_hz / 2) ** 2) / ((s + width_hz / 2) ** 2 + centre_hz**2)


def _formant_response(curves: Articulation, singer: Singer, active: np.ndarray) -> np.ndarray:
    """(active frames, B), complex: three moving formants, the fixed ones above, and the nose."""
    fixed = np.ones(len(BINS_HZ), dtype=np.complex128)
    for hz in singer.upper_hz:
        fixed *= _resonance(hz, singer.bandwidth * (80 + 0.06 * hz))
    table = _resonances(round(singer.bandwidth, 1))
    response = np.broadcast_to(fixed.astype(np.complex64), (len(active), len(BINS_HZ))).copy()
    for row in range(3):
        index = np.clip((curves.formants_hz[row][active] / GRID_HZ).round().astype(int) - 1, 0, len(table) - 1)
        response *= table[index]
    nasal = curves.nasal[active].astype(np.float32)
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


def _friction_response(curves: Articulation, noisy: np.ndarray) -> np.ndarray:
    """(noisy frames, B): the band of each frame's consonant."""
    pairs = np.stack([curves.low_hz[noisy], curves.high_hz[noisy]], axis=1)
    response = np.zeros((len(noisy), len(BINS_HZ)), dtype=np.float32)
    for pair in np.unique(pairs, axis=0):
        if pair[1] > 0:
            response[np.all(pairs == pair, axis=1)] = bandpass(pair[0], pair[1], 3)(BINS_HZ)
    return response
