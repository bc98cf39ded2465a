"""TS-BSMamba2, and the interface that every network implements, in pure torch. Reads no files except checkpoints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsbs_daw.network.checkpoint import load_reference_state_dict, reference_state_dict
    from tsbs_daw.network.config import FULL, LITE, TINY, ModelConfig
    from tsbs_daw.network.network import Separation, TwoStageSeparator

__all__ = [
    "FULL",
    "LITE",
    "TINY",
    "ModelConfig",
    "Separation",
    "TwoStageSeparator",
    "load_reference_state_dict",
    "reference_state_dict",
]

_HOMES = {
    "config": ("FULL", "LITE", "TINY", "ModelConfig"),
    "network": ("Separation", "TwoStageSeparator"),
    "checkpoint": ("load_reference_state_dict", "reference_state_dict"),
}


def __getattr__(name: str) -> Any:
    # Import on first use: torch takes seconds to load, and listing models does not need it.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
