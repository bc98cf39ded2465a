"""The folders through which clients and the daemon exchange jobs. Every move is one rename.

    <spool>/inbox/<id>/job.json       a request; complete when job.json is there
    <spool>/jobs/<id>/                claimed: job.json, fence, progress.json, a copy of the source for watched files
    <spool>/done/<id>/result.json     finished; appears there with its result, or not at all
    <spool>/heartbeat.json            a daemon is alive

A file `cancel` in a job's folder cancels it. A file `move` changes its place among those that wait; it holds one of
`MOVES`. A folder moved from done/ back to inbox/ runs again. Finished folders are
kept for DONE_DAYS days. A copied source leaves with the job, unless the job failed: then it is kept for another try.

Anything may lie here: documents are read with `Document.read`, and whatever is not a valid request is refused on its
own, with a result like any other job's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from tsbs_daw.contracts import Document
from tsbs_daw.contracts.job import Heartbeat, Job, Progress, Result, State
from tsbs_daw.core.config import DONE_DAYS
from tsbs_daw.core.errors import DaemonError, JobFormatError, shown
from tsbs_daw.core.files import (
    create_new,
    may_pass,
    private_folder,
    read_small,
    sync_folder,
    syncing_folder,
    write_atomically,
)

REQUEST_BYTES = 256 * 1024
ALIVE_S = 10.0  # a heartbeat older than this is that of a dead daemon
_GIVEN_UP_S = 600.0  # whoever began a request longer ago than this is not expected to complete it

# The folder, in a job's, with the copy of a watched file.
SOURCE = "source"

# Where a waiting job can be moved to.
MOVES = ("first", "earlier", "later", "last")

# Marks a claimed folder that comes back from done/, until the store has queued it again.
AGAIN = "again"

# What systems put into any folder; no requests.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "icon\r"})

AnyDocument = TypeVar("AnyDocument", bound=Document)


class Spool:
    """The daemon's side."""

    def __init__(self, root: Path):
        self.root = root
        self.inbox, self.jobs, self.done = root / "inbox", root / "jobs", root / "done"

    def create(self) -> None:
        private_folder(self.root)
        for folder in (self.inbox, self.jobs, self.done):
            folder.mkdir(exist_ok=True)

    def waiting(self) -> list[Path]:
        """Complete requests, in the order they were completed. Folders without a job.json are still being written."""
        found = []
        for folder in _folders_in(self.inbox):
            try:
                found.append(((folder / "job.json").lstat().st_mtime_ns, folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # reading it will say what is wrong
                found.append((0, folder))
        return [folder for _, folder in sorted(found)]

    @property
    def request_is_coming(self) -> bool:
        """Whether a request is being written: its folder is there, and its job.json is not yet."""
        given_up_s = time.time() - _GIVEN_UP_S
        begun = (folder for folder in _folders_in(self.inbox) if not os.path.lexists(folder / "job.json"))
        return any(_changed(folder) > given_up_s for folder in begun)

    def strays(self) -> list[Path]:
        """What lies in the inbox and is no folder: links, files, pipes. Hidden files are left to their owners."""
        try:
            with os.scandir(self.inbox) as entries:
                return sorted(
                    Path(entry.path)
                    for entry in entries
                    if not entry.is_dir(follow_symlinks=False)
                    and not entry.name.startswith(".")
                    and entry.name.lower() not in _LITTER
                )
        except OSError:
            return []

    def read_request(self, folder: Path) -> Job:
        """The job of a folder, which can be stored.

        Raises:
            JobFormatError: One sentence for whoever wrote it.
        """
        path = folder / "job.json"
        try:
            job = Job.read(path, REQUEST_BYTES).checked()
        except OSError as error:
            raise JobFormatError(f"{shown(path)} cannot be read ({error.strerror}); write it again.") from error
        if job.id != folder.name:
            raise JobFormatError(
                f"{shown(path)} has the id {job.id!r}, and its folder is {shown(folder.name)}; make them equal."
            )
        return job

    def claim(self, folder: Path) -> None:
        """Make a request the daemon's own. What an earlier run of the same job left in it goes first."""
        if _is_there(folder / "result.json") and not _is_there(folder / AGAIN):
            create_new(folder / AGAIN).close()
        asked = ("cancel", "move", "result.json") if _is_there(folder / AGAIN) else ()
        for name in (*asked, "progress.json", "fence"):
            _remove(folder / name)
        folder.rename(self.jobs / folder.name)

    def runs_again(self, job_id: str) -> bool:
        """Whether this claimed folder is a finished job's that shall run once more, and the store may not know yet."""
        return _is_there(self.folder(job_id) / AGAIN)

    def forget_again(self, job_id: str) -> None:
        """The store knows it now."""
        _remove(self.folder(job_id) / AGAIN)

    def refuse(self, entry: Path, result: Result) -> Path:
        """Finish what cannot be a job: it goes to done/ with the sentence, whatever it is.

        Raises:
            OSError: It cannot be moved now.
        """
        if entry.is_dir() and not entry.is_symlink():
            try:
                _write_result(entry, result)
                return _move_beside(entry, self.done)
            except OSError as error:
                if may_pass(error):
                    raise
        place = self.jobs / f".incoming-{result.id}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        _write_result(place, result)
        place = _move_beside(place, self.done, result.id)
        entry.rename(place / "request")
        return place

    @property
    def usable(self) -> bool:
        """Whether the spool can be written to: else no trouble with a job is that job's."""
        try:
            for place in (self.jobs, self.done):
                create_new(place / ".probe").close()
                (place / ".probe").unlink()
            os.scandir(self.inbox).close()
            return True
        except OSError:
            return False

    def folder(self, job_id: str) -> Path:
        """Of a job that is not finished."""
        return self.jobs / job_id

    def live_folders(self) -> list[Path]:
        return _folders_in(self.jobs)

    def finished_folders(self) -> list[Path]:
        return _folders_in(self.done)

    def write_fence(self, job_id: str, fence: int) -> None:
        """Revoke the job from any worker that still runs it under an older number."""
        write_atomically(self.folder(job_id) / "fence", str(fence), durable=False)

    def write_progress(self, progress: Progress) -> None:
        """Not synced: a power cut may lose it, and the disk is spared."""
        write_atomically(self.folder(progress.id) / "progress.json", progress.to_json(), durable=False)

    def cancel_wanted(self, job_id: str) -> bool:
        return _is_there(self.folder(job_id) / "cancel")

    def take_move(self, job_id: str) -> str | None:
        """Where the job shall be moved to, one of `MOVES`; asked for once, answered once."""
        path = self.folder(job_id) / "move"
        if not _is_there(path):
            return None
        try:
            where = read_small(path, 1024).decode("utf-8", "replace").strip()
        except OSError:  # it is no file, or the job ended meanwhile
            where = ""
        _remove(path)
        return where if where in MOVES else None

    def settle(self, job_id: str, result: Result) -> Path:
        """The job is finished, and the store knows: write result.json, and let it appear in done/. May be repeated."""
        folder = self.folder(job_id)
        if not _is_there(folder):
            return self.done / job_id
        _write_result(folder, result)
        if result.state not in (State.FAILED, State.DEAD):
            shutil.rmtree(folder / SOURCE, ignore_errors=True)
        _remove(folder / "fence")
        sync_folder(folder)
        last_progress = _move_beside(folder, self.done)
        sync_folder(self.done)
        return last_progress

    def discard(self, job_id: str) -> None:
        """Remove a new job that turned out to be a duplicate."""
        _remove_folder(self.folder(job_id))

    def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        write_atomically(self.root / "heartbeat.json", heartbeat.to_json(), durable=False)

    def remove_heartbeat(self) -> None:
        _remove(self.root / "heartbeat.json")

    def prune(self, now_unix_s: float, days: float = DONE_DAYS) -> int:
        """Remove finished folders older than `days`. Returns how many. The store still knows those jobs."""
        old = [folder for folder in self.finished_folders() if now_unix_s - _changed(folder) > days * 86400]
        for folder in old:
            _remove_folder(folder)
        return len(old)

    def sweep(self) -> None:
        """Remove copies that an earlier daemon left unfinished, and folders that it was about to remove."""
        for folder in (*self.live_folders(), *self.finished_folders()):
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)


def submit(spool_root: Path, job: Job) -> Path:
    """Submit a job. When this returns, the request survives a crash and a power cut.

    Returns: the request's folder in the inbox
    Raises:  DaemonError: the spool cannot be written to; JobFormatError: the job cannot be written down
    """
    job.checked()
    folder = spool_root / "inbox" / job.id
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        complete_request(folder, job)
    except FileExistsError as error:
        raise DaemonError(f"{shown(folder)} is already there; give the job an id of its own.") from error
    except OSError as error:
        raise DaemonError(
            f"Cannot write the job to {shown(folder)} ({error.strerror}). Free some space or check permissions."
        ) from error
    return folder


def complete_request(folder: Path, job: Job) -> None:
    """Write job.json into a request's folder, which makes it one. A daemon may move the folder in the same moment.

    Raises:
        OSError: The request cannot be written.
    """
    sync_folder(folder.parent)
    with syncing_folder(folder):
        write_atomically(folder / "job.json", job.to_json())


def request_cancel(spool_root: Path, job_id: str) -> None:
    """Cancel a job that is not finished. Raises: DaemonError: there is no such job"""
    _leave_note(spool_root, job_id, "cancel", "", "cancelled")


def request_move(spool_root: Path, job_id: str, where: str) -> None:
    """Change a waiting job's place in the order. Args: where: one of `MOVES`. Raises: DaemonError: it does not wait"""
    _leave_note(spool_root, job_id, "move", where, "moved")


def _leave_note(spool_root: Path, job_id: str, name: str, text: str, what: str) -> None:
    """A file for the daemon in the folder of a job that is not finished. Args: what: is asked, as a participle"""
    for _ in range(2):  # it may be claimed between the two looks
        for place in ("inbox", "jobs"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                write_atomically(spool_root / place / job_id / name, text, durable=False)
                return
    known = "is finished already" if (spool_root / "done" / job_id).exists() else "is not known here"
    raise DaemonError(f"The job {job_id} {known}, so it cannot be {what}; `tsbs-daw jobs list` shows all jobs.")


def request_retry(spool_root: Path, job_id: str) -> None:
    """Let a finished job run again. Raises: DaemonError: it is not there, or its request was never readable"""
    folder = spool_root / "done" / job_id
    if not (folder / "job.json").is_file():
        raise DaemonError(
            f"The job {job_id} is not among the finished ones of the last {DONE_DAYS} days, so it cannot run again; "
            "submit it anew."
        )
    (spool_root / "inbox").mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(spool_root / "inbox" / job_id)
    except OSError as error:
        raise DaemonError(f"The job {job_id} is waiting to run already ({error.strerror}).") from error


def read_result(spool_root: Path, job_id: str) -> Result | None:
    """None while the job is not finished. Raises: JobFormatError: the file is damaged"""
    return _read(spool_root / "done" / job_id / "result.json", Result)


def read_progress(spool_root: Path, job_id: str) -> Progress | None:
    """None before the job runs, and when it is finished. Raises: JobFormatError: the file is damaged"""
    return _read(spool_root / "jobs" / job_id / "progress.json", Progress)


def living_daemon(spool_root: Path) -> Heartbeat | None:
    """The heartbeat of the daemon, if it is fresh."""
    try:
        heartbeat = _read(spool_root / "heartbeat.json", Heartbeat)
    except JobFormatError:
        return None
    fresh = heartbeat is not None and abs(time.time() - heartbeat.updated_unix_s) < ALIVE_S
    return heartbeat if fresh else None


def _remove_folder(folder: Path) -> None:
    """Hide the folder, then remove it: a process killed half way leaves nothing that looks like a job."""
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        folder.rename(hidden)
    except OSError:
        hidden = folder
    shutil.rmtree(hidden, ignore_errors=True)


def _folders_in(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:  # someone has cleaned up; what is submitted next makes it anew
        return []


def _read(path: Path, kind: type[AnyDocument]) -> AnyDocument | None:
    try:
        return kind.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_there(path: Path) -> bool:
    """Whether anything has this name, wherever it leads."""
    return os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove whatever has this name; a link, not what it leads to."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # which one it is for a folder depends on the system
        if not path.is_dir() or path.is_symlink():
            raise
        shutil.rmtree(path)


def _write_result(folder: Path, result: Result) -> None:
    path = folder / "result.json"
    if path.is_dir():
        _remove(path)
    write_atomically(path, result.to_json())


def _move_beside(folder: Path, where: Path, name: str = "") -> Path:
    """Move a folder, under another name if its own is taken: an id was used twice."""
    for free in _names(name or folder.name):
        if not _is_there(where / free):
            folder.rename(where / free)
            return where / free
    raise AssertionError("the names never end")


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1


def _changed(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return folder.lstat().st_mtime
    return time.time()
