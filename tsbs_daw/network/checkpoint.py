"""Weights on disk: safetensors, with the network's config and provenance in the metadata. Never pickle.

Published weights have other names: the reference network has one module per band and per direction, whereas here the
parameters of equal modules are stacked. Each reference tensor is therefore a slice of one of our parameters.
`reference_views` lists these slices, and conversion in either direction copies them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from tsbs_daw.core.errors import CheckpointError, shown
from tsbs_daw.network.blocks import DualNet, SequenceUnit
from tsbs_daw.network.config import ModelConfig
from tsbs_daw.network.network import BandSplit, Estimator, GroupSplit, TwoStageSeparator
from tsbs_daw.network.seam import NetworkConfig, SeparationNetwork

FORMAT = "tsbs-daw-1"
KIND = "network"  # metadata key for the kind of network; absent for TS-BSMamba2
_OWN = "ts-bs-mamba2"

AnyConfig = TypeVar("AnyConfig", bound=NetworkConfig)
AnyNetwork = TypeVar("AnyNetwork", bound=SeparationNetwork)


def save(
    model: SeparationNetwork,
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the weights atomically.

    Args:
        model: The network.
        path: The file to write.
        metadata: Provenance, stored beside the config.
        dtype: Number format of the stored weights; torch.float16 halves the size of the file.
    """
    tensors = {name: part.detach().to("cpu", dtype).contiguous() for name, part in model.stored().items()}
    header = {**(metadata or {}), "format": FORMAT, "config": json.dumps(model.config.to_dict())}
    if model.config.kind != _OWN:  # absent for TS-BSMamba2, as in older files
        header[KIND] = model.config.kind
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(to_bytes(tensors, metadata=header))  # save_file would make it readable only by its owner
    temporary.replace(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata in the header of a model file.

    Raises:
        CheckpointError: The file is unreadable or not a model of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Cannot read the model {path} ({error}). Pull or convert it again.") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise CheckpointError(
            f"{path} contains weights but is not a tsbs-daw model. Convert it with `tsbs-daw models convert`."
        )
    return metadata


