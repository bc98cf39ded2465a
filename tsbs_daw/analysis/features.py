"""The features of the analysis, computed block by block, and the classifier that decides by them.

Features are attacks, pitches and levels over time. They take at most 7 kB per second of audio, so two hours fit into
memory. The result does not depend on how the stream is cut into blocks. Frame f is at f * hop / rate seconds.

Axes: F frames; audio is (channels, samples), float32. Powers are means over the channels, so nothing cancels out.

`extract` computes them from a file in one pass, together with the loudness by EBU R 128: integrated, range and true
peak. The range is defined over windows of three seconds, so a shorter signal has none.

The classifier is a softmax: it chooses among candidates (pulses, bars, keys) by a weighted sum of their features. The
weights, and the confidences below which a figure is called doubtful, were fitted to songs of the project's generator
with known truth; those for keys also to symbolic songs and plain cadences. `python -m tsbs_daw.lab.evaluation fit`
writes weights.json, which names the data. Probabilities are calibrated for that data and are estimates elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from tsbs_daw.audio.dsp import Meter, Resampler
from tsbs_daw.audio.read import open_audio
from tsbs_daw.contracts.analysis import Loudness

RATE_HZ = 22_050  # nothing above 11 kHz matters for attacks and pitches
ATTACK_HOP, ATTACK_FFT = 256, 1024
PITCH_HOP, PITCH_FFT = 2048, 8192
ATTACK_S, PITCH_S = ATTACK_HOP / RATE_HZ, PITCH_HOP / RATE_HZ
LEVEL_S = 0.01
FINE_S = 0.001  # fine enough to locate the beginning of an attack, which a spectrum blurs
FINE_FLOOR = 1e-10  # mean square, so that silence has a level in dB

BANDS = ("full", "low", "mid", "high")
MELS = 48
EDGES_HZ = (180.0, 3000.0)  # low: kick and bass; mid: snare, voices, chords; high: hats
FLOOR_DB = -65.0  # level of a mel band re full scale; quieter sounds do not count as attacks
LAG = 2  # frames over which the rise of an attack is measured

PITCH_STEPS = 36  # per octave: three per semitone, to detect the tuning of a song
PITCH_LOWEST_HZ = 27.5
PITCH_OCTAVES = 6
PITCH_RANGES_HZ = ((55.0, 1600.0), (27.5, 250.0))  # for all pitched sound, and for the lowest notes
PITCH_THRESHOLD = 0.15  # relative to the loudest partial of a frame; weaker ones are overtones and noise
# A partial counts as an overtone if there is a partial at a third, a fifth or a seventh of its frequency. Even
# overtones need no treatment: they have the pitch class of their note, or of its third or fifth.
OVERTONES = {3: 0.6, 5: 0.4, 7: 0.4}


@dataclass(frozen=True)
class Features:
    """The features of a signal. Each has its own number of frames F.

    Attributes:
        attacks: (4, F), mean rise in dB in each of BANDS, ATTACK_S apart.
        pitches: (36, F), strength of each third of a semitone from A upwards, PITCH_S apart; (36, 0) if not extracted.
        low_pitches: (36, F), the same for notes below 250 Hz.
        levels: (F,), mean square, level_s apart; the last frame may have fewer samples.
        fine_db: (F,) float16, level in dB re full scale, fine_s apart.
    """

    attacks: np.ndarray
    pitches: np.ndarray
    low_pitches: np.ndarray
    levels: np.ndarray
    level_s: float
    fine_db: np.ndarray
    fine_s: float
    duration_s: float

    def attack(self, band: str) -> np.ndarray:
        """Return the attacks in one of BANDS, (F,)."""
        return self.attacks[BANDS.index(band)]


class AttackStream:
    """Computes the attacks of a stream at RATE_HZ."""

    def __init__(self, channels: int):
        self._frames = _Frames(channels, ATTACK_FFT, ATTACK_HOP)
        self._before = np.full((MELS, LAG), FLOOR_DB, np.float32)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Add a block and return the frames that it completes, (4, F)."""
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
    """Computes the pitches of a stream at RATE_HZ."""

    def __init__(self, channels: int):
        self._frames = _Frames(channels, PITCH_FFT, PITCH_HOP)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Add a block and return the frames that it completes, (2, 36, F): one row for each of PITCH_RANGES_HZ."""
        found = [np.zeros((len(PITCH_RANGES_HZ), PITCH_STEPS, 0), np.float32)]
        for power in self._frames.take(block, last):
            partials = _partials(power)
            found.append(np.stack([_pitch_classes(partials, *edges_hz) for edges_hz in PITCH_RANGES_HZ]))
        return np.concatenate(found, axis=2)


class LevelStream:
    """Computes the mean square of each frame of a stream at any sample rate."""

    def __init__(self, sample_rate: int, frame_s: float):
        self.frame_samples = max(round(frame_s * sample_rate), 1)
        self._rest = np.zeros(0, np.float32)

    def add(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Add a block and return the frames that it completes, (F,)."""
        square = np.concatenate((self._rest, np.square(block, dtype=np.float32).mean(axis=0)))
        whole = len(square) // self.frame_samples * self.frame_samples
        levels = square[:whole].reshape(-1, self.frame_samples).mean(axis=1)
        self._rest = square[whole:]
        if last and len(self._rest):
            levels = np.append(levels, self._rest.mean())
        return levels.astype(np.float32)


