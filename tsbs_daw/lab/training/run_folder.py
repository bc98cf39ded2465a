"""The files of a training run: its state, its curve, TensorBoard events if the recipe asks for them, and the export.

The state is one safetensors file with the weights, their average, the optimiser's state and the progress. Tensor names:
`model.<name>`, `ema.<name>`, `optimiser.<name of the parameter>.<field>`. The recipe and the counters are JSON in the
metadata. It uses no pickle. It is written to a temporary file and renamed, so a crash leaves the previous state intact.
The curve has one JSON object per line.

The export writes the best weights in half precision with their provenance, and calibrates them if requested.
Calibration scales the corrections of the map stage, for each stem and band. The map stage learns them on the training
songs and overestimates them on others. One factor for each stem and band, the least squares solution on held-out songs,
compensates for that; it is smaller where these songs disagree. The factors are multiplied into the weights, so they
cost nothing at inference. S stems, K bands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tsbs_daw.core.errors import CheckpointError, DatasetError, NoSpaceLeft, SettingsError
from tsbs_daw.core.files import disk_is_full
from tsbs_daw.lab.training.objective import SILENT_RMS
from tsbs_daw.network import ModelConfig, TwoStageSeparator

FORMAT = "1"


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: Number of completed steps.
        best_sdr_db: Best mean validation SDR so far.
        best_step: Step of that validation.
        trained_s: Time spent in steps.
        songs: Hash of the training songs.
    """

    step: int = 0
    best_sdr_db: float | None = None
    best_step: int = 0
    trained_s: float = 0.0
    songs: str = ""


def save_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    recipe: dict,
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.state_dict().items()}
    for name, parameter in model.named_parameters():
        for field, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{name}.{field}"] = torch.as_tensor(value)
    metadata = {"tsbs_daw_training": FORMAT, "recipe": json.dumps(recipe), "progress": json.dumps(asdict(progress))}
    write_tensors(path, tensors, metadata)


