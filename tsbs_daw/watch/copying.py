"""Copies a watched file into the spool and hashes it in one pass; fails if the file changes meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.contracts.job import Job, Source, new_job_id
from tsbs_daw.contracts.treatment import ContentHashes, Treatment
from tsbs_daw.core.filenames import safe_name, source_name
from tsbs_daw.core.files import open_regular, sync_file, sync_folder
from tsbs_daw.queue.records import NewJob, SeenFile, write_new_job
from tsbs_daw.queue.spool import SOURCE
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.scan import Found, file_state

_BLOCK_BYTES = 1 << 20


class Moved(Exception):
    """The file is no longer what was seen: scan it again. A signal to the watcher, not an error."""


class SourceUnreadable(Exception):
    """The song itself cannot be read. Any other OSError concerns the spool, not the song."""

    def __init__(self, error: OSError):
        super().__init__(error.strerror or str(error))
        self.not_permitted = isinstance(error, PermissionError)


class Budget:
    """How much of the watched files may lie copied in the spool: the originals are there anyway, and disks are finite.

    refused: someone was turned away since `set` was called
    """

    def __init__(self, limit_bytes: int):
        self._limit, self._used, self._lock = limit_bytes, 0, threading.Lock()
        self.refused = False

    def take(self, size_bytes: int) -> bool:
        """One file is always allowed, however large."""
        with self._lock:
            if self._used and self._used + size_bytes > self._limit:
                self.refused = True
                return False
            self._used += size_bytes
            return True

    def set(self, used_bytes: int) -> None:
        with self._lock:
            self._used, self.refused = used_bytes, False


@dataclass(frozen=True)
class Destination:
    """Where copies go, and with which settings the jobs run."""

    jobs: Path
    folder: WatchFolder
    treatment: Treatment
    settings_hash: str
    model_hash: str


def destination_of(folder: WatchFolder, jobs: Path, hashes: ContentHashes) -> Callable[[str], Destination]:
    """Where a song of a folder goes, by its path below the folder."""

    def destination(relative: str) -> Destination:
        treatment = folder.rule_for(relative).treatment
        settings_hash = treatment.fingerprint(hashes, folder.output)
        return Destination(jobs, folder, treatment, settings_hash, hashes.of_models(treatment))

    return destination


def copy_to_spool(found: Found, destination: Destination, going_on: Callable[[], bool]) -> NewJob:
    """Copy a stable file into a job's folder, which appears in jobs/ by one rename.

    Raises:
        Moved: It changed before or meanwhile, or the daemon stops.
        SourceUnreadable: The file cannot be read.
        JobFormatError: No job can be made of it, as with an output folder whose name is not UTF-8.
        OSError: The spool cannot be written to.
    """
    folder = destination.folder
    path, job_id = folder.path / found.relative, new_job_id()
    temporary = destination.jobs / f".incoming-{job_id}"
    (temporary / SOURCE).mkdir(parents=True)
    try:
        copy = Path(SOURCE, safe_name(path.stem) + path.suffix)
        digest = _copy(path, temporary / copy, found.state, going_on)
        job = _job(job_id, found, destination, destination.jobs / job_id / copy).checked()
        file = SeenFile(str(folder.path), found.relative, found.state, destination.settings_hash, digest, job_id)
        new_job = NewJob(job, source_name(path), file, destination.model_hash, found.size_bytes)
        write_new_job(temporary, new_job)
        sync_folder(temporary / SOURCE)
        sync_folder(temporary)
        temporary.rename(destination.jobs / job_id)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(destination.jobs)
    return new_job


def _copy(path: Path, copy: Path, state: str, going_on: Callable[[], bool]) -> str:
    """Returns: SHA-256 of what was copied. Raises: Moved, SourceUnreadable, OSError: of the copy"""
    digest = hashlib.sha256()
    with _open(path) as source, copy.open("wb") as target:
        _check_state(source, state)
        while block := _read(source):
            if not going_on():
                raise Moved
            digest.update(block)
            target.write(block)
        target.flush()
        sync_file(target.fileno())
        _check_state(source, state)
    try:
        if file_state(path.stat()) != state:  # another file has taken its place
            raise Moved
    except OSError as error:
        raise Moved from error
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.EINVAL):  # gone, or no file any more
            raise Moved from error
        raise SourceUnreadable(error) from error


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except OSError as error:
        raise SourceUnreadable(error) from error


def _check_state(source: BinaryIO, state: str) -> None:
    try:
        status = os.fstat(source.fileno())
    except OSError as error:
        raise SourceUnreadable(error) from error
    if file_state(status) != state:
        raise Moved


def _job(job_id: str, found: Found, destination: Destination, copy: Path) -> Job:
    folder = destination.folder
    song = source_name(Path(found.relative).stem)[:200]
    subfolder = Path(found.relative).parent
    is_text = source_name(subfolder) == str(subfolder)  # else no JSON can hold it, and the song goes to the top
    return Job(
        id=job_id,
        source=Source(path=copy),
        output=folder.output / subfolder if is_text else folder.output,
        song=song,
        **vars(destination.treatment),
        origin="watch",
        deliver={"watched": source_name(folder.path / found.relative)},
    )
