"""One daemon per home, and one per watch folder: the second one refuses, and says who is there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from tsbs_daw.core.errors import DaemonError, shown

log = logging.getLogger(__name__)

FOLDER_LOCK = ".tsbs-daw.lock"


class DaemonLocks:
    """Held until `release`, or until the process ends in whatever way."""

    def __init__(self) -> None:
        self._held: list[tuple[FileLock, Path]] = []

    def lock_home(self, home: Path) -> None:
        """Raises: DaemonError: another daemon runs with this home"""
        home.mkdir(parents=True, exist_ok=True)
        self._lock(home / "daemon.lock", f"works with {shown(home)}")

    def lock_folder(self, folder: Path) -> None:
        """The lock lies in the folder, where a daemon on another machine meets it too; beside, if it cannot.

        Raises: DaemonError: another daemon watches this folder
        """
        what = f"watches {shown(folder)}"
        try:
            self._lock(folder / FOLDER_LOCK, what)
        except OSError as error:
            log.info("%s cannot hold a lock (%s); the one for it is kept in the temporary folder", folder, error)
            digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
            self._lock(Path(tempfile.gettempdir()) / f"tsbs-daw-{digest}.lock", what)

    def release(self) -> None:
        while self._held:
            lock, pid_file = self._held.pop()
            with contextlib.suppress(OSError):
                pid_file.unlink(missing_ok=True)
            lock.release()

    def _lock(self, path: Path, what: str) -> None:
        lock, pid_file = FileLock(path), path.with_suffix(".pid")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise DaemonError(
                f"Another daemon ({_process(pid_file)}) already {what}; stop it first, or let it do the work."
            ) from error
        self._held.append((lock, pid_file))
        with contextlib.suppress(OSError):
            pid_file.write_text(str(os.getpid()), encoding="ascii")


def watching_process(folder: Path) -> int | None:
    """The process that says it watches this folder; it may have died since."""
    try:
        return int((folder / FOLDER_LOCK).with_suffix(".pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _process(pid_file: Path) -> str:
    try:
        return f"process {int(pid_file.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "a process that did not leave its number"
