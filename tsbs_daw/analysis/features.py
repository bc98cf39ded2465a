"""What of a sound the analysis works on: attacks, pitches and levels over time, gathered block by block.

All of it is small, at most 5 kB for a second of sound, so two hours fit. The result does not depend on how the sound is
cut into blocks. A row's frame f stands at f * hop / rate seconds.

F frames. Sound is (channels, samples), float32. Powers are means over the channels, so nothing cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RATE_HZ = 22_050  # attacks and pitches need nothing above 11 kHz
ATTACK_HOP, ATTACK_FFT = 256, 1024
PITCH_HOP, PITCH_FFT = 2048, 8192
ATTACK_S, PITCH_S = ATTACK_HOP / RATE_HZ, PITCH_HOP / RATE_HZ
LEVEL_S = 0.01

BANDS = ("full", "low", "mid", "high")
MELS = 48
EDGES_HZ = (180.0, 3000.0)  # low: kick and bass; mid: snare, voices, chords; high: hats
FLOOR_DB = -65.0  # of a mel band, below full scale: what is quieter makes no attack
LAG = 2  # frames over which an attack rises

PITCH_STEPS = 36  # of an octave, three for a semitone, to find out how a song is tuned
PITCH_LOWEST_HZ = 27.5
PITCH_OCTAVES = 6
PITCH_RANGES_HZ = ((55.0, 1600.0), (27.5, 250.0))  # of all that has a pitch, and of the lowest notes
PITCH_THRESHOLD = 0.15  # of a frame's loudest partial; weaker ones are overtones and noise
# A partial is an overtone as far as there is one so many times lower: at a third of its frequency, a fifth, a seventh.
# Even ones need no care, they have their note's name or that of the third and the fifth.
OVERTONES = {3: 0.6, 5: 0.4, 7: 0.4}


@dataclass(frozen=True)
class Features:
    """attacks: (4, F) mean rise in dB over the bands of BANDS, ATTACK_S apart
    pitches: (36, F) how strong each third of a semitone is, from A upwards, PITCH_S apart
    low_pitches: (36, F) the same of notes below 250 Hz; either has no frames where it was not asked for
    levels:  (F,) mean square, level_s apart; the last frame may hold fewer samples
    """

    attacks: np.ndarray
    pitches: np.ndarray
    low_pitches: np.ndarray
    levels: np.ndarray
    level_s: float
    duration_s: float

    def attack(self, band: str) -> np.ndarray:
        return self.attacks[BANDS.index(band)]


class AttackStream:
    """Attacks of a sound at RATE_HZ."""

    def __init__(self, channels: int):
        self._frames = _Frames(channels, ATTACK_FFT, ATTACK_HOP)
        self._before = np.full((MELS, LAG), FLOOR_DB, np.float32)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """(4, F) of the frames that are complete now."""
        from librosa.onset import onset_strength_multi

        found = [np.zeros((len(BANDS), 0), np.float32)]
        filters, slices = _mel_filters()
        for power in self._frames.take(block, last):
            level = 10 * np.log10(np.maximum(filters @ power, 10 ** (FLOOR_DB / 10)))
            level = np.concatenate((self._before, level.astype(np.float32)), axis=1)
            self._before = level[:, -LAG:]
            rise = onset_strength_multi(S=level, lag=LAG, center=False, channels=slices)
            found.append(rise[:, LAG:].astype(np.float32))
        return np.concatenate(found, axis=1)


class PitchStream:
    """Pitches of a sound at RATE_HZ."""

    def __init__(self, channels: int):
        self._frames = _Frames(channels, PITCH_FFT, PITCH_HOP)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """(2, 36, F) of the frames that are complete now: of PITCH_RANGES_HZ."""
        found = [np.zeros((len(PITCH_RANGES_HZ), PITCH_STEPS, 0), np.float32)]
        for power in self._frames.take(block, last):
            partials = _partials(power)
            found.append(np.stack([_pitch_classes(partials, *edges_hz) for edges_hz in PITCH_RANGES_HZ]))
        return np.concatenate(found, axis=2)


class LevelStream:
    """Mean squares of a sound at any rate."""

    def __init__(self, sample_rate: int):
        self.frame_samples = max(round(LEVEL_S * sample_rate), 1)
        self._rest = np.zeros(0, np.float32)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """(F,) of the frames that are complete now."""
        square = np.concatenate((self._rest, np.square(block, dtype=np.float32).mean(axis=0)))
        whole = len(square) // self.frame_samples * self.frame_samples
        levels = square[:whole].reshape(-1, self.frame_samples).mean(axis=1)
        self._rest = square[whole:]
        if last and len(self._rest):
            levels = np.append(levels, self._rest.mean())
        return levels.astype(np.float32)


class _Frames:
    """Cut a stream into overlapping frames whose middles stand at 0, hop, 2 hop ..., and take their power spectra."""

    def __init__(self, channels: int, n_fft: int, hop: int):
        self.n_fft, self.hop = n_fft, hop
        self._rest = np.zeros((channels, n_fft // 2), np.float32)

    def take(self, block: np.ndarray, last: bool) -> Iterator[np.ndarray]:
        """Power spectra, (bins, F): 1 is a sine of full scale."""
        from librosa.core.spectrum import stft

        tail = [np.zeros((len(block), self.n_fft // 2), np.float32)] if last else []
        sound = np.concatenate((self._rest, block, *tail), axis=1)
        frames = (sound.shape[1] - self.n_fft) // self.hop + 1
        if frames < 1:
            self._rest = sound
            return
        self._rest = sound[:, frames * self.hop :]
        used = np.ascontiguousarray(sound[:, : (frames - 1) * self.hop + self.n_fft])
        spectra = stft(used, n_fft=self.n_fft, hop_length=self.hop, center=False)
        yield np.square(np.abs(spectra) / (self.n_fft / 4)).mean(axis=0)


@lru_cache(maxsize=1)
def _mel_filters() -> tuple[np.ndarray, list[slice]]:
    """The filter bank, (MELS, bins), and which of its rows belong to each of BANDS."""
    from librosa import filters, mel_frequencies

    bank = filters.mel(sr=RATE_HZ, n_fft=ATTACK_FFT, n_mels=MELS, fmin=30.0, norm=None)
    centres = mel_frequencies(n_mels=MELS + 2, fmin=30.0, fmax=RATE_HZ / 2)[1:-1]
    low, high = np.searchsorted(centres, EDGES_HZ)
    return bank, [slice(0, MELS), slice(0, low), slice(low, high), slice(high, MELS)]


def _partials(power: np.ndarray) -> np.ndarray:
    """Amplitudes of partials by pitch: (bins, F) -> (thirds of a semitone from PITCH_LOWEST_HZ on, F)."""
    from librosa.core.pitch import piptrack

    highest_hz = max(high_hz for _, high_hz in PITCH_RANGES_HZ)
    rows, frames = PITCH_OCTAVES * PITCH_STEPS, power.shape[1]
    partial_hz, amplitude = piptrack(
        S=np.sqrt(power), sr=RATE_HZ, n_fft=PITCH_FFT, fmin=PITCH_LOWEST_HZ, fmax=highest_hz, threshold=0.0
    )
    partial_hz = partial_hz[: int(np.ceil(highest_hz * PITCH_FFT / RATE_HZ)) + 2]
    bins, at = np.nonzero(partial_hz >= PITCH_LOWEST_HZ)
    steps = np.round(np.log2(partial_hz[bins, at] / PITCH_LOWEST_HZ) * PITCH_STEPS).astype(np.int64)
    kept = steps < rows
    found = np.bincount((at * rows + steps)[kept], weights=amplitude[bins, at][kept], minlength=frames * rows)
    return found.astype(np.float64).reshape(frames, rows).T  # of nothing, bincount counts in integers


def _pitch_classes(partials: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Partials of a range without what is an overtone, each by the root of its amplitude: (36, F) by pitch class."""
    first, last = (round(np.log2(edge / PITCH_LOWEST_HZ) * PITCH_STEPS) for edge in (low_hz, high_hz))
    kept = partials * (partials >= PITCH_THRESHOLD * partials[first:last].max(axis=0))
    near = np.maximum(kept, np.maximum(np.roll(kept, 1, axis=0), np.roll(kept, -1, axis=0)))
    notes = kept.copy()
    for times, share in OVERTONES.items():
        above = round(np.log2(times) * PITCH_STEPS)
        notes[above:] -= share * near[:-above]
    notes[:first], notes[last:] = 0, 0
    return np.sqrt(np.maximum(notes, 0)).reshape(PITCH_OCTAVES, PITCH_STEPS, -1).sum(axis=0).astype(np.float32)


THIRDS = PITCH_STEPS // 12


def fold(pitches: np.ndarray) -> np.ndarray:
    """(36, F) thirds of semitones from A -> (12, F) semitones from C, around the pitch that the song is tuned to."""
    total = pitches.sum(axis=1).reshape(12, THIRDS).sum(axis=0)
    turn = np.angle(np.sum(total * np.exp(2j * np.pi * np.arange(THIRDS) / THIRDS))) / (2 * np.pi)
    middle = round(turn * THIRDS)  # of each group, in thirds of a semitone: -1, 0, 1
    grouped = np.roll(pitches, 1 - middle, axis=0).reshape(12, THIRDS, -1).sum(axis=1)
    return np.roll(grouped, -3, axis=0)
