"""Where Ardour keeps its settings and scripts: one folder for each major version that was ever started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tsbs_daw.core.errors import UsageError, shown

OLDEST = 6  # the first with Lua 5.3 and the calls that the scripts make

_NAME = re.compile(r"(?i)ardour(\d+)")


def usual_place(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder in which `ardour7`, `ardour8`, ... are.

    Args: platform: as `sys.platform`; environment: as `os.environ`
    """
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if platform == "darwin":
        return home / "Library" / "Preferences"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")


def version_of(folder: Path) -> int | None:
    """The major version whose configuration this is, by the folder's name; None for a name that does not say."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_folders(chosen: Path | None = None) -> list[Path]:
    """The configuration folders to install to, oldest version first.

    Args:   chosen: one configuration folder; None: all of the usual place
    Raises: UsageError: Ardour was never started there
    """
    if chosen is not None:
        folder = chosen.expanduser().absolute()
        if folder.is_dir():
            return [folder]
        raise UsageError(f"Ardour's configuration folder {shown(folder)} is not there; check its name.")
    place = usual_place()
    named = [(version_of(folder) or 0, folder) for folder in place.iterdir()] if place.is_dir() else []
    found = [folder for version, folder in sorted(named) if version >= OLDEST and folder.is_dir()]
    if found:
        return found
    raise UsageError(
        f"There is no configuration of Ardour {OLDEST} or newer in {shown(place)}; start Ardour once, or name its "
        "configuration folder: --config FOLDER."
    )
