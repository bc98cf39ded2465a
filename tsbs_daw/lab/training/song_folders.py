"""Folders of songs on disk: which songs there are, whether they are whole, and where each stem sounds.

A song is a folder with one WAV or FLAC file per stem: `song/vocals.wav song/drums.wav ...`. A data folder holds
songs, or the folders `train` and `valid` (or `test`) with songs, as MUSDB18-HQ has them.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.songs import list_song_folders, stem_file

logger = logging.getLogger(__name__)

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
class SongFolder:
    """A song that was read through once.

    files:     one path per stem, in the stems' order
    levels_db: (stems, seconds) RMS of each whole or begun second, in dBFS; SILENT_DB for digital silence
    """

    name: str
    files: tuple[Path, ...]
    sample_rate: int
    samples: int
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


def read_songs(
    folders: Sequence[Path],
    stems: Sequence[str],
    sample_rate: int,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[SongFolder], list[SongProblem]]:
    """Read every file of every song once: its shape, its health, its level second by second.

    `cache` is a JSON file that spares a second reading of files that did not change (size and time of change).
    A song with any problem is left out of the songs and named among the problems, one for each reason.
    """
    known = _load_cache(cache)
    before = dict(known)
    songs: list[SongFolder] = []
    problems: list[SongProblem] = []
    for index, folder in enumerate(folders):
        song, reasons = _read_song(folder, stems, sample_rate, known)
        problems += [SongProblem(folder.name, reason) for reason in reasons]
        if song is not None and not reasons:
            songs.append(song)
        if progress is not None:
            progress(index + 1, len(folders))
    if known != before:
        _save_cache(cache, known)
    return songs, problems


def require_whole(problems: Sequence[SongProblem], folder: Path) -> None:
    """Raises DatasetError with one line per problem when there is any."""
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise DatasetError(
            f"{len(problems)} problems in the songs of {folder}; mend them, or leave them out with --skip-broken:\n"
            f"{listing}"
        )


def _read_song(
    folder: Path, stems: Sequence[str], sample_rate: int, known: dict
) -> tuple[SongFolder | None, list[str]]:
    reasons: list[str] = []
    files, facts = [], []
    for stem in stems:
        path = stem_file(folder, stem)
        if path is None:
            reasons.append(f"{stem}.wav is missing")
            continue
        fact = _facts(path, known)
        files.append(path)
        facts.append(fact)
        if fact["problem"]:
            reasons.append(f"{path.name} {fact['problem']}")
        elif fact["sample_rate"] != sample_rate:
            reasons.append(f"{path.name} has {fact['sample_rate']} Hz, the model needs {sample_rate} Hz")
    if reasons:
        return None, reasons
    lengths = {fact["samples"] for fact in facts}
    if len(lengths) > 1:
        listing = ", ".join(f"{path.name} {fact['samples']}" for path, fact in zip(files, facts, strict=True))
        return None, [f"its stems differ in length (samples): {listing}"]
    if max(max(fact["levels_db"]) for fact in facts) <= SILENT_DB:
        return None, ["all its stems are silent"]
    levels = np.array([fact["levels_db"] for fact in facts], dtype=np.float32)
    return SongFolder(folder.name, tuple(files), sample_rate, lengths.pop(), levels), []


def _facts(path: Path, known: dict) -> dict:
    """What reading the file through gave: from `known` when the file is the same, else by reading it."""
    status = path.stat()
    key = str(path.absolute())
    fact = known.get(key)
    if fact is None or (fact["size"], fact["mtime_ns"]) != (status.st_size, status.st_mtime_ns):
        fact = known[key] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, **_measure(path)}
    return fact


def _measure(path: Path) -> dict:
    """Read the file a second at a time. `problem` is empty when it is whole."""
    import soundfile

    fact: dict = {"problem": "", "sample_rate": 0, "samples": 0, "levels_db": []}
    try:
        with soundfile.SoundFile(path) as file:
            fact.update(sample_rate=file.samplerate, samples=file.frames)
            if file.channels > 2:
                fact["problem"] = f"has {file.channels} channels; one or two can be used"
                return fact
            read = _read_levels(file, fact)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        fact["problem"] = f"cannot be read: {error}"
        return fact
    if not fact["problem"] and read != fact["samples"]:
        fact["problem"] = f"is cut: {read} of {fact['samples']} samples are there"
    elif not read:
        fact["problem"] = "is empty"
    return fact


def _read_levels(file, fact: dict) -> int:
    read = 0
    while True:
        block = file.read(file.samplerate, dtype="float32", always_2d=True)
        if not len(block):
            return read
        # float64: a second of full-scale samples must not lose small ones in the sum
        power = float(np.mean(np.square(block, dtype=np.float64)))
        if not np.isfinite(power):
            fact["problem"] = f"holds NaN or infinity in the second that begins at sample {read}"
            return read
        fact["levels_db"].append(round(10 * np.log10(power), 2) if power > 1e-20 else SILENT_DB)
        read += len(block)


def _load_cache(cache: Path | None) -> dict:
    if cache is None or not cache.is_file():
        return {}
    try:
        document = json.loads(cache.read_text(encoding="utf-8"))
        return document["files"] if document["format"] == 1 else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the cache of song levels %s is of no use and will be made anew: %s", cache, error)
        return {}


def _save_cache(cache: Path | None, known: dict) -> None:
    if cache is None:
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(cache.name + ".tmp")
    temporary.write_text(json.dumps({"format": 1, "files": known}), encoding="utf-8")
    temporary.replace(cache)
