"""The folders between those who ask for separations and the daemon. Everything that moves, moves by rename.

    <spool>/inbox/<id>/job.json       a request; complete when job.json is there
    <spool>/jobs/<id>/                claimed: job.json, fence, progress.json, a copy of the source for watched files
    <spool>/done/<id>/result.json     finished; appears there with its result, or not at all
    <spool>/heartbeat.json            a daemon is alive

A file `cancel` in a job's folder cancels it. A file `move` changes its place among those that wait; it holds one of
`MOVES`. A folder moved from done/ back to inbox/ runs again. Finished folders are
kept for DONE_DAYS days. A copied source leaves with the job, unless the job failed: then it is kept for another try.

A job's folder as it arrives: job.json, and for watched files intake.json beside it.

intake.json is the daemon's own note: which watched file the copy in the folder was made of, and what its content is.
With it the queue can be built again from the folders alone. It is ASCII; what is not text in a path is escaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from tsbs_daw.contracts.document import Document
from tsbs_daw.contracts.job import Heartbeat, Job, Progress, Result, Source, State
from tsbs_daw.core.errors import DaemonError, JobFormatError, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import sync_folder, write_atomically, write_synced
from tsbs_daw.queue.records import Arrival, SeenFile

DONE_DAYS = 30
REQUEST_BYTES = 256 * 1024
ALIVE_S = 10.0  # a heartbeat older than this is that of a dead daemon

# The folder, in a job's, with the copy of a watched file.
SOURCE = "source"

# Where a waiting job can be moved to.
MOVES = ("first", "earlier", "later", "last")

# Marks a claimed folder that comes back from done/, until the store has queued it again.
AGAIN = "again"

AnyDocument = TypeVar("AnyDocument", bound=Document)


class Spool:
    """The daemon's side."""

    def __init__(self, root: Path):
        self.root = root
        self.inbox, self.jobs, self.done = root / "inbox", root / "jobs", root / "done"

    def create(self) -> None:
        for folder in (self.inbox, self.jobs, self.done):
            folder.mkdir(parents=True, exist_ok=True)

    def waiting(self) -> list[Path]:
        """Complete requests, in the order they were completed. Folders without a job.json are still being written."""
        found = []
        for folder in _folders_in(self.inbox):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found.append(((folder / "job.json").stat().st_mtime_ns, folder))
        return [folder for _, folder in sorted(found)]

    def read_request(self, folder: Path) -> Job:
        """Raises: JobFormatError: one sentence for whoever wrote it"""
        path = folder / "job.json"
        try:
            with path.open("rb") as file:
                text = file.read(REQUEST_BYTES + 1)
        except OSError as error:
            raise JobFormatError(f"{shown(path)} cannot be read ({error.strerror}); write it again.") from error
        if len(text) > REQUEST_BYTES:
            raise JobFormatError(f"{shown(path)} is larger than {REQUEST_BYTES // 1024} KiB; say less in `deliver`.")
        job = Job.from_json(text, str(path))
        if job.id != folder.name:
            raise JobFormatError(
                f"{shown(path)} has the id {job.id!r}, and its folder is {shown(folder.name)}; make them equal."
            )
        return job

    def claim(self, folder: Path) -> None:
        """Make a request the daemon's own. What an earlier run of the same job left in it goes first."""
        if (folder / "result.json").exists():
            (folder / AGAIN).touch()
        if (folder / AGAIN).exists():
            for name in ("cancel", "move", "progress.json", "fence", "result.json"):
                (folder / name).unlink(missing_ok=True)
        folder.rename(self.jobs / folder.name)

    def runs_again(self, job_id: str) -> bool:
        """Whether this claimed folder is a finished job's that shall run once more, and the store may not know yet."""
        return (self.folder(job_id) / AGAIN).exists()

    def forget_again(self, job_id: str) -> None:
        """The store knows it now."""
        (self.folder(job_id) / AGAIN).unlink(missing_ok=True)

    def refuse(self, folder: Path, result: Result) -> Path:
        """Finish a request that cannot be a job: its folder goes to done/ with the sentence."""
        write_atomically(folder / "result.json", result.to_json())
        return _move_beside(folder, self.done)

    def folder(self, job_id: str) -> Path:
        """Of a job that is not finished."""
        return self.jobs / job_id

    def live_folders(self) -> list[Path]:
        return _folders_in(self.jobs)

    def finished_folders(self) -> list[Path]:
        return _folders_in(self.done)

    def write_fence(self, job_id: str, fence: int) -> None:
        """Tell whoever still works on this job under an older number that it is not theirs any more."""
        _replace(self.folder(job_id) / "fence", str(fence))

    def write_progress(self, progress: Progress) -> None:
        """Not synced: a power cut may lose it, and the disk is spared."""
        _replace(self.folder(progress.id) / "progress.json", progress.to_json())

    def cancel_wanted(self, job_id: str) -> bool:
        return (self.folder(job_id) / "cancel").exists()

    def take_move(self, job_id: str) -> str | None:
        """Where the job shall be moved to, one of `MOVES`; asked for once, answered once."""
        path = self.folder(job_id) / "move"
        try:
            where = path.read_text(encoding="utf-8", errors="replace")[:16].strip()
            path.unlink()
        except OSError:  # nobody asked, or the job ended meanwhile
            return None
        return where if where in MOVES else None

    def settle(self, job_id: str, result: Result) -> Path:
        """The job is finished, and the store knows: write result.json, and let it appear in done/. May be repeated."""
        folder = self.folder(job_id)
        if not folder.exists():
            return self.done / job_id
        write_atomically(folder / "result.json", result.to_json())
        if result.state not in (State.FAILED, State.DEAD):
            shutil.rmtree(folder / SOURCE, ignore_errors=True)
        (folder / "fence").unlink(missing_ok=True)
        sync_folder(folder)
        moved = _move_beside(folder, self.done)
        sync_folder(self.done)
        return moved

    def discard(self, job_id: str) -> None:
        """Remove an arrival that turned out to be nothing new."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def beat(self, heartbeat: Heartbeat) -> None:
        _replace(self.root / "heartbeat.json", heartbeat.to_json())

    def stop_beating(self) -> None:
        (self.root / "heartbeat.json").unlink(missing_ok=True)

    def prune(self, now_unix_s: float, days: float = DONE_DAYS) -> int:
        """Remove finished folders older than `days`. Returns how many. The store still knows those jobs."""
        old = [folder for folder in self.finished_folders() if now_unix_s - _changed(folder) > days * 86400]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    def sweep(self) -> None:
        """Remove copies that an earlier daemon did not get to finish."""
        for folder in self.live_folders():
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)


def submit(spool_root: Path, job: Job) -> Path:
    """Ask for a separation. When this returns, the request survives a crash and a power cut.

    Returns: the request's folder in the inbox
    Raises:  DaemonError: the spool cannot be written to
    """
    folder = spool_root / "inbox" / job.id
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        complete_request(folder, job)
    except FileExistsError as error:
        raise DaemonError(f"{shown(folder)} is already there; give the job an id of its own.") from error
    except OSError as error:
        raise DaemonError(
            f"The job cannot be written to {shown(folder)} ({error.strerror}); make room or check permissions there."
        ) from error
    return folder


def complete_request(folder: Path, job: Job) -> None:
    """Write job.json into a request's folder, which makes it one. Raises: OSError"""
    write_atomically(folder / "job.json", job.to_json())
    sync_folder(folder)
    sync_folder(folder.parent)


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
                _replace(spool_root / place / job_id / name, text)
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


