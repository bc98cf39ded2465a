"""Weights on disk: safetensors, with the network's shape and provenance in the metadata. Never pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from tsbs_daw.core.errors import CheckpointError
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.network import TwoStageSeparator

FORMAT = "tsbs-daw-1"


def save(
    model: TwoStageSeparator,
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the weights atomically.

    Args:   metadata: provenance, kept beside the config; dtype: torch.float16 halves the file
    """
    tensors = {name: part.detach().to("cpu", dtype).contiguous() for name, part in model.state_dict().items()}
    header = {**(metadata or {}), "format": FORMAT, "config": json.dumps(model.config.to_dict())}
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(to_bytes(tensors, metadata=header))  # save_file would make it readable by its owner alone
    temporary.replace(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata. Raises: CheckpointError"""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable model ({error}); pull or convert it again.") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise CheckpointError(
            f"{path} holds weights but not a tsbs-daw model; make one with `tsbs-daw models convert`."
        )
    return metadata


def read_config(path: Path) -> ModelConfig:
    """The network's shape, without reading the weights. Raises: CheckpointError"""
    try:
        return ModelConfig.from_dict(json.loads(read_metadata(path)["config"]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} describes a network that this version does not know ({error}).") from error


def load(path: Path, device: str | torch.device = "cpu") -> TwoStageSeparator:
    """A network ready for inference, in float32.

    Raises: CheckpointError: not a model, damaged, or its tensors are not those of its config
    """
    config = read_config(path)
    with safe_open(path, framework="pt") as file:
        _check_shapes(path, {name: file.get_slice(name).get_shape() for name in file.keys()}, config)  # noqa: SIM118
        model = TwoStageSeparator(config)
        for name, target in model.state_dict().items():
            target.copy_(file.get_tensor(name))
    return model.to(device).eval()


def _check_shapes(path: Path, shapes: dict[str, list[int]], config: ModelConfig) -> None:
    """Refuse a config that the file's tensors do not bear out, before memory is taken for what it claims."""
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in TwoStageSeparator(config).state_dict().items()}
    if set(shapes) != set(expected):
        raise CheckpointError(f"{path} lacks tensors of its own config; pull or convert it again.")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(f"{path}: {name} has shape {tuple(shape)}, not {tuple(expected[name])}.")
