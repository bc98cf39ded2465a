"""Convert published pickled checkpoints to safetensors. A pickle is only ever opened in a separate process.

A pickle can contain arbitrary code. The child process (`convert_child`) opens it with torch's restricted reader
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
        path: The safetensors file.
        config: The config of the network as a dictionary.
        parameters: Number of parameters of the network.
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
        source: The checkpoint.
        output: The safetensors file to write.
        config: Size of a TS-BSMamba2: "full", "lite", "tiny", or "auto" to infer it from the shapes. Or the path of a
            trainer's YAML config, which describes the network.
        stems: Names of the outputs, in the checkpoint's order. Default: those of the config, or `DEFAULT_STEMS`.
        network: A key of `kinds.KINDS`. Default: the network of the YAML config, or TS-BSMamba2.
        values: Values of the network's config, as in a description.
        overwrite: Replace an existing output.
        metadata: Stored in the file beside the config.

    Raises:
        UsageError: The source does not exist, the config is wrong, or the output exists and `overwrite` is not set.
        ModelError: The package of the network is not installed.
        CheckpointError: The source is not a checkpoint, is truncated or hostile, or belongs to another network. No code
            in it was run.
        OutputError: The result cannot be written.
    """
    source, output = source.expanduser().absolute(), output.expanduser().absolute()
    request = _request(config, stems, network, dict(values or {}))
    _check_request(source, output, str(request["values"].get("size", "auto")), overwrite)
    names = request["values"]["stems"]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"Invalid stems {', '.join(names)!r}; give one or more different names.")
    KINDS[request["network"]].require()
    _check_archive(source)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".convert-", dir=output.parent))
    except OSError as error:
        where = shown(output.parent)
        raise OutputError(f"Cannot write to {where} ({error.strerror}). Choose another folder.") from error
    try:
        answer = _run_child(folder, source, request | {"metadata": dict(metadata or {})})
        (folder / "model.safetensors").replace(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Conversion(output, answer["config"], int(answer["parameters"]))


def convert_into(source: Path, output: str | Path, settings: Settings, **options) -> Path:
    """Convert a checkpoint into a file or, given a name, into the folder of models, and record its hash there.

    Args:
        source: The checkpoint.
        output: Path of the file to write, or name of the model.
        settings: The folder of models.
        options: See `convert`.

    Raises:
        UnknownModel: The name belongs to a known model. Other errors: see `convert`.
    """
    text = str(output)
    if text in known_models(settings):
        raise UnknownModel(f"The name {text} is reserved for a known model; choose another one.")
    path = model_path(text, settings) if is_name(text) else Path(output)
    done = convert(source, path, **options).path
    if done.parent == settings.models.absolute():
        HashRecord(settings.models).record(done, file_sha256(done))
    return done


def _request(config: str, stems: Sequence[str] | None, network: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the child's request: the kind of network, and the values and arguments of its config."""
    arguments: dict[str, Any] = {}
    if config not in CONFIGS and Path(config).suffix.lower() in (".yaml", ".yml"):
        trainer = read_trainer_config(Path(config))
        network, arguments, values = network or trainer.network, trainer.arguments, {**trainer.values, **values}
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
        raise UsageError(f"The name of the output {output.name} must end in .safetensors.")
    if output.exists() and not overwrite:
        raise UsageError(f"{shown(output)} already exists; choose another name, or allow overwriting it.")


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
            f"{shown(source)} would unpack to {unpacked:,} bytes, so it is not a checkpoint; it was not opened."
        )


def _run_child(folder: Path, source: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run `convert_child`, which writes into `folder`, and return its answer."""
    request = {"folder": str(folder), "source": str(source), **request}
    command = child.python("tsbs_daw.models.convert_child")
    try:
        answer: dict[str, Any] = child.ask(command, request, limit_s=TIME_LIMIT_S, env=_child_environment())
    except child.ChildTimeout as error:
        raise CheckpointError(f"Reading {shown(source)} took over {TIME_LIMIT_S:.0f} s; check the file.") from error
    except child.ChildRefused as error:
        raise CheckpointError(str(error)) from error
    except child.ChildFailed as error:
        log.error("the process that converted %s failed (%s): %s", source, error.exit_text, error.log)
        raise CheckpointError(
            f"The process that read {shown(source)} failed ({error.exit_text}); "
            "the file is damaged or hostile, or the process ran out of memory."
        ) from error
    return answer


def _child_environment() -> dict[str, str]:
    """Return this process's environment, in which this package can be imported, without unsafe variables."""
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
    """A network as described by a config of Music-Source-Separation-Training.

    Attributes:
        network: A key of `kinds.KINDS`.
        values: Values of the network's config: stems, chunk length, standardisation.
        arguments: Arguments of the network, by the trainer's names.
    """

    network: str
    values: dict[str, Any]
    arguments: dict[str, Any]


def read_trainer_config(path: Path) -> TrainerConfig:
    """Read a YAML config of Music-Source-Separation-Training. Python tuples become lists; other tags are refused.

    Raises:
        SettingsError: The file is not such a config, or is for a network that this program does not support.
        UsageError: The target is not one of the instruments.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"Cannot read {shown(path)} ({error.strerror}). Give the path of the model's YAML config."
        ) from error
    document = Document(path, _TRAINER_CONFIG)
    content = plain(document, document.parse(data.replace(b"!!python/tuple", b"")))
    sections = {name: content.get(name) or {} for name in ("audio", "model", "training", "htdemucs")}
    if not all(isinstance(section, dict) for section in sections.values()) or not sections["training"]:
        raise SettingsError("this is not a training config: `training:` is missing.", path)
    network = _network_of(content, sections["model"], path)
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
            rate = _positive(sections["model"].get("sr") or 44100, "`model: sr:`", path)
            values["chunk_s"] = _positive(audio["chunk_size"], "`audio: chunk_size:`", path) / rate
        return TrainerConfig(network, values, {})
    if "chunk_size" in audio:
        values["chunk_size"] = _positive(audio["chunk_size"], "`audio: chunk_size:`", path)
    return TrainerConfig(network, values, sections["model"])


def _positive(value: Any, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise SettingsError(f"{name} must be a positive number, not {value!r}.", path)
    return value


def _network_of(content: dict[str, Any], model: dict[str, Any], path: Path) -> str:
    if "htdemucs" in content:
        return "htdemucs"
    if "num_repeat_mask" in model:
        return "ts-bs-mamba2"
    if "num_bands" in model:
        return "mel-band-roformer"
    if "freqs_per_bands" in model and "bs_mamba2" not in model and model.get("module_type") is None:
        return "bs-roformer"
    raise SettingsError("this config is for a network that tsbs-daw does not support.", path)


def _stems_of(training: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the stems in the checkpoint's order. With a single target, the rest of the mixture is a second stem."""
    instruments = training.get("instruments")
    if not isinstance(instruments, list) or not instruments or not all(isinstance(name, str) for name in instruments):
        raise SettingsError("`training: instruments:` names no stems; name them with --stems.", path)
    target = training.get("target_instrument")
    if target is None:
        return {"stems": instruments}
    if target not in instruments:
        raise UsageError(f"{shown(path)}: the target {target!r} is not among the instruments {', '.join(instruments)}.")
    rest = next((name for name in instruments if name != target), _OTHER_STEM) if len(instruments) == 2 else _OTHER_STEM
    return {"stems": [target, rest], "complement": rest}
