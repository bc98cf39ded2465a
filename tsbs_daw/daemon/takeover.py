"""Takes over the jobs of a daemon that died, and the folders of a second `tsbs-daw watch`.

`recover` runs at the start, under the lock of the home, and makes store and spool consistent:

    running in the store                       queued again, because no other daemon is running
    folder in jobs/, unknown to the store      queued: the last daemon died between the rename and the commit
    finished in the store, folder in jobs/     result.json is written, and the folder is moved to done/
    database damaged or missing                rebuilt from done/ and jobs/

`OutputCleaner` removes the temporary folders of dead jobs from output folders.

`hand_over` runs in the second process, `take_over` in the daemon. They talk through files, each of which is removed
once it has been read; the folders are watched until the daemon ends:

    <spool>/handover/<id>.yaml   the request of the second process: a file of watch folders, as for --config
    <spool>/handover/<id>.json   the daemon's answer: whether it watches them now, and the reason if not
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import DaemonError, JobFormatError, TsbsDawError, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import private_folder, read_small, write_atomically
from tsbs_daw.core.locks import running_daemon
from tsbs_daw.pipeline.publish import remove_stale
from tsbs_daw.queue.jobs import JobLifecycle
from tsbs_daw.queue.records import JobRow, NewJob, read_new_job
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder, as_yaml, load_folders
from tsbs_daw.watch.ingest import Ingest

log = logging.getLogger(__name__)


def recover(lifecycle: JobLifecycle, ingest: Ingest) -> None:
    """Make store and spool consistent. Hold the lock of the home, so that no other daemon is running.

    Args:
        lifecycle: The jobs.
        ingest: Enqueues jobs that the store does not know.

    Raises:
        NoSpaceLeft: The store cannot be written.
    """
    store, spool = lifecycle.store, lifecycle.spool
    spool.sweep()
    if store.database.rebuilt:
        count = _gather_finished(lifecycle)
        if count:
            log.warning("the job database was rebuilt with %d finished jobs from %s", count, spool.done)
    for job_id in store.take_over():
        log.info("job %s was interrupted when its daemon ended; it is queued again", job_id)
    for folder in spool.live_folders():
        with lifecycle.confine(folder.name):
            row = store.get(folder.name) if source_name(folder.name) == folder.name else None
            if row is None or (row.state.finished and spool.runs_again(row.id)):
                ingest.restore(folder)
            elif row.state.finished and row.result is not None:
                lifecycle.settle(row.result)


def _gather_finished(lifecycle: JobLifecycle) -> int:
    """Add the finished jobs in done/ to a new store, so that they are not computed again. Returns their number."""
    count = 0
    for folder in lifecycle.spool.finished_folders():
        try:
            result = Result.read(folder / "result.json")
            with lifecycle.confine(result.id):
                lifecycle.store.record_finished(_new_job_of(lifecycle, folder), result)
                count += 1
        except (OSError, JobFormatError) as error:
            log.warning("skipping %s: %s", folder, error)
    return count


def _new_job_of(lifecycle: JobLifecycle, folder: Path) -> NewJob | None:
    """Return the request of a finished job; None if it is unreadable, in which case the job failed for that reason."""
    try:
        return read_new_job(folder, lifecycle.spool.read_request(folder), finished=True)
    except JobFormatError:
        return None


_AWAY_S = 3 * 86400.0  # longest time that the clock may advance between two runs
_LATEST = 1000  # jobs to check; earlier runs have checked older ones


class OutputCleaner:
    """Removes temporary folders of jobs that are not running. Those of unknown jobs stay for a day."""

    def __init__(self, store: JobStore):
        self._store = store

    def sweep(self) -> list[Path]:
        """Clean the output folders of all recent jobs that are not done, and return the removed folders."""
        rows = self._store.rows((state for state in State if state is not State.DONE), _LATEST)
        outputs = {output for row in rows if row.fence and (output := _output_of(row)) is not None}
        return [folder for output in sorted(outputs) for folder in self._sweep(output)]

    def sweep_after(self, job_id: str) -> list[Path]:
        """Clean the output folder of a job that has just ended, and return the removed folders."""
        row = self._store.get(job_id)
        output = _output_of(row) if row is not None else None
        return self._sweep(output) if output is not None else []

    def _sweep(self, output: Path) -> list[Path]:
        """Clean one output folder. Errors are only logged, so that other folders and the job's end are unaffected."""
        try:
            return remove_stale(output, self._running)
        except (OSError, ValueError, JobFormatError) as error:
            log.warning("%s cannot be cleaned up: %s", output, error)
            return []

    def _running(self, job_id: str, fence: int) -> bool | None:
        row = self._store.get(job_id)
        return None if row is None else row.state is State.RUNNING and row.fence == fence


