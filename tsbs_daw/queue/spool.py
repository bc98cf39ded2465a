"""The folders through which clients and the daemon exchange jobs. Every move is one rename.

    <spool>/inbox/<id>/job.json       request; complete once job.json exists
    <spool>/jobs/<id>/                claimed job: job.json, fence, progress.json, a copy of the source if it is watched
    <spool>/done/<id>/result.json     finished job; the folder appears here together with its result
    <spool>/heartbeat.json            shows that a daemon is alive

A file `cancel` in a job's folder cancels the job. A file `move` changes the job's place in the queue; it contains one
of `MOVES`. A job runs again if its folder is moved from done/ to inbox/. Finished folders are kept for DONE_DAYS days.
The copy of a source is deleted when its job ends, unless the job failed; then a retry needs it.

The spool is untrusted input: documents are read with `Document.read`, and each entry that is not a valid request is
refused individually, with a result like that of any other job.
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
ALIVE_S = 10.0  # a daemon whose heartbeat is older than this is dead
_GIVEN_UP_S = 600.0  # an incomplete request older than this is considered abandoned

SOURCE = "source"  # subfolder of a job's folder that holds the copy of a watched file
MOVES = ("first", "earlier", "later", "last")  # places in the queue that a waiting job can be moved to
AGAIN = "again"  # marks a claimed folder that came back from done/, until the store has queued it again
_LITTER = frozenset({"thumbs.db", "desktop.ini", "icon\r"})  # files that operating systems create in any folder

AnyDocument = TypeVar("AnyDocument", bound=Document)


class Spool:
    """The spool as the daemon sees it."""

    def __init__(self, root: Path):
        self.root = root
        self.inbox, self.jobs, self.done = root / "inbox", root / "jobs", root / "done"

    def create(self) -> None:
        private_folder(self.root)
        for folder in (self.inbox, self.jobs, self.done):
            folder.mkdir(exist_ok=True)

    def waiting(self) -> list[Path]:
        """Return complete requests in order of completion. Folders without job.json are still being written."""
        found = []
        for folder in _folders_in(self.inbox):
            try:
                found.append(((folder / "job.json").lstat().st_mtime_ns, folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # `read_request` reports the error
                found.append((0, folder))
        return [folder for _, folder in sorted(found)]

    @property
    def request_is_coming(self) -> bool:
        """Whether a request is being written: its folder exists, but its job.json does not yet."""
        given_up_s = time.time() - _GIVEN_UP_S
        begun = (folder for folder in _folders_in(self.inbox) if not os.path.lexists(folder / "job.json"))
        return any(_changed(folder) > given_up_s for folder in begun)

    def strays(self) -> list[Path]:
        """Return entries of the inbox that are not folders: links, files, pipes. Hidden ones are skipped."""
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
        """Read the job of a folder.

        Raises:
            JobFormatError: job.json is unreadable or invalid, or its id is not the folder's name.
        """
        path = folder / "job.json"
        try:
            job = Job.read(path, REQUEST_BYTES).checked()
        except OSError as error:
            raise JobFormatError(f"{shown(path)} cannot be read ({error.strerror}). Write it again.") from error
        if job.id != folder.name:
            raise JobFormatError(
                f"{shown(path)} has the id {job.id!r}, but its folder is {shown(folder.name)}. Make them the same."
            )
        return job

    def claim(self, folder: Path) -> None:
        """Move a request from inbox/ to jobs/, after removing what an earlier run of the job left in it."""
        if _is_there(folder / "result.json") and not _is_there(folder / AGAIN):
            create_new(folder / AGAIN).close()
        asked = ("cancel", "move", "result.json") if _is_there(folder / AGAIN) else ()
        for name in (*asked, "progress.json", "fence"):
            _remove(folder / name)
        folder.rename(self.jobs / folder.name)

    def runs_again(self, job_id: str) -> bool:
        """Whether a claimed folder is that of a finished job to run again, which the store may not have queued yet."""
        return _is_there(self.folder(job_id) / AGAIN)

    def forget_again(self, job_id: str) -> None:
        """Remove the mark of `runs_again`, once the store has queued the job."""
        _remove(self.folder(job_id) / AGAIN)

    def refuse(self, entry: Path, result: Result) -> Path:
        """Move an invalid entry of any kind to done/, with a result that says why. Return its new folder.

        Raises:
            OSError: The entry cannot be moved now.
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
        """Whether the spool is writable. If it is not, an OSError cannot be blamed on a single job."""
        try:
            for place in (self.jobs, self.done):
                create_new(place / ".probe").close()
                (place / ".probe").unlink()
            os.scandir(self.inbox).close()
            return True
        except OSError:
            return False

    def folder(self, job_id: str) -> Path:
        """Return the folder of a claimed job that is not finished."""
        return self.jobs / job_id

    def live_folders(self) -> list[Path]:
        return _folders_in(self.jobs)

    def finished_folders(self) -> list[Path]:
        return _folders_in(self.done)

    def write_fence(self, job_id: str, fence: int) -> None:
        """Record the number of the current lease. A worker that holds an older lease then stops."""
        write_atomically(self.folder(job_id) / "fence", str(fence), durable=False)

    def write_progress(self, progress: Progress) -> None:
        """Write progress.json without syncing it: losing it in a power cut does no harm."""
        write_atomically(self.folder(progress.id) / "progress.json", progress.to_json(), durable=False)

    def cancel_wanted(self, job_id: str) -> bool:
        return _is_there(self.folder(job_id) / "cancel")

    def take_move(self, job_id: str) -> str | None:
        """Read and remove a job's `move` file. Return one of `MOVES`, or None if there is no valid file."""
        path = self.folder(job_id) / "move"
        if not _is_there(path):
            return None
        try:
            where = read_small(path, 1024).decode("utf-8", "replace").strip()
        except OSError:  # it is not a file, or the job has ended in the meantime
            where = ""
        _remove(path)
        return where if where in MOVES else None

    def settle(self, job_id: str, result: Result) -> Path:
        """Write result.json and move the folder to done/, once the store has ended the job. May be repeated."""
        folder = self.folder(job_id)
        if not _is_there(folder):
            return self.done / job_id
        _write_result(folder, result)
        if result.state not in (State.FAILED, State.DEAD):
            shutil.rmtree(folder / SOURCE, ignore_errors=True)
        _remove(folder / "fence")
        sync_folder(folder)
        finished_folder = _move_beside(folder, self.done)
        sync_folder(self.done)
        return finished_folder

    def discard(self, job_id: str) -> None:
        """Remove the folder of a new job that is not needed, because its file has not changed."""
        _remove_folder(self.folder(job_id))

    def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        write_atomically(self.root / "heartbeat.json", heartbeat.to_json(), durable=False)

    def remove_heartbeat(self) -> None:
        _remove(self.root / "heartbeat.json")

    def prune(self, now_unix_s: float, days: float = DONE_DAYS) -> int:
        """Remove finished folders older than `days` and return how many. The store keeps those jobs."""
        old = [folder for folder in self.finished_folders() if now_unix_s - _changed(folder) > days * 86400]
        for folder in old:
            _remove_folder(folder)
        return len(old)

    def sweep(self) -> None:
        """Remove hidden folders: unfinished copies, and removals that an earlier daemon did not complete."""
        for folder in (*self.live_folders(), *self.finished_folders()):
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)


