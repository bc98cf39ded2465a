"""Songs as banks: all samples of all songs as int16, one song after another, ready to be cut into excerpts.

On the CPU a bank is a memory-mapped file beside the run, so that a song is decoded once; on CUDA it is one buffer on
the card. A frame holds all stems of one moment. S stems, always two channels.

Files of a bank on disk:
    <name>.pcm    (frames, S, 2) int16, little endian
    <name>.json   stems, rate, and of each song: where it lies, its checksum, its levels, its files' sizes and times

`Sources` are the banks that one run trains on and validates on.
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

logger = logging.getLogger(__name__)

FORMAT = 1
CHANNELS = 2
FULL_SCALE = 32768.0


@dataclass(frozen=True)
class BankSong:
    """A song in a bank.

    first, samples: where it lies, in frames; stamp: sizes and times of the files that it was read from
    levels_db:      (S, seconds) RMS of each whole or begun second, in dBFS
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
    """Where the frames of a bank lie."""

    def append(self, audio: np.ndarray) -> int | None:
        """Add a song, (frames, S, 2) int16. Returns: its first frame, or None when there is no room."""

    def gather(self, starts: Tensor, ends: Tensor, samples: int, wanted: Tensor | None = None) -> Tensor:
        """Cut excerpts.

        Args:    starts, ends: (B, S) first frame of each excerpt, and of what follows its song; beyond it is silence
                 wanted: (B, S) bool; what is not wanted may be left out
        Returns: (B, S, 2, samples) float32, full scale 1
        """