def read_config(path: Path) -> ModelConfig:
    """Read the config of a TS-BSMamba2 without its weights.

    Raises:
        CheckpointError: The file is not a model, is of another kind of network, or its config is invalid.
    """
    metadata = read_metadata(path)
    if (kind := metadata.get(KIND, _OWN)) != _OWN:
        raise CheckpointError(f"{path} is a model of kind {kind[:40]}, but this requires a TS-BSMamba2 model.")
    try:
        return ModelConfig.from_dict(json.loads(metadata["config"]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} describes a network that this version does not support ({error}).") from error


def load(path: Path, device: str | torch.device = "cpu") -> TwoStageSeparator:
    """Load a TS-BSMamba2 for inference, in float32.

    Raises:
        CheckpointError: The file is not a model or is damaged, or its tensors do not match its config.
    """
    return load_as(path, read_config(path), TwoStageSeparator).to(device)


def load_as(path: Path, config: AnyConfig, build: Callable[[AnyConfig], AnyNetwork]) -> AnyNetwork:
    """Build a network with `build` and load the weights of a file into it.

    Raises:
        CheckpointError: The tensors of the file do not match the config.
    """
    with safe_open(path, framework="pt") as file:
        # Check that the file's tensors match the config before memory is allocated for it.
        with torch.device("meta"):
            expected = build(config).stored()
        check_shapes({name: file.get_slice(name).get_shape() for name in file.keys()}, expected, str(path))  # noqa: SIM118
        model = build(config)
        for name, target in model.stored().items():
            target.copy_(file.get_tensor(name))
    return model.eval()


def check_shapes(found: Mapping[str, Sequence[int]], expected: Mapping[str, Tensor], source: str) -> None:
    """Check that a file has the tensors of a network.

    Args:
        found: Shapes of the file's tensors, by name.
        expected: Tensors of the network, by name.
        source: The file, for the message.

    Raises:
        CheckpointError: A name or a shape differs.
    """
    missing, others = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or others:
        parts = [f"lacks {len(missing)} tensors of its config, such as {missing[0]}"] if missing else []
        parts += [f"has {len(others)} unexpected tensors, such as {shown(others[0])}"] if others else []
        raise CheckpointError(f"{source} {' and '.join(parts)}; pull or convert it again, with the right config.")
    for name, shape in found.items():
        if list(shape) != list(expected[name].shape):
            raise CheckpointError(f"{source}: {name} has shape {tuple(shape)}, not {tuple(expected[name].shape)}.")


View = tuple[str, Tensor, tuple[int, ...]]  # reference name, view into our parameter, reference shape


def reference_views(model: TwoStageSeparator) -> Iterator[View]:
    """Yield every tensor of the published state dict as a view into the model's parameters."""
    yield from _split("BN_mask", model.mask_split)
    yield from _split("BN_map", model.map_split)
    for stage, blocks in (("mask", model.mask_blocks), ("map", model.map_blocks)):
        for index, block in enumerate(cast("Iterable[DualNet]", blocks)):
            yield from _block(f"separator_{stage}.{index}", block)
    yield _view("in_conv.weight", model.fusion.weight, 1)
    yield _view("in_conv.bias", model.fusion.bias)
    yield from _estimator("mask", model.mask_estimator)
    yield from _estimator("map", model.map_estimator)


def reference_state_dict(model: TwoStageSeparator) -> dict[str, Tensor]:
    """Return copies of the model's weights under the reference names and in the reference shapes."""
    return {name: part.detach().reshape(shape).clone() for name, part, shape in reference_views(model)}


def load_reference_state_dict(model: TwoStageSeparator, state_dict: Mapping[str, Tensor]) -> None:
    """Copy a state dict with reference names into the model, in the model's own precision.

    Raises:
        CheckpointError: A name is missing or unknown, or a shape differs; the model is unchanged.
    """
    views = {name: (part, shape) for name, part, shape in reference_views(model)}
    problems = [f"{name} is missing" for name in views if name not in state_dict]
    problems += [f"{name} is unknown" for name in state_dict if name not in views]
    problems += [
        f"{name} has shape {tuple(state_dict[name].shape)} instead of {shape}"
        for name, (_, shape) in views.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"The weights do not fit this model: {'; '.join(problems[:3])}{more}.")
    with torch.no_grad():
        for name, (part, _) in views.items():
            part.copy_(state_dict[name].reshape(part.shape))


def _view(name: str, part: Tensor, trailing_ones: int = 0) -> View:
    return name, part, tuple(part.shape) + (1,) * trailing_ones


def _split(prefix: str, split: BandSplit) -> Iterator[View]:
    for group in cast("Iterable[GroupSplit]", split.groups):
        for offset in range(group.group.count):
            name = f"{prefix}.{group.group.first_band + offset}"
            yield _view(f"{name}.0.weight", group.norm_weight[offset])
            yield _view(f"{name}.0.bias", group.norm_bias[offset])
            yield _view(f"{name}.1.weight", group.weight[offset], 1)
            yield _view(f"{name}.1.bias", group.bias[offset])


def _block(prefix: str, block: DualNet) -> Iterator[View]:
    yield from _sequence(f"{prefix}.band_rnn", block.time)
    yield from _sequence(f"{prefix}.band_comm", block.band)
    channel = block.channel
    yield _view(f"{prefix}.channel_comm.input_norm.weight", channel.norm_weight)
    yield _view(f"{prefix}.channel_comm.input_norm.bias", channel.norm_bias)
    for name, linear in (
        ("TAC_input", channel.transform),
        ("TAC_mean", channel.average),
        ("TAC_output", channel.concatenate),
    ):
        yield _view(f"{prefix}.channel_comm.{name}.0.weight", linear.weight)
        yield _view(f"{prefix}.channel_comm.{name}.0.bias", linear.bias)


def _sequence(prefix: str, unit: SequenceUnit) -> Iterator[View]:
    yield _view(f"{prefix}.norm.weight", unit.norm_weight)
    yield _view(f"{prefix}.norm.bias", unit.norm_bias)
    mamba = unit.mamba.mamba
    for index, direction in enumerate(("forward_mamba2", "backward_mamba2")[: unit.mamba.directions]):
        name = f"{prefix}.rnn.{direction}"
        yield _view(f"{name}.dt_bias", mamba.dt_bias[index])
        yield _view(f"{name}.A_log", mamba.A_log[index])
        yield _view(f"{name}.D", mamba.D[index])
        yield _view(f"{name}.in_proj.weight", mamba.in_proj[index])
        conv = mamba.conv_weight[index]
        yield f"{name}.conv1d.weight", conv, (conv.shape[0], 1, conv.shape[1])
        yield _view(f"{name}.conv1d.bias", mamba.conv_bias[index])
        yield _view(f"{name}.norm.weight", mamba.norm_weight[index])
        yield _view(f"{name}.out_proj.weight", mamba.out_proj[index])
    yield _view(f"{prefix}.proj.weight", unit.proj.weight)
    yield _view(f"{prefix}.proj.bias", unit.proj.bias)


def _estimator(prefix: str, estimator: Estimator) -> Iterator[View]:
    for number, group in enumerate(estimator.config.band_groups):
        for offset in range(group.count):
            band = group.first_band + offset
            name = f"{prefix}.{band}"
            yield _view(f"{name}.0.weight", estimator.norm_weight[band])
            yield _view(f"{name}.0.bias", estimator.norm_bias[band])
            yield _view(f"{name}.1.weight", estimator.weight1[band], 1)
            yield _view(f"{name}.1.bias", estimator.bias1[band])
            yield _view(f"{name}.3.weight", estimator.weight2[band].flatten(0, 1), 1)
            yield _view(f"{name}.3.bias", estimator.bias2[band].flatten())
            yield _view(f"{name}.5.weight", estimator.weight3[number][offset].flatten(0, 1), 1)
            yield _view(f"{name}.5.bias", estimator.bias3[number][offset].flatten())
