"""Intake of songs: copies files of watch folders into the spool, and enqueues them and the requests of the inbox.

A watched file is copied and hashed in one pass, which fails if the file changes in the meantime. `Ingest` enqueues
copied files and requests. Each job is handled on its own: an invalid request is refused with a result, if possible
before it is claimed.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tsbs_daw.contracts.job import ContentHashes, Job, Result, Source, State, Treatment, new_job_id
from tsbs_daw.core.errors import JobFormatError, described, printable, shown
from tsbs_daw.core.filenames import safe_name, source_name
from tsbs_daw.core.files import may_pass, open_regular, sync_file, sync_folder
from tsbs_daw.queue.jobs import Event, JobLifecycle
from tsbs_daw.queue.records import Enqueued, NewJob, SeenFile, read_new_job, write_new_job
from tsbs_daw.queue.spool import SOURCE
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.scan import Found, file_state

if TYPE_CHECKING:
    from tsbs_daw.watch.watcher import Watcher

log = logging.getLogger(__name__)

# ---- copies of watched files -----------------------------------------------------------------------------------------

_BLOCK_BYTES = 1 << 20


class Moved(Exception):
    """The file has changed since it was scanned, so it must be scanned again. A signal to the watcher, not an error."""


class SourceUnreadable(Exception):
    """The song itself cannot be read. Any other OSError concerns the spool, not the song."""

    def __init__(self, error: OSError):
        super().__init__(error.strerror or str(error))
        self.not_permitted = isinstance(error, PermissionError)


class Budget:
    """Limits the total size of the copies of watched files in the spool, to save disk space.

    Attributes:
        refused: Whether `take` has refused a file since the last call of `set`.
    """

    def __init__(self, limit_bytes: int):
        self._limit, self._used, self._lock = limit_bytes, 0, threading.Lock()
        self.refused = False

    def take(self, size_bytes: int) -> bool:
        """Reserve space for a copy and return whether it fits. A single file always fits, whatever its size."""
        with self._lock:
            if self._used and self._used + size_bytes > self._limit:
                self.refused = True
                return False
            self._used += size_bytes
            return True

    def set(self, used_bytes: int) -> None:
        """Set the size of the copies that are in the spool now."""
        with self._lock:
            self._used, self.refused = used_bytes, False


@dataclass(frozen=True)
class Destination:
    """Where to copy a song, and the settings of its job.

    Attributes:
        jobs: The spool's folder of claimed jobs.
        folder: The song's watch folder.
        treatment: How the song is treated.
        settings_hash: Fingerprint of treatment, preset and output.
        model_hash: Fingerprint of the models.
    """

    jobs: Path
    folder: WatchFolder
    treatment: Treatment
    settings_hash: str
    model_hash: str


def destination_of(folder: WatchFolder, jobs: Path, hashes: ContentHashes) -> Callable[[str], Destination]:
    """Return a function that maps a song's path below the watch folder to its destination."""

    def destination(relative: str) -> Destination:
        treatment = folder.rule_for(relative).treatment
        settings_hash = treatment.fingerprint(hashes, folder.output)
        return Destination(jobs, folder, treatment, settings_hash, hashes.of_models(treatment))

    return destination


