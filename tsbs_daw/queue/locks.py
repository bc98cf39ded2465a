"""One daemon per home, and one per watch folder: the second one refuses, and says who is there."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from tsbs_daw.core.config import runtime_folder
from tsbs_daw.core.errors import DaemonError, shown
from tsbs_daw.core.files import private_folder
from tsbs_daw.core.locks import HeldElsewhere, LockFile, lock_owner

log = logging.getLogger(__name__)

FOLDER_LOCK = ".tsbs-daw.lock"


class DaemonLocks:
    """Held until `release`, or until the process ends in whatever way. Args: home: of the daemon"""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held: list[LockFile] = []

    def lock_home(self) -> None:
        """Raises: DaemonError: another daemon runs with this home, or it cannot hold a lock"""
        path = private_folder(self._home, repair=False) / "daemon.lock"
        try:
            self._lock(path, f"works with {shown(self._home)}")
        except OSError as error:
            raise DaemonError(
                f"{shown(path)} cannot be locked ({error.strerror}); remove it, or set TSBS_DAW_HOME to another folder."
            ) from error

    def lock_folder(self, folder: Path) -> None:
        """The lock lies in the folder, where a daemon on another machine meets it too; else in a folder of our own.

        Raises:
            DaemonError: Another daemon watches this folder.
        """
        what = f"watches {shown(folder)}"
        try:
            self._lock(folder / FOLDER_LOCK, what)
        except OSError as error:
            place = runtime_folder() or private_folder(self._home / "locks")
            log.warning("%s cannot hold a lock (%s); the one for it is kept in %s", folder, error, place)
            digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
            self._lock(place / f"tsbs-daw-{digest}.lock", what)

    def release(self) -> None:
        while self._held:
            self._held.pop().release()

    def _lock(self, path: Path, what: str) -> None:
        lock = LockFile(path)
        try:
            lock.acquire()
        except HeldElsewhere as error:
            raise DaemonError(
                f"Another daemon ({error}) already {what}; stop it first, or let it do the work."
            ) from error
        self._held.append(lock)


def watching_process(folder: Path) -> int | None:
    """The number of the process that watches `folder`, as its lock says; it may have been killed meanwhile."""
    return lock_owner(folder / FOLDER_LOCK)
