"""How a line of syllables moves a voice: curves on a grid of frames (HOP samples each), consonants before the beat and
the vowel on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsbs_daw.lab.songs.phonation import FRAME_S, smooth
from tsbs_daw.lab.songs.phonemes import CONSONANTS, VOWEL_HZ, Consonant
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.singer import Singer

_SHORTEST = 6  # frames of a syllable; what is shorter is left out
_SMOOTHED = {"voiced": 5, "breath": 5, "noise": 3, "nasal": 5, "effort": 15}  # over so many frames


class Articulation:
    """The curves of one line, (frames,) each.

    voiced, breath, noise: levels of what sounds: the glottis, air through it, a consonant's friction
    low_hz, high_hz:       between which the friction lies; 0 where there was none yet
    nasal:                 1 while the nose is open
    effort:                how hard the voice is pressed
    pitch, since_s:        MIDI pitch as written, and the time since the note began; NaN where nothing is sung
    formants_hz:           (3, frames)

    Args: tract: the singer's, which scales formants
    """

    def __init__(self, frames: int, tract: float):
        self.frames, self._tract = frames, tract
        self.voiced, self.breath, self.noise = np.zeros((3, frames))
        self.low_hz, self.high_hz, self.nasal = np.zeros((3, frames))
        self.effort = np.ones(frames)
        self.pitch, self.since_s = np.full((2, frames), np.nan)
        self.formants_hz = np.full((3, frames), np.nan)

    def syllable(self, note: Sung, first: int, last: int, after: int, level: float) -> int:
        """Lay a syllable on the grid: its vowel begins at `first`, its last consonant ends at about `last`.

        Args:    after: the frame in which the syllable before it ends
        Returns: the frame in which its first consonant begins
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
        """Args: vowel_hz: (1, 3), or (2, 3) for a diphthong"""
        place = np.linspace(0, 1, last - first)
        self.voiced[first:last] = level * (1.0 - 0.25 * place**3)  # a note swells off towards its end
        if len(vowel_hz) == 1:
            self.formants_hz[:, first:last] = vowel_hz[0][:, None]
        else:  # a diphthong stays on its first vowel and moves late
            move = np.clip((place - 0.6) / 0.3, 0, 1)[None]
            self.formants_hz[:, first:last] = vowel_hz[0][:, None] * (1 - move) + vowel_hz[1][:, None] * move

    def _consonant(self, consonant: Consonant, first: int, length: int, vowel_hz: np.ndarray, level: float) -> int:
        """Returns: the frame after it. Args: vowel_hz: (3,) of the vowel beside it, where it has no formants itself"""
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
