"""Making what was written survive a power cut: contents first, then the names that lead to them. And a full disk.

The hash that tells contents apart: songs, models, presets, delivered files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.core.errors import SourceChanged, shown

TIME_STEP_NS = 2_500_000_000  # FAT counts seconds in twos
# Errors of a disk or share that may be gone when it is tried again.
_PASSING = (
    "EIO", "ENOENT", "EACCES", "EPERM", "EROFS", "ESTALE", "EBUSY", "EAGAIN", "ENXIO", "ENODEV", "ETIMEDOUT",
    "ENOTCONN", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "EREMOTEIO",
)  # fmt: skip
PASSING = frozenset(getattr(errno, name) for name in _PASSING if hasattr(errno, name))


def sync_file(descriptor: int) -> None:
    """Make the contents of an open file durable."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone leaves the data in the drive's cache there
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Windows has no such call; its file system journals them."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below `folder` durable, and every folder, itself last."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            with Path(root, name).open("rb+") as file:
                sync_file(file.fileno())
        sync_folder(Path(root))


def write_synced(path: Path, text: str) -> None:
    """Write a text file, UTF-8, and make it durable."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        sync_file(file.fileno())


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    write_synced(temporary, text)
    temporary.replace(path)


def folder_problem(folder: Path, *, writable: bool = True) -> str | None:
    """Why files cannot be put into a folder that may still have to be made; None if they can.

    Args:
        folder: Absolute.
        writable: Also look at permissions. What comes and goes by itself, as with a share, is not asked for.

    Returns:
        What is wrong and what to do, as a sentence without its full stop.
    """
    for place in (folder, *folder.parents):
        try:
            is_folder = stat.S_ISDIR(place.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if place.is_symlink():
                return f"{shown(place)} is a link to a folder that does not exist; create it, or choose another folder"
            continue
        except OSError as error:
            return f"{shown(place)} cannot be used ({error.strerror}); choose another folder" if writable else None
        if not is_folder:
            return f"{shown(place)} is a file; choose a folder"
        if writable and not os.access(place, os.W_OK | os.X_OK):
            return f"{shown(place)} cannot be written to; check its permissions, or choose another folder"
        return None
    return None


def disk_is_full(error: BaseException) -> bool:
    """Whether something could not be written for lack of room: on the disk, or in the user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def may_pass(error: BaseException) -> bool:
    """Whether an error of the system is one that comes and goes: a share, a disk, permissions, a missing folder."""
    return isinstance(error, OSError) and error.errno in PASSING


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting for anything: a pipe could block, and a device never end.

    Raises:
        OSError: it cannot be opened, or is something else; the error says what
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hex. Raises: OSError"""
    with open_regular(path) as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def content_state(status: os.stat_result) -> list[int]:
    """What is equal as long as nobody replaces a file or writes to it: device, inode, size, time of the last write."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class HashedFile:
    """A file as it was when it was hashed, so that whoever reads it later can tell whether it still is.

    Attributes:
        state: see `content_state`
        changed_ns: time of the last change of any kind (ctime)
        is_fresh: it was written so shortly before that a further write may not show in its time
    """

    path: Path
    sha256: str
    state: list[int]
    changed_ns: int
    is_fresh: bool

    @classmethod
    def of(cls, path: Path) -> HashedFile:
        """Hash a file.

        Raises:
            OSError: it cannot be read
            SourceChanged: it was written to meanwhile
        """
        started_ns = time.time_ns()
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            digest = _sha256(file)
            hashed = cls(
                path,
                digest,
                content_state(before),
                before.st_ctime_ns,
                max(before.st_mtime_ns, before.st_ctime_ns) > started_ns - TIME_STEP_NS,
            )
            if content_state(os.fstat(file.fileno())) != hashed.state:
                raise hashed.error()
            return hashed

    def is_same(self, file: BinaryIO) -> bool:
        """Whether an open file is this one and holds what was hashed. Reads it again where its times cannot tell."""
        now = os.fstat(file.fileno())
        if content_state(now) != self.state:
            return False
        if now.st_ctime_ns == self.changed_ns and not self.is_fresh:
            return True
        file.seek(0)
        return _sha256(file) == self.sha256

    def error(self) -> SourceChanged:
        return SourceChanged(f"{shown(self.path)} changed while it was read; try again once it is complete.")