def _folders_in(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:  # someone has cleaned up; what is submitted next makes it anew
        return []


def _read(path: Path, kind: type[AnyDocument]) -> AnyDocument | None:
    try:
        return kind.from_json(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _replace(path: Path, text: str) -> None:
    """As `write_atomically`, but not synced: for what matters only while this daemon lives."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _move_beside(folder: Path, where: Path) -> Path:
    """Move a folder, under another name if its own is taken: an id was used twice."""
    for name in _names(folder.name):
        if not (where / name).exists():
            folder.rename(where / name)
            return where / name
    raise AssertionError("the names never end")


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1


def _changed(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime
    return time.time()


INTAKE = "intake.json"
SCHEMA = 1


def write_arrival(folder: Path, arrival: Arrival) -> None:
    """Both notes, synced; job.json last, because it makes the folder complete."""
    if arrival.file is not None:
        note = {"schema": SCHEMA, "file": asdict(arrival.file)}
        note |= {"model_hash": arrival.model_hash, "source_bytes": arrival.source_bytes}
        write_synced(folder / INTAKE, json.dumps(note, indent=2))
    write_atomically(folder / "job.json", arrival.job.to_json())


def read_arrival(folder: Path, job: Job, *, finished: bool = False) -> Arrival:
    """What arrived in this folder, whose job.json has been read.

    Args:   finished: the job will not run, so it does not matter whether its source is still there
    Raises: JobFormatError: the note is damaged, or neither the copy of the source nor the source is there any more
    """
    path = folder / INTAKE
    if not path.is_file():
        return Arrival(job)
    try:
        note = json.loads(path.read_bytes())
        file = SeenFile(**note["file"])
        arrival = Arrival(
            job,
            source_key=source_name(Path(file.root, file.relative)),
            file=file,
            model_hash=note["model_hash"],
            source_bytes=note["source_bytes"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobFormatError(f"{shown(path)} is damaged ({error}); drop the song into its folder again.") from error
    if finished or (folder / SOURCE / job.source.path.name).is_file():
        return arrival
    return _from_original(arrival)


def _from_original(arrival: Arrival) -> Arrival:
    """The copy left with an earlier run: use the file itself, whatever is in it by now."""
    assert arrival.file is not None, "only files of watch folders are copied"
    original = Path(arrival.file.root, arrival.file.relative)
    try:
        original.stat()
        source = Source(**(arrival.job.source.model_dump() | {"path": original}))
    except (OSError, ValueError) as error:
        raise JobFormatError(f"{shown(arrival.source_key)} is gone, so it cannot run again; put it back.") from error
    return Arrival(arrival.job.model_copy(update={"source": source}), source_key=arrival.source_key)
