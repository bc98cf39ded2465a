"""From the best weights of a run to a file that ships: calibrated if wanted, in half precision, with its provenance.

Calibration decides how much of what the map stage adds to keep, per stem and band. The map stage learns its corrections
on the training songs, and is surer of them than it may be. One factor for each stem and band, the least squares
solution on held-out songs, takes that back, and more so where these songs disagree; it goes into the weights, and costs
nothing afterwards. S stems, K bands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tsbs_daw.core.errors import CheckpointError, DatasetError, SettingsError
from tsbs_daw.lab.training.objective import SILENT_RMS
from tsbs_daw.network import ModelConfig, TwoStageSeparator

EXCERPTS_A_SONG = 10


def export_best(
    run: Path, path: Path, calibrate_on: Path | None = None, *, init: Path | None = None, keep: float = 0.0
) -> int:
    """Write the best averaged weights of a run in half precision.

    Args:    calibrate_on: a folder of songs to calibrate the map stage on; see `fit_map_gains`
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


# As if each band added this share of the mean band more, without any use: bands that add little stay near zero.
RIDGE = 0.3
# A factor less than the square root of this many standard errors from zero is zero; others shrink towards it, as
# the positive part of James and Stein's estimator does. Two is where a factor begins to pay on songs not seen.
DOUBT = 2.0


@torch.no_grad()
def fit_map_gains(network: TwoStageSeparator, songs: Iterable[np.ndarray]) -> Tensor:
    """The factors with which the map stage's additions lower the songs' mean error level most. Below zero where wrong.

    An error's level counts in dB, as SDR does, so a song weighs the more, the less the mask stage left to mend in it.

    Args:    songs: targets of each song's excerpts, (excerpts, S, C, samples); the mixture is their sum
    Returns: (S, K)
    """
    network.eval()
    along, energy = [], []
    for excerpts in songs:
        sums = [_sums(network, stems) for stems in excerpts]
        song_along, song_energy, left = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
        weight = ((left > 0) / left.clamp(min=1e-12))[:, None]
        along.append(weight * song_along)
        energy.append(weight * song_energy)
    cost = torch.stack(energy).sum(0)
    gains = torch.stack(along).sum(0) / (cost + RIDGE * cost.mean(1, keepdim=True)).clamp(min=1e-12)
    return (gains * _trust(torch.stack(along), torch.stack(energy))).float()


def _trust(along: Tensor, energy: Tensor) -> Tensor:
    """How much of each factor to keep, 0 to 1, by how far the songs agree on it: (songs, S, K) twice -> (S, K)."""
    songs, total = len(along), along.sum(0)
    if songs < 2:
        return torch.ones_like(total)
    apart = along - total / energy.sum(0).clamp(min=1e-12) * energy
    variance = songs / (songs - 1) * apart.square().sum(0)
    return (1 - DOUBT * variance / total.square().clamp(min=1e-24)).clamp(min=0)


def _sums(network: TwoStageSeparator, stems: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Of an excerpt: added x missing and added squared, (S, K), and the energy that is missing, (S,).

    All are zero for a stem that does not sound.
    """
    separation = network(torch.from_numpy(stems.sum(axis=0))[None])
    missing = torch.from_numpy(stems) - separation.mask_estimates[0]
    added = separation.estimates[0] - separation.mask_estimates[0]
    sounds = torch.from_numpy(np.sqrt(np.square(stems).mean(axis=(1, 2))) >= SILENT_RMS)
    ours, theirs = (network.spectrum(part).unflatten(0, part.shape[:2]) for part in (added, missing))
    along, energy = _by_band((ours.conj() * theirs).real, network), _by_band(ours.abs().square(), network)
    return sounds[:, None] * along, sounds[:, None] * energy, sounds * missing.double().square().sum((1, 2))


def _by_band(values: Tensor, network: TwoStageSeparator) -> Tensor:
    """(S, C, T, F) -> sums, (S, K)."""
    bands = values.double().sum((1, 2)).split(network.config.band_widths, dim=-1)
    return torch.stack([band.sum(-1) for band in bands], dim=-1)


@torch.no_grad()
def scale_map(network: TwoStageSeparator, gains: Tensor) -> None:
    """Multiply what the map stage adds to each stem in each band, by its last layer's weights. gains: (S, K)"""
    estimator, stems = network.map_estimator, len(gains)
    for group, weight, bias in zip(network.config.band_groups, estimator.weight3, estimator.bias3, strict=True):
        # Outputs are read as value/gate x real/imaginary x stem x bin, and only the value is a factor of the answer.
        factors = torch.ones(group.count, 2, 2, stems, group.band_width)
        factors[:, 0] = gains.T[group.first_band : group.first_band + group.count, None, :, None]
        factors = factors.reshape(group.count, stems, 4 * group.band_width)
        weight.mul_(factors[..., None])
        bias.mul_(factors)
