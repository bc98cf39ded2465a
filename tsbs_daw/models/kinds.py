"""The kinds of networks: what builds each, which package it needs, and its weights on disk.

Networks from packages are optional. Nothing of a package is imported before a model of its kind is loaded, and no
package ever downloads anything here: weights come with `tsbs-daw models pull`, or from the user.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tsbs_daw.core.errors import CheckpointError, DeviceError, ModelError, first_problem, shown
from tsbs_daw.core.machine import memory_bytes

if TYPE_CHECKING:  # torch takes seconds to load, and listing kinds does not need it
    from tsbs_daw.network.seam import NetworkConfig, SeparationNetwork


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        name: As files and descriptions call it.
        title: As people call it.
        parts: The names of its config and of its network.
        module: Where both are.
        package: What must be importable.
        extra: What brings that package.
    """

    name: str
    title: str
    parts: tuple[str, str]
    module: str
    package: str = ""
    extra: str = ""

    def require(self) -> None:
        """Raises: ModelError: its package is not installed"""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ModelError(
                f"{self.title} needs the package {self.package}; "
                f"install it with `pip install 'tsbs-daw[{self.extra}]'`."
            )

    def _part(self, index: int) -> Any:
        self.require()
        return getattr(importlib.import_module(self.module), self.parts[index])

    def config(self, values: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> NetworkConfig:
        """The config of these values; `arguments` are what a published file says of its network.

        Raises: ModelError: a missing package; ValueError, TypeError: unknown, missing or out of bounds
        """
        config = self._part(0)
        try:
            return config.from_dict(values) if self.name == TS else config.from_published(values, arguments or {})
        except ValidationError as error:
            raise ValueError(first_problem(error).clause) from error

    def build(self, config: NetworkConfig) -> SeparationNetwork:
        """A network of this shape, its weights at random. Raises: ModelError: a missing package"""
        return self._part(1)(config)


TS = "ts-bs-mamba2"
_DEMUCS = ("tsbs_daw.models.packaged", "demucs", "demucs")
_ROFORMER = ("tsbs_daw.models.packaged", "bs_roformer", "roformer")
KINDS = {
    kind.name: kind
    for kind in (
        Kind(TS, "TS-BSMamba2", ("ModelConfig", "TwoStageSeparator"), "tsbs_daw.network"),
        Kind("htdemucs", "HTDemucs", ("HTDemucsConfig", "HTDemucsNetwork"), *_DEMUCS),
        Kind("bs-roformer", "BS-RoFormer", ("BSRoformerConfig", "BSRoformerNetwork"), *_ROFORMER),
        Kind("mel-band-roformer", "Mel-Band RoFormer", ("MelBandRoformerConfig", "MelBandRoformerNetwork"), *_ROFORMER),
    )
}


def kind_of(path: Path) -> Kind:
    """The kind of network whose weights a file holds. Raises: CheckpointError"""
    from tsbs_daw.network import checkpoint

    name = checkpoint.read_metadata(path).get(checkpoint.KIND, TS)
    if name not in KINDS:
        raise CheckpointError(f"{shown(path)} is of a kind of network that this version does not know ({name[:40]!r}).")
    return KINDS[name]


def read_config(path: Path) -> NetworkConfig:
    """The shape of the network in a file, without its weights.

    Raises: CheckpointError: not a model, or of another version; ModelError: a missing package
    """
    from tsbs_daw.network import checkpoint

    kind = kind_of(path)
    try:
        return kind.config(json.loads(checkpoint.read_metadata(path)["config"]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} describes a network that this version does not know ({error}).") from error


def load(path: Path) -> SeparationNetwork:
    """A network ready for inference, in float32, on the CPU.

    Raises:
        CheckpointError: Not a model, damaged, or its tensors are not those of its config.
        ModelError: A missing package.
        DeviceError: The weights do not fit in memory.
    """
    from tsbs_daw.network import checkpoint

    config = read_config(path)
    _check_memory(path)
    return checkpoint.load_as(path, config, kind_of(path).build)


def _check_memory(path: Path) -> None:
    """Raises: DeviceError: less memory is free than the weights take while they are read"""
    _, free = memory_bytes()
    needed = 2 * path.stat().st_size
    if free is not None and needed > free:
        raise DeviceError(
            f"The model {path.name} needs {needed / 1e9:.1f} GB of memory to load and {free / 1e9:.1f} GB are free; "
            "close other programs, or choose a smaller model."
        )