class _Frames:
    """Cuts a stream into overlapping frames centred at 0, hop, 2 hop, ..., and computes their power spectra."""

    def __init__(self, channels: int, n_fft: int, hop: int):
        self.n_fft, self.hop = n_fft, hop
        self._rest = np.zeros((channels, n_fft // 2), np.float32)

    def take(self, block: np.ndarray, last: bool) -> Iterator[np.ndarray]:
        """Yield power spectra, (bins, F); a full-scale sine is 1."""
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
    """Return the mel filter bank, (MELS, bins), and the slice of its rows for each of BANDS."""
    from librosa import filters, mel_frequencies

    bank = filters.mel(sr=RATE_HZ, n_fft=ATTACK_FFT, n_mels=MELS, fmin=30.0, norm=None)
    centres = mel_frequencies(n_mels=MELS + 2, fmin=30.0, fmax=RATE_HZ / 2)[1:-1]
    low, high = np.searchsorted(centres, EDGES_HZ)
    return bank, [slice(0, MELS), slice(0, low), slice(low, high), slice(high, MELS)]


def _partials(power: np.ndarray) -> np.ndarray:
    """Turn spectra, (bins, F), into amplitudes of partials, (thirds of a semitone from PITCH_LOWEST_HZ, F)."""
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
    return found.astype(np.float64).reshape(frames, rows).T  # an empty bincount is an integer array


def _pitch_classes(partials: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the strength of each pitch class in a range, (36, F): the sum of square roots, without overtones."""
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
    """Fold pitches (thirds of a semitone, from A) into chroma (semitones, from C) and correct the tuning of the song.

    Shape:
        pitches: (36, F)
        returns: (12, F)
    """
    total = pitches.sum(axis=1).reshape(12, THIRDS).sum(axis=0)
    turn = np.angle(np.sum(total * np.exp(2j * np.pi * np.arange(THIRDS) / THIRDS))) / (2 * np.pi)
    middle = round(turn * THIRDS)  # tuning in thirds of a semitone: -1, 0 or 1
    grouped = np.roll(pitches, 1 - middle, axis=0).reshape(12, THIRDS, -1).sum(axis=1)
    return np.roll(grouped, -3, axis=0)


RANGE_NEEDS_S = 3.0


class LoudnessMeter:
    """Measures the loudness of a stream: `add` blocks of shape (channels, samples), then call `loudness` once."""

    def __init__(self, sample_rate: int, channels: int):
        import pyebur128

        self._meter = Meter(sample_rate, channels)
        self._range_of = pyebur128.get_loudness_range
        mode = pyebur128.MeasurementMode
        self._state = pyebur128.R128State(channels, sample_rate, mode.MODE_LRA | mode.MODE_HISTOGRAM)
        self._needed = RANGE_NEEDS_S * sample_rate

    def add(self, block: np.ndarray) -> None:
        if block.shape[1]:
            self._meter.add(block)
            self._state.add_frames(np.ascontiguousarray(block.T, np.float32).reshape(-1), block.shape[1])

    def loudness(self) -> Loudness:
        """Return the loudness of everything added."""
        levels = self._meter.levels()
        has_range = levels.loudness_lufs is not None and levels.samples >= self._needed
        return Loudness(
            integrated_lufs=_rounded(levels.loudness_lufs),
            range_lu=_rounded(self._range_of(self._state)) if has_range else None,
            true_peak_db=_rounded(levels.true_peak_db),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def extract(path: Path, *, pitches: bool = True, low_pitches: bool = True) -> tuple[Features, Loudness]:
    """Extract the features and the loudness of a file.

    Args:
        path: Path of the file.
        pitches: Extract `Features.pitches`; otherwise they have no frames.
        low_pitches: Extract `Features.low_pitches`; otherwise they have no frames.

    Raises:
        AudioError: The file cannot be read.
    """
    with open_audio(path) as reader:
        info = reader.info
        return extract_stream(
            reader.blocks(), info.sample_rate, info.channels, pitches=pitches, low_pitches=low_pitches
        )  # fmt: skip


def extract_stream(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
    *,
    pitches: bool = True,
    low_pitches: bool = True,
) -> tuple[Features, Loudness]:
    """Extract the features and the loudness of a stream; see `extract`.

    Shape:
        blocks: (channels, n) each, n > 0
    """
    resampler = Resampler(sample_rate, RATE_HZ, channels)
    attacks, pitched = AttackStream(channels), PitchStream(channels)
    levels, fine = LevelStream(sample_rate, LEVEL_S), LevelStream(sample_rate, FINE_S)
    wanted = np.asarray([pitches, low_pitches])
    meter = LoudnessMeter(sample_rate, channels)
    rows: tuple[list[np.ndarray], ...] = ([], [], [], [])
    samples = 0

    def take(block: np.ndarray, last: bool) -> None:
        slow = resampler.process(block, last)
        rows[0].append(attacks.add(slow, last))
        if wanted.any():
            rows[1].append(pitched.add(slow, last)[wanted])
        rows[2].append(levels.add(block, last))
        rows[3].append((10 * np.log10(np.maximum(fine.add(block, last), FINE_FLOOR))).astype(np.float16))

    for block in blocks:
        samples += block.shape[1]
        meter.add(block)
        take(block, False)
    take(np.zeros((channels, 0), np.float32), True)
    extracted = iter(np.concatenate(rows[1], axis=2) if wanted.any() else ())
    high, low = (next(extracted) if want else np.zeros((PITCH_STEPS, 0), np.float32) for want in wanted)
    features = Features(
        np.concatenate(rows[0], axis=1),
        high,
        low,
        np.concatenate(rows[2]),
        levels.frame_samples / sample_rate,
        np.concatenate(rows[3]),
        fine.frame_samples / sample_rate,
        samples / sample_rate,
    )
    return features, meter.loudness()


# ---- the classifier -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Weights of the classifier.

    Attributes:
        of: For each question, the weights of its features, in order.
        doubt: For each figure, the confidence below which it is doubtful.
    """

    of: Mapping[str, np.ndarray]
    doubt: Mapping[str, float]


_in_use: ContextVar[Weights | None] = ContextVar("weights", default=None)


def weights() -> Weights:
    """Return the weights in use: those of weights.json, except inside `using`."""
    return _in_use.get() or _bundled()


@contextmanager
def using(other: Weights) -> Iterator[None]:
    """Use other weights inside this context; for fitting them."""
    token = _in_use.set(other)
    try:
        yield
    finally:
        _in_use.reset(token)


@lru_cache(maxsize=1)
def _bundled() -> Weights:
    known = json.loads((files("tsbs_daw.analysis") / "weights.json").read_text(encoding="utf-8"))
    return Weights({name: np.asarray(values) for name, values in known["weights"].items()}, known["doubt"])


def weighted_sums(question: str, features: np.ndarray) -> np.ndarray:
    """Return the weighted sum of the features of each candidate.

    Shape:
        features: (candidates, features)
        returns: (candidates,)
    """
    return features @ weights().of[question]


def likelihoods(question: str, features: np.ndarray) -> np.ndarray:
    """Return the likelihood of each candidate; likelihoods sum to 1.

    Shape:
        features: (candidates, features)
        returns: (candidates,)
    """
    sums = weighted_sums(question, features)
    odds = np.exp(sums - sums.max())
    return odds / odds.sum()
