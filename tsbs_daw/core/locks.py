"""Lock files, safe in folders that others can write to, and the locks that daemons hold.

There is one daemon per home, and one per watch folder: a second one refuses to start and names the first. Daemons with
different homes find each other in two ways. Every daemon, even one on another machine, sees the lock file in a watch
folder. Daemons of the same user also share a list of watched folders, which reveals folders that contain one another.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsbs_daw.core.config import runtime_folder, state_folder
from tsbs_daw.core.errors import DaemonError, shown
from tsbs_daw.core.files import NO_FOLLOW, QUIET, NotRegular, open_regular, private_folder, read_small, write_atomically

log = logging.getLogger(__name__)


class HeldElsewhere(Exception):
    """Another process holds the lock.

    Attributes:
        owner: Process id of the holder; None if the lock file does not contain it.
    """

    def __init__(self, owner: int | None):
        super().__init__(f"process {owner}" if owner else "a process with an unknown id")
        self.owner = owner


class LockFile:
    """A lock file that one process at a time holds, until it releases the lock or ends in any way.

    The file contains the process id of its holder. The id is written only after checking that the file is a lock file,
    because anyone who can write to the folder could have put a symbolic or hard link to another file in its place.

    Only the holder removes the file, so a locked file can be trusted. A process that opens it before it is removed and
    gets the lock afterwards notices that the path now leads to another file or to none, and tries again.

    Args:
        path: Path of the lock file.
        leave: Whether to keep the file on release.
    """

    def __init__(self, path: Path, *, leave: bool = True):
        self.path = path
        self._leave = leave
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock without waiting.

        Raises:
            HeldElsewhere: Another process holds the lock.
            OSError: The folder does not support locks, or the path is not a lock file.
        """
        for _ in range(5):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | QUIET, 0o644)
            try:
                self._check(descriptor)
                _lock(descriptor)
                if self._is_current(descriptor) and _write_pid(descriptor):
                    self._descriptor = descriptor
                    return
            except BlockingIOError as error:
                owner = _pid_in(descriptor)
                os.close(descriptor)
                raise HeldElsewhere(owner) from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its previous holder has removed it meanwhile
        raise OSError(errno.EBUSY, "other processes keep replacing it", str(self.path))

    def release(self) -> None:
        """Release the lock and clear the process id, so that it is not mistaken for a live one."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
        if sys.platform != "win32" and self._is_current(descriptor):  # otherwise the path leads to another file by now
            self._remove()
        os.close(descriptor)
        if sys.platform == "win32":  # it cannot remove open files, so not one that another process has locked by now
            self._remove()

    def _remove(self) -> None:
        if not self._leave:
            with contextlib.suppress(OSError):  # the folder is gone or no longer writable
                self.path.unlink()

    def _check(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise NotRegular(errno.EINVAL, "it is not a regular file or has a hard link", str(self.path))
        if status.st_size and _pid_in(descriptor) is None:
            raise OSError(errno.EEXIST, "it is not a lock file", str(self.path))

    def _is_current(self, descriptor: int) -> bool:
        try:
            now, ours = os.lstat(self.path), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)


def lock_owner(path: Path) -> int | None:
    """Return the process id in a lock file; that of a killed process stays until the next one acquires the lock."""
    try:
        with open_regular(path, follow=False) as file:
            return _pid_in(file.fileno())
    except OSError:
        return None


def _pid_in(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32)
    return int(text) if text.isdigit() and len(text) < 20 else None


def _write_pid(descriptor: int) -> bool:
    """Write this process's id; return False if another machine has removed the file from a network share."""
    try:
        os.truncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, str(os.getpid()).encode("ascii"))
    except OSError as error:
        if error.errno == errno.ESTALE:
            return False
        raise
    return True


def _lock(descriptor: int) -> None:
    """Lock an open file without waiting.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file system does not support locks.
    """
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the process id, which other processes must be able to read
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(errno.EAGAIN, "another process holds it") from error


# ---- locks of daemons ------------------------------------------------------------------------------------------------

FOLDER_LOCK = ".tsbs-daw.lock"
_MAX_NOTE_BYTES = 1 << 16
_TRIES, _TRY_EVERY_S = 100, 0.05  # to lock the list of watched folders, which is held for milliseconds


