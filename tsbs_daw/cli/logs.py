"""Logging: a file for each command, warnings to the terminal, everything with --verbose."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from pathlib import Path
from typing import Any

from tsbs_daw.core.config import Settings
from tsbs_daw.core.files import private_folder

_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_BYTES = 5_000_000


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log file that is created with its first line. A log that cannot be written never stops the program."""

    def _open(self) -> Any:
        try:
            _make_folder(Path(self.baseFilename).parent)
            return super()._open()
        except OSError:
            return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 -- logging closes it

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written; report any other mistake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _make_folder(logs: Path) -> None:
    private_folder(logs.parent, repair=False)
    private_folder(logs)


def log_path(settings: Settings, command: str) -> Path:
    return settings.home / "logs" / f"{command}.log"


def start(settings: Settings, command: str, *, verbose: bool) -> None:
    """Set up logging. Called once, before a command runs."""
    file = _LogFile(log_path(settings, command), maxBytes=_BYTES, backupCount=2, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter(_FORMAT))
    terminal = logging.StreamHandler()
    # These commands print what the daemon reports; its log lines would say everything twice.
    usual = logging.CRITICAL if command in ("watch", "batch") else logging.WARNING
    terminal.setLevel(logging.DEBUG if verbose else usual)
    terminal.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    root.addHandler(terminal)
    logging.getLogger("tsbs_daw").setLevel(logging.DEBUG if verbose else logging.INFO)


def keep_traceback(settings: Settings, text: str) -> Path | None:
    """Append the traceback of a bug to errors.log. Returns its path; None if it cannot be written."""
    path = log_path(settings, "errors")
    try:
        _make_folder(path.parent)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return None
    return path
