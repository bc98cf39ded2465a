"""Moving or deleting a song's file after its stems are published: the only code that changes a source file.

    verify the stems -> verify the source's hash -> rename it to a hidden name -> check it again -> move or delete it

The file is renamed before the last check, so a file that somebody puts in its place in the meantime is never touched.
Every step may be repeated: after a kill, the file has its own name or the hidden one, or is at its target.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.contracts.job import Result
from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.errors import shown
from tsbs_daw.core.files import (
    content_state,
    create_new,
    file_sha256,
    open_regular,
    sync_file,
    sync_folder,
    unmounted,
)
from tsbs_daw.queue.records import SeenFile
from tsbs_daw.watch.rules import After
from tsbs_daw.watch.scan import file_state

_BLOCK_BYTES = 1 << 20
_HIDDEN = ".tsbs-daw-leaving-"  # watch folders ignore names that start with a dot


class Stays(Exception):
    """The file stays where it is. The message is the reason, as a clause.

    Attributes:
        passing: Whether the reason may be temporary, so that a later attempt may succeed.
    """

    def __init__(self, reason: str, *, passing: bool = False):
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True)
class Departure:
    """Outcome for a file that was moved or deleted.

    Attributes:
        note: A sentence for the user.
        path: Path of the file now; None if it no longer exists.
    """

    note: str
    path: Path | None


def leave(file: SeenFile, after: After, result: Result, is_watched: Callable[[Path], bool]) -> Departure | None:
    """Keep, move or delete the file of a finished song. May be repeated.

    Args:
        file: The song's file, as it was when it was copied and hashed.
        after: What to do.
        result: Result of the song's job.
        is_watched: Tells whether a folder lies in a watch folder.

    Returns:
        What was done; None if the file is kept.

    Raises:
        Stays: The file was not moved or deleted, and has its own name.
    """
    source = Path(file.root, file.relative)
    hidden = source.with_name(f"{_HIDDEN}{file.job_id}{source.suffix}")
    try:
        if after.kind == "keep":
            _put_back(hidden, source)
            return None
        _verify(result, file.input_hash or "")
        if after.folder is None:
            return _delete(file, source, hidden)
        return _move(file, source, hidden, (after.folder / file.relative).parent, is_watched)
    except Stays:
        _put_back(hidden, source)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            _put_back(hidden, source)
        raise Stays(f"{shown(error.filename or source)}: {error.strerror or error}", passing=True) from error


def _verify(result: Result, input_hash: str) -> None:
    """Check every published stem against the manifest.

    Raises:
        Stays: A stem is missing or has changed, or the stems belong to another song.
    """
    folder = result.folder
    if folder is None:
        raise Stays("its job delivered no folder")
    if not folder.parent.is_dir():
        raise Stays(f"its stems cannot be verified, because {shown(folder.parent)} is missing", passing=True)
    manifest = read_manifest(folder)
    if manifest is None:
        raise Stays(f"its stems are no longer in {shown(folder)}; `tsbs-daw jobs retry` separates it again")
    if manifest.source.sha256 != input_hash:
        raise Stays(f"the stems in {shown(folder)} belong to another song")
    if not manifest.stems:
        raise Stays(f"no audio was delivered to {shown(folder)}")
    for entry in manifest.stems:
        path = folder / entry.file
        try:
            size = path.stat().st_size
            same = size == entry.size_bytes and entry.sha256 in (None, file_sha256(path))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise Stays(f"{shown(path)} is missing or was changed; `tsbs-daw jobs retry` separates the song again")


def _delete(file: SeenFile, source: Path, hidden: Path) -> Departure:
    if os.path.lexists(hidden) or os.path.lexists(source):
        _hide(file, source, hidden, _hash_of(_origin(source, hidden)))
        hidden.unlink()
        sync_folder(source.parent)
    return Departure("The song's file was deleted.", None)


def _move(file: SeenFile, source: Path, hidden: Path, target: Path, is_watched: Callable[[Path], bool]) -> Departure:
    if point := unmounted(target):
        raise Stays(f"the disk or share of {shown(target)} is not mounted at {shown(point)}", passing=True)
    if is_watched(target):
        raise Stays(f"{shown(target)} lies in a watched folder, so the song would be found again")
    target.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(hidden) and not os.path.lexists(source):
        moved = next((path for path in _names(target / source.name, endless=False) if _holds(path, file)), None)
        return Departure("The song's file no longer exists." if moved is None else _moved_to(moved), moved)
    origin = _origin(source, hidden)
    copy = None
    try:
        if _same_file_system(origin, target):
            digest = _hash_of(origin)
        else:
            copy = target / f"{_HIDDEN}{file.job_id}.part"
            digest = _copy(origin, copy)
        _hide(file, source, hidden, digest)
        try:
            place = _place(copy or hidden, target / source.name, file)
        except OSError as error:
            if copy is not None or error.errno != errno.EXDEV:
                raise
            copy = target / f"{_HIDDEN}{file.job_id}.part"  # the same device number, but different file systems
            if _copy(hidden, copy) != file.input_hash:
                raise Stays("it changed while it was being moved") from error
            place = _place(copy, target / source.name, file)
        sync_folder(target)
        hidden.unlink(missing_ok=True)
        sync_folder(source.parent)
        return Departure(_moved_to(place), place)
    finally:
        if copy is not None:
            copy.unlink(missing_ok=True)


def _same_file_system(file: Path, folder: Path) -> bool:
    return file.lstat().st_dev == folder.stat().st_dev


def _moved_to(place: Path) -> str:
    return f"The song's file was moved to {shown(place)}."


def _origin(source: Path, hidden: Path) -> Path:
    """Return the file's current path: an earlier attempt may have left it under the hidden name."""
    return hidden if os.path.lexists(hidden) else source


