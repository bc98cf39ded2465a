"""From a run's best weights to a file that ships: half precision, with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tsbs_daw.errors import CheckpointError

if TYPE_CHECKING:
    from tsbs_daw.model import TwoStageSeparator

EXCERPTS_A_SONG = 10


def export_best(run: Path, path: Path, calibrate_on: Path | None = None) -> int:
    """Write the best averaged weights of a run in half precision, calibrated on the songs of a folder if there is one.

    Returns: the file's size in bytes
    Raises:  CheckpointError: the run has no validated weights yet
             DatasetError: a song to calibrate on is broken
    """
    import torch

    from tsbs_daw.model import checkpoint

    best = run / "best.safetensors"
    if not best.is_file():
        raise CheckpointError(f"the run {run} has no best.safetensors yet; train until its first validation")
    facts = {key: value for key, value in checkpoint.read_metadata(best).items() if key not in ("format", "config")}
    recipe = run / "recipe.json"
    if recipe.is_file():
        facts["recipe_settings"] = json.dumps(json.loads(recipe.read_text(encoding="utf-8")))
    network = checkpoint.load(best)
    if calibrate_on is not None:
        facts["calibrated_on"] = f"{_calibrate(network, calibrate_on)} songs"
    checkpoint.save(network, path, facts, dtype=torch.float16)
    return path.stat().st_size


def _calibrate(network: TwoStageSeparator, folder: Path) -> int:
    """Scale what the map stage adds; returns how many songs decided."""
    from tsbs_daw.evaluation.songs import list_song_folders
    from tsbs_daw.training.calibrate import fit_map_gains, scale_map
    from tsbs_daw.training.dataset import validation_excerpts
    from tsbs_daw.training.song_folders import read_songs, require_whole

    config = network.config
    songs, problems = read_songs(list_song_folders(folder, config.stems), config.stems, config.sample_rate)
    require_whole(problems, folder)
    each = (
        validation_excerpts([song], segment_s=config.chunk_s, excerpts=EXCERPTS_A_SONG, seed=0)[0] for song in songs
    )
    scale_map(network, fit_map_gains(network, each))
    return len(songs)
