"""Convert published pickled checkpoints to safetensors. A pickle is only ever opened in a separate process.

A pickle can contain any code. The child process (`convert_child`) opens it with torch's restricted reader
(`weights_only=True`, without a fallback), checks every name and shape against the network, and writes safetensors. This
module starts the child, limits it, and publishes its result by one rename. It also reads the YAML configs of
Music-Source-Separation-Training, which describe the network of a checkpoint.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsbs_daw.core import child
from tsbs_daw.core.config import Settings
from tsbs_daw.core.documents import Document, plain
from tsbs_daw.core.documents import Kind as DocumentKind
from tsbs_daw.core.errors import CheckpointError, OutputError, SettingsError, UnknownModel, UsageError, shown
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models.kinds import KINDS, TS
from tsbs_daw.models.registry import HashRecord, is_name, known_models, model_path

log = logging.getLogger(__name__)

CONFIGS = ("auto", "full", "lite", "tiny")
DEFAULT_STEMS = ("drums", "bass", "other", "vocals")  # the order of the published checkpoint
TIME_LIMIT_S = 600.0
LARGEST_BYTES = 4 << 30

# Variables that could weaken the restricted reader or make the child import something else.
_UNWANTED_VARIABLES = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "PYTHONSTARTUP", "PYTHONINSPECT")


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        path: of the safetensors file
        config: the ModelConfig as a dictionary
        parameters: number of parameters of the network
    """

    path: Path
    config: dict[str, Any]
    parameters: int