def _hide(file: SeenFile, source: Path, hidden: Path, digest: str) -> None:
    """Rename the file to its hidden name if it is the one that was separated.

    Raises:
        Stays: It is another file, which was not touched. If it was already renamed, the caller has to rename it back.
    """
    changed = "it changed after it was copied; its new content is treated as a new song"
    if digest != file.input_hash:
        raise Stays(changed)
    if os.path.lexists(hidden):
        return
    before = source.lstat()
    if stat.S_ISLNK(before.st_mode):
        raise Stays("it is a link, not a file")
    if file_state(before) != file.state:
        raise Stays(changed)
    source.rename(hidden)
    if content_state(hidden.lstat()) != content_state(before):
        raise Stays(changed)


def _hash_of(path: Path) -> str:
    try:
        return file_sha256(path)
    except IsADirectoryError as error:
        raise Stays("a folder has taken its place") from error


def _copy(source: Path, copy: Path) -> str:
    """Copy a file with its times, sync the copy, and return the SHA-256 of the copied content."""
    digest = hashlib.sha256()
    with open_regular(source) as reading, create_new(copy) as writing:
        while block := reading.read(_BLOCK_BYTES):
            digest.update(block)
            writing.write(block)
        writing.flush()
        with contextlib.suppress(OSError):  # times and permissions, where the file system has them
            shutil.copystat(source, copy)
        sync_file(writing.fileno())
    return digest.hexdigest()


def _place(path: Path, wanted: Path, file: SeenFile) -> Path:
    """Move a file to the wanted name, with a number if it is taken. Never replaces a file. Return the name.

    A file of the same name and content is assumed to be the one that an earlier attempt moved.
    """
    for name in _names(wanted):
        if not os.path.lexists(name) and _appear(path, name):
            return name
        if _holds(name, file):
            return name
    raise AssertionError("the names never end")


def _names(wanted: Path, *, endless: bool = True) -> Iterator[Path]:
    """Yield `song.wav`, `song (2).wav` and so on.

    Args:
        wanted: The first name.
        endless: Whether to continue without end; if not, stop before the first free name.
    """
    number = 1
    name = wanted
    while endless or os.path.lexists(name):
        yield name
        number += 1
        name = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")


def _holds(path: Path, file: SeenFile) -> bool:
    try:
        return path.lstat().st_size == int(file.state.split(":")[2]) and _hash_of(path) == file.input_hash
    except (OSError, Stays):
        return False


def _appear(path: Path, name: Path) -> bool:
    """Rename a file without replacing another. Return False if the new name was taken at the last moment."""
    try:
        os.link(path, name, follow_symlinks=False)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", None) in (errno.EXDEV, errno.ENOSPC, errno.EROFS, errno.ENOENT):
            raise
        if os.path.lexists(name):
            return False
        path.rename(name)  # a file system without hard links
        return True
    path.unlink()
    return True


def _put_back(hidden: Path, source: Path) -> None:
    """Rename a hidden file back to its name, with a number if another file has taken that name."""
    if os.path.lexists(hidden):
        for name in _names(source):
            if not os.path.lexists(name) and _appear(hidden, name):
                return
