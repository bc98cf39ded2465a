"""The process that opens a pickled checkpoint, so that a hostile file affects only this process.

It writes model.safetensors into the `folder` of the request, and answers with the config and the number of parameters.

The state dict may be the whole file, or one level down under "state_dict", "model_state_dict", "model" or "state". If
all names start with "module.", "model." or "_orig_mod.", that prefix is removed. Trainers write all of these. Another
program's safetensors are read as well; their header may contain the arguments of the network.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tsbs_daw.core import child
from tsbs_daw.core.errors import CheckpointError, shown
from tsbs_daw.models.kinds import KINDS, TS
from tsbs_daw.network import FULL, LITE, TINY, ModelConfig, TwoStageSeparator, load_reference_state_dict
from tsbs_daw.network.checkpoint import check_shapes, save
from tsbs_daw.network.seam import SeparationNetwork

WRAPPERS = ("state_dict", "model_state_dict", "model", "state")
PREFIXES = ("module.", "model.", "_orig_mod.")
NAMED = {"full": FULL, "lite": LITE, "tiny": TINY}
LARGEST_COUNT = 512  # bands or blocks
MEMORY_LIMIT_BYTES = 24 << 30  # of address space, much of which torch reserves without using it


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Convert a checkpoint as requested by the parent process; see `core.child`.

    Raises:
        CheckpointError: The checkpoint cannot be converted.
    """
    warnings.simplefilter("ignore")  # torch warns about old formats, but the output of this process is not shown
    if sys.platform == "linux":  # so that a header that claims terabytes raises MemoryError
        child.limit_memory(MEMORY_LIMIT_BYTES)
    source = Path(request["source"])
    try:
        return _convert(source, Path(request["folder"]) / "model.safetensors", request)
    except MemoryError as error:
        raise CheckpointError(
            f"{shown(source)} needs more memory than any checkpoint of this network; check the file."
        ) from error
    except OSError as error:
        raise CheckpointError(f"Cannot convert {shown(source)} ({error.strerror or error}). Check the disk.") from error


