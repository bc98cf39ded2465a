"""Making what was written survive a power cut: contents first, then the names that lead to them. And a full disk.

The hash that tells contents apart: songs, models, presets, delivered files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

from tsbs_daw.core.errors import shown


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
