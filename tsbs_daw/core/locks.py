"""Lock files: held by one process at a time, safe in folders where others may write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from tsbs_daw.core.files import NO_FOLLOW, QUIET, NotRegular, open_regular


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
