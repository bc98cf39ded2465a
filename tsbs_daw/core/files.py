"""Files by name: read only what is a plain file, write so that a power cut or a foreign link does no harm.

Whoever may write to a folder may also put a pipe, a device, a link or an endless file under a name that is expected
there. So what is read by name is opened once, without waiting, and judged by what was opened. What is written by name
is a new file, never one that a link leads to.

Durability: contents first, then the names that lead to them. And the hash that tells contents apart.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.core.errors import NoSpaceLeft, OutputError, OutputUnavailable, SourceChanged, shown

MOUNTS_BELOW = ("/mnt", "/Volumes")
MOUNTS_OF_USERS = ("/media", "/run/media")
TIME_STEP_NS = 2_500_000_000  # FAT counts seconds in twos

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
QUIET = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
QUIET |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)

# What a disk, a share or the system says for a while, and what is no fault of the file that was in hand.
PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "EIO", "ENOENT", "ESTALE", "ENOSPC", "EDQUOT", "ENODEV", "ENXIO", "EBUSY"),
        *("EAGAIN", "EINTR", "EMFILE", "ENFILE", "ENOMEM", "ENOLCK", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENOTCONN", "ECONNRESET", "ECONNABORTED", "EREMOTEIO", "ENOLINK", "ENOMEDIUM"),
    )
    if hasattr(errno, name)
)


class NotRegular(OSError):
    """A folder, a pipe, a device or a link where a plain file should be."""


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading, without waiting for anyone should it be a pipe or a device.

    Args:
        path: The file.
        follow: Whether the name may be a link. False wherever others may write.

    Raises:
        NotRegular: It is not a regular file; `strerror` says what it is.
        OSError: It is not there, or not readable.
    """
    if not follow and not NO_FOLLOW and path.is_symlink():
        raise NotRegular(errno.ELOOP, "it is a link", str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | QUIET | (0 if follow else NO_FOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise NotRegular(errno.ELOOP, "it is a link", str(path)) from error
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket
            raise NotRegular(errno.EINVAL, "it is not a regular file", str(path)) from error
        raise
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "its name is not valid", str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"
            raise NotRegular(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, kind, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_small(path: Path, limit_bytes: int, *, follow: bool = False) -> bytes:
    """The whole of a regular file that should be small.

    Raises:
        OSError: as `open_regular`, or it is larger than `limit_bytes`
    """
    with open_regular(path, follow=follow) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        limit = f"{limit_bytes >> 20} MiB" if limit_bytes >= 1 << 20 else f"{limit_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {limit}", str(path))
    return content


def create_new(path: Path, *, mode: int = 0o666) -> BinaryIO:
    """Create a file and open it for writing, also where a link or a leftover of that name is in the way.

    Raises:
        OSError: It cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | QUIET
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(FileExistsError):
            return os.fdopen(os.open(path, flags, mode), "wb")
    raise FileExistsError(errno.EEXIST, "somebody puts another file there at the same time", str(path))


def private_folder(folder: Path, *, repair: bool = True) -> Path:
    """Make a folder that only this user may look into, and close one of ours that others can look into.

    Args:
        folder: The folder; those above it are made as well.
        repair: Whether to close one that is there already, as earlier versions made it. One with the setgid bit is left
            as it is, because its owner shares it with a group; so is somebody else's, and a link.

    Returns:
        The folder.

    Raises:
        OSError: It cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
        status = folder.lstat()
        ours = hasattr(os, "geteuid") and status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode)
        if repair and ours and status.st_mode & 0o077 and not status.st_mode & (stat.S_ISGID | stat.S_ISVTX):
            with contextlib.suppress(OSError):
                folder.chmod(0o700)
    return folder


def sync_file(descriptor: int) -> None:
    """Make the contents of an open file durable."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone leaves the data in the drive's cache there
    else:
        os.fsync(descriptor)


@contextlib.contextmanager
def syncing_folder(folder: Path) -> Iterator[None]:
    """At the end, make the names in a folder durable, also where another process has moved it meanwhile."""
    descriptor = None if os.name == "nt" else os.open(folder, os.O_RDONLY)
    try:
        yield
        if descriptor is not None:
            os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Windows has no such call; its file system journals them."""
    with syncing_folder(folder):
        pass


def sync_tree(folder: Path) -> None:
    """Make every file below `folder` durable, and every folder, itself last."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            with Path(root, name).open("rb+") as file:
                sync_file(file.fileno())
        sync_folder(Path(root))


def write_synced(path: Path, text: str) -> None:
    """Write a new text file, UTF-8, in place of whatever has its name, and make it durable."""
    with create_new(path) as file:
        file.write(text.encode("utf-8"))
        file.flush()
        sync_file(file.fileno())


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a text file so that a reader sees the old text or the new, never a part.

    Args:
        path: The file.
        text: Its new content.
        durable: False for what matters only while this process lives; the disk is spared.
    """
    content = text.encode("utf-8")
    temporary = path.with_name(path.name + ".tmp")
    try:
        file = create_new(temporary)
    except (PermissionError, IsADirectoryError, FileExistsError):  # what is in the way cannot be removed
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.tmp")
        file = create_new(temporary)
    with file:
        file.write(content)
        file.flush()
        if durable:
            sync_file(file.fileno())
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


def unmounted(folder: Path, table: Path = Path("/etc/fstab")) -> Path | None:
    """The mount point of a disk or share that `folder` lies on and that is not mounted now; None if nothing says so.

    What is made below such a point would lie on the system's disk, and be hidden once the share comes back. The
    system's table says which places are mount points; an empty folder where systems mount disks is taken for one too.
    """
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
        points = {line.split()[1] for line in lines if len(line.split()) > 1 and line.lstrip()[:1] != "#"}
    except OSError:
        points = set()
    for place in folder.parents if folder.is_dir() else (folder, *folder.parents):
        if place == Path(place.anchor) or os.path.ismount(place):
            return None
        if str(place) in points:
            return place
        if str(place.parent) in MOUNTS_BELOW or str(place.parent.parent) in MOUNTS_OF_USERS:
            is_left_over = not place.is_dir() or not any(place.iterdir())
            return place if is_left_over and os.name == "posix" else None
    return None


def disk_is_full(error: BaseException) -> bool:
    """Whether something could not be written for lack of room: on the disk, or in the user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def may_pass(error: BaseException) -> bool:
    """Whether an error of the system is one that comes and goes: a share, a disk, permissions, a missing folder."""
    return isinstance(error, OSError) and error.errno in PASSING


def write_error(path: Path, error: OSError) -> OutputError:
    """Translate an OSError from writing `path` into an OutputError or NoSpaceLeft."""
    name = shown(path)
    if disk_is_full(error):
        return NoSpaceLeft(f"Cannot write {name}: the disk is full. Free some space and try again.")
    if error.errno == errno.EFBIG:
        return OutputError(f"{name} is too large for the file system of this disk. Use another disk.")
    kind = OutputUnavailable if may_pass(error) else OutputError
    return kind(f"Cannot write {name}: {error.strerror or error}.")


def is_gone(path: Path, error: OSError) -> bool:
    """Whether a file that could not be opened is gone for good, not away together with its folder, disk or share."""
    if error.errno != errno.ENOENT:
        return False
    real = Path(os.path.realpath(path))  # of a link, what it leads to
    try:
        return real.parent.is_dir() and unmounted(real) in (None, real)
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hex. Raises: OSError"""
    with open_regular(path) as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of the rest of an open file, in hex. Raises: OSError"""
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
            digest = sha256_of(file)
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
        return sha256_of(file) == self.sha256

    def error(self) -> SourceChanged:
        return SourceChanged(f"{shown(self.path)} changed while it was read; try again once it is complete.")
