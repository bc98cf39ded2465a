"""The process that opens a pickled checkpoint, so that a hostile file affects only this process.

It writes model.safetensors into the `folder` of the request, and answers with the config and the number of parameters.

Accepted, because trainers write them: the state dict itself, or one level down under "state_dict", "model_state_dict"
or "model"; and names that all start with "module.", "model." or "_orig_mod.".
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsbs_daw.core import child
from tsbs_daw.core.errors import CheckpointError, shown
from tsbs_daw.network import FULL, LITE, TINY, ModelConfig, TwoStageSeparator, load_reference_state_dict
from tsbs_daw.network.checkpoint import save

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.")
NAMED = {"full": FULL, "lite": LITE, "tiny": TINY}
LARGEST_COUNT = 512  # of bands or blocks
MEMORY_LIMIT_BYTES = 24 << 30  # of address space, which torch itself uses generously


def main(request: dict[str, Any]) -> dict[str, Any]:
    """The child's part: see `core.child`. Raises: CheckpointError"""
    warnings.simplefilter("ignore")  # torch warns about old formats; nobody reads this process's output
    if sys.platform == "linux":  # a header that claims terabytes then raises MemoryError
        child.limit_memory(MEMORY_LIMIT_BYTES)
    source = Path(request["source"])
    try:
        return _convert(source, Path(request["folder"]) / "model.safetensors", request)
    except MemoryError as error:
        raise CheckpointError(
            f"{shown(source)} needs more memory than any checkpoint of this network; check the file."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"Converting {shown(source)} failed ({error.strerror or error}); check the disk."
        ) from error


def _convert(source: Path, output: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    state_dict = read_state_dict(source)
    config = choose_config(request["config"], tuple(request["stems"]), state_dict, source)
    model = TwoStageSeparator(config)
    try:
        load_reference_state_dict(model, state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{shown(source)}: {error}") from error
    save(model, output, {"converted_from": source.name, **request["metadata"]})
    return {"config": config.to_dict(), "parameters": sum(part.numel() for part in model.parameters())}


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """Read the named tensors of a pickled checkpoint without running anything in it.

    Raises:
        CheckpointError: hostile, cut, or not a state dict
    """
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(source, str(error))) from error
    except Exception as error:  # damage can raise anything; every error means the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{shown(source)} cannot be read as a checkpoint ({reason}); it may be cut short: download it again."
        ) from error
    return _without_prefix(_unwrap(found, source), source)


def _refusal(source: Path, message: str) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", message)
    if wanted is None:
        return f"{shown(source)} is not a checkpoint that can be read safely; nothing in it was run: check the file."
    return (
        f"{shown(source)} asks for `{wanted[1]}`, which weights do not need; nothing in it was run: "
        "get the weights as a plain state dict, from someone you trust."
    )


def _unwrap(found: Any, source: Path) -> Mapping[str, Any]:
    if isinstance(found, Mapping):
        for key in WRAPPERS:
            if isinstance(found.get(key), Mapping):
                return found[key]
        return found
    raise CheckpointError(f"{shown(source)} holds a {type(found).__name__} and not named tensors; check the file.")


def _without_prefix(found: Mapping[str, Any], source: Path) -> dict[str, Tensor]:
    names = {name: name for name in found}
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{shown(source)} holds no named tensors; check the file.")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names.values())), None):
        names = {original: name.removeprefix(prefix) for original, name in names.items()}
    return {name: _checked(found[original], original, source) for original, name in names.items()}


def _checked(value: Any, name: str, source: Path) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.dtype.is_floating_point:
        kind = f"{value.layout} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{shown(source)}: {shown(name)} is a {kind} and not a plain tensor of real numbers.")
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise CheckpointError(f"{shown(source)}: {shown(name)} claims {value.numel():,} numbers that are not there.")
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{shown(source)}: {shown(name)} contains NaN or infinity; its training went wrong.")
    return value.detach()


def choose_config(name: str, stems: tuple[str, ...], state_dict: Mapping[str, Tensor], source: Path) -> ModelConfig:
    """The requested config, or the one inferred from the shapes. Loading checks all names and shapes later."""
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
            f"{shown(source)} does not have the tensors of this network ({error}); it holds {len(state_dict)} others."
        ) from error


def _count_stems(state_dict: Mapping[str, Tensor]) -> int | None:
    """The number of stems: the last convolution has 4 values per bin and stem, the split's norm 2 per bin."""
    last, split = state_dict.get("mask.0.5.bias"), state_dict.get("BN_mask.0.0.weight")
    if last is None or split is None or split.numel() == 0:
        return None
    return last.numel() // (2 * split.numel())


def _read_off(state_dict: Mapping[str, Tensor]) -> ModelConfig:
    """Infer sizes from shapes. The hop length leaves no trace: it is that of the named config with these bands."""

    def count(prefix: str) -> int:
        indices = [int(m[1]) for m in (re.match(re.escape(prefix) + r"\.(\d+)\.", key) for key in state_dict) if m]
        if max(indices, default=-1) >= LARGEST_COUNT:
            raise ValueError(f"{prefix} is counted up to {max(indices)}")
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
