"""Whether a REAPER is running: it writes its list of actions when it ends, over what was changed meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_WAIT_S = 5.0
_LISTS = {"win32": ["tasklist", "/fo", "csv", "/nh"], "darwin": ["ps", "-axco", "comm"]}


def reaper_is_running() -> bool | None:
    """True or False; None where the system does not tell."""
    try:
        names = _linux() if sys.platform.startswith("linux") else _listed(_LISTS[sys.platform])
    except (OSError, KeyError, subprocess.SubprocessError):
        return None
    return any(name.strip().strip('"').lower() in ("reaper", "reaper.exe", "reaper64") for name in names)


def _linux() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found.append(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # it has just ended
    return found


def _listed(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_WAIT_S, check=True)
    return [line.split(",")[0] for line in done.stdout.splitlines()]