def _convert(source: Path, output: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    state_dict, stated = read_tensors(source)
    values, arguments = dict(request["values"]), {**stated, **request["arguments"]}
    if request["network"] == TS:
        model: SeparationNetwork = _two_stage(source, state_dict, values)
    else:
        model = _packaged(source, state_dict, request["network"], values, arguments)
    save(model, output, {"converted_from": source.name, **request["metadata"]})
    return {"config": model.config.to_dict(), "parameters": sum(part.numel() for part in model.parameters())}


def _two_stage(source: Path, state_dict: Mapping[str, Tensor], values: dict[str, Any]) -> TwoStageSeparator:
    size, stems = values.pop("size", "auto"), tuple(values.pop("stems"))
    config = choose_config(size, stems, state_dict, source)
    try:
        model = TwoStageSeparator(replace(config, **values))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The config of {shown(source)} is invalid ({error}).") from error
    try:
        load_reference_state_dict(model, state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{shown(source)}: {error}") from error
    return model


def _packaged(
    source: Path, state_dict: Mapping[str, Tensor], network: str, values: dict[str, Any], arguments: dict[str, Any]
) -> SeparationNetwork:
    """Build a network of another package with these weights. Checks names and shapes before allocating memory."""
    kind = KINDS[network]
    _check_kind(state_dict, network, source)
    try:
        config = kind.config(values, arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The config of {shown(source)} is invalid ({error}).") from error
    weights = {name: part for name, part in state_dict.items() if not name.endswith(".rotary_embed.freqs")}
    with torch.device("meta"):
        expected = kind.build(config).stored()
    _check_stem_count(weights, expected, config.stems, source)
    check_shapes({name: part.shape for name, part in weights.items()}, expected, shown(source))
    model = kind.build(config)
    for name, target in model.stored().items():
        target.copy_(weights[name])
    return model


def _check_stem_count(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], stems: tuple[str, ...], source: Path
) -> None:
    """Check the number of stems first, because the shapes that differ would not tell the user why."""

    def heads(names: Mapping[str, Tensor]) -> int:
        return len({name.split(".")[1] for name in names if name.startswith("mask_estimators.")})

    found, described = heads(weights), heads(expected)
    if found != described:
        raise CheckpointError(
            f"{shown(source)} has {found} stems, but {described} are named ({', '.join(stems)}); "
            "name them in the checkpoint's order."
        )


# Names of tensors that identify a network, tried in this order.
_SIGNS = (
    (TS, re.compile(r"BN_mask\.")),
    ("htdemucs", re.compile(r"crosstransformer\.")),
    ("BSMamba2 by Kim and Choi", re.compile(r"layers\.\d+\..*\.(forward|backward)_blocks\.")),
    ("SCNet", re.compile(r"(separation_net|SDblock)", re.IGNORECASE)),
    ("bs-roformer", re.compile(r"final_norm\.gamma")),
    ("mel-band-roformer", re.compile(r"layers\.\d+\.\d+\.norm\.gamma")),
)


def recognise(names: Mapping[str, Any]) -> str | None:
    """Return the network with tensors of these names: a key of KINDS, the name of another network, or None."""
    return next((network for network, sign in _SIGNS if any(map(sign.match, names))), None)


def _check_kind(state_dict: Mapping[str, Tensor], wanted: str, source: Path) -> None:
    """Check that these are the weights of the wanted network.

    Raises:
        CheckpointError: They belong to another network.
    """
    recognised = recognise(state_dict)
    if recognised is None or recognised == wanted:
        return
    if recognised in KINDS:
        way_out = f"convert it with --network {recognised}" if recognised != TS else "leave out --network"
        raise CheckpointError(
            f"{shown(source)} contains weights of {KINDS[recognised].title}, not of {KINDS[wanted].title}; {way_out}."
        )
    raise CheckpointError(
        f"{shown(source)} contains weights of {recognised}, which tsbs-daw does not support; "
        f"choose a checkpoint of {', '.join(kind.title for kind in KINDS.values())}."
    )


def read_tensors(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the named tensors of a checkpoint, and the network arguments in its header.

    Raises:
        CheckpointError: The file is hostile, truncated, or not a state dict.
    """
    try:
        with safe_open(source, framework="pt") as file:
            named_tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except SafetensorError:
        return read_state_dict(source), {}
    try:
        stated = json.loads(notes.get("kwargs", "{}"))
    except ValueError:
        stated = {}
    return _without_prefix(named_tensors, source), stated if isinstance(stated, dict) else {}


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """Read the named tensors of a pickled checkpoint without running any code in it.

    Raises:
        CheckpointError: The file is hostile, truncated, or not a state dict.
    """
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(source, str(error))) from error
    except Exception as error:  # a damaged file can raise anything, and it all means the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"Cannot read the checkpoint {shown(source)} ({reason}). It may be cut short; download it again."
        ) from error
    return _without_prefix(_unwrap(content, source), source)


def _refusal(source: Path, message: str) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", message)
    if wanted is None:
        return f"{shown(source)} is not a checkpoint that can be read safely; nothing in it was run. Check the file."
    return (
        f"{shown(source)} would call `{wanted[1]}`, which weights do not need; nothing in it was run. "
        "Get the weights as a plain state dict from a source that you trust."
    )


def _unwrap(content: Any, source: Path) -> Mapping[str, Any]:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return content[key]
        return content
    raise CheckpointError(f"{shown(source)} contains a {type(content).__name__}, not named tensors; check the file.")


def _without_prefix(state_dict: Mapping[str, Any], source: Path) -> dict[str, Tensor]:
    names = {name: name for name in state_dict}
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{shown(source)} contains no named tensors; check the file.")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names.values())), None):
        names = {original: name.removeprefix(prefix) for original, name in names.items()}
    return {name: _checked(state_dict[original], original, source) for original, name in names.items()}


def _checked(value: Any, name: str, source: Path) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.dtype.is_floating_point:
        kind = f"{value.layout} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{shown(source)}: {shown(name)} is a {kind}, not a plain tensor of real numbers.")
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise CheckpointError(f"{shown(source)}: {shown(name)} claims {value.numel():,} numbers but stores fewer.")
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{shown(source)}: {shown(name)} contains NaN or infinity; its training diverged.")
    return value.detach()


def choose_config(name: str, stems: tuple[str, ...], state_dict: Mapping[str, Tensor], source: Path) -> ModelConfig:
    """Return the requested config, or one inferred from the shapes. Loading checks all names and shapes later.

    Raises:
        CheckpointError: The checkpoint belongs to another network, or has another number of stems.
    """
    _check_kind(state_dict, TS, source)
    found_stems = _count_stems(state_dict)
    if found_stems is not None and found_stems != len(stems):
        raise CheckpointError(
            f"{shown(source)} has {found_stems} stems, but {len(stems)} are named ({', '.join(stems)}); "
            "name them in the checkpoint's order with --stems."
        )
    try:
        return replace(NAMED[name] if name != "auto" else _read_off(state_dict), stems=stems)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{shown(source)} does not have the tensors of this network ({error}); it has {len(state_dict)} others."
        ) from error


def _count_stems(state_dict: Mapping[str, Tensor]) -> int | None:
    """Infer the number of stems: the last convolution has 4 values per bin and stem, the split norm 2 per bin."""
    last, split = state_dict.get("mask.0.5.bias"), state_dict.get("BN_mask.0.0.weight")
    if last is None or split is None or split.numel() == 0:
        return None
    return last.numel() // (2 * split.numel())


def _read_off(state_dict: Mapping[str, Tensor]) -> ModelConfig:
    """Infer sizes from shapes. No shape depends on the hop length; it comes from the named config with these bands."""

    def count(prefix: str) -> int:
        indices = [int(m[1]) for m in (re.match(re.escape(prefix) + r"\.(\d+)\.", key) for key in state_dict) if m]
        if max(indices, default=-1) >= LARGEST_COUNT:
            raise ValueError(f"{prefix} has indices up to {max(indices)}")
        return max(indices, default=-1) + 1

    widths = tuple(len(state_dict[f"BN_mask.{band}.0.weight"]) // 2 for band in range(count("BN_mask")))
    base = next((config for config in NAMED.values() if config.band_widths == widths), None)
    if base is None:
        raise ValueError(f"{len(widths)} bands of unknown widths")
    mamba = "separator_mask.0.band_rnn.rnn.forward_mamba2"
    convolution = state_dict[f"{mamba}.conv1d.weight"]
    features = state_dict["BN_mask.0.1.weight"].shape[0]
    inner = len(state_dict[f"{mamba}.norm.weight"])
    return replace(
        base,
        feature_dim=features,
        mask_blocks=count("separator_mask"),
        map_blocks=count("separator_map"),
        d_state=(convolution.shape[0] - inner) // 2,
        d_conv=convolution.shape[2],
        expand=inner // features,
        headdim=inner // len(state_dict[f"{mamba}.A_log"]),
        bidirectional="separator_mask.0.band_rnn.rnn.backward_mamba2.A_log" in state_dict,
    )


if __name__ == "__main__":
    child.answer(main)
