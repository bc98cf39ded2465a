"""The supported kinds of networks: how each is built, which package it needs, and how its weights are loaded.

Networks from other packages are optional. A package is imported only when a model of its kind is loaded, and never
downloads anything: weights come from `tsbs-daw models pull` or from the user.
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
        name: Name in files and descriptions.
        title: Name in messages.
        parts: Names of its config class and of its network class.
        module: The module that contains both.
        package: The package that it needs; "" if none.
        extra: The extra of tsbs-daw that installs the package.
    """

    name: str
    title: str
    parts: tuple[str, str]
    module: str
    package: str = ""
    extra: str = ""

    def require(self) -> None:
        """Check that the package is installed.

        Raises:
            ModelError: The package is not installed.
        """
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ModelError(
                f"{self.title} needs the package {self.package}; "
                f"install it with `pip install 'tsbs-daw[{self.extra}]'`."
            )

    def _part(self, index: int) -> Any:
        self.require()
        return getattr(importlib.import_module(self.module), self.parts[index])

    def config(self, values: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> NetworkConfig:
        """Build a config of this kind.

        Args:
            values: Values of the config.
            arguments: Arguments of the network that a published file states.

        Raises:
            ModelError: The package is not installed.
            ValueError, TypeError: A value is unknown, missing or out of bounds.
        """
        config = self._part(0)
        try:
            return config.from_dict(values) if self.name == TS else config.from_published(values, arguments or {})
        except ValidationError as error:
            raise ValueError(first_problem(error).clause) from error

    def build(self, config: NetworkConfig) -> SeparationNetwork:
        """Build a network with random weights.

        Raises:
            ModelError: The package is not installed.
        """
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
    """Return the kind of network in a model file.

    Raises:
        CheckpointError: The file is not a model, or this version does not support its kind.
    """
    from tsbs_daw.network import checkpoint

    name = checkpoint.read_metadata(path).get(checkpoint.KIND, TS)
    if name not in KINDS:
        raise CheckpointError(f"{shown(path)} has a kind of network that this version does not support: {name[:40]!r}.")
    return KINDS[name]


def read_config(path: Path) -> NetworkConfig:
    """Read the config of a model file without its weights.

    Raises:
        CheckpointError: The file is not a model, or this version does not support it.
        ModelError: The package of its network is not installed.
    """
    from tsbs_daw.network import checkpoint

    kind = kind_of(path)
    try:
        return kind.config(json.loads(checkpoint.read_metadata(path)["config"]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} describes a network that this version does not support ({error}).") from error


def load(path: Path) -> SeparationNetwork:
    """Load a network for inference, in float32, on the CPU.

    Raises:
        CheckpointError: The file is not a model or is damaged, or its tensors do not match its config.
        ModelError: The package of its network is not installed.
        DeviceError: The weights do not fit in memory.
    """
    from tsbs_daw.network import checkpoint

    config = read_config(path)
    _check_memory(path)
    return checkpoint.load_as(path, config, kind_of(path).build)


def _check_memory(path: Path) -> None:
    """Check that there is enough memory to load the weights.

    Raises:
        DeviceError: There is not.
    """
    _, free = memory_bytes()
    needed = 2 * path.stat().st_size
    if free is not None and needed > free:
        raise DeviceError(
            f"Loading the model {path.name} needs {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; "
            "close other programs, or choose a smaller model."
        )
