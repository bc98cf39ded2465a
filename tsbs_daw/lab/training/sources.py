"""The folders of songs that a run trains on and validates on, as banks."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from tsbs_daw.core.errors import DatasetError, SettingsError
from tsbs_daw.lab.evaluation.songs import list_song_folders
from tsbs_daw.lab.training.bank import Follower, SongBank
from tsbs_daw.lab.training.recipe import Recipe
from tsbs_daw.lab.training.song_folders import SongProblem, finished_songs, require_whole, split_songs
from tsbs_daw.network import ModelConfig

logger = logging.getLogger(__name__)

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
    """Whether one is finished, or all lie still: nobody is writing them."""
    newest = max(song.stat().st_mtime for song in songs)
    return any((song / "song.json").is_file() for song in songs) or time.time() - newest > PATIENCE_S


def _finished_in(folder: Path, stems: Sequence[str]) -> list[Path]:
    return finished_songs(list_song_folders(folder, stems))
