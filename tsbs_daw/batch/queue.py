"""A batch's access to the queue: submits jobs, tracks them, and runs an embedded daemon if no other is running.

A job's id is a hash of its parameters, so a batch that was killed finds its jobs again in any state.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tsbs_daw.contracts.job import Job, Result, State
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.core.errors import DaemonError, JobFormatError
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.queue.jobs import Event
from tsbs_daw.queue.spool import Spool, living_daemon, read_progress, read_result, request_retry, submit


class EmbeddedDaemon:
    """A daemon in a thread of this process. It starts immediately, and serves every client, not only the batch.

    Attributes:
        running: Whether it is open and has not ended.
        paused: Why it starts no jobs, in one sentence; "" if it does.
    """

    def __init__(self, settings: Settings, options: DaemonOptions):
        self._settings, self._options = settings, options
        self._daemon: Daemon | None = None
        self._failed_starts = 0
        self._failure: Exception | None = None
        self._stop_wanted = False
        self.running = False
        self.paused = ""
        self._thread = threading.Thread(target=self._run, name="daemon")
        self._thread.start()

    def check(self) -> None:
        """Check that the daemon has not failed.

        Raises:
            DaemonError: No worker can be started.
            Exception: The exception that ended the daemon.
        """
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Give running songs a moment to finish, then requeue them; a second call does not wait.

        Raises:
            KeyboardInterrupt: The user interrupted the wait; call it again.
        """
        self._stop_wanted = True
        if self._daemon is not None:
            self._daemon.stop()
        while self._thread.is_alive():
            self._thread.join(0.2)  # with a timeout, so that Ctrl-C works on every system

    def _run(self) -> None:
        try:
            with Daemon(self._settings, options=self._options, listener=self._on_event) as daemon:
                self._daemon = daemon
                if not self._stop_wanted:
                    self.running = True
                    daemon.run()
        except Exception as error:  # raised again by `check`, in the batch's thread
            self._failure = error
        finally:
            self.running = False

    def _on_event(self, event: Event) -> None:
        if event.kind == "worker":
            self._failed_starts += 1
            if self._failed_starts >= self._options.start_limit * self._options.workers:
                self._failure = self._failure or DaemonError(event.message)
        elif event.kind == "started":
            self._failed_starts = 0
        elif event.kind in ("paused", "resumed"):
            self.paused = event.message if event.kind == "paused" else ""


_TIMEOUT_S = 20.0  # for a daemon that holds its lock without a heartbeat: it may be starting, or ending
_GONE_AFTER = 3  # consecutive polls that do not find a job


def job_id(*decisive: object) -> str:
    """Derive an id from a job's parameters; the same parameters give the same id."""
    return "crate-" + hashlib.sha256(json.dumps([str(part) for part in decisive]).encode()).hexdigest()[:32]


class JobPlace(Enum):
    """Where a job is in the queue."""

    WAITING = "waiting"
    RUNNING = "at work"
    ENDED = "ended"
    GONE = "gone"  # removed from the queue by someone else


@dataclass(frozen=True)
class JobStatus:
    """The status of a job.

    Attributes:
        place: Where the job is in the queue.
        fraction: Fraction done, 0 to 1.
        message: Current step.
        result: Result of a job that has ended.
    """

    place: JobPlace
    fraction: float = 0.0
    message: str = ""
    result: Result | None = None


