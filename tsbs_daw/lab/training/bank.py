"""Banks of songs: the samples of all songs as int16, one song after another, from which excerpts are cut.

On the CPU, a bank is a memory-mapped file in the run's folder, so that each song is decoded only once; on CUDA, it is a
buffer on the GPU. A frame holds the samples of all stems at one moment. S stems, always two channels.

Files of a bank on disk:
    <name>.pcm    (frames, S, 2) int16, little endian
    <name>.json   stems, rate, and of each song: its position, checksum and levels, and its files' sizes and times

`Sources` holds the banks for training and validation of a run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tsbs_daw.core.errors import DatasetError, SettingsError
from tsbs_daw.lab.evaluation.real import check_not_benchmark
from tsbs_daw.lab.evaluation.songs import (
    SongAudio,
    SongProblem,
    files_stamp,
    finished_songs,
    list_song_folders,
    read_song_audio,
    require_whole,
    split_songs,
)
from tsbs_daw.lab.training.recipe import Recipe
from tsbs_daw.network import ModelConfig
from tsbs_daw.separation.devices import is_out_of_memory

logger = logging.getLogger(__name__)

FORMAT = 1
CHANNELS = 2
FULL_SCALE = 32768.0


@dataclass(frozen=True)
class BankSong:
    """A song in a bank.

    Attributes:
        stamp: Sizes and times of its files.
        first: First frame in the bank.
        samples: Length in frames.
        levels_db: RMS of each second, including an incomplete last one, in dBFS.

    Shape:
        levels_db: (S, seconds)
    """

    name: str
    folder: str
    stamp: list
    first: int
    samples: int
    checksum: int
    levels_db: list = field(repr=False)

    @property
    def end(self) -> int:
        return self.first + self.samples


class Store(Protocol):
    """Storage for the frames of a bank."""

    def append(self, audio: np.ndarray) -> int | None:
        """Add a song, (frames, S, 2) int16. Returns its first frame, or None if there is no room."""

    def gather(self, starts: Tensor, ends: Tensor, samples: int, wanted: Tensor | None = None) -> Tensor:
        """Cut excerpts.

        Args:
            starts: First frame of each excerpt.
            ends: End of each excerpt's song; frames beyond it are silent.
            samples: Length of the excerpts.
            wanted: Boolean mask; unwanted excerpts may be silent instead.

        Returns:
            Excerpts as float32, full scale 1.

        Shape:
            starts, ends, wanted: (B, S)
            result: (B, S, 2, samples)
        """


class DeviceStore:
    """A buffer on a device."""

    def __init__(self, stems: int, device: torch.device, frames: int):
        self.stems, self.device, self.used = stems, device, 0
        self.buffer = torch.zeros(frames, stems, CHANNELS, dtype=torch.int16, device=device)

    @classmethod
    def of_size(cls, stems: int, device: torch.device, gigabytes: float) -> DeviceStore:
        """Allocate a buffer of this size; if the GPU has too little memory, half of it, and so on to an eighth."""
        for attempt in range(4):
            try:
                return cls(stems, device, int(gigabytes * 1e9) // (2 * CHANNELS * stems))
            except RuntimeError as error:
                if attempt == 3 or not is_out_of_memory(error):
                    raise
                gigabytes /= 2
        raise AssertionError

    def append(self, audio: np.ndarray) -> int | None:
        first, frames = self.used, len(audio)
        if first + frames > len(self.buffer):
            return None
        block = torch.from_numpy(audio)
        if self.device.type == "cuda":
            block = block.pin_memory()
        self.buffer[first : first + frames].copy_(block, non_blocking=True)
        self.used += frames
        return first

    def gather(self, starts: Tensor, ends: Tensor, samples: int, wanted: Tensor | None = None) -> Tensor:
        frames = starts[..., None] + torch.arange(samples, device=self.device)  # (B, S, samples)
        inside = frames < ends[..., None]
        stem = torch.arange(self.stems, device=self.device)[:, None]
        # A stereo pair of int16 is read as one int32: one gather instead of two.
        pairs = self.buffer.view(torch.int32).flatten()
        found = pairs[torch.where(inside, frames, 0) * self.stems + stem] * inside
        return found.view(torch.int16).unflatten(-1, (samples, CHANNELS)).mT.float() / FULL_SCALE


class FileStore:
    """A memory-mapped file that grows."""

    def __init__(self, path: Path, stems: int):
        self.path, self.stems = path, stems
        path.touch()
        self.used = path.stat().st_size // self._frame_bytes
        self._map()

    @property
    def _frame_bytes(self) -> int:
        return 2 * CHANNELS * self.stems

    def _map(self) -> None:
        shape = (self.used, self.stems, CHANNELS)
        self.frames = np.memmap(self.path, "<i2", "r", shape=shape) if self.used else np.zeros(shape, np.int16)

    def append(self, audio: np.ndarray) -> int:
        first = self.used
        with self.path.open("r+b") as file:
            file.seek(first * self._frame_bytes)
            file.write(np.ascontiguousarray(audio, "<i2").tobytes())
            file.truncate()
        self.used = first + len(audio)
        self._map()
        return first

    def gather(self, starts: Tensor, ends: Tensor, samples: int, wanted: Tensor | None = None) -> Tensor:
        result = np.zeros((*starts.shape, CHANNELS, samples), np.float32)
        frames = self.frames
        for index, ((example, stem), start) in enumerate(zip(np.ndindex(*starts.shape), starts.flatten().tolist())):  # noqa: B905
            if wanted is None or wanted.flatten()[index]:
                part = frames[start : min(start + samples, int(ends[example, stem])), stem]
                result[example, stem, :, : len(part)] = part.T
        return torch.from_numpy(result).div_(FULL_SCALE)


class SongBank:
    """Songs in a store. One thread may add songs while another cuts excerpts."""

    def __init__(self, store: Store, stems: Sequence[str], sample_rate: int, index: Path | None = None):
        self.store, self.stems, self.sample_rate, self.index = store, tuple(stems), sample_rate, index
        self.songs: tuple[BankSong, ...] = ()

    @classmethod
    def on_device(cls, stems: Sequence[str], rate: int, device: torch.device, gigabytes: float) -> SongBank:
        return cls(DeviceStore.of_size(len(stems), device, gigabytes), stems, rate)

    @classmethod
    def on_disk(cls, path: Path, stems: Sequence[str], rate: int) -> SongBank:
        """Open or create the bank at `path` (without suffix). Raises DatasetError if it is damaged or does not fit."""
        path.parent.mkdir(parents=True, exist_ok=True)
        store, index = FileStore(path.with_suffix(".pcm"), len(stems)), path.with_suffix(".json")
        bank = cls(store, stems, rate, index)
        if index.is_file():
            bank.songs = bank._read_index(index, store)
            # Overwrites a song that a crash left incomplete.
            store.used = max((song.end for song in bank.songs), default=0)
        else:
            store.used = 0
        return bank

    def add(self, song: SongAudio) -> bool:
        """Add a song. Returns whether there was room."""
        first = self.store.append(song.audio)
        if first is None:
            return False
        checksum = zlib.crc32(song.audio.tobytes()) if self.index is not None else 0
        levels = np.round(song.levels_db.astype(float), 2).tolist()
        entry = BankSong(song.folder.name, str(song.folder), song.stamp, first, len(song.audio), checksum, levels)
        self.songs = (*self.songs, entry)
        return True

    def fill(self, folders: Sequence[Path]) -> list[SongProblem]:
        """Add folders like `add_folders`, and first drop all songs of other folders and songs that have changed."""
        stamps = {str(folder): files_stamp(folder, self.stems) for folder in folders}
        self.songs = tuple(song for song in self.songs if stamps.get(song.folder) == song.stamp)
        return self.add_folders(folders)

    def add_folders(self, folders: Sequence[Path]) -> list[SongProblem]:
        """Read songs, and add those that are complete and not yet in the bank. Returns the problems of the others."""
        known = {song.folder for song in self.songs}
        missing = [folder for folder in folders if str(folder) not in known]
        problems: list[SongProblem] = []
        # Few at a time, because a decoded album may not fit in memory.
        with ThreadPoolExecutor(8) as pool:
            for begin in range(0, len(missing), 16):
                part = missing[begin : begin + 16]
                for folder, (song, reasons) in zip(part, pool.map(self._read, part), strict=True):
                    problems += [SongProblem(folder.name, reason) for reason in reasons]
                    if song is not None and not self.add(song):
                        logger.warning("the bank is full; %s is left out", folder)
        if self.index is not None:
            self._write_index(self.index)
        return problems

    def _read(self, folder: Path) -> tuple[SongAudio | None, list[str]]:
        """Read a song like `read_song_audio`, but refuse songs of the benchmark, whatever their names."""
        song, reasons = read_song_audio(folder, self.stems, self.sample_rate)
        if song is not None:
            try:
                check_not_benchmark(song.audio.sum(1, dtype=np.float32).T / FULL_SCALE, self.sample_rate, folder.name)
            except DatasetError as error:
                return None, [str(error)]
        return song, reasons

    def excerpt(self, song: BankSong, start: int, samples: int) -> np.ndarray:
        """Cut all stems of an excerpt of one song: (S, 2, samples) float32, full scale 1."""
        where = torch.full((1, len(self.stems)), song.first + start)
        device = getattr(self.store, "device", torch.device("cpu"))
        found = self.store.gather(where.to(device), torch.full_like(where, song.end).to(device), samples)
        return found[0].cpu().numpy()

    def _write_index(self, index: Path) -> None:
        document = {"format": FORMAT, "stems": self.stems, "sample_rate": self.sample_rate}
        document["songs"] = [asdict(song) for song in self.songs]
        temporary = index.with_name(index.name + ".tmp")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(index)

    def _read_index(self, index: Path, store: FileStore) -> tuple[BankSong, ...]:
        again = f"delete {index} and the songs are read again"
        try:
            document = json.loads(index.read_text(encoding="utf-8"))
            made_for = (document["format"], tuple(document["stems"]), document["sample_rate"])
            songs = tuple(BankSong(**song) for song in document["songs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"the index of songs {index} cannot be read ({error}); {again}") from error
        if made_for != (FORMAT, self.stems, self.sample_rate):
            raise DatasetError(f"the bank of songs {index} was made for other stems or another rate; {again}")
        for song in songs:
            part = store.frames[song.first : song.end]
            if len(part) != song.samples or zlib.crc32(part.tobytes()) != song.checksum:
                raise DatasetError(f"the bank of songs {index} is damaged in {song.name}; {again}")
        return songs


class Follower:
    """A thread that adds songs to a bank during training, once another process has finished writing them."""

    def __init__(self, bank: SongBank, find: Callable[[], Sequence[Path]], every_s: float):
        self.bank, self.find, self.every_s = bank, find, every_s
        self._refused: set[Path] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="song follower", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.every_s):
            try:
                self.look()
            except Exception:  # a folder that vanished must not end hours of training
                logger.exception("new songs could not be taken in")

    def look(self) -> None:
        """Add new songs. A song that cannot be used is reported only once."""
        known = {Path(song.folder) for song in self.bank.songs} | self._refused
        new = [folder for folder in self.find() if folder not in known]
        for problem in self.bank.add_folders(new):
            logger.warning("left out: %s", problem)
        self._refused |= set(new) - {Path(song.folder) for song in self.bank.songs}

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)


FIRST_SONGS_S = 60.0  # time to wait for the first songs, if another process is writing them


class Sources:
    """A training bank for each folder, and one bank with all validation songs.

    Raises:
        DatasetError: Songs are broken (unless `skip_broken`), or none is left.
        SettingsError: The recipe has weights for another number of folders.
    """

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        folders: Sequence[Path],
        out: Path,
        config: ModelConfig,
        skip_broken: bool,
    ):
        weights = recipe.data.source_weights
        if weights and len(weights) != len(folders):
            raise SettingsError(f"data.source_weights has {len(weights)} numbers and --data {len(folders)} folders")
        self.fabric, self.folders, self.config, self.settings = fabric, folders, config, recipe.data
        self._followers: list[Follower] = []
        splits = [self._split(folder) for folder in folders]
        problems: list[SongProblem] = []
        with fabric.rank_zero_first():  # the first process reads the songs; the others open its banks
            self.held_out = SongBank.on_disk(out / "bank-valid", config.stems, config.sample_rate)
            held_out = [song for _, part in splits for song in finished_songs(part)]
            held_out_problems = self.held_out.fill(held_out)
            self.banks = [self._train_bank(out / f"bank-train-{index}") for index in range(len(folders))]
            for bank, (songs, _) in zip(self.banks, splits, strict=True):
                problems += bank.fill(finished_songs(songs))
        problems += held_out_problems
        if not skip_broken and not recipe.data.follow_s:
            require_whole(problems, folders[0] if len(folders) == 1 else folders)
        for problem in problems if fabric.is_global_zero else ():
            logger.warning("left out: %s", problem)
        if not any(bank.songs for bank in self.banks) or not self.held_out.songs:
            names = ", ".join(str(folder) for folder in folders)
            raise DatasetError(f"no whole song is left in {names}, to train on or to validate on")
        counts = [len(bank.songs) for bank in self.banks]
        logger.info("%s songs to train on, %s to validate on", counts, len(self.held_out.songs))

    def _split(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Split songs like `split_songs`; if songs are still being written, wait for the first of each part."""
        deadline = time.monotonic() + (FIRST_SONGS_S if self.settings.follow_s else 0.0)
        while time.monotonic() < deadline:
            with contextlib.suppress(DatasetError):
                parts = split_songs(folder, self.config.stems)
                if all(_has_whole_song(part) for part in parts):
                    return parts
            time.sleep(1.0)
        return split_songs(folder, self.config.stems)

    def _train_bank(self, path: Path) -> SongBank:
        stems, rate, device = self.config.stems, self.config.sample_rate, self.fabric.device
        if device.type == "cpu":
            return SongBank.on_disk(path, stems, rate)
        return SongBank.on_device(stems, rate, device, self.settings.device_gb / len(self.folders))

    def follow(self) -> None:
        """Start to add songs while they are being written, if the recipe asks for that."""
        if not self.settings.follow_s or self.fabric.world_size > 1:
            return
        for bank, folder in zip(self.banks, self.folders, strict=True):
            if (folder / "valid").is_dir():  # otherwise each new song would change the validation songs
                self._followers.append(Follower(bank, self._finder(folder / "train"), self.settings.follow_s))

    def _finder(self, folder: Path) -> Callable[[], list[Path]]:
        return partial(_finished_in, folder, self.config.stems)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()


def _has_whole_song(songs: Sequence[Path]) -> bool:
    """Return whether a song is finished, or none has changed for a while, so that nothing is being written."""
    newest = max(song.stat().st_mtime for song in songs)
    return any((song / "song.json").is_file() for song in songs) or time.time() - newest > FIRST_SONGS_S


def _finished_in(folder: Path, stems: Sequence[str]) -> list[Path]:
    return finished_songs(list_song_folders(folder, stems))
