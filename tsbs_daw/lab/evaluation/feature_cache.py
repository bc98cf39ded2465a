"""Hear songs to learn from: separate and listen, or take from a folder what was heard before."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from tsbs_daw.analysis.features import Features
from tsbs_daw.contracts.analysis import Loudness
from tsbs_daw.core.errors import DatasetError, shown
from tsbs_daw.lab.evaluation.analysis import STEMS, Heard, hear, read_cut_truth
from tsbs_daw.lab.evaluation.songs import find_test_songs
from tsbs_daw.lab.evaluation.truth import Truth
from tsbs_daw.lab.songs.dataset import SPLITS
from tsbs_daw.separation.separator import Separator

log = logging.getLogger(__name__)

FIRST_TEST_SEED = SPLITS["test"].start
UNMEASURED = Loudness(integrated_lufs=None, range_lu=None, true_peak_db=None)  # nothing is learnt from loudness


def hear_songs(
    folders: Sequence[Path], separator: Separator, kept: Path | None = None
) -> tuple[list[tuple[Heard, Truth]], list[str]]:
    """Returns: what was heard of each song, and its truth; the songs' seeds, "7000-7020", ...
    Raises: DatasetError: a folder has no songs, or one of the test split
    """
    songs, seeds = [], []
    for song in [song for folder in folders for song in find_test_songs(folder, STEMS)]:
        seeds.append(_seed(song))
        known = kept / f"{song.name}.{separator.model_hash[:8]}.npz" if kept else None
        if known is not None and known.exists():
            heard = _load(known)
        else:
            heard = hear(song, separator, "separated")
            if known is not None:
                known.parent.mkdir(parents=True, exist_ok=True)
                _keep(heard, known)
        log.info("heard %s", song.name)
        songs.append((heard, read_cut_truth(song)))
    return songs, _ranges(seeds)


def _seed(song: Path) -> int:
    seed = int(json.loads((song / "song.json").read_text(encoding="utf-8"))["seed"])
    if seed >= FIRST_TEST_SEED:
        raise DatasetError(
            f"{shown(song)} belongs to the test split; learn from songs with seeds below {FIRST_TEST_SEED}."
        )
    return seed


def _ranges(seeds: Sequence[int]) -> list[str]:
    order = sorted(set(seeds))
    starts = [order[0], *(after for before, after in pairwise(order) if after > before + 1)]
    ends = [*(before for before, after in pairwise(order) if after > before + 1), order[-1]]
    return [f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]


def _keep(heard: Heard, path: Path) -> None:
    arrays = {
        f"{name}/{field.name}": np.asarray(getattr(features, field.name))
        for name, (features, _) in heard.items()
        for field in fields(Features)
    }
    np.savez(path, **arrays)


def _load(path: Path) -> Heard:
    heard = {}
    with np.load(path, allow_pickle=False) as known:
        for name in dict.fromkeys(key.split("/")[0] for key in known.files):
            values = {field.name: known[f"{name}/{field.name}"] for field in fields(Features)}
            plain = {key: value if value.ndim else float(value) for key, value in values.items()}
            heard[name] = Features(**plain), UNMEASURED
    return heard