def load_state(path: Path, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Restore weights, average and optimiser.

    Returns:
        The progress of the run.

    Raises:
        CheckpointError: The file is not a training state of this model.
    """
    tensors, metadata = read_tensors(path)
    _load_weights(model, tensors, "model.", path)
    _load_weights(ema, tensors, "ema.", path)
    _load_optimiser(optimiser, model, tensors)
    return Progress(**json.loads(metadata["progress"]))


def read_progress(path: Path) -> Progress:
    """Read the progress of a run from its state.

    Raises:
        CheckpointError: The file is not a training state.
    """
    return Progress(**json.loads(_read_metadata(path)["progress"]))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors to a temporary file, flush it to the disk, and rename it.

    Raises:
        NoSpaceLeft: The disk is full; the previous file at `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, temporary, metadata)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        if disk_is_full(error) or "No space left" in str(error):  # safetensors gives no errno
            raise NoSpaceLeft(f"the disk of {path.parent} is full; make room, and go on with --resume") from error
        raise
    temporary.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    metadata = _read_metadata(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the training state {path} cannot be read: {error}") from error
    if metadata.get("tsbs_daw_training") != FORMAT:
        raise CheckpointError(f"the file {path} is not a training state of this version; start again without --resume")
    return metadata


def _load_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore the optimiser by its own load_state_dict, which puts each field on the right device."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state = {}
    for index, parameter in enumerate(parameters):
        prefix = f"optimiser.{names[parameter]}."
        fields = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if fields:
            state[index] = fields
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _load_weights(module: nn.Module, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    weights = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the training state {path} does not fit the recipe's model: {error}") from error


class Curve:
    """The curve of a run, to which rows are appended.

    Args:
        path: The file.
        resume_step: Keep the rows up to this step, and drop later ones, which are trained again; 0 to start anew.
    """

    def __init__(self, path: Path, *, resume_step: int = 0):
        self.path = path
        rows = [row for row in read_curve(path) if row["step"] <= resume_step] if resume_step else []
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        temporary.replace(path)

    def add(self, kind: str, step: int, **values) -> dict:
        """Append a row and return it."""
        row = {"kind": kind, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


def read_curve(path: Path) -> list[dict]:
    """Return all complete rows; none if there is no curve."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # a crash cut this line off, so it is the last one
    return rows


class Board:
    """Writes TensorBoard event files.

    Args:
        folder: Folder of the files.
        resume_step: Hide events after this step, which are trained again; 0 to start anew.

    Raises:
        SettingsError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingsError(
                "the recipe asks for TensorBoard, which is not installed: pip install 'tsbs-daw[train]', "
                "or --set log.tensorboard=false"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def add_row(self, row: dict) -> None:
        """Add every number of a row of the curve; those of stems are named `sdr_db/vocals`, for example."""
        for key, value in row.items():
            if isinstance(value, dict):
                for stem, number in value.items():
                    self._writer.add_scalar(f"{key}/{stem}", number, row["step"])
            elif key not in ("kind", "step"):
                self._writer.add_scalar(f"{row['kind']}/{key}", value, row["step"])
        self._writer.flush()

    def add_audio(self, name: str, audio: np.ndarray, sample_rate: int, step: int) -> None:
        """Add the first channel of (channels, samples), clipped to full scale."""
        self._writer.add_audio(name, np.clip(audio[:1], -1.0, 1.0), step, sample_rate=sample_rate)

    def close(self) -> None:
        self._writer.close()


EXCERPTS_A_SONG = 10


def export_best(
    run: Path, path: Path, calibrate_on: Path | None = None, *, init: Path | None = None, keep: float = 0.0
) -> int:
    """Write the best averaged weights of a run in half precision.

    Args:
        run: The run's folder.
        path: The file to write.
        calibrate_on: Folder of songs on which to calibrate the map stage; see `fit_map_gains`.
        init: Weights from which the run started.
        keep: Share of `init` in the exported weights. Weights between the two separate nearly as well, and fail less
            often on unusual songs (arXiv 2109.01903).

    Returns:
        The file's size in bytes.

    Raises:
        CheckpointError: The run has no validated weights yet.
        SettingsError: `init` is a network of another shape.
        DatasetError: A song to calibrate on is broken.
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
    """Write weights in half precision, with the recipe of their run."""
    import torch

    from tsbs_daw.network import checkpoint

    recipe = run / "recipe.json"
    if recipe.is_file():
        facts = {**facts, "recipe_settings": json.dumps(json.loads(recipe.read_text(encoding="utf-8")))}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(network, path, facts, dtype=torch.float16)


def _calibrate(network: TwoStageSeparator, folder: Path) -> int:
    """Scale the corrections of the map stage. Returns the number of songs used."""
    from tsbs_daw.lab.evaluation.songs import list_song_folders

    songs = list_song_folders(folder, network.config.stems)
    if not songs:
        raise DatasetError(f"the folder {folder} has no songs to calibrate on")
    scale_map(network, fit_map_gains(network, (_spread(song, network.config) for song in songs)))
    return len(songs)


def _spread(folder: Path, config: ModelConfig) -> np.ndarray:
    """Cut excerpts at equal distances from a song: (excerpts, S, 2, samples)."""
    import numpy as np

    from tsbs_daw.lab.evaluation.songs import SongProblem, read_song_audio, require_whole

    song, reasons = read_song_audio(folder, config.stems, config.sample_rate)
    require_whole([SongProblem(folder.name, reason) for reason in reasons], folder.parent)
    assert song is not None, "a song without a reason against it"
    samples = config.chunk_samples
    audio = np.pad(song.audio, ((0, max(0, samples - len(song.audio))), (0, 0), (0, 0)))
    starts = np.linspace(0, len(audio) - samples, EXCERPTS_A_SONG).astype(int)
    excerpts = np.stack([audio[start : start + samples] for start in starts])
    return excerpts.transpose(0, 2, 3, 1).astype(np.float32) / 32768.0


# Regularisation, as a share of the mean energy of the bands: factors of bands with small corrections stay near zero.
RIDGE = 0.3
# A factor whose square is less than this many times its variance becomes zero; others shrink towards zero, as in the
# positive-part James-Stein estimator. From 2 on, a factor improves unseen songs.
DOUBT = 2.0


@torch.no_grad()
def fit_map_gains(network: TwoStageSeparator, songs: Iterable[np.ndarray]) -> Tensor:
    """Fit factors for the corrections of the map stage that minimise the mean level of the error.

    The level is in dB, as for SDR, so a song has more weight if the mask stage leaves a smaller error. A factor is
    negative if the corrections are wrong.

    Args:
        network: The network.
        songs: Targets of each song's excerpts; the mixture is their sum.

    Returns:
        A factor for each stem and band.

    Shape:
        songs: (excerpts, S, C, samples) each
        result: (S, K)
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
    """Return the share of each factor to keep, 0 to 1; more if the songs agree: (songs, S, K) twice -> (S, K)."""
    songs, total = len(along), along.sum(0)
    if songs < 2:
        return torch.ones_like(total)
    apart = along - total / energy.sum(0).clamp(min=1e-12) * energy
    variance = songs / (songs - 1) * apart.square().sum(0)
    return (1 - DOUBT * variance / total.square().clamp(min=1e-24)).clamp(min=0)


def _sums(network: TwoStageSeparator, stems: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums over an excerpt. All are zero for a stem that does not sound.

    Returns:
        Product of correction and error of the mask stage, (S, K); square of the correction, (S, K); energy of the
        error, (S,).
    """
    separation = network(torch.from_numpy(stems.sum(axis=0))[None])
    missing = torch.from_numpy(stems) - separation.mask_estimates[0]
    added = separation.estimates[0] - separation.mask_estimates[0]
    sounds = torch.from_numpy(np.sqrt(np.square(stems).mean(axis=(1, 2))) >= SILENT_RMS)
    ours, theirs = (network.spectrum(part).unflatten(0, part.shape[:2]) for part in (added, missing))
    along, energy = _by_band((ours.conj() * theirs).real, network), _by_band(ours.abs().square(), network)
    return sounds[:, None] * along, sounds[:, None] * energy, sounds * missing.double().square().sum((1, 2))


def _by_band(values: Tensor, network: TwoStageSeparator) -> Tensor:
    """Sum over channels, frames and the bins of each band: (S, C, T, F) -> (S, K)."""
    bands = values.double().sum((1, 2)).split(network.config.band_widths, dim=-1)
    return torch.stack([band.sum(-1) for band in bands], dim=-1)


@torch.no_grad()
def scale_map(network: TwoStageSeparator, gains: Tensor) -> None:
    """Multiply the corrections of the map stage by factors (S, K), through the weights of its last layer."""
    estimator, stems = network.map_estimator, len(gains)
    for group, weight, bias in zip(network.config.band_groups, estimator.weight3, estimator.bias3, strict=True):
        # The axes of the outputs are value/gate, real/imaginary, stem and bin; only the value is linear in the result.
        factors = torch.ones(group.count, 2, 2, stems, group.band_width)
        factors[:, 0] = gains.T[group.first_band : group.first_band + group.count, None, :, None]
        factors = factors.reshape(group.count, stems, 4 * group.band_width)
        weight.mul_(factors[..., None])
        bias.mul_(factors)
