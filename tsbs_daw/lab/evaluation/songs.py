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
    """A song and its stems.

    Shape:
        targets: (S, channels, samples)
        mixture: (channels, samples)
    """

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
    """The subfolders of `folder` that hold at least one file named after a stem, by name."""
    if not folder.is_dir():
        raise DatasetError(f"the folder of songs {folder} does not exist; give a folder of song/{stems[0]}.wav files")
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [child for child in children if any(stem_file(child, stem) for stem in stems)]


def find_test_songs(data: Path, stems: tuple[str, ...]) -> list[Path]:
    """The songs in the folder `test` of a data set, else in `valid`, else in the folder itself."""
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
    """Read all stems, and the mixture: `mixture.wav` if it exists, else the sum of the stems."""
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


MAJOR_MODES = ("major", "mixolydian", "lydian")  # modes with a major third; the others are minor


@dataclass(frozen=True)
class Truth:
    """The truth about a song of the generator. Times are in seconds.

    Attributes:
        key: tonic (0 to 11 from C) and "major" or "minor", by the third of the mode
    """

    tempo_bpm: float
    beats_s: tuple[float, ...]
    downbeats_s: tuple[float, ...]
    beats_per_bar: int
    key: tuple[int, str]
    sections_s: tuple[float, ...]
    duration_s: float

    def after(self, cut_s: float) -> Truth:
        """The truth after the first `cut_s` seconds are cut off."""
        kept = {
            name: tuple(at - cut_s for at in getattr(self, name) if at >= cut_s)
            for name in ("beats_s", "downbeats_s", "sections_s")
        }
        return Truth(**{**self.__dict__, **kept, "duration_s": self.duration_s - cut_s})


def read_truth(folder: Path) -> Truth:
    """Read song.json.

    Raises:
        DatasetError: it is missing or incomplete
    """
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
            f"{shown(path)} does not state the tempo and key of a song; render songs with tsbs_daw.lab.songs."
        ) from problem
