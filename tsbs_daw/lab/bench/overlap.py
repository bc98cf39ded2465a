"""SDR and time by chunk length and overlap, on songs with known stems."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np

from tsbs_daw.lab.evaluation.evaluate import usdr
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.render import render
from tsbs_daw.separation import Separator

# Seeds of the test split, on which no model was trained. Four songs would be too few: one song changes their mean by
# more than any setting here.
SEEDS = range(9701, 9713)
SONG_S = 30.0
CHUNKS_S = (1.5, 3.0, 6.0)
OVERLAPS = (0.0, 0.1, 0.25, 0.5)
SAMPLE_RATE = 44100


@dataclass(frozen=True)
class Point:
    """A setting and its results.

    Attributes:
        chunk_s: Chunk length, in seconds.
        overlap: Overlap as a share of the chunk.
        sdr_db: Mean uSDR over songs and stems.
        seconds: Time per second of audio.
    """

    chunk_s: float
    overlap: float
    sdr_db: float
    seconds: float


def measure_overlaps(model: str, device: str, quick: bool) -> list[dict]:
    songs = [render(compose(seed, 4.0 if quick else SONG_S, complete=True)) for seed in SEEDS[: 1 if quick else None]]
    separator = Separator.load(model, device)
    settings = [(3.0, 0.25)] if quick else [(chunk_s, overlap) for chunk_s in CHUNKS_S for overlap in OVERLAPS]
    return [asdict(_point(separator, songs, chunk_s, overlap)) for chunk_s, overlap in settings]


def _point(separator: Separator, songs: list[dict[str, np.ndarray]], chunk_s: float, overlap: float) -> Point:
    separator.chunk_samples = round(chunk_s * SAMPLE_RATE)
    separator.fade_samples = round(overlap * separator.chunk_samples)
    scores, began = [], time.perf_counter()
    for targets in songs:
        estimates = separator.separate(sum(targets.values()), SAMPLE_RATE)
        scores += [usdr(target, estimates[stem]) for stem, target in targets.items()]
    audio_s = sum(next(iter(targets.values())).shape[-1] for targets in songs) / SAMPLE_RATE
    return Point(chunk_s, overlap, float(np.mean(scores)), (time.perf_counter() - began) / audio_s)