def copy_to_spool(found: Found, destination: Destination, going_on: Callable[[], bool]) -> NewJob:
    """Copy a stable file into a new job's folder, which appears in jobs/ by one rename.

    Args:
        found: The file as it was scanned.
        destination: Where to copy it.
        going_on: Tells whether to continue; False while the daemon is stopping.

    Raises:
        Moved: The file has changed since it was scanned, or the daemon is stopping.
        SourceUnreadable: The file cannot be read.
        JobFormatError: The job would be invalid, for example because the output folder's name is not UTF-8.
        OSError: The spool is not writable.
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
    """Copy a file and return the SHA-256 of its content. Raises as `copy_to_spool` does."""
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
        if file_state(path.stat()) != state:  # another file has replaced it
            raise Moved
    except OSError as error:
        raise Moved from error
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.EINVAL):  # deleted, or no longer a file
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
    is_text = source_name(subfolder) == str(subfolder)  # if not, it cannot go into JSON; use the output folder itself
    return Job(
        id=job_id,
        source=Source(path=copy),
        output=folder.output / subfolder if is_text else folder.output,
        song=song,
        **vars(destination.treatment),
        origin="watch",
        deliver={"watched": source_name(folder.path / found.relative)},
    )


# ---- enqueuing -------------------------------------------------------------------------------------------------------

_REQUESTS_PER_TICK = 200  # keeps a tick short when many requests arrive at once


class Ingest:
    """Claims and enqueues new jobs. Keeps those that the store cannot write yet, and retries them."""

    def __init__(self, lifecycle: JobLifecycle):
        self._lifecycle, self._store, self._spool = lifecycle, lifecycle.store, lifecycle.spool
        self._new_jobs: list[NewJob] = []
        self._ignored: list[SeenFile] = []
        self._stuck: set[Path] = set()

    @property
    def empty(self) -> bool:
        """Whether the store has all jobs and ignored files, except entries that cannot be moved."""
        return not self._new_jobs and not self._ignored and not self._waiting()

    def _waiting(self) -> list[Path]:
        return [folder for folder in self._spool.waiting() if folder not in self._stuck]

    def tick(self, watchers: Sequence[Watcher] = ()) -> None:
        """Claim requests, and enqueue them and the new songs of the watchers.

        Raises:
            NoSpaceLeft: The store's disk is full. The next tick retries.
        """
        if not self._new_jobs:
            self._claim_requests()
        for watcher in watchers:
            self._drain(watcher)
        self._enqueue()
        self._note_ignored()

    def restore(self, folder: Path) -> None:
        """Enqueue a job whose folder is in jobs/, but which the store does not know."""
        try:
            self._new_jobs.append(read_new_job(folder, self._spool.read_request(folder)))
        except JobFormatError as error:
            self._refuse(folder, str(error))

    def _claim_requests(self) -> None:
        for entry in self._spool.strays():
            if entry not in self._stuck:
                self._refuse(entry, f"{shown(entry)} is not a folder. Create one with the request as its job.json.")
        for folder in self._waiting()[:_REQUESTS_PER_TICK]:
            try:
                new_job = read_new_job(folder, self._spool.read_request(folder))
            except JobFormatError as error:
                self._refuse(folder, str(error))
                continue
            try:
                self._spool.claim(folder)
            except OSError as error:
                self._cannot_claim(folder, error)
            else:
                self._new_jobs.append(new_job)

    def _cannot_claim(self, folder: Path, error: OSError) -> None:
        if not os.path.lexists(folder):  # the client has withdrawn it
            return
        if os.path.lexists(self._spool.folder(folder.name)):
            self._refuse(folder, f"A job with the id {folder.name} already exists. Give this one another id.")
        elif may_pass(error):
            self._give_up_for_now(folder, error)
        else:
            self._refuse(folder, f"Cannot claim {shown(folder)} ({error.strerror}). Remove it.")

    def _drain(self, watcher: Watcher) -> None:
        for item in watcher.news():
            if isinstance(item, NewJob):
                self._new_jobs.append(item)
            elif isinstance(item, SeenFile):
                self._ignored.append(item)
            else:
                self._lifecycle.publish(item)

    def _enqueue(self) -> None:
        """Enqueue all in one transaction. If that fails, enqueue one by one, to refuse only the faulty ones."""
        if not self._new_jobs:
            return
        try:
            outcome = self._store.enqueue(self._new_jobs)
        except Exception as error:
            if self._lifecycle.affects_all_jobs(error):
                raise
            self._enqueue_singly()
            return
        new_jobs, self._new_jobs = self._new_jobs, []
        self._note_enqueued(new_jobs, outcome)

    def _enqueue_singly(self) -> None:
        while self._new_jobs:
            new_job = self._new_jobs[0]
            try:
                outcome = self._store.enqueue([new_job])
            except Exception as error:
                if self._lifecycle.affects_all_jobs(error):
                    raise
                log.exception("job %s: cannot enqueue it", new_job.job.id)
                why = f"The job {new_job.job.id} cannot be enqueued ({described(error)}). Submit it again."
                self._refuse(self._spool.folder(new_job.job.id), why)
                self._new_jobs.pop(0)
                continue
            self._new_jobs.pop(0)
            self._note_enqueued([new_job], outcome)

    def _note_enqueued(self, new_jobs: list[NewJob], outcome: Enqueued) -> None:
        for job_id in outcome.unchanged:
            self._spool.discard(job_id)
        for job_id in outcome.superseded:
            with self._lifecycle.confine(job_id):
                row = self._store.get(job_id)
                if row is not None and row.state is State.QUEUED:
                    error = "The file changed; its newer version is separated instead."
                    self._lifecycle.finish(row, State.SUPERSEDED, error=error)
        for new_job in new_jobs:
            with self._lifecycle.confine(new_job.job.id):
                self._spool.forget_again(new_job.job.id)
                row = self._store.get(new_job.job.id)
                if row is not None:
                    log.info("job %s queued: %s", row.id, row.source_key)
                    self._lifecycle.emit("queued", row)

    def _note_ignored(self) -> None:
        if not self._ignored:
            return
        self._store.remember_files(self._ignored)
        for file in self._ignored:
            path = source_name(Path(file.root, file.relative))
            log.info("%s is ignored: %s", path, file.reason)
            self._lifecycle.publish(Event("ignored", song=file.relative, file=path, message=file.reason or ""))
        self._ignored = []

    def _refuse(self, entry: Path, sentence: str) -> None:
        """End an invalid request with a result that says why."""
        job_id = re.sub(r"[^A-Za-z0-9_-]", "-", entry.name).lstrip("-_")[:64] or "unnamed"
        result = Result(id=job_id, state=State.FAILED, error=sentence, finished_unix_s=time.time())
        try:
            self._spool.refuse(entry, result)
        except OSError as error:
            self._give_up_for_now(entry, error)
            return
        self._store.record_finished(None, result)
        self._lifecycle.announce(result)

    def _give_up_for_now(self, entry: Path, error: OSError) -> None:
        """Skip an entry that can be neither claimed nor refused, until the next start.

        Raises:
            OSError: The whole spool is unavailable; the next tick retries.
        """
        if not self._spool.usable:
            raise error
        self._stuck.add(entry)
        log.error("cannot claim %s: %s", entry, error)
        sentence = f"Cannot claim {shown(entry)} ({error.strerror}). Check its permissions, then restart the daemon."
        self._lifecycle.publish(Event("ignored", song=printable(entry.name), message=sentence))
