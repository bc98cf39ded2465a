"""Sing analysed syllables on a melody: the spectra of speech, the pitch and the length of song.

F frames of a song, Q cepstral coefficients, B = N_FFT // 2 + 1 bins.
"""

from __future__ import annotations

import numpy as np
from pedalboard import HighShelfFilter

from tsbs_daw.lab.songs.dsp import HOP, N_FFT, filter_frames, midi_hz
from tsbs_daw.lab.songs.mixing import process
from tsbs_daw.lab.songs.phonation import FRAME_S, pitch_curve, pulses, smooth
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.singer import Singer
from tsbs_daw.lab.songs.speech import ANALYSIS, Spoken, speak

LONGEST_CONSONANT_S = 0.16
SPOKEN_PITCH_HZ = 95.0


def recite(
    line: tuple[Sung, ...],
    speaker: str,
    tract: float,
    singer: Singer,
    score: Score,
    samples: int,
    rng: np.random.Generator,
    loose_s: float = 0.012,
) -> np.ndarray:
    """Sing a line with a speaker's syllables: (samples,) float32. `loose_s` is how far they stray from the beat."""
    text = _Text(samples // HOP + 2, speaker, tract)
    for note, following in zip(line, (*line[1:], None), strict=False):
        spoken = text.learn(note)
        start_s = score.seconds(note.beat) + float(rng.normal(0, loose_s))
        end_s = score.seconds(note.beat + note.beats)
        if following is not None:
            end_s = min(end_s, score.seconds(following.beat) - 0.05)
        text.say(note, spoken, int(start_s / FRAME_S), int(end_s / FRAME_S), singer.scoop, rng)
    active = np.flatnonzero(text.syllable >= 0)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    return _synthesise(text, active, singer, samples, rng)


class _Text:
    """What is said in each frame: (F,) each.

    syllable, moment: which one of `library`, -1 where none, and which of its frames
    level:            0..1
    pitch, since_s:   MIDI pitch as written, and the time since the note began; NaN where nothing is sung
    """

    def __init__(self, frames: int, speaker: str, tract: float):
        self.frames, self._speaker, self._tract = frames, speaker, tract
        self.syllable, self.moment, self.level = np.full(frames, -1), np.zeros(frames), np.zeros(frames)
        self.pitch, self.since_s = np.full((2, frames), np.nan)
        self.library: list[Spoken] = []
        self._known: dict[tuple, int] = {}
        self._end = 0

    def learn(self, note: Sung) -> int:
        """The number of a note's syllable in `library`, spoken once."""
        key = (note.onset, note.vowel, note.coda)
        if key not in self._known:
            self._known[key] = len(self.library)
            self.library.append(speak(self._speaker, key, self._tract))
        return self._known[key]

    def say(self, note: Sung, spoken: int, first: int, last: int, scoop: float, rng: np.random.Generator) -> None:
        """Lay a syllable on frames `first` to `last`, its first consonants before them; too short, it is left out."""
        if first < 4 or last >= self.frames - 40 or last - first < 8:
            return
        begin, moments = _moments(self.library[spoken], first, last, self._end + 1)
        end = self._end = begin + len(moments)
        self.syllable[begin:end], self.moment[begin:end] = spoken, moments
        self.level[begin:end] = note.velocity * (0.8 + 0.2 * rng.random())
        self.level[[begin, end - 1]] *= 0.3
        self.pitch[begin:end] = note.pitch
        self.since_s[first:end] = np.arange(end - first) * FRAME_S
        if note.phrase_start:
            self.pitch[begin : begin + 2] = note.pitch - scoop * rng.random()

    def spectra(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cepstra of the active frames, (active, Q) float32, and how voiced every frame is, (F,)."""
        cepstra = np.zeros((len(active), max(spoken.cepstra.shape[1] for spoken in self.library)), dtype=np.float32)
        voiced = np.zeros(self.frames)
        for number, spoken in enumerate(self.library):
            mine = np.flatnonzero(self.syllable[active] == number)
            last = len(spoken.voiced) - 1
            moment = np.clip(self.moment[active[mine]], 0, last)
            low = np.minimum(moment.astype(int), max(last - 1, 0))
            share = (moment - low)[:, None].astype(np.float32)
            between = spoken.cepstra[low] * (1 - share) + spoken.cepstra[np.minimum(low + 1, last)] * share
            cepstra[mine, : spoken.cepstra.shape[1]] = between
            voiced[active[mine]] = np.interp(moment, np.arange(last + 1), spoken.voiced)
        return cepstra, voiced


def _moments(spoken: Spoken, first: int, last: int, earliest: int) -> tuple[int, np.ndarray]:
    """Frame where the syllable begins, and for each of its frames the moment of the spoken syllable to use.

    Consonants keep their length as far as there is room; the vowel's core is stretched or cut to the note.
    """
    core_first, core_last = spoken.core
    longest = int(LONGEST_CONSONANT_S / FRAME_S)
    before = min(core_first, longest, max(first - earliest, 0))
    after_all = len(spoken.voiced) - 1 - core_last
    after = min(after_all, longest, max((last - first) // 2, 1))
    begin = first - before
    onset = np.linspace(core_first - min(core_first, max(longest, before)), core_first, before, endpoint=False)
    held = last - first - after
    shape = np.linspace(0, 1, max(held, 2))
    vowel = core_first + (core_last - core_first) * (0.6 * shape + 0.4 * shape**3)
    coda = np.linspace(core_last, core_last + min(after_all, longest), after)
    return begin, np.concatenate([onset, vowel, coda])


def _synthesise(text: _Text, active: np.ndarray, singer: Singer, samples: int, rng: np.random.Generator) -> np.ndarray:
    cepstra, voiced = text.spectra(active)
    level = smooth(text.level, 3)
    f0_hz = midi_hz(pitch_curve(text.pitch, text.since_s, singer, rng))
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(text.frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(text.frames)
    tone = level * np.sqrt(voiced) * np.sqrt(f0_hz / SPOKEN_PITCH_HZ) * shimmer
    hiss = level * np.sqrt(0.3 * singer.friction * np.clip(1.0 - voiced, 0, 1) + singer.breath * 0.05 * voiced)
    # In the analysis window a harmonic of amplitude A shows as A * ANALYSIS / 4,
    # noise as its RMS times sqrt(3 / 8 ANALYSIS).
    source = pulses(per_sample(f0_hz)) * per_sample(tone * 2.0 / ANALYSIS)
    source = process(source[None], [HighShelfFilter(2200.0, singer.brilliance_db, 0.5)])[0]
    source += rng.standard_normal(samples).astype(np.float32) * per_sample(hiss / np.sqrt(0.375 * ANALYSIS))
    return filter_frames(source, _Responses(cepstra), active)


class _Responses:
    """Minimum-phase responses from cepstra, made block by block as `filter_frames` asks for them.

    The cepstrum of a minimum-phase response is zero before time zero; folding the even cepstrum of a magnitude onto
    its positive side gives the response that has this magnitude and rings only forwards.
    """

    def __init__(self, cepstra: np.ndarray):
        self._cepstra = cepstra

    def __getitem__(self, rows) -> np.ndarray:
        folded = self._cepstra[rows].copy()
        folded[:, 1:] *= 2.0
        return np.exp(np.fft.rfft(folded, n=N_FFT, axis=1)).astype(np.complex64)
