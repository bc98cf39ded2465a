"""The speakers of a material pack, their recordings and their syllables.

A syllable marks the end of its consonants and the stretchable part of its vowel. Positions are frames, HOP samples
apart. F frames, B bins.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.signal import butter, find_peaks, istft, sosfiltfilt, stft

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs.dsp import HOP, N_FFT, SAMPLE_RATE, VoiceFrames, analyse_cached, has_pyworld
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.voice import FRAME_S, smooth

VOWEL_BAND_HZ = (250.0, 3500.0)
HISS_BAND_HZ = (4500.0, 11000.0)
HISS_BELOW_DB = 7.0  # a vowel has this much more below 3.5 kHz than a buzzed or hissed consonant
SHORTEST_SYLLABLE_S = 0.1
PROMINENCE_DB = 2.0  # a vowel stands out from its neighbours by this
QUIETEST_DB = -26.0  # below the loud vowels of a sentence
CORE_FALL_DB = 4.0  # the stretchable core of a vowel lies within this of its loudest frame
EDGE_S = 0.25  # kept before the first syllable and after the last


@dataclass(frozen=True)
class Voice:
    """A recording taken apart."""

    audio: np.ndarray  # (samples,) float32 at 44.1 kHz
    frames: VoiceFrames
    path: str = ""


@dataclass(frozen=True)
class Syllable:
    """A stretch of a recording: consonants begin .. core[0], vowel core[0] .. core[1], consonants .. end."""

    voice: Voice
    begin: int
    core: tuple[int, int]
    end: int
    level_db: float  # of the vowel


def clean(audio: np.ndarray, floor: float = 0.12) -> np.ndarray:
    """A recording without rumble and with its steady hiss turned down, at a common level: (samples,) float32.

    Args:
        audio: (samples,)
        floor: the gain that hiss alone is left with
    """
    steep = butter(4, 55.0, "highpass", fs=SAMPLE_RATE, output="sos")
    signal = sosfiltfilt(steep, audio.astype(np.float64))
    _, _, spectrum = stft(signal, SAMPLE_RATE, nperseg=1024, noverlap=768)
    power = np.abs(spectrum) ** 2
    hiss = 2.5 * np.percentile(power, 8, axis=1, keepdims=True)
    kernel = np.ones(3) / 3
    local = np.apply_along_axis(lambda row: np.convolve(row, kernel, mode="same"), 1, power)
    gains = np.clip(1.0 - hiss / np.maximum(local, 1e-20), floor**2, 1.0) ** 0.5
    _, quiet = istft(spectrum * gains, SAMPLE_RATE, nperseg=1024, noverlap=768)
    quiet = quiet[: len(audio)]
    loud = np.sqrt(np.mean(np.sort(quiet**2)[-max(len(quiet) // 3, 1) :]))
    return (quiet * (0.12 / max(float(loud), 1e-6))).astype(np.float32)


def with_air(frames: VoiceFrames, edge_hz: float, slope_db: float = 14.0) -> VoiceFrames:
    """Frames of a recording that ends at `edge_hz`, carried on above it by breath.

    Args:
        frames: of the recording
        edge_hz: above it nothing was recorded
        slope_db: fall per octave
    """
    bins = frames.log_power.shape[1]
    edge = int(0.94 * edge_hz * N_FFT / SAMPLE_RATE)
    base = frames.log_power[:, edge - 90 : edge].mean(axis=1, keepdims=True)
    above = np.arange(edge, bins)
    log_power, noise_db = frames.log_power.copy(), frames.noise_db.copy()
    log_power[:, edge:] = base - (slope_db / 10 * np.log(10)) * np.log2(above / edge)[None]
    noise_db[:, 3:] = np.maximum(noise_db[:, 3:], -4.0)  # the bands at 12 and 15 kHz
    return replace(frames, log_power=log_power.astype(np.float32), noise_db=noise_db)


def level_db(frames: VoiceFrames, low_hz: float, high_hz: float) -> np.ndarray:
    """Level (F,) of the envelope between two frequencies."""
    low, high = (int(hz * N_FFT / SAMPLE_RATE) for hz in (low_hz, high_hz))
    return 10 * np.log10(np.sum(np.exp(frames.log_power[:, low:high]), axis=1) + 1e-12)


def spoken_syllables(voice: Voice) -> list[Syllable]:
    """The syllables of a spoken sentence, in order; they touch one another."""
    frames = voice.frames
    if len(frames) < 12:
        return []
    level = smooth(level_db(frames, *VOWEL_BAND_HZ), 5)
    hissing = level_db(frames, *HISS_BAND_HZ) > level_db(frames, *VOWEL_BAND_HZ) - HISS_BELOW_DB
    voiced = _without_short_runs((frames.f0_hz > 0) & ~hissing, 4)
    loud = np.percentile(level[voiced], 95) if voiced.any() else 0.0
    peaks, _ = find_peaks(
        np.where(voiced, level, level.min() - 6), prominence=PROMINENCE_DB, distance=int(SHORTEST_SYLLABLE_S / FRAME_S)
    )
    peaks = [int(peak) for peak in peaks if voiced[peak] and level[peak] > loud + QUIETEST_DB]
    if not peaks:
        return []
    edge = int(EDGE_S / FRAME_S)
    between = [left + int(np.argmin(level[left:right])) for left, right in pairwise(peaks)]
    bounds = [max(peaks[0] - edge, 0), *between, min(peaks[-1] + edge, len(frames) - 1)]
    found = []
    for peak, begin, end in zip(peaks, bounds, bounds[1:], strict=False):
        fits = voiced & (level > level[peak] - CORE_FALL_DB)
        first = last = peak
        while first > begin and fits[first - 1]:
            first -= 1
        while last < end and fits[last + 1]:
            last += 1
        if last - first >= 2:
            found.append(Syllable(voice, begin, (first, last), end, float(level[peak])))
    return found


def marked_syllable(voice: Voice, begin_s: float, core_s: tuple[float, float], end_s: float) -> Syllable | None:
    """A syllable by marks in seconds; None where its core is not voiced."""
    last = len(voice.frames) - 1
    begin, first, core_end, end = (
        int(np.clip(round(time_s / FRAME_S), 0, last)) for time_s in (begin_s, *core_s, end_s)
    )
    voiced = voice.frames.f0_hz[first : core_end + 1] > 0
    if core_end - first < 4 or np.mean(voiced) < 0.7:
        return None
    level = level_db(voice.frames, *VOWEL_BAND_HZ)[first : core_end + 1]
    return Syllable(voice, begin, (first, core_end), max(end, core_end), float(np.median(level)))


def utau_syllable(voice: Voice, marks: dict) -> Syllable | None:
    """A syllable by UTAU's marks, in ms from the start of the file: the part after the consonant can be stretched."""
    begin_s = marks["offset_ms"] / 1000
    first_s = begin_s + marks["consonant_ms"] / 1000
    end_s = marks["end_ms"] / 1000
    return marked_syllable(voice, begin_s, (first_s, max(end_s - 0.15, first_s)), end_s)


