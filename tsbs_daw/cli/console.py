"""Output of the commands: text, tables, JSON, sentences for failures that are not bugs, and log files.

`StopOnSignal` tells a long command that the user wants it to stop.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import logging
import logging.handlers
import os
import re
import signal
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.core.errors import shown
from tsbs_daw.core.files import disk_is_full, private_folder

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import Heartbeat
    from tsbs_daw.contracts.manifest import Manifest
    from tsbs_daw.core.config import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

# ---- text ----------------------------------------------------------------------------------------------------------


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table with left-aligned columns, two spaces apart. Wide characters count double."""
    lines = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(headings))]
    padded = (
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(padded)


def one_line(text: str) -> str:
    """Replace control characters by spaces, so that a file's name cannot move the cursor of a terminal."""
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)


def song_label(song: str, source: str) -> str:
    """Return a job's display name: its file name, whose extension tells `a.wav` from `a.mp3`, and its song's name.

    Args:
        song: Name of the song; only shown if it differs from the file name.
        source: Path of the file, or text that describes the source.
    """
    name = re.split(r"[/\\]", source)[-1]
    if song.endswith(name):
        return song
    return name if song in ("", name.rpartition(".")[0]) else f"{song} ({name})"


def counted(number: int, what: str) -> str:
    """Format a count: `1 song`, `2 songs`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    """Format a duration: `7 s`, `3 min`, `5 h`, `2 d`."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def ago(unix_s: float) -> str:
    """Format a time in the past: `3 min ago`."""
    return f"{duration(time.time() - unix_s)} ago"


def decibels(level: float | None, unit: str = "dB") -> str:
    """Format a level: `-12.3 dB`; None is silence, `-inf dB`."""
    return f"-inf {unit}" if level is None else f"{level:.1f} {unit}"


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    flat = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) + wide - flat


def contents(manifest: Manifest) -> str:
    """Summarise a song's folder: `4 stems, 1 output, 8 loops, song.RPP, song.stem.mp4, analysis.json`."""
    kinds = Counter[str]([*(file.kind for file in manifest.stems), *(file.kind for file in manifest.others)])
    parts = [counted(kinds[kind], kind) for kind in ("stem", "output", "loop") if kinds[kind]]
    parts += [entry.file for entry in manifest.stems if entry.kind == "source"]
    parts += manifest.sessions or ()
    parts += [entry.file for entry in manifest.others if entry.kind != "loop"]
    parts += [manifest.analysis] if manifest.analysis else []
    return one_line(", ".join(parts))


# ---- output that several commands share ------------------------------------------------------------------------------


def print_json(document: Any) -> None:
    """Print a document on stdout, indented."""
    typer.echo(json.dumps(document, indent=2))


def daemon_status(heartbeat: Heartbeat | None) -> str:
    """Say in one sentence whether a daemon is running.

    Args:
        heartbeat: From `living_daemon`.
    """
    if heartbeat is None:
        return "No daemon is running. Start one with `tsbs-daw watch`."
    return f"A daemon is running (process {heartbeat.pid})."


# ---- failures that are not bugs --------------------------------------------------------------------------------------

_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)
# The extras `test`, `docs` and `dev` are for developers; the others contain packages that a user may need.
_FROM_AN_EXTRA = re.compile(r"([\w.-]+).*\bextra == ['\"](?!test|docs|dev)(\w+)['\"]")


def system_error(error: OSError) -> str | None:
    """Describe a full disk or missing permissions in one sentence; None for any other error, which is a bug."""
    what = shown(error.filename) if error.filename else "the output"
    if disk_is_full(error):
        return f"Cannot write {what}: the disk is full. Free some space and run the command again."
    if error.errno in _NOT_PERMITTED:
        return f"Cannot access {what} ({error.strerror}). Check its permissions, or choose another location."
    return None


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Describe a missing package of an extra in one sentence; None for any other package, whose absence is a bug."""
    for requirement in importlib.metadata.requires("tsbs-daw") or []:
        match = _FROM_AN_EXTRA.match(requirement)
        if match and match[1].replace("-", "_") == error.name:
            return f"This command needs {match[1]}, which is not installed. Run: pip install 'tsbs-daw[{match[2]}]'"
    return None


# ---- logs: a file for each command, warnings to the terminal, everything with --verbose ------------------------------

_LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_LOG_BYTES = 5_000_000


class _LogFile(logging.handlers.RotatingFileHandler):
    """Log file that is created with its first line. A log that cannot be written never stops the program."""

    def _open(self) -> Any:
        try:
            _make_log_folder(Path(self.baseFilename).parent)
            return super()._open()
        except OSError:
            return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 -- logging closes it

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written; report any other error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _make_log_folder(logs: Path) -> None:
    private_folder(logs.parent, repair=False)
    private_folder(logs)


def log_path(settings: Settings, command: str) -> Path:
    return settings.home / "logs" / f"{command}.log"


def start_logging(settings: Settings, command: str, *, verbose: bool) -> None:
    """Set up logging. Called once, before a command runs."""
    file = _LogFile(log_path(settings, command), maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter(_LOG_FORMAT))
    terminal = logging.StreamHandler()
    # These commands print the daemon's events, so its log lines would only repeat them.
    usual = logging.CRITICAL if command in ("watch", "batch") else logging.WARNING
    terminal.setLevel(logging.DEBUG if verbose else usual)
    terminal.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    root.addHandler(terminal)
    logging.getLogger("tsbs_daw").setLevel(logging.DEBUG if verbose else logging.INFO)


def keep_traceback(settings: Settings, text: str) -> Path | None:
    """Append the traceback of a bug to errors.log, and return the file's path; None if it cannot be written."""
    path = log_path(settings, "errors")
    try:
        _make_log_folder(path.parent)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return None
    return path


# ---- stopping on the user's request ----------------------------------------------------------------------------------


class StopOnSignal:
    """Callable that returns True after the first SIGINT or SIGTERM; a second SIGINT interrupts immediately."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self) -> bool:
        return self.asked
