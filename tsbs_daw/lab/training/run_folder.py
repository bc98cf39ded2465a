"""What a training run leaves in its folder: its state, its curve, and TensorBoard events where a recipe asks for them.

The state is one safetensors file: weights, their average, the optimiser, and where the run stands. Tensor names:
`model.<name>`, `ema.<name>`, `optimiser.<name of the parameter>.<field>`. The recipe and the counters are JSON in the
metadata. No pickle; written beside and renamed, so a crash leaves the previous state whole. The curve has one JSON
object a line.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tsbs_daw.core.errors import CheckpointError, NoSpaceLeft, SettingsError
from tsbs_daw.core.files import disk_is_full

FORMAT = "1"


@dataclass
class Progress:
    """step: how many are done; best_sdr_db: the best mean SDR validated so far; trained_s: time spent in steps."""

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
    """Put everything back in place. Raises CheckpointError when the file is not a state of this model."""
    tensors, metadata = read_tensors(path)
    _load_weights(model, tensors, "model.", path)
    _load_weights(ema, tensors, "ema.", path)
    _load_optimiser(optimiser, model, tensors)
    return Progress(**json.loads(metadata["progress"]))


def read_progress(path: Path) -> Progress:
    """Where the run whose state lies at `path` stands. Raises: CheckpointError"""
    return Progress(**json.loads(_read_metadata(path)["progress"]))


def read_recipe(path: Path) -> dict:
    """The recipe document that the run at `path` follows."""
    return json.loads(_read_metadata(path)["recipe"])


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside, flush to the disk, rename. Raises: NoSpaceLeft: what was at `path` is still there"""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, temporary, metadata)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        if disk_is_full(error) or "No space left" in str(error):  # safetensors knows no errno
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
    """Through the optimiser's own load_state_dict, which knows on which device each field belongs."""
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
    """Appends rows; a resume drops the rows of steps to be trained again."""

    def __init__(self, path: Path, *, resume_step: int = 0):
        """Keeps the rows up to `resume_step`; 0 begins anew. A last line that a crash cut is dropped too."""
        self.path = path
        rows = [row for row in read_curve(path) if row["step"] <= resume_step] if resume_step else []
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        temporary.replace(path)

    def add(self, kind: str, step: int, **values) -> dict:
        """Returns: the row"""
        row = {"kind": kind, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


def read_curve(path: Path) -> list[dict]:
    """All whole rows; an empty list when there is no curve."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # a crash cut this line; nothing whole can follow it
    return rows


class Board:
    """Writes event files into `folder`. Raises SettingsError when tensorboard is not installed."""

    def __init__(self, folder: Path, *, resume_step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingsError(
                "the recipe asks for TensorBoard, which is not installed: pip install 'tsbs-daw[train]', "
                "or --set log.tensorboard=false"
            ) from error
        # What an interrupted run wrote beyond its last saved step is not shown twice.
        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def add_row(self, row: dict) -> None:
        """Every number of a row of the curve, those of stems as `sdr_db/vocals`."""
        for key, value in row.items():
            if isinstance(value, dict):
                for stem, number in value.items():
                    self._writer.add_scalar(f"{key}/{stem}", number, row["step"])
            elif key not in ("kind", "step"):
                self._writer.add_scalar(f"{row['kind']}/{key}", value, row["step"])
        self._writer.flush()

    def add_audio(self, name: str, audio: np.ndarray, sample_rate: int, step: int) -> None:
        """audio: (channels, samples); the first channel is kept, clipped to full scale."""
        self._writer.add_audio(name, np.clip(audio[:1], -1.0, 1.0), step, sample_rate=sample_rate)

    def close(self) -> None:
        self._writer.close()
