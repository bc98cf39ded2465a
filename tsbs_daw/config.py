"""Settings of the application: where files live. Read once at the edge, handed inwards as a frozen value."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Folders that the program owns. `TSBS_DAW_HOME` moves them all below one folder.

    home:    the spool, the job store, logs
    cache:   separated stems by content, plug-in quarantine
    models:  downloaded and converted checkpoints
    """

    home: Path
    cache: Path
    models: Path

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    @property
    def store(self) -> Path:
        return self.home / "jobs.sqlite3"

    @classmethod
    def from_environment(cls) -> Settings:
        """`TSBS_DAW_HOME` if it is set, else the platform's own folders."""
        home = os.environ.get("TSBS_DAW_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root, root / "cache", root / "models")
        import platformdirs

        data = platformdirs.user_data_path("tsbs-daw", appauthor=False)
        return cls(data, platformdirs.user_cache_path("tsbs-daw", appauthor=False), data / "models")


def resource_folder(name: str) -> Path:
    """The folder `presets` or `reaper_scripts`: inside the installed package, or at the top of a checkout."""
    import importlib.resources

    package = Path(str(importlib.resources.files("tsbs_daw")))
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