def submit(spool_root: Path, job: Job) -> Path:
    """Submit a job. When this returns, the request survives a crash and a power cut.

    Returns:
        The request's folder in the inbox.

    Raises:
        DaemonError: The spool is not writable, or the id is already in use.
        JobFormatError: The job cannot be stored as JSON.
    """
    job.checked()
    folder = spool_root / "inbox" / job.id
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        complete_request(folder, job)
    except FileExistsError as error:
        raise DaemonError(f"{shown(folder)} already exists. Give the job a unique id.") from error
    except OSError as error:
        raise DaemonError(
            f"Cannot write the job to {shown(folder)} ({error.strerror}). Free some space or check permissions."
        ) from error
    return folder


def complete_request(folder: Path, job: Job) -> None:
    """Write job.json into a request's folder, which completes it. A daemon may move the folder at once.

    Raises:
        OSError: The request cannot be written.
    """
    sync_folder(folder.parent)
    with syncing_folder(folder):
        write_atomically(folder / "job.json", job.to_json())


def request_cancel(spool_root: Path, job_id: str) -> None:
    """Ask the daemon to cancel a job. Raises DaemonError if the job is unknown or already finished."""
    _leave_note(spool_root, job_id, "cancel", "", "cancelled")


def request_move(spool_root: Path, job_id: str, where: str) -> None:
    """Ask the daemon to move a waiting job to `where`, one of `MOVES`.

    Raises:
        DaemonError: The job is unknown or already finished.
    """
    _leave_note(spool_root, job_id, "move", where, "moved")