class TrustedClock:
    """A wall clock that limits large jumps. It decides what is old enough to be removed.

    While the daemon runs, it advances at most as fast as the monotonic clock; between two runs, by at most a few days.
    If the system clock is suddenly a year ahead, nothing becomes a year old. The time is stored in a file, so that
    restarts add little.

    Args:
        home: Folder of the file. Create the clock before anything else in the home is written.
    """

    def __init__(self, home: Path):
        self._path = home / "clock"
        self._now: float | None = self._kept()
        self._monotonic: float | None = None
        if self._now is None:
            with contextlib.suppress(OSError):
                self._now = (home / "jobs.sqlite3").stat().st_mtime

    def now(self, wall_unix_s: float, monotonic_s: float) -> float:
        """Return the trusted time, and store it.

        Args:
            wall_unix_s: The system's wall clock.
            monotonic_s: The system's monotonic clock.
        """
        passed_s = _AWAY_S if self._monotonic is None else monotonic_s - self._monotonic + 1.0
        self._monotonic = monotonic_s
        self._now = wall_unix_s if self._now is None else min(wall_unix_s, self._now + passed_s)
        with contextlib.suppress(OSError):
            write_atomically(self._path, f"{self._now:.0f}", durable=False)
        return self._now

    def _kept(self) -> float | None:
        try:
            return float(int(read_small(self._path, 64)))
        except (OSError, ValueError):
            return None


def _output_of(row: JobRow) -> Path | None:
    """Return a job's output folder; None if its request is unreadable or of another version, whose daemon cleans up."""
    try:
        return row.job.output if row.job_json else None
    except JobFormatError:
        return None


# ---- folders of a second process -------------------------------------------------------------------------------------

_FOLDER = "handover"
_POLL_S = 0.1
_ANSWER_LIMIT_S = 30.0
_MAX_BYTES = 1 << 16


def hand_over(home: Path, spool: Path, folders: Sequence[WatchFolder]) -> None:
    """Ask the running daemon to watch folders, and wait for its answer.

    Args:
        home: The daemon's home; its lock shows whether the daemon is running.
        spool: The daemon's spool.
        folders: The folders to watch.

    Raises:
        DaemonError: The daemon refuses, does not answer, or has ended.
    """
    request = private_folder(spool / _FOLDER) / f"{uuid.uuid4().hex}.yaml"
    answer = request.with_suffix(".json")
    try:
        write_atomically(request, as_yaml(folders))
        until = time.monotonic() + _ANSWER_LIMIT_S
        while not answer.exists():
            if time.monotonic() >= until or running_daemon(home) is None:
                raise DaemonError(
                    "The running daemon does not accept folders; add them to its YAML file and restart it."
                )
            time.sleep(_POLL_S)
        reply = json.loads(read_small(answer, _MAX_BYTES))
        if not reply["watched"]:
            raise DaemonError(str(reply["message"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DaemonError(f"Cannot hand over the folders through {shown(request.parent)} ({error}).") from error
    finally:
        for path in (request, answer):
            with contextlib.suppress(OSError):
                path.unlink()


def take_over(spool: Path, watch: Callable[[Sequence[WatchFolder]], None]) -> None:
    """Answer every request in the spool.

    Args:
        spool: The daemon's spool.
        watch: Watches folders; raises a TsbsDawError if it cannot.
    """
    if not _is_private(spool / _FOLDER):
        return
    for request in sorted((spool / _FOLDER).glob("*.yaml")):
        try:
            watch(load_folders(request))
            reply = {"watched": True, "message": ""}
        except TsbsDawError as error:
            reply = {"watched": False, "message": str(error).removeprefix(f"{request}: ")}
            log.warning("cannot watch the folders of another process: %s", error)
        with contextlib.suppress(OSError):
            request.unlink()
            write_atomically(request.with_suffix(".json"), json.dumps(reply), durable=False)


def _is_private(folder: Path) -> bool:
    """Return whether only this user can write there.

    Requests may contain commands to run, and the spool may be shared with a group.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
