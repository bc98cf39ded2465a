"""The operating system's word that something in a folder has changed. A hint, never the truth: a look decides.

Bursts lose events, network shares send none, and a watch can fail silently. So all this does is to call back.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "davfs",
    "drvfs",
    "virtiofs",
)


class Notifications:
    """Calls `changed`, from a thread, whenever something happens below `root`."""

    def __init__(self, root: Path, *, recursive: bool, changed: Callable[[], None]):
        self._root, self._recursive, self._changed = root, recursive, changed
        self._observer = None

    def start(self) -> bool:
        """False when there will be no events, as with too many folders for inotify: then looking must do."""
        from watchdog import events
        from watchdog.observers import Observer

        changed = self._changed

        class Handler(events.FileSystemEventHandler):
            def on_any_event(self, event: events.FileSystemEvent) -> None:
                changed()

        # Not of opening and closing, which our own looks cause: those of some thousand folders overflow the system's
        # queue, and watchdog answers that by listing all folders, which overflows it again.
        wanted = [
            *(events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
            *(events.FileCreatedEvent, events.FileMovedEvent, events.FileDeletedEvent),
            *(events.FileModifiedEvent, events.FileClosedEvent),
        ]
        self.stop()
        # Said by watchdog of a folder that it learns of twice, by the event and by listing its parent; harmless.
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        observer = Observer()
        try:
            observer.schedule(Handler(), str(self._root), recursive=self._recursive, event_filter=wanted)
            observer.start()
        except (OSError, RuntimeError) as error:
            log.warning("%s sends no events (%s); it is looked at regularly instead", self._root, error)
            return False
        self._observer = observer
        return True

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(2.0)


def sends_no_events(path: Path) -> bool:
    """Whether this is a network share, as far as can be told: what others write there, nobody here hears of."""
    if sys.platform == "win32":
        import ctypes

        drive = os.path.splitdrive(os.path.realpath(path))[0]
        return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == 4  # DRIVE_REMOTE
    return _file_system(os.path.realpath(path)).startswith((*_NETWORK, "fuse.sshfs", "fuse.rclone", "fuse.davfs"))


def _file_system(path: str) -> str:
    """The type of the file system on Linux; empty where it is not known."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _, place, kind = line.split(" ")[:3]
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)
        if (path == place or path.startswith(place.rstrip("/") + "/")) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]
