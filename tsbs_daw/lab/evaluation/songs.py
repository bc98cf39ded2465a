"""Songs whose stems are known: folders with one WAV, FLAC or Ogg file per stem: `song/vocals.wav song/drums.wav`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tsbs_daw.core.errors import DatasetError, shown

SUFFIXES = (".wav", ".flac", ".ogg")


@dataclass(frozen=True)
class KnownSong:
    """targets: (S, channels, samples); mixture: (channels, samples)"""

    name: str
    sample_rate: int
    targets: np.ndarray
    mixture: np.ndarray

    @property
    def seconds(self) -> float:
        return self.mixture.shape[-1] / self.sample_rate


def stem_file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_file()), None)


def list_song_folders(folder: Path, stems: Sequence[str]) -> list[Path]:
    """Folders right below `folder` that hold at least one file named after a stem, in the order of their names."""
    if not folder.is_dir():
        raise DatasetError(f"the folder of songs {folder} does not exist; give a folder of song/{stems[0]}.wav files")
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [child for child in children if any(stem_file(child, stem) for stem in stems)]


def find_test_songs(data: Path, stems: tuple[str, ...]) -> list[Path]:
    """Songs of the folder `test` of a data set, else of `valid`, else of the folder itself."""
    for folder in (data / "test", data / "valid", data):
        found = list_song_folders(folder, stems) if folder.is_dir() else []
        if found:
            return found
    if (data / "train").is_dir():
        raise DatasetError(
            f"the folder {data} has songs to train on and none to measure with; put some into {data / 'test'}, or name "
            f"{data / 'train'} itself"
        )
    raise DatasetError(
        f"the folder {data} holds no song/{stems[0]}.wav; give a folder of songs, or of test/ with songs"
    )


def read_song(folder: Path, stems: tuple[str, ...], seconds: float | None = None) -> KnownSong:
    """All stems, and the mixture: `mixture.wav` if it is there, else the sum of the stems."""
    paths = [stem_file(folder, stem) for stem in stems]
    missing = [stem for stem, path in zip(stems, paths, strict=True) if path is None]
    if missing:
        raise DatasetError(f"the song {folder} lacks {', '.join(missing)}; add what is missing, or move the song away")
    try:
        with soundfile.SoundFile(paths[0]) as file:
            rate, samples = file.samplerate, file.frames
        length = samples if seconds is None else min(samples, round(seconds * rate))
        start = (samples - length) // 2
        targets = np.stack([_read(path, start, length, rate) for path in paths])
        mixture_path = stem_file(folder, "mixture")
        mixture = targets.sum(axis=0) if mixture_path is None else _read(mixture_path, start, length, rate)
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError) as error:
        raise DatasetError(f"the song {folder} cannot be read: {error}") from error
    return KnownSong(folder.name, rate, targets, mixture)


def _read(path: Path, start: int, length: int, sample_rate: int) -> np.ndarray:
    audio, rate = soundfile.read(path, frames=length, start=start, dtype="float32", always_2d=True)
    if rate != sample_rate or len(audio) != length:
        raise ValueError(f"{path.name} differs from the other stems in sample rate or length")
    if not np.isfinite(audio).all():
        raise ValueError(f"{path.name} holds NaN or infinity")
    return np.ascontiguousarray(audio.T)


MAJOR_MODES = ("major", "mixolydian", "lydian")  # by their third; the others are minor


@dataclass(frozen=True)
class Truth:
    """Times are seconds; key: (tonic 0..11 from C, "major" or "minor"), of a mode the one with its third."""

    tempo_bpm: float
    beats_s: tuple[float, ...]
    downbeats_s: tuple[float, ...]
    beats_per_bar: int
    key: tuple[int, str]
    sections_s: tuple[float, ...]
    duration_s: float

    def after(self, cut_s: float) -> Truth:
        """Of what remains when the first seconds are cut away."""
        kept = {
            name: tuple(at - cut_s for at in getattr(self, name) if at >= cut_s)
            for name in ("beats_s", "downbeats_s", "sections_s")
        }
        return Truth(**{**self.__dict__, **kept, "duration_s": self.duration_s - cut_s})


def read_truth(folder: Path) -> Truth:
    """Raises: DatasetError: the folder has no song.json that tells"""
    path = folder / "song.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Truth(
            tempo_bpm=known["tempo_bpm"],
            beats_s=tuple(at for at in known["beats_s"] if at < known["duration_s"]),
            downbeats_s=tuple(at for at in known["downbeats_s"] if at < known["duration_s"]),
            beats_per_bar=4 if known["meter"] == "4/4" else 3,
            key=(known["tonic"], "major" if known["mode"] in MAJOR_MODES else "minor"),
            sections_s=tuple(section["start_s"] for section in known["sections"]),
            duration_s=known["duration_s"],
        )
    except (OSError, ValueError, KeyError) as problem:
        raise DatasetError(
            f"{shown(path)} does not tell a song's tempo and key; render songs with tsbs_daw.lab.songs."
        ) from problem