def _without_short_runs(mask: np.ndarray, shortest: int) -> np.ndarray:
    """A mask whose runs shorter than `shortest` frames are off."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    kept = np.zeros_like(mask)
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        if end - first >= shortest:
            kept[first:end] = True
    return kept


def samples_of(frame: float) -> int:
    """The sample in the middle of a frame."""
    return round(frame * HOP)


KEPT = 48  # voices kept in memory; a minute of them takes 45 MB
SPEECH_TOP_HZ = 450.0
SUNG_TOP_HZ = 1100.0
LIMITED_KHZ = 13.0  # a recording that ends below this may get air
FEMALE_FROM_HZ = 155.0


@dataclass(frozen=True)
class Speaker:
    """A speaker of the pack."""

    name: str
    female: bool
    recordings: tuple[Recording, ...]

    @property
    def tract(self) -> float:
        """Formants relative to an average man's."""
        return 1.16 if self.female else 1.0


class Speakers:
    """The voices of a pack, taken apart when they are first used."""

    def __init__(self, material: Material, cache: Path | None = None):
        self._material, self._cache = material, cache
        self._kept: OrderedDict[tuple[str, bool], Voice] = OrderedDict()
        self._vocals = [recording for recording in material.recordings if recording.stem == "vocals"]
        self.spoken = self._group("speech")
        if not self.spoken:
            raise UsageError(f"{material.folder} has no speech to sing with. Choose a pack whose index lists some.")

    def of_kind(self, *kinds: str) -> list[Recording]:
        """Recordings of these kinds."""
        return [recording for recording in self._vocals if recording.kind in kinds]

    def _group(self, kind: str) -> list[Speaker]:
        by_name: dict[str, list[Recording]] = {}
        for recording in self.of_kind(kind):
            if recording.row.get("emotion") != "whisper":  # nothing of it is voiced
                by_name.setdefault(str(recording.row.get("speaker") or recording.source), []).append(recording)
        return [Speaker(name, _is_female(rows), tuple(rows)) for name, rows in sorted(by_name.items())]

    def voice(self, recording: Recording, airy: bool = False) -> Voice:
        """A recording, cleaned and taken apart. airy: one that lacks the highest octave gets breath there"""
        key = (recording.path, airy)
        if key not in self._kept:
            sung = recording.kind != "speech"
            audio = self._material.audio(recording).mean(axis=0)
            audio = clean(audio, floor=0.5 if sung else 0.12)
            frames = analyse_cached(audio, self._cache, SUNG_TOP_HZ if sung else SPEECH_TOP_HZ)
            band_khz = recording.row.get("band_khz")
            if airy and band_khz and band_khz < LIMITED_KHZ:
                frames = with_air(frames, 1000 * band_khz)
            self._kept[key] = Voice(audio, frames, recording.path)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def syllables(self, recordings: list[Recording], airy: bool = False) -> list[Syllable]:
        """Syllables in order: of sentences, of sung vowels by their steady part, of UTAU recordings by their marks."""
        found: list[Syllable | None] = []
        for recording in recordings:
            voice, row = self.voice(recording, airy), recording.row
            if recording.kind == "speech":
                found += spoken_syllables(voice)
            elif row.get("oto"):
                found.append(utau_syllable(voice, row["oto"][0]))
            elif row.get("loop"):
                first_s, end_s = row["loop"]
                found.append(marked_syllable(voice, max(first_s - 0.15, 0.0), (first_s, end_s), end_s + 0.2))
        return [syllable for syllable in found if syllable is not None]


def open_speakers(material: Material, cache: Path | None) -> Speakers | None:
    """Open the speakers of a pack; None if it has none, or pyworld is not installed.

    Args:
        material: the pack
        cache: folder for analyses of its recordings
    """
    if not has_pyworld():
        return None
    has = any(recording.stem == "vocals" and recording.kind == "speech" for recording in material.recordings)
    return Speakers(material, cache) if has else None


def limited(recordings: list[Recording]) -> bool:
    """Whether any of these recordings lacks the highest octave."""
    return any((recording.row.get("band_khz") or 99.0) < LIMITED_KHZ for recording in recordings)


def _is_female(recordings: list[Recording]) -> bool:
    sex = str(recordings[0].row.get("sex") or "")
    if sex[:1] in ("f", "m"):
        return sex[0] == "f"
    pitches = [recording.row.get("f0_median_hz") for recording in recordings]
    return float(np.median([pitch for pitch in pitches if pitch] or [120.0])) > FEMALE_FROM_HZ
