"""Where REAPER keeps its settings and scripts: its resource path."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tsbs_daw.core.errors import UsageError, shown

INI = "reaper.ini"


def usual_folder(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> Path:
    """Where REAPER's resource path is unless it is a portable installation.

    Args: platform: as `sys.platform`; environment: as `os.environ`
    """
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("APPDATA") or home / "AppData" / "Roaming") / "REAPER"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "REAPER"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "REAPER"


def find_folder(portable: Path | None = None) -> Path:
    """The resource path to install to.

    Args:   portable: the folder of a portable REAPER, which holds its reaper.ini; None: the usual one
    Raises: UsageError: REAPER was never started there
    """
    folder = (portable.expanduser() if portable is not None else usual_folder()).absolute()
    if (folder / INI).is_file():
        return folder
    what = "has no reaper.ini" if folder.is_dir() else "is not there"
    raise UsageError(
        f"REAPER's resource folder {shown(folder)} {what}; start REAPER once, or name the folder that its "
        "Options > Show REAPER resource path opens: --resource FOLDER."
    )