class Queue:
    """The queue as a batch uses it. A context manager: leaving it stops the embedded daemon, but keeps submitted jobs.

    Args:
        settings: Settings of the daemon.
        options: Options of the embedded daemon.

    Attributes:
        other_daemon: Process id of the running daemon, if it is not the embedded one.
    """

    def __init__(self, settings: Settings, options: DaemonOptions):
        self._settings, self._options = settings, options
        self._spool = Spool(settings.spool)
        self._embedded: EmbeddedDaemon | None = None
        self._trouble: tuple[float, DaemonError] | None = None
        self._missed: dict[str, int] = {}
        self._since_unix_s = time.time()
        self.other_daemon: int | None = None

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None:
        if self._embedded is None:
            return
        try:
            self._embedded.stop()
        except KeyboardInterrupt:
            self._embedded.stop()
            raise

    @property
    def paused(self) -> str:
        """Why the embedded daemon starts no jobs, in one sentence; "" if it does."""
        return self._embedded.paused if self._embedded is not None else ""

    def done_result(self, job_id: str) -> Result | None:
        """Return the result of a job; None unless the job is done."""
        result = self._result(job_id)
        return result if result is not None and result.state is State.DONE else None

    def ask(self, job: Job) -> None:
        """Submit a job, or retry it if it has ended. A waiting or running job is left alone.

        Raises:
            DaemonError: The spool cannot be written to.
        """
        if any((place / job.id).exists() for place in (self._spool.inbox, self._spool.jobs)):
            return
        if (self._spool.done / job.id / "job.json").is_file():
            request_retry(self._settings.spool, job.id)
        else:
            submit(self._settings.spool, job)

    def ensure_daemon(self) -> None:
        """Start an embedded daemon unless a daemon is running.

        Raises:
            TsbsDawError: The daemon cannot start.
        """
        if self._embedded is not None:
            self._embedded.check()
            return
        alive = living_daemon(self._settings.spool)
        self.other_daemon = alive.pid if alive else None
        if alive is None:
            self._start_embedded()

    def _start_embedded(self) -> None:
        """Start the embedded daemon. A DaemonError is raised only if it lasts for `_TIMEOUT_S`.

        Another daemon may hold the lock without a heartbeat while it starts, while it ends, or because it hangs.
        """
        embedded = EmbeddedDaemon(self._settings, self._options)
        try:
            while not embedded.running:
                embedded.check()
                time.sleep(0.02)
        except DaemonError as error:
            since, _ = self._trouble = self._trouble or (time.monotonic(), error)
            if time.monotonic() - since > _TIMEOUT_S:
                raise
        except BaseException:
            embedded.stop()
            raise
        else:
            self._embedded, self._trouble = embedded, None

    def has_interactive_jobs(self) -> bool:
        """Return whether a DAW is waiting for jobs of the embedded daemon, which ends with the batch."""
        if self._embedded is None:
            return False
        self._embedded.check()
        return any(
            self._is_interactive(place / name)
            for place in (self._spool.inbox, self._spool.jobs)
            for name in _names(place)
        )

    def _is_interactive(self, folder: Path) -> bool:
        try:
            return self._spool.read_request(folder).priority == "interactive"
        except JobFormatError:
            return False

    def statuses(self, job_ids: Iterable[str]) -> dict[str, JobStatus]:
        """Return the status of each job. Jobs move from inbox/ to jobs/ to done/, so the search is in this order."""
        waiting, claimed = _names(self._spool.inbox), _names(self._spool.jobs)
        return {job_id: self._status(job_id, waiting, claimed) for job_id in job_ids}

    def _status(self, job_id: str, waiting: set[str], claimed: set[str]) -> JobStatus:
        if job_id in waiting:
            return JobStatus(JobPlace.WAITING)
        if job_id in claimed:
            return self._progress(job_id)
        result = self._result(job_id)
        if result is not None:
            self._missed.pop(job_id, None)
            return JobStatus(JobPlace.ENDED, result=result)
        missed = self._missed[job_id] = self._missed.get(job_id, 0) + 1
        return JobStatus(JobPlace.GONE if missed >= _GONE_AFTER else JobPlace.WAITING)

    def _progress(self, job_id: str) -> JobStatus:
        try:
            progress = read_progress(self._settings.spool, job_id)
        except (OSError, JobFormatError):
            progress = None
        if progress is None or not progress.updated_unix_s >= self._since_unix_s:  # left by a daemon that died
            return JobStatus(JobPlace.WAITING)
        if progress.state is not State.RUNNING:
            return JobStatus(JobPlace.WAITING, message=progress.message)
        return JobStatus(JobPlace.RUNNING, progress.fraction, progress.message)

    def _result(self, job_id: str) -> Result | None:
        try:
            return read_result(self._settings.spool, job_id)
        except (OSError, JobFormatError):
            return None


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 -- names are all that is needed
    except OSError:
        return set()
