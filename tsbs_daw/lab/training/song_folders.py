"""Folders of songs on disk: which songs there are, whether they are whole, and where each stem sounds.

A song is a folder with one WAV or FLAC file per stem: `song/vocals.wav song/drums.wav ...`. A data folder holds
songs, or the folders `train` and `valid` (or `test`) with songs, as MUSDB18-HQ has them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.songs import list_song_folders, stem_file

SILENT_DB = -200.0

# The validation songs of MUSDB18, as its authors publish them; they lie among the training songs.
MUSDB18_VALIDATION = frozenset(
    {
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "ANiMAL - Rockshow",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)


@dataclass(frozen=True)
class SongAudio:
    """A song that was read.

    audio:     (frames, S, 2) int16; a song whose peak is above full scale is scaled down as a whole
    levels_db: (S, seconds) RMS of each whole or begun second, in dBFS; SILENT_DB for digital silence
    stamp:     what `files_stamp` said of its files
    """

    folder: Path
    stamp: list
    audio: np.ndarray
    levels_db: np.ndarray


@dataclass(frozen=True)
class SongProblem:
    song: str
    reason: str

    def __str__(self) -> str:
        return f"{self.song}: {self.reason}"


def split_songs(data: Path, stems: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Song folders for training and for validation.

    `train` and `valid` are taken as they are. Without `valid`, MUSDB18's own validation songs are held out, and where
    none of these is found, every tenth song by a checksum of its name (one at least).

    Raises DatasetError when either would be empty.
    """
    songs = list_song_folders(data / "train" if (data / "train").is_dir() else data, stems)
    if (data / "valid").is_dir():
        held_out = list_song_folders(data / "valid", stems)
    else:
        names = {song.name for song in songs} & MUSDB18_VALIDATION or _every_tenth([song.name for song in songs])
        held_out = [song for song in songs if song.name in names]
        songs = [song for song in songs if song.name not in names]
    if not songs or not held_out:
        raise DatasetError(
            f"the folder {data} has {len(songs)} songs to train on and {len(held_out)} to validate on; give both"
        )
    return songs, held_out


def _every_tenth(names: list[str]) -> set[str]:
    ranked = sorted(names, key=lambda name: (zlib.crc32(name.encode("utf-8")), name))
    return set(ranked[: max(1, len(ranked) // 10)] if len(ranked) > 1 else [])


def finished_songs(folders: Sequence[Path]) -> list[Path]:
    """Songs that are written to their end: of songs with a song.json, which comes last, those that have it."""
    finished = [folder for folder in folders if (folder / "song.json").is_file()]
    return finished or list(folders)


def require_whole(problems: Sequence[SongProblem], folder: Path) -> None:
    """Raises DatasetError with one line per problem when there is any."""
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise DatasetError(
            f"{len(problems)} problems in the songs of {folder}; mend them, or leave them out with --skip-broken:\n"
            f"{listing}"
        )


def files_stamp(folder: Path, stems: Sequence[str]) -> list:
    """Size and time of change of each stem's file, so that a second reading can be spared."""
    paths = [stem_file(folder, stem) for stem in stems]
    return [[path.stat().st_size, path.stat().st_mtime_ns] if path is not None else [] for path in paths]


def read_song_audio(folder: Path, stems: Sequence[str], sample_rate: int) -> tuple[SongAudio | None, list[str]]:
    """Read every stem of a song and look at its health.

    Returns: the song, or None and the reasons why it cannot be used
    """
    reasons: list[str] = []
    parts: list[np.ndarray] = []
    stamp = files_stamp(folder, stems)
    for stem in stems:
        path = stem_file(folder, stem)
        if path is None:
            reasons.append(f"{stem}.wav is missing")
            continue
        audio, problem = _read_stereo(path, sample_rate)
        if problem:
            reasons.append(f"{path.name} {problem}")
        else:
            parts.append(audio)
    if reasons:
        return None, reasons
    if len({len(part) for part in parts}) > 1:
        listing = ", ".join(f"{stem} {len(part)}" for stem, part in zip(stems, parts, strict=True))
        return None, [f"its stems differ in length (samples): {listing}"]
    levels = np.stack([_levels_db(part, sample_rate) for part in parts])
    if levels.max() <= SILENT_DB:
        return None, ["all its stems are silent"]
    peak = max(float(np.abs(part).max()) for part in parts)
    if peak > 1.0:
        levels -= np.float32(20 * np.log10(peak))
    scale = np.float32(32768.0 / max(peak, 1.0))
    whole = np.stack([np.clip(np.rint(part * scale), -32768, 32767).astype(np.int16) for part in parts], axis=1)
    return SongAudio(folder, stamp, whole, levels), []


def _read_stereo(path: Path, sample_rate: int) -> tuple[np.ndarray, str]:
    """Returns: (frames, 2) float32, mono doubled, and what is wrong with it; empty when it is whole."""
    import soundfile

    nothing = np.zeros((0, 2), np.float32)
    try:
        with soundfile.SoundFile(path) as file:
            if file.channels > 2:
                return nothing, f"has {file.channels} channels; one or two can be used"
            if file.samplerate != sample_rate:
                return nothing, f"has {file.samplerate} Hz, the model needs {sample_rate} Hz"
            promised = file.frames
            audio = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        return nothing, f"cannot be read: {error}"
    if len(audio) != promised:
        return nothing, f"is cut: {len(audio)} of {promised} samples are there"
    if not len(audio):
        return nothing, "is empty"
    if not np.isfinite(audio).all():
        sample = int(np.argmin(np.isfinite(audio).all(axis=1))) // sample_rate * sample_rate
        return nothing, f"holds NaN or infinity in the second that begins at sample {sample}"
    return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio, ""


def _levels_db(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(seconds,) of (frames, 2)."""
    # float64: a second of full-scale samples must not lose small ones in the sum
    squares = np.square(audio, dtype=np.float64).mean(axis=1)
    starts = np.arange(0, len(audio), sample_rate)
    power = np.add.reduceat(squares, starts) / np.diff([*starts, len(audio)])
    levels = np.full(len(power), SILENT_DB, np.float32)
    np.log10(power, out=levels, where=power > 1e-20, casting="same_kind")
    return np.where(power > 1e-20, 10 * levels, SILENT_DB).astype(np.float32)