def _leave_note(spool_root: Path, job_id: str, name: str, text: str, what: str) -> None:
    """Write a file for the daemon into an unfinished job's folder. `what` is the request as a participle."""
    for _ in range(2):  # the job may be claimed between the two attempts
        for place in ("inbox", "jobs"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                write_atomically(spool_root / place / job_id / name, text, durable=False)
                return
    known = "is already finished" if (spool_root / "done" / job_id).exists() else "is not known here"
    raise DaemonError(f"The job {job_id} {known}, so it cannot be {what}. `tsbs-daw jobs list` shows all jobs.")


def request_retry(spool_root: Path, job_id: str) -> None:
    """Run a finished job again. Raises DaemonError if its request is missing, or if it is already waiting."""
    folder = spool_root / "done" / job_id
    if not (folder / "job.json").is_file():
        raise DaemonError(
            f"The job {job_id} is not among the finished jobs of the last {DONE_DAYS} days, so it cannot run again. "
            "Submit it as a new job."
        )
    (spool_root / "inbox").mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(spool_root / "inbox" / job_id)
    except OSError as error:
        raise DaemonError(f"The job {job_id} is already waiting to run ({error.strerror}).") from error


def read_result(spool_root: Path, job_id: str) -> Result | None:
    """Return a job's result, or None while it is unfinished. Raises JobFormatError if the file is damaged."""
    return _read(spool_root / "done" / job_id / "result.json", Result)


def read_progress(spool_root: Path, job_id: str) -> Progress | None:
    """Return a job's progress, or None if it is not running. Raises JobFormatError if the file is damaged."""
    return _read(spool_root / "jobs" / job_id / "progress.json", Progress)


def living_daemon(spool_root: Path) -> Heartbeat | None:
    """Return the heartbeat of the running daemon, or None if no daemon is running."""
    try:
        heartbeat = _read(spool_root / "heartbeat.json", Heartbeat)
    except JobFormatError:
        return None
    fresh = heartbeat is not None and abs(time.time() - heartbeat.updated_unix_s) < ALIVE_S
    return heartbeat if fresh else None


def _remove_folder(folder: Path) -> None:
    """Hide the folder, then remove it, so that a killed process leaves nothing that looks like a job."""
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
    except FileNotFoundError:  # somebody deleted it; the next submission creates it again
        return []


def _read(path: Path, kind: type[AnyDocument]) -> AnyDocument | None:
    try:
        return kind.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_there(path: Path) -> bool:
    """Whether anything has this name, even a broken link."""
    return os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove whatever has this name; of a link, the link itself."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # which OSError unlinking a folder raises depends on the system
        if not path.is_dir() or path.is_symlink():
            raise
        shutil.rmtree(path)


def _write_result(folder: Path, result: Result) -> None:
    path = folder / "result.json"
    if path.is_dir():
        _remove(path)
    write_atomically(path, result.to_json())


def _move_beside(folder: Path, where: Path, name: str = "") -> Path:
    """Move a folder into `where`; if its name is taken because an id was used twice, append a number."""
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
