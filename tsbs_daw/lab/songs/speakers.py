"""The voices of a material pack: who there is, what they said or sang, and their syllables."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.syllables import (
    Syllable,
    Voice,
    clean,
    marked_syllable,
    spoken_syllables,
    utau_syllable,
    with_air,
)
from tsbs_daw.lab.songs.world import analyse_cached

KEPT = 48  # voices kept in memory; a minute of them takes 45 MB
SPEECH_TOP_HZ = 450.0
SUNG_TOP_HZ = 1100.0
LIMITED_KHZ = 13.0  # a recording that ends below this may get air
FEMALE_FROM_HZ = 155.0


@dataclass(frozen=True)
class Speaker:
    """Someone who speaks in the pack."""

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


def limited(recordings: list[Recording]) -> bool:
    """Whether any of these recordings lacks the highest octave."""
    return any((recording.row.get("band_khz") or 99.0) < LIMITED_KHZ for recording in recordings)


def _is_female(recordings: list[Recording]) -> bool:
    sex = str(recordings[0].row.get("sex") or "")
    if sex[:1] in ("f", "m"):
        return sex[0] == "f"
    pitches = [recording.row.get("f0_median_hz") for recording in recordings]
    return float(np.median([pitch for pitch in pitches if pitch] or [120.0])) > FEMALE_FROM_HZ
