"""Locks: files that one process at a time holds, safe where others may write, and what of them daemons hold.

There is one daemon per home, and one per watch folder: the second one refuses, and says who is there. Daemons with
different homes know of each other in two ways. The lock in a watch folder is met by everybody, on other machines as
well. The list of watched folders, one for each user, tells which of them lie in one another.
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
    """Another process holds the lock. owner: its number, if it left one."""

    def __init__(self, owner: int | None):
        super().__init__(f"process {owner}" if owner else "a process that did not leave its number")
        self.owner = owner


class LockFile:
    """A file that one process at a time holds, until it lets go or ends in whatever way. Its content is its number.

    The number goes into the file that is locked, and only if that file is ours: whoever may write to its folder could
    have put a link, or a second name of another file, under the name.

    Only its holder removes it, so whoever finds it locked may believe it. Whoever opened it before it was removed, and
    gets the lock after, notices that another file, or none, has the name by then, and begins anew.

    Args:
        path: Of the file.
        leave: Whether it stays when it is released.
    """

    def __init__(self, path: Path, *, leave: bool = True):
        self.path = path
        self._leave = leave
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises: HeldElsewhere; OSError: the folder cannot hold a lock, or something else has this name"""
        for _ in range(5):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | QUIET, 0o644)
            try:
                self._check(descriptor)
                _lock(descriptor)
                if self._is_current(descriptor) and _sign(descriptor):
                    self._descriptor = descriptor
                    return
            except BlockingIOError as error:
                owner = _number_in(descriptor)
                os.close(descriptor)
                raise HeldElsewhere(owner) from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the one that held it has removed it meanwhile
        raise OSError(errno.EBUSY, "it is replaced again and again", str(self.path))

    def release(self) -> None:
        """Release the lock and clear the process id, so that it is not mistaken for a live one."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
        if sys.platform != "win32" and self._is_current(descriptor):  # else another folder has this path by now
            self._remove()
        os.close(descriptor)
        if sys.platform == "win32":  # which removes no open file, and so none that another process has by now
            self._remove()

    def _remove(self) -> None:
        if not self._leave:
            with contextlib.suppress(OSError):  # of a folder that is gone, or may not be written any more
                self.path.unlink()

    def _check(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise NotRegular(errno.EINVAL, "it is not a file of its own", str(self.path))
        if status.st_size and _number_in(descriptor) is None:
            raise OSError(errno.EEXIST, "it is somebody's file and no lock", str(self.path))

    def _is_current(self, descriptor: int) -> bool:
        try:
            now, ours = os.lstat(self.path), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)


def lock_owner(path: Path) -> int | None:
    """The number in a lock file; of a process that was killed, it stays until the next one takes the lock."""
    try:
        with open_regular(path, follow=False) as file:
            return _number_in(file.fileno())
    except OSError:
        return None


def _number_in(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32)
    return int(text) if text.isdigit() and len(text) < 20 else None


def _sign(descriptor: int) -> bool:
    """Write our number. Returns: False: a network share has remembered a file that another machine removed"""
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
    """Raises: BlockingIOError: another process holds it; OSError: this file system knows no locks"""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind the number, which others want to read
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(errno.EAGAIN, "another process holds it") from error


# ---- what daemons hold -----------------------------------------------------------------------------------------------

FOLDER_LOCK = ".tsbs-daw.lock"
_MAX_NOTE_BYTES = 1 << 16
_TRIES, _TRY_EVERY_S = 100, 0.05  # to have the list of watched folders, which is held for milliseconds


class DaemonLocks:
    """Held until `release`, or until the process ends in whatever way. Args: home: of the daemon"""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held: list[LockFile] = []
        self._notes: list[Path] = []

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

        It is removed when this daemon ends: nothing of it stays among the user's songs.

        Raises:
            DaemonError: Another daemon watches this folder.
        """
        what = f"watches {shown(folder)}"
        try:
            self._lock(folder / FOLDER_LOCK, what, leave=False)
        except OSError as error:
            place = runtime_folder() or private_folder(self._home / "locks")
            log.warning("%s cannot hold a lock (%s); the one for it is kept in %s", folder, error, place)
            self._lock(place / f"tsbs-daw-{_digest(folder.resolve())}.lock", what, leave=False)

    def claim(self, roots: Sequence[WatchedRoot]) -> None:
        """Enter folders into the user's list of watched ones, unless another daemon watches one around or inside them.

        Where there is no place for such a list, only the locks in the folders keep daemons apart.

        Raises:
            DaemonError: Another daemon watches a folder that overlaps.
        """
        if not roots:
            return
        try:
            with _list_of_roots() as place:
                for process, other in _living(place):
                    for root in roots:
                        if root.overlaps(other):
                            raise DaemonError(_overlap(root, other, process))
                for root in roots:
                    self._notes += root.enter(place, self._held)
        except OSError as error:
            log.warning("the list of watched folders cannot be kept (%s); nested ones are not noticed", error)

    def release(self) -> None:
        while self._notes:
            with contextlib.suppress(OSError):  # Windows removes no open file; the next daemon does
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
    """Whoever holds the lock of a home now; None if nobody does, or it cannot be told."""
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
    """The number of the process that watches `folder`, as its lock says; it may have been killed meanwhile."""
    return lock_owner(folder / FOLDER_LOCK)


@dataclass(frozen=True)
class WatchedRoot:
    """A folder that a daemon watches, as the others should know it.

    Attributes:
        path: Without links.
        recursive: Whether its subfolders are watched as well.
        identity: Device and inode of the folder, which any of its names leads to; empty while it is not there.
    """

    path: Path
    recursive: bool
    identity: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.resolve())
        object.__setattr__(self, "identity", _identity(self.path))

    def overlaps(self, other: WatchedRoot) -> bool:
        """Whether songs of one folder are songs of the other as well."""
        return self.holds(other) or other.holds(self)

    def holds(self, other: WatchedRoot) -> bool:
        """Whether the other folder is this one, or lies in it and is watched with it."""
        if self.path == other.path or (self.identity and self.identity == other.identity):
            return True
        above = other.path.parents if self.recursive else ()
        return self.path in above or bool(self.identity and any(self.identity == _identity(place) for place in above))

    def enter(self, place: Path, held: list[LockFile]) -> list[Path]:
        """Write a note about this folder and lock it for the life of this process.

        Returns:
            The files to remove at the end.
        """
        lock = LockFile(place / f"{_digest(self.path)}.lock")
        lock.acquire()
        held.append(lock)
        note = lock.path.with_suffix(".json")
        text = json.dumps({"path": os.fsencode(self.path).hex(), "recursive": self.recursive})
        write_atomically(note, text, durable=False)
        return [note, lock.path]


@contextlib.contextmanager
def _list_of_roots() -> Iterator[Path]:
    """The folder of the user's list of watched folders, held by this process alone. Raises: OSError"""
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


def _living(place: Path) -> Iterator[tuple[HeldElsewhere, WatchedRoot]]:
    """The folders on the list whose daemons live. What those that were killed have left is removed."""
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
