"""REAPER on this machine: its settings folder, whether it is running, and the commands with which it runs a daemon."""

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
    """Return REAPER's resource path, except for portable installations.

    Args:
        platform: A value of `sys.platform`.
        environment: Environment variables.
    """
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("APPDATA") or home / "AppData" / "Roaming") / "REAPER"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "REAPER"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "REAPER"


def find_folder(portable: Path | None = None) -> Path:
    """Return the resource path to install to.

    Args:
        portable: Folder of a portable REAPER, which contains its reaper.ini. Default: the usual resource path.

    Raises:
        UsageError: REAPER was never started there.
    """
    folder = (portable.expanduser() if portable is not None else usual_folder()).absolute()
    if (folder / INI).is_file():
        return folder
    what = "has no reaper.ini" if folder.is_dir() else "does not exist"
    raise UsageError(
        f"REAPER's resource folder {shown(folder)} {what}; start REAPER once, or pass --resource FOLDER with "
        "the folder that REAPER opens for Options > Show REAPER resource path."
    )


_WAIT_S = 5.0
_LISTS = {"win32": ["tasklist", "/fo", "csv", "/nh"], "darwin": ["ps", "-axco", "comm"]}


def reaper_is_running() -> bool | None:
    """Return whether REAPER is running; None if the system does not report it."""
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
            continue  # the process has just ended
    return found


def _listed(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_WAIT_S, check=True)
    return [line.split(",")[0] for line in done.stdout.splitlines()]


def start_command(home: Path, python: Path, platform: str = sys.platform) -> str | None:
    """Return the command with which REAPER starts a daemon without a window; None if a path cannot be quoted safely."""
    return _command(python, "serve", platform, home=home)


def setup_command(home: Path, resource: Path, python: Path, platform: str = sys.platform) -> str | None:
    """Return the command with which the action *Setup* runs `reaper setup`; None if a path cannot be quoted safely."""
    return _command(python, "setup", platform, home=home, resource=resource)


def _command(python: Path, what: str, platform: str, **options: Path) -> str | None:
    if platform == "win32":
        windowless = python.with_name("pythonw.exe")
        python = windowless if windowless.is_file() else python
    parts = [str(python), *map(str, options.values())]
    if any(set(part) & set('"$`\n\r%!') or (platform != "win32" and "\\" in part) for part in parts):
        return None
    return " ".join(
        [f'"{python}" -m tsbs_daw reaper {what}', *(f'--{name} "{path}"' for name, path in options.items())]
    )


def ascii_spelling(path: Path, platform: str = sys.platform) -> Path:
    """Return the short name of a folder on Windows if its path is not ASCII; otherwise the path unchanged.

    Lua's `os.rename` and `os.remove` may interpret a path in the system's code page, so a user name with other
    characters could make the spool inaccessible to the scripts.
    """
    if platform != "win32" or str(path).isascii():
        return path
    path.mkdir(parents=True, exist_ok=True)  # only an existing folder has a short name
    short = _short_name(str(path))
    return Path(short) if short.isascii() and short else path


def _short_name(path: str) -> str:
    """Return Windows' 8.3 name of an existing path; empty if it has none."""
    import ctypes

    buffer = ctypes.create_unicode_buffer(len(path) + 260)
    length = ctypes.windll.kernel32.GetShortPathNameW(path, buffer, len(buffer))  # type: ignore[attr-defined]
    return buffer.value if 0 < length < len(buffer) else ""


def is_idle(spool: Path) -> bool:
    """Return whether a spool has no waiting or running jobs. Half-written requests do not count."""
    return not any(next((spool / place).glob("*/job.json"), None) for place in ("inbox", "jobs"))


class IdleWatch:
    """Watches a spool in a thread, and calls `stop` once the spool has been idle for `limit_s` seconds.

    Args:
        spool: Folder with the jobs.
        limit_s: Longest time that the spool may be idle.
        stop: Called from the thread.
        every_s: Interval of the checks.
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
        """Check the spool, and return whether it has been idle for too long.

        Args:
            now: Seconds of the monotonic clock.
        """
        if not is_idle(self._spool):
            self._busy_at = now
        return now - self._busy_at >= self._limit_s

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            if self.look(time.monotonic()):
                self._stop()
                return
