"""Safe file access: read regular files only, write durably and never through links, hash contents.

Anyone who can write to a folder can also put a pipe, a device, a link or an endless file under a name that is expected
there. Files are therefore opened once, without blocking, and the open descriptor is checked. Writing always creates a
new file and never follows a link.

Durable writes sync the contents first, then the folder entries that lead to them.
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
TIME_STEP_NS = 2_500_000_000  # FAT stores times in steps of 2 s

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
QUIET = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
QUIET |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)

# Temporary errors of a disk, a share or the system, which are not caused by the file itself.
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
    """A folder, a pipe, a device or a link where a regular file is expected."""


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading, without blocking if it is a pipe or a device.

    Args:
        path: Path of the file.
        follow: Whether to follow a link. Pass False wherever others can write.

    Raises:
        NotRegular: The path is not a regular file; `strerror` says what it is.
        OSError: The file is missing or not readable.
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
    """Read the whole content of a regular file that should be small.

    Raises:
        OSError: The file cannot be opened, see `open_regular`, or is larger than `limit_bytes`.
    """
    with open_regular(path, follow=follow) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        limit = f"{limit_bytes >> 20} MiB" if limit_bytes >= 1 << 20 else f"{limit_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {limit}", str(path))
    return content


def create_new(path: Path, *, mode: int = 0o666) -> BinaryIO:
    """Create a file and open it for writing; replace any file or link of that name.

    Raises:
        OSError: The file cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | QUIET
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(FileExistsError):
            return os.fdopen(os.open(path, flags, mode), "wb")
    raise FileExistsError(errno.EEXIST, "another process keeps creating a file of that name", str(path))


def private_folder(folder: Path, *, repair: bool = True) -> Path:
    """Create a folder that only this user can access, or restrict the permissions of an existing one.

    Args:
        folder: The folder; its parents are created as well.
        repair: Whether to restrict an existing folder, because earlier versions created it open to others. A folder
            with the setgid bit is left as it is, because its owner shares it with a group; so are links and folders of
            other users.

    Returns:
        The folder.

    Raises:
        OSError: The folder cannot be created.
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
    """Flush the contents of an open file to the disk."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # on macOS, fsync leaves the data in the drive's cache
    else:
        os.fsync(descriptor)


@contextlib.contextmanager
def syncing_folder(folder: Path) -> Iterator[None]:
    """On exit, flush the entries of a folder to the disk, even if another process has moved the folder meanwhile."""
    descriptor = None if os.name == "nt" else os.open(folder, os.O_RDONLY)
    try:
        yield
        if descriptor is not None:
            os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk. Windows has no call for this; its file system journals them."""
    with syncing_folder(folder):
        pass


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk, and `folder` itself last."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            with Path(root, name).open("rb+") as file:
                sync_file(file.fileno())
        sync_folder(Path(root))


def write_synced(path: Path, text: str) -> None:
    """Write a new UTF-8 text file, replacing any file of that name, and flush it to the disk."""
    with create_new(path) as file:
        file.write(text.encode("utf-8"))
        file.flush()
        sync_file(file.fileno())


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a text file atomically: a reader sees the old text or the new, never a part of it.

    Args:
        path: Path of the file.
        text: New content.
        durable: Whether to flush it to the disk. False for files that matter only while this process runs.
    """
    content = text.encode("utf-8")
    temporary = path.with_name(path.name + ".tmp")
    try:
        file = create_new(temporary)
    except (PermissionError, IsADirectoryError, FileExistsError):  # the temporary name is taken and cannot be removed
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.tmp")
        file = create_new(temporary)
    with file:
        file.write(content)
        file.flush()
        if durable:
            sync_file(file.fileno())
    temporary.replace(path)


def folder_problem(folder: Path, *, writable: bool = True) -> str | None:
    """Check whether files can be written to a folder, which need not exist yet.

    Args:
        folder: Absolute path.
        writable: Whether to check permissions too. Pass False to ignore problems that may be temporary, such as those
            of a share.

    Returns:
        The problem and what to do, as a sentence without its full stop; None if there is none.
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
    """Return the mount point that `folder` lies on, if its disk or share is not mounted now; otherwise None.

    Files created below it would end up on the system disk, hidden once the share is mounted again. Mount points are
    those listed in `table`, and empty folders where operating systems mount disks.
    """
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
        points = {line.split()[1] for line in lines if len(line.split()) > 1 and line.lstrip()[:1] != "#"}
    except OSError:
        points = set()
    # An empty folder that exists may be the user's own; only the table knows it for a mount point.
    for place in folder.parents if folder.is_dir() and str(folder) not in points else (folder, *folder.parents):
        if place == Path(place.anchor) or os.path.ismount(place):
            return None
        if str(place) in points:
            return place
        if str(place.parent) in MOUNTS_BELOW or str(place.parent.parent) in MOUNTS_OF_USERS:
            is_left_over = not place.is_dir() or not any(place.iterdir())
            return place if is_left_over and os.name == "posix" else None
    return None


def disk_is_full(error: BaseException) -> bool:
    """Tell whether writing failed because the disk is full or the user's quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def may_pass(error: BaseException) -> bool:
    """Tell whether an error may be temporary, such as one of a share, a disk, permissions or a missing folder."""
    return isinstance(error, OSError) and error.errno in PASSING


def write_error(path: Path, error: OSError) -> OutputError:
    """Translate an OSError from writing `path` into an OutputError, OutputUnavailable or NoSpaceLeft."""
    name = shown(path)
    if disk_is_full(error):
        return NoSpaceLeft(f"Cannot write {name}: the disk is full. Free some space and try again.")
    if error.errno == errno.EFBIG:
        return OutputError(f"{name} is too large for the file system of this disk. Use another disk.")
    kind = OutputUnavailable if may_pass(error) else OutputError
    return kind(f"Cannot write {name}: {error.strerror or error}.")


def is_gone(path: Path, error: OSError) -> bool:
    """Tell whether a file that cannot be opened was deleted, not merely its folder, disk or share unavailable."""
    if error.errno != errno.ENOENT:
        return False
    real = Path(os.path.realpath(path))  # the target, if it is a link
    try:
        return real.parent.is_dir() and unmounted(real) in (None, real)
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hex.

    Raises:
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of the rest of an open file, in hex.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def content_state(status: os.stat_result) -> list[int]:
    """Return device, inode, size and modification time: values that change if a file is replaced or written to."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class HashedFile:
    """A file and its hash, with what it takes to tell later whether the file still has the same content.

    Attributes:
        path: Path of the file.
        sha256: Hash of its content, in hex.
        state: Its state when it was hashed; see `content_state`.
        changed_ns: Time of its last change of any kind (ctime).
        is_fresh: Whether it was written so recently that another write might leave its modification time unchanged.
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
            OSError: The file cannot be read.
            SourceChanged: The file was written to in the meantime.
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
        """Tell whether an open file is this one, with the same content; hash it again if its times cannot tell."""
        now = os.fstat(file.fileno())
        if content_state(now) != self.state:
            return False
        if now.st_ctime_ns == self.changed_ns and not self.is_fresh:
            return True
        file.seek(0)
        return sha256_of(file) == self.sha256

    def error(self) -> SourceChanged:
        """Return the error for a file that changed, for the caller to raise."""
        return SourceChanged(f"{shown(self.path)} changed while it was read; try again once it is complete.")
