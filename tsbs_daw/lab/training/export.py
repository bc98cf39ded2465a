"""From a run's best weights to a file that ships: half precision, with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tsbs_daw.core.errors import CheckpointError, DatasetError, SettingsError

if TYPE_CHECKING:
    import numpy as np

    from tsbs_daw.network import ModelConfig, TwoStageSeparator

EXCERPTS_A_SONG = 10


def export_best(
    run: Path, path: Path, calibrate_on: Path | None = None, *, init: Path | None = None, keep: float = 0.0
) -> int:
    """Write the best averaged weights of a run in half precision.

    Args:    calibrate_on: a folder of songs to calibrate the map stage on; see tsbs_daw.lab.training.calibrate
             init, keep: weights that the run began from, and their share in a mean of them and the run's: between
                         the two lie weights that do nearly as well, and odd things less often (arXiv 2109.01903)
    Returns: the file's size in bytes
    Raises:  CheckpointError: the run has no validated weights yet
             SettingsError: `init` is a network of another shape
             DatasetError: a song to calibrate on is broken
    """
    from tsbs_daw.network import checkpoint

    best = run / "best.safetensors"
    if not best.is_file():
        raise CheckpointError(f"the run {run} has no best.safetensors yet; train until its first validation")
    facts = {key: value for key, value in checkpoint.read_metadata(best).items() if key not in ("format", "config")}
    network = checkpoint.load(best)
    if init is not None and keep:
        older = checkpoint.load(init)
        if older.config != network.config:
            raise SettingsError(f"{init} is a network of another shape than the run's; keep nothing of it")
        weights = older.state_dict()
        network.load_state_dict({name: own.lerp(weights[name], keep) for name, own in network.state_dict().items()})
        facts["kept_of_init"] = f"{keep:g}"
    if calibrate_on is not None:
        facts["calibrated_on"] = f"{_calibrate(network, calibrate_on)} songs"
    write_model(network, path, facts, run)
    return path.stat().st_size


def write_model(network: TwoStageSeparator, path: Path, facts: dict[str, str], run: Path) -> None:
    """Write weights in half precision, with the recipe of the run they are from."""
    import torch

    from tsbs_daw.network import checkpoint

    recipe = run / "recipe.json"
    if recipe.is_file():
        facts = {**facts, "recipe_settings": json.dumps(json.loads(recipe.read_text(encoding="utf-8")))}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(network, path, facts, dtype=torch.float16)


def _calibrate(network: TwoStageSeparator, folder: Path) -> int:
    """Scale what the map stage adds; returns how many songs decided."""
    from tsbs_daw.lab.evaluation.songs import list_song_folders
    from tsbs_daw.lab.training.calibrate import fit_map_gains, scale_map

    songs = list_song_folders(folder, network.config.stems)
    if not songs:
        raise DatasetError(f"the folder {folder} has no songs to calibrate on")
    scale_map(network, fit_map_gains(network, (_spread(song, network.config) for song in songs)))
    return len(songs)


def _spread(folder: Path, config: ModelConfig) -> np.ndarray:
    """Excerpts evenly over a song: (excerpts, S, 2, samples)."""
    import numpy as np

    from tsbs_daw.lab.training.song_folders import SongProblem, read_song_audio, require_whole

    song, reasons = read_song_audio(folder, config.stems, config.sample_rate)
    require_whole([SongProblem(folder.name, reason) for reason in reasons], folder.parent)
    samples = config.chunk_samples
    audio = np.pad(song.audio, ((0, max(0, samples - len(song.audio))), (0, 0), (0, 0)))
    starts = np.linspace(0, len(audio) - samples, EXCERPTS_A_SONG).astype(int)
    excerpts = np.stack([audio[start : start + samples] for start in starts])
    return excerpts.transpose(0, 2, 3, 1).astype(np.float32) / 32768.0
