"""The YAML configs of Music-Source-Separation-Training: which network a checkpoint is of, its stems, its levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsbs_daw.core.documents import Document, plain
from tsbs_daw.core.documents import Kind as DocumentKind
from tsbs_daw.core.errors import SettingsError, UsageError, shown

_CONFIG = DocumentKind("training config", SettingsError, "it needs `audio:`, `model:` and `training:`")
_OTHER = "other"


@dataclass(frozen=True)
class TrainerConfig:
    """What a config says of its network.

    Attributes:
        network: A key of `kinds.KINDS`.
        values: Of the network's config: stems, chunk, level.
        arguments: Its `model:` section, by the trainer's names.
    """

    network: str
    values: dict[str, Any]
    arguments: dict[str, Any]


def read_trainer_config(path: Path) -> TrainerConfig:
    """Read a config. Its tags for Python's tuples are taken for lists; no other tag is accepted.

    Raises: SettingsError: not such a file, or of a network that this program does not run
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{shown(path)} cannot be read ({error.strerror}); give the model's YAML config."
        ) from error
    document = Document(path, _CONFIG)
    found = plain(document, document.parse(data.replace(b"!!python/tuple", b"")))
    sections = {name: found.get(name) or {} for name in ("audio", "model", "training", "htdemucs")}
    if not all(isinstance(section, dict) for section in sections.values()) or not sections["training"]:
        raise SettingsError("this is not the config of a trained model: `training:` is missing.", path)
    network = _network(found, sections["model"], path)
    training, audio = sections["training"], sections["audio"]
    values: dict[str, Any] = _stems(training, path)
    if training.get("normalize") is True:
        values["standardised"] = True
    if network == "htdemucs":
        return TrainerConfig(
            network,
            values,
            {**sections["htdemucs"], "segment": training.get("segment"), "samplerate": training.get("samplerate")},
        )
    if network == "ts-bs-mamba2":
        if "chunk_size" in audio:
            values["chunk_s"] = audio["chunk_size"] / (sections["model"].get("sr") or 44100)
        return TrainerConfig(network, values, {})
    if "chunk_size" in audio:
        values["chunk_size"] = audio["chunk_size"]
    return TrainerConfig(network, values, sections["model"])


def _network(found: dict[str, Any], model: dict[str, Any], path: Path) -> str:
    if "htdemucs" in found:
        return "htdemucs"
    if "num_repeat_mask" in model:
        return "ts-bs-mamba2"
    if "num_bands" in model:
        return "mel-band-roformer"
    if "freqs_per_bands" in model and "bs_mamba2" not in model and model.get("module_type") is None:
        return "bs-roformer"
    raise SettingsError("this is the config of a network that tsbs-daw does not run.", path)


def _stems(training: dict[str, Any], path: Path) -> dict[str, Any]:
    """The stems in the checkpoint's order. A network of one target gives the mixture without it as another."""
    instruments = training.get("instruments")
    if not isinstance(instruments, list) or not instruments or not all(isinstance(name, str) for name in instruments):
        raise SettingsError("`training: instruments:` names no stems; name them with --stems.", path)
    target = training.get("target_instrument")
    if target is None:
        return {"stems": instruments}
    if target not in instruments:
        raise UsageError(f"{shown(path)}: the target {target!r} is none of the instruments {', '.join(instruments)}.")
    rest = next((name for name in instruments if name != target), _OTHER) if len(instruments) == 2 else _OTHER
    return {"stems": [target, rest], "complement": rest}
