"""Songs with known stems, as folders on disk: find them, read them, and check that they are complete.

A song is a folder with one WAV, FLAC or Ogg file per stem: `song/vocals.wav song/drums.wav ...`. A data folder holds
songs, or the folders `train` and `valid` (or `test`) with songs, as MUSDB18-HQ has them.
"""

from __future__ import annotations

import json
import zlib
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
    """Return the file of a stem; None if there is none."""
    return next((path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_file()), None)


def list_song_folders(folder: Path, stems: Sequence[str]) -> list[Path]:
    """Return the subfolders of `folder` that hold at least one file named after a stem, sorted by name."""
    if not folder.is_dir():
        raise DatasetError(f"the folder of songs {folder} does not exist; give a folder of song/{stems[0]}.wav files")
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [child for child in children if any(stem_file(child, stem) for stem in stems)]


def find_test_songs(data: Path, stems: tuple[str, ...]) -> list[Path]:
    """Return the songs in the first of `test`, `valid` and the data folder itself that has any."""
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
    """Read all stems and the mixture, which is `mixture.wav` if it exists, otherwise the sum of the stems.

    Args:
        folder: The song.
        stems: Names of the stems.
        seconds: Read only this long a section from the middle; None to read everything.

    Raises:
        DatasetError: A stem is missing or cannot be read.
    """
    found = {stem: stem_file(folder, stem) for stem in stems}
    paths = [path for path in found.values() if path is not None]
    if missing := [stem for stem, path in found.items() if path is None]:
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
        """Return the truth of the song without its first `cut_s` seconds."""
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


SILENT_DB = -200.0

# The validation songs of MUSDB18 according to its authors; they are in the folder of the training songs.
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
    """The decoded stems of a song.

    Attributes:
        stamp: Sizes and times of its files, from `files_stamp`.
        audio: The stems as int16; if a peak is above full scale, the whole song is scaled down.
        levels_db: RMS of each second, including an incomplete last one, in dBFS; SILENT_DB for digital silence.

    Shape:
        audio: (frames, S, 2)
        levels_db: (S, seconds)
    """

    folder: Path
    stamp: list
    audio: np.ndarray
    levels_db: np.ndarray


@dataclass(frozen=True)
class SongProblem:
    """A reason why a song cannot be used."""

    song: str
    reason: str

    def __str__(self) -> str:
        return f"{self.song}: {self.reason}"


def split_songs(data: Path, stems: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Return the song folders for training, and those for validation.

    If there is a folder `valid`, its songs are used. If not, MUSDB18's validation songs are held out or, if there are
    none of these, a tenth of the songs, at least one, chosen by a checksum of its name.

    Raises:
        DatasetError: One of the parts would be empty.
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
    """Return the songs with a song.json, which is written last; if none has one, all songs."""
    finished = [folder for folder in folders if (folder / "song.json").is_file()]
    return finished or list(folders)


def require_whole(problems: Sequence[SongProblem], folder: Path | Sequence[Path]) -> None:
    """Check that there are no problems.

    Raises:
        DatasetError: There are problems; the message has a line for each.
    """
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise DatasetError(
            f"{len(problems)} problems in the songs of {folder}; fix these songs, or skip them with --skip-broken:\n"
            f"{listing}"
        )


def files_stamp(folder: Path, stems: Sequence[str]) -> list:
    """Return size and modification time of each stem's file, to detect whether a song has to be read again."""
    paths = [stem_file(folder, stem) for stem in stems]
    return [[path.stat().st_size, path.stat().st_mtime_ns] if path is not None else [] for path in paths]


def read_song_audio(folder: Path, stems: Sequence[str], sample_rate: int) -> tuple[SongAudio | None, list[str]]:
    """Read and check every stem of a song.

    Returns:
        The song and no reasons, or None and the reasons why it cannot be used.
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
    """Read a file as (frames, 2) float32, with mono doubled. Also returns what is wrong with it, or ""."""
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
        return nothing, f"is truncated: it has {len(audio)} of {promised} samples"
    if not len(audio):
        return nothing, "is empty"
    if not np.isfinite(audio).all():
        sample = int(np.argmin(np.isfinite(audio).all(axis=1))) // sample_rate * sample_rate
        return nothing, f"holds NaN or infinity in the second that begins at sample {sample}"
    return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio, ""


def _levels_db(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the RMS of each second in dBFS: (frames, 2) -> (seconds,)."""
    # float64, so that the sum over a second of full-scale samples does not lose small ones
    squares = np.square(audio, dtype=np.float64).mean(axis=1)
    starts = np.arange(0, len(audio), sample_rate)
    power = np.add.reduceat(squares, starts) / np.diff([*starts, len(audio)])
    levels = np.full(len(power), SILENT_DB, np.float32)
    np.log10(power, out=levels, where=power > 1e-20, casting="same_kind")
    return np.where(power > 1e-20, 10 * levels, SILENT_DB).astype(np.float32)
