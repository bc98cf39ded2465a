"""REAPER on this machine: where its settings lie, whether it runs, and whether it still needs its daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
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


def is_idle(spool: Path) -> bool:
    """Whether no job waits in a spool, or is under way. Half-written requests do not count."""
    return not any(next((spool / place).glob("*/job.json"), None) for place in ("inbox", "jobs"))


class IdleWatch:
    """Calls `stop` once a spool has been idle for `limit_s` seconds, from a thread of its own.

    Args:
        spool: the folder with the jobs
        limit_s: how long it may be idle
        stop: may be called from another thread
        every_s: how often it looks
    """

    def __init__(self, spool: Path, limit_s: float, stop: Callable[[], object], every_s: float = 5.0):
        self._spool, self._limit_s, self._stop, self._every_s = spool, limit_s, stop, every_s
        self._ended = threading.Event()
        self._busy_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="idle watch", daemon=True)

    def __enter__(self) -> IdleWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def look(self, now: float) -> bool:
        """Args: now: seconds of the monotonic clock. Returns: whether it has been idle for too long"""
        if not is_idle(self._spool):
            self._busy_at = now
        return now - self._busy_at >= self._limit_s

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            if self.look(time.monotonic()):
                self._stop()
                return
