"""Sing analysed syllables on a melody: the spectra of speech, the pitch and the length of song.

F frames of a song, Q cepstral coefficients, B = N_FFT // 2 + 1 bins.
"""

from __future__ import annotations

import numpy as np
from pedalboard import HighShelfFilter

from tsbs_daw.songs.dsp import HOP, N_FFT, filter_frames, midi_hz
from tsbs_daw.songs.mixing import process
from tsbs_daw.songs.phonation import FRAME_S, pitch_curve, pulses, smooth
from tsbs_daw.songs.score import Score, Sung
from tsbs_daw.songs.singer import Singer
from tsbs_daw.songs.speech import ANALYSIS, Spoken, speak

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
    """Sing a line with a speaker's syllables: (samples,) float32."""
    frames = samples // HOP + 2
    place = np.full(frames, -1, dtype=int)  # which syllable sounds in a frame
    at = np.zeros(frames)  # and which moment of it
    level, notes, since_s = np.zeros(frames), np.full(frames, np.nan), np.full(frames, np.nan)
    spoken: dict[tuple, int] = {}
    library: list[Spoken] = []
    previous = 0
    for index, note in enumerate(line):
        key = (note.onset, note.vowel, note.coda)
        if key not in spoken:
            spoken[key] = len(library)
            library.append(speak(speaker, key, tract))
        start_s = score.seconds(note.beat) + float(rng.normal(0, loose_s))
        end_s = score.seconds(note.beat + note.beats)
        if index + 1 < len(line):
            end_s = min(end_s, score.seconds(line[index + 1].beat) - 0.05)
        first, last = int(start_s / FRAME_S), int(end_s / FRAME_S)
        if first < 4 or last >= frames - 40 or last - first < 8:
            continue
        begin, moments = _moments(library[spoken[key]], first, last, previous + 1)
        span = slice(begin, begin + len(moments))
        place[span], at[span] = spoken[key], moments
        level[span] = note.velocity * (0.8 + 0.2 * rng.random())
        level[begin], level[span.stop - 1] = 0.3 * level[begin], 0.3 * level[span.stop - 1]
        notes[span] = note.pitch
        since_s[first : span.stop] = (np.arange(first, span.stop) - first) * FRAME_S
        if note.phrase_start:
            notes[begin : begin + 2] = note.pitch - singer.scoop * rng.random()
        previous = span.stop
    active = np.flatnonzero(place >= 0)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    return _synthesise(place, at, smooth(level, 3), notes, since_s, library, active, singer, samples, rng)


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


def _synthesise(place, at, level, notes, since_s, library, active, singer: Singer, samples: int, rng) -> np.ndarray:
    frames = len(place)
    quefrencies = max(spoken.cepstra.shape[1] for spoken in library)
    cepstra = np.zeros((len(active), quefrencies), dtype=np.float32)
    voiced = np.zeros(frames)
    for number, spoken in enumerate(library):
        mine = np.flatnonzero(place[active] == number)
        if not len(mine):
            continue
        moment = np.clip(at[active[mine]], 0, len(spoken.voiced) - 1)
        low = (
            np.minimum(moment.astype(int), len(spoken.voiced) - 2)
            if len(spoken.voiced) > 1
            else np.zeros(len(mine), int)
        )
        share = (moment - low)[:, None].astype(np.float32)
        width = spoken.cepstra.shape[1]
        high = np.minimum(low + 1, len(spoken.voiced) - 1)
        cepstra[mine, :width] = spoken.cepstra[low] * (1 - share) + spoken.cepstra[high] * share
        voiced[active[mine]] = np.interp(moment, np.arange(len(spoken.voiced)), spoken.voiced)
    f0_hz = midi_hz(pitch_curve(notes, since_s, singer, rng))
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(frames)
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