def convert(
    source: Path,
    output: Path,
    *,
    config: str = "auto",
    stems: Sequence[str] | None = None,
    network: str = "",
    values: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a checkpoint with the published names: a pickle, or another program's safetensors.

    Args:
        source: the checkpoint
        output: the safetensors file to write
        config: of TS-BSMamba2: "full", "lite", "tiny", or "auto" to infer the sizes from the shapes; or the path of a
            trainer's YAML config, which says the rest
        stems: names of the outputs, in the checkpoint's order; None: the config's, else `DEFAULT_STEMS`
        network: a key of `kinds.KINDS`; empty: TS-BSMamba2, or what the YAML config is of
        values: of the network's config, as a description has them
        overwrite: replace an existing output
        metadata: stored in the file beside the config

    Raises:
        UsageError: no such file, wrong config, or the output exists and `overwrite` is not set
        ModelError: the package of the network is not installed
        CheckpointError: not a checkpoint, cut, hostile, or of another network; nothing in it was run
        OutputError: the result cannot be written
    """
    source, output = source.expanduser().absolute(), output.expanduser().absolute()
    request = _request(config, stems, network, dict(values or {}))
    _check_request(source, output, str(request["values"].get("size", "auto")), overwrite)
    names = request["values"]["stems"]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"The stems {', '.join(names)!r} must be one or more different names.")
    KINDS[request["network"]].require()
    _check_archive(source)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".convert-", dir=output.parent))
    except OSError as error:
        where = shown(output.parent)
        raise OutputError(f"Cannot write to {where} ({error.strerror}); choose another folder.") from error
    try:
        answer = _run_child(folder, source, request | {"metadata": dict(metadata or {})})
        (folder / "model.safetensors").replace(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Conversion(output, answer["config"], int(answer["parameters"]))


def convert_into(source: Path, output: str | Path, settings: Settings, **options) -> Path:
    """Convert to a path or, given a name, into the user's own models, and record the hash. Options as for `convert`.

    Raises like `convert`, and UnknownModel if the name is that of a known model.
    """
    text = str(output)
    if text in known_models(settings):
        raise UnknownModel(f"The name {text} is reserved for a known model; choose another.")
    path = model_path(text, settings) if is_name(text) else Path(output)
    done = convert(source, path, **options).path
    if done.parent == settings.models.absolute():
        HashRecord(settings.models).record(done, file_sha256(done))
    return done


def _request(config: str, stems: Sequence[str] | None, network: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the child's request: the kind of network, and the values and arguments of its config."""
    arguments: dict[str, Any] = {}
    if config not in CONFIGS and Path(config).suffix.lower() in (".yaml", ".yml"):
        found = read_trainer_config(Path(config))
        network, arguments, values = network or found.network, found.arguments, {**found.values, **values}
    elif config != "auto":
        values["size"] = config
    if stems is not None:
        values["stems"] = list(stems)
    values.setdefault("stems", list(DEFAULT_STEMS))
    network = network or TS
    if network not in KINDS:
        raise UsageError(f"There is no network {network!r}; choose one of {', '.join(KINDS)}.")
    return {"network": network, "values": values, "arguments": arguments}


def _check_request(source: Path, output: Path, config: str, overwrite: bool) -> None:
    if config not in CONFIGS:
        raise UsageError(f"There is no config {config!r}; choose one of {', '.join(CONFIGS)}.")
    if not source.is_file():
        raise UsageError(f"The checkpoint {shown(source)} does not exist.")
    if source.stat().st_size > LARGEST_BYTES:
        raise CheckpointError(f"{shown(source)} is too large for a checkpoint; check the file.")
    if output.suffix != ".safetensors":
        raise UsageError(f"The result {output.name} must end in .safetensors.")
    if output.exists() and not overwrite:
        raise UsageError(f"{shown(output)} already exists; choose another name, or ask to overwrite it.")


def _check_archive(source: Path) -> None:
    """Refuse zip bombs: a checkpoint stores its tensors uncompressed."""
    if not zipfile.is_zipfile(source):
        return
    try:
        with zipfile.ZipFile(source) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{shown(source)} is damaged ({error}); download it again.") from error
    if unpacked > 2 * source.stat().st_size + (1 << 20):
        raise CheckpointError(
            f"{shown(source)} would unpack to {unpacked:,} bytes, so it is not a checkpoint; nothing was read."
        )


def _run_child(folder: Path, source: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run `convert_child` in `folder` and return its answer."""
    request = {"folder": str(folder), "source": str(source), **request}
    command = child.python("tsbs_daw.models.convert_child")
    try:
        answer: dict[str, Any] = child.ask(command, request, limit_s=TIME_LIMIT_S, env=_child_environment())
    except child.ChildTimeout as error:
        raise CheckpointError(f"{shown(source)} was not read within {TIME_LIMIT_S:.0f} s; check the file.") from error
    except child.ChildRefused as error:
        raise CheckpointError(str(error)) from error
    except child.ChildFailed as error:
        log.error("the conversion of %s ended with %s: %s", source, error.exit_text, error.log)
        raise CheckpointError(
            f"The process that read {shown(source)} ended early ({error.exit_text}); "
            "the file is damaged or hostile, or memory ran out."
        ) from error
    return answer


def _child_environment() -> dict[str, str]:
    """This process's environment, with this package importable and nothing that weakens the restricted reader."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return child.environment(
        without=_UNWANTED_VARIABLES,
        extra={
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONSAFEPATH": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        },
    )


_TRAINER_CONFIG = DocumentKind("training config", SettingsError, "it needs `audio:`, `model:` and `training:`")
_OTHER_STEM = "other"


@dataclass(frozen=True)
class TrainerConfig:
    """The network that a config of Music-Source-Separation-Training describes.

    Attributes:
        network: A key of `kinds.KINDS`.
        values: Values of the network's config: stems, chunk length, level.
        arguments: The `model:` section, with the trainer's names.
    """

    network: str
    values: dict[str, Any]
    arguments: dict[str, Any]


def read_trainer_config(path: Path) -> TrainerConfig:
    """Read a YAML config of Music-Source-Separation-Training. Python tuples are read as lists; other tags are refused.

    Raises:
        SettingsError: The file is not such a config, or is for a network that this program does not support.
        UsageError: The target is not one of the instruments.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{shown(path)} cannot be read ({error.strerror}); give the model's YAML config."
        ) from error
    document = Document(path, _TRAINER_CONFIG)
    found = plain(document, document.parse(data.replace(b"!!python/tuple", b"")))
    sections = {name: found.get(name) or {} for name in ("audio", "model", "training", "htdemucs")}
    if not all(isinstance(section, dict) for section in sections.values()) or not sections["training"]:
        raise SettingsError("this is not the config of a trained model: `training:` is missing.", path)
    network = _network_of(found, sections["model"], path)
    training, audio = sections["training"], sections["audio"]
    values: dict[str, Any] = _stems_of(training, path)
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


def _network_of(found: dict[str, Any], model: dict[str, Any], path: Path) -> str:
    if "htdemucs" in found:
        return "htdemucs"
    if "num_repeat_mask" in model:
        return "ts-bs-mamba2"
    if "num_bands" in model:
        return "mel-band-roformer"
    if "freqs_per_bands" in model and "bs_mamba2" not in model and model.get("module_type") is None:
        return "bs-roformer"
    raise SettingsError("this is the config of a network that tsbs-daw does not run.", path)


def _stems_of(training: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the stems in the checkpoint's order. If there is one target, the rest of the mixture is another stem."""
    instruments = training.get("instruments")
    if not isinstance(instruments, list) or not instruments or not all(isinstance(name, str) for name in instruments):
        raise SettingsError("`training: instruments:` names no stems; name them with --stems.", path)
    target = training.get("target_instrument")
    if target is None:
        return {"stems": instruments}
    if target not in instruments:
        raise UsageError(f"{shown(path)}: the target {target!r} is none of the instruments {', '.join(instruments)}.")
    rest = next((name for name in instruments if name != target), _OTHER_STEM) if len(instruments) == 2 else _OTHER_STEM
    return {"stems": [target, rest], "complement": rest}
