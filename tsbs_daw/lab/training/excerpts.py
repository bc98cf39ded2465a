"""Training examples from banks of songs: which places of which songs, drawn and mixed where the songs lie.

Pass n is drawn with a generator seeded by (seed, rank, n) and nothing else: the order needs no state, a resumed run
sees exactly what an unbroken run would have seen. B examples, S stems, n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.lab.training.augment import PITCH_RATIOS, mix_stems, uniform
from tsbs_daw.lab.training.bank import BankSong, SongBank
from tsbs_daw.lab.training.recipe import AugmentPart, DataPart

QUIET_WEIGHT = 0.02  # of a second below the activity threshold, against 1 above it


@dataclass(frozen=True)
class Places:
    """Every second of every song in a bank, and how likely each stem is drawn from it.

    second:  (P,) first frame; begin, end: (P,) of its song
    chances: (S, P) cumulative, up to one
    """

    songs: int
    second: Tensor
    begin: Tensor
    end: Tensor
    chances: Tensor

    @classmethod
    def of(cls, songs: Sequence[BankSong], stems: int, rate: int, data: DataPart, device: torch.device) -> Places:
        levels = np.concatenate([np.asarray(song.levels_db, np.float32).reshape(stems, -1) for song in songs], axis=1)
        counts = [len(song.levels_db[0]) for song in songs]
        second = np.concatenate(
            [song.first + rate * np.arange(count) for song, count in zip(songs, counts, strict=True)]
        )
        begin, end = (np.repeat([getattr(song, name) for song in songs], counts) for name in ("first", "end"))
        sounding = np.where(levels > data.active_above_db, 1.0, QUIET_WEIGHT)
        share = data.active_share
        chances = share * sounding / sounding.sum(1, keepdims=True) + (1 - share) / levels.shape[1]
        frames = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (second, begin, end))
        cumulative = torch.from_numpy(chances.cumsum(1).astype(np.float32)).to(device)
        return cls(len(songs), *frames, cumulative)


class TrainingExcerpts:
    """Pass number -> the targets of that pass's batch; the mixture is their sum.

    A pass is one forward and backward; a step of the optimiser makes `accumulate` of them.
    """

    def __init__(
        self,
        banks: Sequence[SongBank],
        data: DataPart,
        augment: AugmentPart,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        device: torch.device | None = None,
    ):
        self.banks, self.data, self.augment = list(banks), data, augment
        self.seed, self.batch, self.rank = seed, batch, rank
        self.device = device or torch.device("cpu")
        self.rate, self.stems = banks[0].sample_rate, len(banks[0].stems)
        self._places: list[Places | None] = [None] * len(banks)
        self.generator = torch.Generator(self.device)

    def __getitem__(self, number: int) -> Tensor:
        """Targets of one pass: (B, S, 2, n) float32."""
        dice = np.random.default_rng([self.seed, self.rank, number])
        self.generator.manual_seed(int(dice.integers(2**62)))
        bank, places = self._choose_bank(dice)
        samples, batch = self.size(number)
        ratio = PITCH_RATIOS[dice.integers(len(PITCH_RATIOS))] if dice.random() < self.augment.pitch else 1.0
        length = round(samples * ratio)
        first = self._cut(bank, places, batch, length)
        if self.augment.mixup:
            first = first + self._second_sources(bank, places, batch, length)
        return mix_stems(first, samples, self.augment, self.generator, self.rate)

    def size(self, number: int) -> tuple[int, int]:
        """Samples and examples of a pass: all devices have the same, and longer ones mean fewer examples."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        seconds = lengths[np.random.default_rng([self.seed, number]).integers(len(lengths))]
        return round(seconds * self.rate), max(1, round(self.batch * self.data.segment_s / seconds))

    def sizes(self) -> list[tuple[int, int]]:
        """All (samples, examples) that passes may have."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        return [(round(s * self.rate), max(1, round(self.batch * self.data.segment_s / s))) for s in lengths]

    @property
    def songs(self) -> int:
        return sum(len(bank.songs) for bank in self.banks)

    def _choose_bank(self, dice: np.random.Generator) -> tuple[SongBank, Places]:
        """A whole batch is of one source: what belongs together stays together."""
        weights = np.array(self.data.source_weights or [1.0] * len(self.banks), float)
        weights *= [bool(bank.songs) for bank in self.banks]
        index = int(dice.choice(len(self.banks), p=weights / weights.sum()))
        bank, places = self.banks[index], self._places[index]
        songs = bank.songs  # read once: a follower may add to it at any time
        if places is None or places.songs != len(songs):
            places = Places.of(songs, self.stems, self.rate, self.data, self.device)
            self._places[index] = places
        return bank, places

    def _cut(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        starts, ends = self._draw(places, batch, length, self.data.coherent_probability)
        return bank.store.gather(starts, ends, length)

    def _second_sources(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        """Another source of the same kind for some stems: backing voices, percussion, a second guitar."""
        starts, ends = self._draw(places, batch, length, 0.0)
        wanted = uniform(self.generator, batch, self.stems) < self.augment.mixup
        gain = 10 ** (uniform(self.generator, batch, self.stems, low=-12.0, high=0.0) / 20) * wanted
        return bank.store.gather(starts, ends, length, wanted) * gain[..., None, None]

    def _draw(self, places: Places, batch: int, length: int, coherent: float) -> tuple[Tensor, Tensor]:
        """First frames of excerpts, and the ends of their songs: (B, S) twice.

        An excerpt lies near a second that was drawn, which lies anywhere in it, not always at its beginning.
        """
        generator, shape = self.generator, (batch, self.stems)
        drawn = uniform(generator, self.stems, batch) * places.chances[:, -1:]
        place = torch.searchsorted(places.chances, drawn).T.clamp(max=len(places.second) - 1)
        jitter = uniform(generator, *shape) * self.rate - uniform(generator, *shape) * length
        lead = torch.randint(self.stems, (batch, 1), generator=generator, device=self.device)
        together = uniform(generator, batch, 1) < coherent
        place = torch.where(together, place.gather(1, lead), place)
        jitter = torch.where(together, jitter.gather(1, lead), jitter)
        begin, end = places.begin[place], places.end[place]
        starts = places.second[place] + jitter.long()
        return torch.maximum(torch.minimum(starts, end - length), begin), end


def validation_excerpts(bank: SongBank, *, segment_s: float, excerpts: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Fixed excerpts of whole songs as they are: targets (excerpts, S, 2, n) and where each is from.

    Songs take turns; each gives the loudest (by the quietest of its stems) of eight places drawn by the seed.
    """
    targets, places = [], []
    samples = round(segment_s * bank.sample_rate)
    for index in range(excerpts):
        song = bank.songs[index % len(bank.songs)]
        rng = np.random.default_rng([seed, 0x76616C, index])
        starts = rng.integers(0, max(song.samples - samples, 0) + 1, size=8)
        start = int(max(starts, key=lambda start: _fullness(song, int(start) // bank.sample_rate, segment_s)))
        targets.append(bank.excerpt(song, start, samples))
        places.append(f"{song.name} at {start / bank.sample_rate:.1f} s")
    return np.stack(targets), places


def _fullness(song: BankSong, second: int, segment_s: float) -> float:
    levels = np.asarray(song.levels_db)[:, second : second + max(1, round(segment_s))]
    return float(np.clip(levels, -60, 0).mean(axis=1).min())
