"""Settings of the application: where files live, and what to compute on.

Read once at the edge, and handed inwards as a frozen value.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """`TSBS_DAW_HOME` moves all folders below one; `TSBS_DAW_DEVICE` and `TSBS_DAW_PRECISION` say how to compute.

    home:      the spool, the job store, logs
    cache:     separated stems by content, plug-in quarantine
    models:    downloaded and converted checkpoints
    presets:   the user's own presets; `presets` in the home unless `TSBS_DAW_PRESETS` names another folder
    device:    what the network runs on: "auto", "cpu", "cuda", "cuda:1", "mps"
    precision: of its matrix products: "auto", "float32", "bfloat16"
    """

    home: Path
    cache: Path
    models: Path
    device: str = "auto"
    precision: str = "auto"
    presets: Path = Path()

    def __post_init__(self) -> None:
        if self.presets == Path():
            object.__setattr__(self, "presets", self.home / "presets")

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    @property
    def store(self) -> Path:
        return self.home / "jobs.sqlite3"

    @classmethod
    def from_texts(cls, texts: dict[str, str]) -> Settings:
        """From the same fields as texts, as they travel to another process."""
        values: dict[str, Any] = {
            name: text if name in ("device", "precision") else Path(text) for name, text in texts.items()
        }
        return cls(**values)

    @classmethod
    def from_environment(cls) -> Settings:
        """`TSBS_DAW_HOME` if it is set, else the platform's own folders."""
        home = os.environ.get("TSBS_DAW_HOME")
        device, precision = (os.environ.get(f"TSBS_DAW_{name}", "auto") for name in ("DEVICE", "PRECISION"))
        own = os.environ.get("TSBS_DAW_PRESETS")
        presets = Path(own).expanduser().absolute() if own else Path()
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root, root / "cache", root / "models", device, precision, presets)
        import platformdirs

        data = platformdirs.user_data_path("tsbs-daw", appauthor=False)
        return cls(
            data, platformdirs.user_cache_path("tsbs-daw", appauthor=False), data / "models", device, precision, presets
        )


def resource_folder(name: str) -> Path:
    """The folder `presets` or `reaper_scripts`: inside the installed package, or at the top of a checkout."""
    import importlib.resources

    package = Path(str(importlib.resources.files("tsbs_daw")))
    installed = package / "resources" / name
    return installed if installed.is_dir() else package.parent / name