class DeviceStore:
    """One buffer on a device."""

    def __init__(self, stems: int, device: torch.device, frames: int):
        self.stems, self.device, self.used = stems, device, 0
        self.buffer = torch.zeros(frames, stems, CHANNELS, dtype=torch.int16, device=device)

    @classmethod
    def of_size(cls, stems: int, device: torch.device, gigabytes: float) -> DeviceStore:
        """As large a buffer as asked for, or half, or a quarter of that when the card has no room."""
        for attempt in range(4):
            try:
                return cls(stems, device, int(gigabytes * 1e9) // (2 * CHANNELS * stems))
            except torch.OutOfMemoryError:
                if attempt == 3:
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
    """A file that is mapped, and grows."""

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
    """Songs in a store. Adding is done by one thread, cutting by another."""

    def __init__(self, store: Store, stems: Sequence[str], sample_rate: int, index: Path | None = None):
        self.store, self.stems, self.sample_rate, self.index = store, tuple(stems), sample_rate, index
        self.songs: tuple[BankSong, ...] = ()

    @classmethod
    def on_device(cls, stems: Sequence[str], rate: int, device: torch.device, gigabytes: float) -> SongBank:
        return cls(DeviceStore.of_size(len(stems), device, gigabytes), stems, rate)

    @classmethod
    def on_disk(cls, path: Path, stems: Sequence[str], rate: int) -> SongBank:
        """The bank at `path` (without suffix): as it lies there, or a new one.

        Raises: DatasetError: it is damaged, or was made for other stems
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        bank = cls(FileStore(path.with_suffix(".pcm"), len(stems)), stems, rate, path.with_suffix(".json"))
        if bank.index.is_file():
            bank.songs = bank._read_index()
            # A song that a crash cut is written over.
            bank.store.used = max((song.end for song in bank.songs), default=0)
        else:
            bank.store.used = 0
        return bank

    def add(self, song: SongAudio) -> bool:
        """Returns: whether there was room."""
        first = self.store.append(song.audio)
        if first is None:
            return False
        checksum = zlib.crc32(song.audio.tobytes()) if self.index is not None else 0
        levels = np.round(song.levels_db.astype(float), 2).tolist()
        entry = BankSong(song.folder.name, str(song.folder), song.stamp, first, len(song.audio), checksum, levels)
        self.songs = (*self.songs, entry)
        return True

    def fill(self, folders: Sequence[Path]) -> list[SongProblem]:
        """As `add_folders`; songs of other folders, and songs that have changed, are songs of this bank no more."""
        stamps = {str(folder): files_stamp(folder, self.stems) for folder in folders}
        self.songs = tuple(song for song in self.songs if stamps.get(song.folder) == song.stamp)
        return self.add_folders(folders)

    def add_folders(self, folders: Sequence[Path]) -> list[SongProblem]:
        """Read songs and add those that are whole and not in the bank yet, in the folders' order.

        Returns: what is wrong with the others, one for each reason
        """
        known = {song.folder for song in self.songs}
        missing = [folder for folder in folders if str(folder) not in known]
        problems: list[SongProblem] = []
        # Few at a time: a whole album decoded at once may be more than the memory holds.
        with ThreadPoolExecutor(8) as pool:
            for begin in range(0, len(missing), 16):
                part = missing[begin : begin + 16]
                for folder, (song, reasons) in zip(part, pool.map(self._read, part), strict=True):
                    problems += [SongProblem(folder.name, reason) for reason in reasons]
                    if song is not None and not self.add(song):
                        logger.warning("the bank is full; %s is left out", folder)
        if self.index is not None:
            self._write_index()
        return problems

    def _read(self, folder: Path) -> tuple[SongAudio | None, list[str]]:
        """As `read_song_audio`; a song that the models are measured with is refused, whatever it is called."""
        song, reasons = read_song_audio(folder, self.stems, self.sample_rate)
        if song is not None:
            try:
                check_not_benchmark(song.audio.sum(1, dtype=np.float32).T / FULL_SCALE, self.sample_rate, folder.name)
            except DatasetError as error:
                return None, [str(error)]
        return song, reasons

    def excerpt(self, song: BankSong, start: int, samples: int) -> np.ndarray:
        """All stems of a place of one song, (S, 2, samples) float32, full scale 1."""
        where = torch.full((1, len(self.stems)), song.first + start)
        device = getattr(self.store, "device", torch.device("cpu"))
        found = self.store.gather(where.to(device), torch.full_like(where, song.end).to(device), samples)
        return found[0].cpu().numpy()

    def _write_index(self) -> None:
        document = {"format": FORMAT, "stems": self.stems, "sample_rate": self.sample_rate}
        document["songs"] = [asdict(song) for song in self.songs]
        temporary = self.index.with_name(self.index.name + ".tmp")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self.index)

    def _read_index(self) -> tuple[BankSong, ...]:
        again = f"delete {self.index} and the songs are read again"
        try:
            document = json.loads(self.index.read_text(encoding="utf-8"))
            made_for = (document["format"], tuple(document["stems"]), document["sample_rate"])
            songs = tuple(BankSong(**song) for song in document["songs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"the index of songs {self.index} cannot be read ({error}); {again}") from error
        if made_for != (FORMAT, self.stems, self.sample_rate):
            raise DatasetError(f"the bank of songs {self.index} was made for other stems or another rate; {again}")
        for song in songs:
            part = self.store.frames[song.first : song.end]
            if len(part) != song.samples or zlib.crc32(part.tobytes()) != song.checksum:
                raise DatasetError(f"the bank of songs {self.index} is damaged in {song.name}; {again}")
        return songs


class Follower:
    """A thread that adds songs to a bank while training runs, as others finish writing them."""

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
        """Add what is new. A song that cannot be used is named once."""
        known = {Path(song.folder) for song in self.bank.songs} | self._refused
        new = [folder for folder in self.find() if folder not in known]
        for problem in self.bank.add_folders(new):
            logger.warning("left out: %s", problem)
        self._refused |= set(new) - {Path(song.folder) for song in self.bank.songs}

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)


PATIENCE_S = 60.0  # for the first songs, where others write them


class Sources:
    """A bank to train on for each folder, and one of all that is held out.

    Raises: DatasetError: songs are broken (unless `skip_broken`), or none is left
            SettingsError: the recipe weighs another number of folders
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
        with fabric.rank_zero_first():  # the first process reads the songs, the others find its banks
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
        """As `split_songs`; where songs are still being written, wait for the first of both kinds."""
        deadline = time.monotonic() + (PATIENCE_S if self.settings.follow_s else 0.0)
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
        """From here on take in songs that others finish writing, where the recipe asks for it."""
        if not self.settings.follow_s or self.fabric.world_size > 1:
            return
        for bank, folder in zip(self.banks, self.folders, strict=True):
            if (folder / "valid").is_dir():  # else the songs held out would change with each that comes
                self._followers.append(Follower(bank, self._finder(folder / "train"), self.settings.follow_s))

    def _finder(self, folder: Path) -> Callable[[], list[Path]]:
        return partial(_finished_in, folder, self.config.stems)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()


def _has_whole_song(songs: Sequence[Path]) -> bool:
    """Whether one is finished, or none has changed for a while, so that no writer is at work."""
    newest = max(song.stat().st_mtime for song in songs)
    return any((song / "song.json").is_file() for song in songs) or time.time() - newest > PATIENCE_S


def _finished_in(folder: Path, stems: Sequence[str]) -> list[Path]:
    return finished_songs(list_song_folders(folder, stems))