class DaemonLocks:
    """The locks of a daemon, held until `release` or until the process ends in any way.

    Args:
        home: Home of the daemon.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held: list[LockFile] = []
        self._notes: list[Path] = []

    def lock_home(self) -> None:
        """Lock the home of the daemon.

        Raises:
            DaemonError: Another daemon uses this home, or the home cannot be locked.
        """
        path = self._home / "daemon.lock"
        try:
            private_folder(self._home, repair=False)
            self._lock(path, f"uses {shown(self._home)}")
        except OSError as error:
            raise DaemonError(
                f"Cannot lock {shown(path)} ({error.strerror}); remove it, or set TSBS_DAW_HOME to another folder."
            ) from error

    def lock_folder(self, folder: Path) -> None:
        """Lock a watch folder with a file in it, which a daemon on another machine sees too.

        If the folder cannot hold a lock, the file is created in a folder of this user instead. It is removed on
        release, so that nothing is left among the user's songs.

        Raises:
            DaemonError: Another daemon watches this folder.
        """
        what = f"watches {shown(folder)}"
        try:
            self._lock(folder / FOLDER_LOCK, what, leave=False)
        except OSError as error:
            place = runtime_folder() or private_folder(self._home / "locks")
            log.warning("cannot create a lock in %s (%s); keeping it in %s instead", folder, error, place)
            self._lock(place / f"tsbs-daw-{_digest(folder.resolve())}.lock", what, leave=False)

    def claim(self, roots: Sequence[WatchedRoot]) -> None:
        """Add folders to the user's list of watched folders, unless another daemon watches one that overlaps.

        If the list cannot be stored, only the locks in the folders keep daemons apart.

        Raises:
            DaemonError: Another daemon watches a folder that overlaps.
        """
        if not roots:
            return
        try:
            with _list_of_roots() as place:
                for process, other in _running_daemons(place):
                    for root in roots:
                        if root.overlaps(other):
                            raise DaemonError(_overlap(root, other, process))
                for root in roots:
                    self._notes += root.enter(place, self._held)
        except OSError as error:
            log.warning("cannot update the list of watched folders (%s); overlaps go undetected", error)

    def release(self) -> None:
        """Release all locks and remove this daemon's folders from the list."""
        while self._notes:
            with contextlib.suppress(OSError):  # Windows cannot remove open files; the next daemon removes them
                self._notes.pop().unlink()
        while self._held:
            self._held.pop().release()

    def _lock(self, path: Path, what: str, *, leave: bool = True) -> None:
        lock = LockFile(path, leave=leave)
        try:
            lock.acquire()
        except HeldElsewhere as error:
            raise DaemonError(
                f"Another daemon ({error}) already {what}; stop it first, or let it do the work."
            ) from error
        self._held.append(lock)


def running_daemon(home: Path) -> HeldElsewhere | None:
    """Return the process that holds the lock of a home; None if none does, or if the lock cannot be checked."""
    lock = LockFile(home / "daemon.lock")
    if not lock.path.exists():
        return None
    try:
        lock.acquire()
    except HeldElsewhere as owner:
        return owner
    except OSError:
        return None
    lock.release()
    return None


def watching_process(folder: Path) -> int | None:
    """Return the id of the process that watches `folder`, from its lock file; it may have been killed meanwhile."""
    return lock_owner(folder / FOLDER_LOCK)


@dataclass(frozen=True)
class WatchedRoot:
    """A folder that a daemon watches, in the form in which other daemons compare it with theirs.

    Attributes:
        path: Path of the folder, with links resolved.
        recursive: Whether its subfolders are watched as well.
        identity: Device and inode, which are the same for all paths to the folder; empty if it does not exist.
    """

    path: Path
    recursive: bool
    identity: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.resolve())
        object.__setattr__(self, "identity", _identity(self.path))

    def overlaps(self, other: WatchedRoot) -> bool:
        """Tell whether songs of one folder are songs of the other as well."""
        return self.holds(other) or other.holds(self)

    def holds(self, other: WatchedRoot) -> bool:
        """Tell whether the other folder is this one, or lies in it and is watched with it."""
        if self.path == other.path or (self.identity and self.identity == other.identity):
            return True
        above = other.path.parents if self.recursive else ()
        return self.path in above or bool(self.identity and any(self.identity == _identity(place) for place in above))

    def enter(self, place: Path, held: list[LockFile]) -> list[Path]:
        """Add this folder to the list: write an entry for it and lock the entry until this process ends.

        Args:
            place: Folder of the list.
            held: Held locks, to which that of the entry is added.

        Returns:
            The files to remove on release.

        Raises:
            DaemonError: Another daemon holds the lock, but could not write its entry.
        """
        lock = LockFile(place / f"{_digest(self.path)}.lock")
        try:
            lock.acquire()
        except HeldElsewhere as error:
            raise DaemonError(_overlap(self, self, error)) from error
        held.append(lock)
        note = lock.path.with_suffix(".json")
        text = json.dumps({"path": os.fsencode(self.path).hex(), "recursive": self.recursive})
        write_atomically(note, text, durable=False)
        return [note, lock.path]


@contextlib.contextmanager
def _list_of_roots() -> Iterator[Path]:
    """Lock the user's list of watched folders and yield its folder.

    Raises:
        OSError: The list cannot be created or locked.
    """
    place = private_folder(state_folder()) / "watched"
    private_folder(place)
    guard = LockFile(place / "list")
    for left in reversed(range(_TRIES)):
        try:
            guard.acquire()
            break
        except HeldElsewhere as error:
            if not left:
                raise TimeoutError(f"{error} holds {place}") from error
            time.sleep(_TRY_EVERY_S)
    try:
        yield place
    finally:
        guard.release()


def _running_daemons(place: Path) -> Iterator[tuple[HeldElsewhere, WatchedRoot]]:
    """Yield the listed folders whose daemons are running, with their processes; remove entries of killed daemons."""
    for note in sorted(place.glob("*.json")):
        lock = LockFile(note.with_suffix(".lock"))
        try:
            lock.acquire()
        except HeldElsewhere as owner:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                known = json.loads(read_small(note, _MAX_NOTE_BYTES))
                yield owner, WatchedRoot(Path(os.fsdecode(bytes.fromhex(known["path"]))), bool(known["recursive"]))
            continue
        for path in (note, lock.path):
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def _overlap(root: WatchedRoot, other: WatchedRoot, process: HeldElsewhere) -> str:
    if root.holds(other) and other.holds(root):
        return f"Another daemon ({process}) already watches {shown(root.path)}; stop it first, or let it do the work."
    place = "which lies in" if root.holds(other) else "which contains"
    return (
        f"Another daemon ({process}) already watches {shown(other.path)}, {place} {shown(root.path)}, so that songs "
        "would be separated twice; stop it first, or watch folders that do not overlap."
    )


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
