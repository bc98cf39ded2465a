"""Published pickled checkpoints -> safetensors. The pickle is only ever opened in a process of its own.

A pickle can contain any code. The child process (`convert_child`) opens it with torch's restricted reader
(`weights_only=True`, without a fallback), checks every name and shape against the network, and writes safetensors;
this module only starts it, limits it, and gives its result a name by one rename.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsbs_daw.core.errors import CheckpointError, OutputError, UsageError, shown

log = logging.getLogger(__name__)

CONFIGS = ("auto", "full", "lite", "tiny")
DEFAULT_STEMS = ("drums", "bass", "other", "vocals")  # the order of the published checkpoint
TIME_LIMIT_S = 600.0
LARGEST_BYTES = 4 << 30

# Variables that could weaken the restricted reader or make the child import something else.
_UNWANTED_VARIABLES = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "PYTHONSTARTUP", "PYTHONINSPECT")


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote.

    config:     the ModelConfig as a dictionary
    parameters: how many numbers the network has
    """

    path: Path
    config: dict[str, Any]
    parameters: int


def convert(
    source: Path,
    output: Path,
    *,
    config: str = "auto",
    stems: Sequence[str] = DEFAULT_STEMS,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a checkpoint with the published names.

    Args:
        config:   "full", "lite", "tiny", or "auto": read the sizes off the shapes
        stems:    what the outputs are called, in the checkpoint's order
        metadata: written into the file beside the config
    Raises:
        UsageError:      no such file, wrong config, the output exists and `overwrite` is not set
        CheckpointError: not a checkpoint, cut, hostile, or of another network; nothing in it was run
        OutputError:     the result could not be written
    """
    source, output = source.expanduser().absolute(), output.expanduser().absolute()
    _check_request(source, output, config, overwrite)
    if not stems or len(set(stems)) != len(stems):
        raise UsageError(f"The stems {', '.join(stems)!r} must be different names, at least one.")
    _check_archive(source)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".convert-", dir=output.parent))
    except OSError as error:
        where = shown(output.parent)
        raise OutputError(f"{where} cannot be written to ({error.strerror}); choose another folder.") from error
    try:
        answer = _run_child(folder, source, config, tuple(stems), dict(metadata or {}))
        (folder / "model.safetensors").replace(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Conversion(output, answer["config"], int(answer["parameters"]))


def _check_request(source: Path, output: Path, config: str, overwrite: bool) -> None:
    if config not in CONFIGS:
        raise UsageError(f"There is no config {config!r}; choose one of {', '.join(CONFIGS)}.")
    if not source.is_file():
        raise UsageError(f"The checkpoint {shown(source)} does not exist.")
    if source.stat().st_size > LARGEST_BYTES:
        raise CheckpointError(f"{shown(source)} is larger than any checkpoint of this network; check the file.")
    if output.suffix != ".safetensors":
        raise UsageError(f"The result {output.name} must end in .safetensors.")
    if output.exists() and not overwrite:
        raise UsageError(f"{shown(output)} exists already; choose another name or ask to overwrite it.")


def _check_archive(source: Path) -> None:
    """A checkpoint stores its tensors uncompressed: one that would unpack to much more is a bomb."""
    if not zipfile.is_zipfile(source):
        return
    try:
        with zipfile.ZipFile(source) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{shown(source)} is damaged ({error}); get the file again.") from error
    if unpacked > 2 * source.stat().st_size + (1 << 20):
        raise CheckpointError(f"{shown(source)} would unpack to {unpacked:,} bytes, so it is none; nothing was read.")


def _run_child(
    folder: Path, source: Path, config: str, stems: tuple[str, ...], metadata: dict[str, str]
) -> dict[str, Any]:
    """Run `convert_child` in `folder` and give back its answer."""
    request = {"source": str(source), "config": config, "stems": stems, "metadata": metadata}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tsbs_daw.models.convert_child", str(folder)],
            env=_child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(f"{shown(source)} was not read within {TIME_LIMIT_S:.0f} s; check the file.") from error
    try:
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        log.error("the conversion of %s ended with %s: %s", source, ended.returncode, _tail(ended.stderr))
        raise CheckpointError(
            f"The process that read {shown(source)} ended early (exit code {ended.returncode}); "
            "the file is damaged or hostile, or memory ran out."
        ) from error
    if "error" in answer:
        raise CheckpointError(answer["error"])
    return answer


def _child_environment() -> dict[str, str]:
    """This process's environment, with this very package importable and no way to soften the reader."""
    environment = {name: value for name, value in os.environ.items() if name not in _UNWANTED_VARIABLES}
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


def _tail(text: bytes) -> str:
    return text[-2000:].decode("utf-8", errors="replace").strip()
