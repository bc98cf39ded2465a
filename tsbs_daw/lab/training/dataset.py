"""Training examples from song folders. S stems, C channels (always 2 here), samples = segment x sample rate.

Example i of pass n is drawn with numpy's generator seeded by (seed, n, i) and nothing else: the data order needs no
state, a resumed run sees exactly what an unbroken run would have seen, and any process can make any example.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from tsbs_daw.lab.training.augment import augment_stem
from tsbs_daw.lab.training.recipe import AugmentPart, DataPart
from tsbs_daw.lab.training.song_folders import SongFolder

CHANNELS = 2
QUIET_WEIGHT = 0.02  # of a second below the activity threshold, against 1 above it


def read_excerpt(path: Path, start: int, samples: int) -> np.ndarray:
    """(2, samples) float32 from `start` (samples) on; mono is doubled, what lies past the end is zero."""
    with soundfile.SoundFile(path) as file:
        file.seek(min(start, file.frames))
        audio = file.read(samples, dtype="float32", always_2d=True).T
    if audio.shape[0] == 1:
        audio = np.repeat(audio, CHANNELS, axis=0)
    if audio.shape[1] < samples:
        audio = np.pad(audio, ((0, 0), (0, samples - audio.shape[1])))
    return audio


class TrainingExcerpts:
    """Pass number -> the targets of that pass's batch on this device; a map-style data set of whole batches.

    A pass is one forward and backward; a step of the optimiser makes `accumulate` of them.
    """

    def __init__(
        self,
        songs: Sequence[SongFolder],
        data: DataPart,
        augment: AugmentPart,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
    ):
        self.songs, self.data, self.augment = list(songs), data, augment
        self.seed, self.batch, self.rank = seed, batch, rank
        self.sample_rate = songs[0].sample_rate
        self.samples = round(data.segment_s * self.sample_rate)
        self.stems = len(songs[0].files)
        self._places = [[self._chances(song, stem) for stem in range(self.stems)] for song in self.songs]
        self._song_weights = self._weigh_songs()

    def __getitem__(self, number: int) -> np.ndarray:
        """Targets of one pass: (batch, S, 2, samples) float32; the mixture is their sum."""
        first = self.rank * self.batch
        return np.stack([self.example(number, first + index) for index in range(self.batch)])

    def example(self, number: int, index: int) -> np.ndarray:
        """Targets (S, 2, samples) of example `index` of pass `number`."""
        rng = np.random.default_rng([self.seed, number, index])
        pick = self._coherent(rng) if rng.random() < self.data.coherent_probability else self._apart(rng)
        return np.stack(
            [
                augment_stem(
                    read_excerpt(self.songs[song].files[stem], start, self.samples), self.sample_rate, self.augment, rng
                )
                for stem, (song, start) in enumerate(pick)
            ]
        )

    def _coherent(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """One place of one song for all stems: a random stem decides where."""
        lead = int(rng.integers(self.stems))
        song = self._choose_song(lead, rng)
        return [(song, self._start(song, lead, rng))] * self.stems

    def _apart(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """A song and a place of its own for each stem."""
        pick = []
        for stem in range(self.stems):
            song = self._choose_song(stem, rng)
            pick.append((song, self._start(song, stem, rng)))
        return pick

    def _choose_song(self, stem: int, rng: np.random.Generator) -> int:
        return int(rng.choice(len(self.songs), p=self._song_weights[stem]))

    def _start(self, song: int, stem: int, rng: np.random.Generator) -> int:
        """Start of an excerpt: centred near an active second, or anywhere."""
        last = max(self.songs[song].samples - self.samples, 0)
        by_activity, anywhere, jitter = rng.random(3)
        chances = self._places[song][stem]
        second = int(rng.choice(len(chances), p=chances))
        if by_activity >= self.data.active_share:
            return int(anywhere * (last + 1))
        # The chosen second lies anywhere within the excerpt, not always at its beginning.
        start = (second + jitter) * self.sample_rate - rng.random() * self.samples
        return int(np.clip(start, 0, last))

    def _chances(self, song: SongFolder, stem: int) -> np.ndarray:
        weights = np.where(song.levels_db[stem] > self.data.active_above_db, 1.0, QUIET_WEIGHT)
        return weights / weights.sum()

    def _weigh_songs(self) -> list[np.ndarray]:
        """Per stem, the chance of each song: its share of the active seconds."""
        weights = []
        for stem in range(self.stems):
            active = [np.count_nonzero(song.levels_db[stem] > self.data.active_above_db) for song in self.songs]
            counts = np.asarray(active, dtype=np.float64)
            counts = counts if counts.any() else np.ones(len(self.songs))
            weights.append(counts / counts.sum())
        return weights


def validation_excerpts(
    songs: Sequence[SongFolder], *, segment_s: float, excerpts: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Fixed excerpts of whole songs as they are: targets (excerpts, S, 2, samples) and where each is from.

    Songs take turns; each gives the loudest (by the quietest of its stems) of eight places drawn by the seed.
    """
    targets, places = [], []
    for index in range(excerpts):
        song = songs[index % len(songs)]
        samples = round(segment_s * song.sample_rate)
        rng = np.random.default_rng([seed, 0x76616C, index])
        starts = rng.integers(0, max(song.samples - samples, 0) + 1, size=8)
        start = int(max(starts, key=lambda start: _fullness(song, int(start), segment_s)))
        targets.append(np.stack([read_excerpt(path, start, samples) for path in song.files]))
        places.append(f"{song.name} at {start / song.sample_rate:.1f} s")
    return np.stack(targets), places


def _fullness(song: SongFolder, start: int, segment_s: float) -> float:
    first = start // song.sample_rate
    return float(np.clip(song.levels_db[:, first : first + max(1, round(segment_s))], -60, 0).mean(axis=1).min())
