"""REAPER on this machine: where its settings lie, whether it runs, how it starts a daemon, and when it needs none."""

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


def start_command(home: Path, python: Path, platform: str = sys.platform) -> str | None:
    """How REAPER starts a daemon, without a window; None where a path cannot be quoted safely."""
    return _command(python, "serve", platform, home=home)


def setup_command(home: Path, resource: Path, python: Path, platform: str = sys.platform) -> str | None:
    """How the action *Setup* runs `reaper setup`; None where a path cannot be quoted safely."""
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
    """The same folder in ASCII alone where Windows knows it by a short name; elsewhere, and failing that, as it is.

    Lua's `os.rename` and `os.remove` may take a path in the system's code page, so that a user's name in it could keep
    the scripts from their spool.
    """
    if platform != "win32" or str(path).isascii():
        return path
    path.mkdir(parents=True, exist_ok=True)  # only what exists has a short name
    short = _short_name(str(path))
    return Path(short) if short.isascii() and short else path


def _short_name(path: str) -> str:
    """Windows' 8.3 spelling of an existing path; empty where it has none."""
    import ctypes

    buffer = ctypes.create_unicode_buffer(len(path) + 260)
    length = ctypes.windll.kernel32.GetShortPathNameW(path, buffer, len(buffer))  # type: ignore[attr-defined]
    return buffer.value if 0 < length < len(buffer) else ""


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
