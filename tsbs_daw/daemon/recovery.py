"""What a daemon puts right after processes that died.

`recover`, at the start and under the lock of the home, brings store and spool into agreement:

    running in the store                       queued again: no other daemon is alive
    folder in jobs/, unknown to the store      queued: the last daemon died between the rename and the commit
    finished in the store, folder in jobs/     result.json is written and the folder moved to done/
    database damaged or missing                rebuilt from done/ and jobs/

`OutputCleaner` removes the temporary folders that dead jobs left beside finished songs.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import read_small, write_atomically
from tsbs_daw.pipeline.publish import remove_stale
from tsbs_daw.queue.events import JobLifecycle
from tsbs_daw.queue.records import JobRow, NewJob, read_new_job
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.ingest import Ingest

log = logging.getLogger(__name__)


def recover(lifecycle: JobLifecycle, ingest: Ingest) -> None:
    """Needs the lock of the home: it takes for granted that no other daemon lives.

    Raises: NoSpaceLeft: the store cannot be written to
    """
    store, spool = lifecycle.store, lifecycle.spool
    spool.sweep()
    if store.database.rebuilt:
        count = _gather_finished(lifecycle)
        if count:
            log.warning("the job database is new; %d finished jobs were gathered from %s", count, spool.done)
    for job_id in store.take_over():
        log.info("job %s was interrupted with its daemon, and waits again", job_id)
    for folder in spool.live_folders():
        with lifecycle.confine(folder.name):
            row = store.get(folder.name) if source_name(folder.name) == folder.name else None
            if row is None or (row.state.finished and spool.runs_again(row.id)):
                ingest.restore(folder)
            elif row.state.finished and row.result is not None:
                lifecycle.settle(row.result)


def _gather_finished(lifecycle: JobLifecycle) -> int:
    """Put the finished jobs of done/ into a new store, so that they are remembered and not computed again."""
    count = 0
    for folder in lifecycle.spool.finished_folders():
        try:
            result = Result.read(folder / "result.json")
            with lifecycle.confine(result.id):
                lifecycle.store.record_finished(_new_job_of(lifecycle, folder), result)
                count += 1
        except (OSError, JobFormatError) as error:
            log.warning("%s is left out: %s", folder, error)
    return count


def _new_job_of(lifecycle: JobLifecycle, folder: Path) -> NewJob | None:
    """None when the request could not be read, which is then what its result says."""
    try:
        return read_new_job(folder, lifecycle.spool.read_request(folder), finished=True)
    except JobFormatError:
        return None


_AWAY_S = 3 * 86400.0  # believed to have passed between two runs, at most
_LATEST = 1000  # older ones were looked at by earlier runs


class OutputCleaner:
    """Knows from the queue who is at work. Folders of jobs that the queue does not know are left alone for a day."""

    def __init__(self, store: JobStore):
        self._store = store

    def sweep(self) -> list[Path]:
        """Look into the output folders of every recent job that did not end well. Returns what was removed."""
        rows = self._store.rows((state for state in State if state is not State.DONE), _LATEST)
        outputs = {output for row in rows if row.fence and (output := _output_of(row)) is not None}
        return [folder for output in sorted(outputs) for folder in self._sweep(output)]

    def sweep_after(self, job_id: str) -> list[Path]:
        """Look into the output folder of one job that has just ended. Returns what was removed."""
        row = self._store.get(job_id)
        output = _output_of(row) if row is not None else None
        return self._sweep(output) if output is not None else []

    def _sweep(self, output: Path) -> list[Path]:
        """Whatever is wrong with this folder, it may not keep others from being cleaned up, or a job from ending."""
        try:
            return remove_stale(output, self._running)
        except (OSError, ValueError, JobFormatError) as error:
            log.warning("%s cannot be cleaned up: %s", output, error)
            return []

    def _running(self, job_id: str, fence: int) -> bool | None:
        row = self._store.get(job_id)
        return None if row is None else row.state is State.RUNNING and row.fence == fence


class TrustedClock:
    """The wall clock, as far as it is believed when it decides what is old enough to be removed.

    It goes on with the monotonic clock, and by at most a few days for the time that nobody was there: a clock that is
    suddenly a year ahead makes nothing a year old. How far it has come is kept in a file, so that restarts add little.

    Args:
        home: Where the file lies. The clock is made before anything else there is written to.
    """

    def __init__(self, home: Path):
        self._path = home / "clock"
        self._now: float | None = self._kept()
        self._monotonic: float | None = None
        if self._now is None:
            with contextlib.suppress(OSError):
                self._now = (home / "jobs.sqlite3").stat().st_mtime

    def now(self, wall_unix_s: float, monotonic_s: float) -> float:
        """The time to judge by, and keep it. Args: wall_unix_s, monotonic_s: of the system's clocks"""
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
    """None for a request that could not be read, or that only another version understands: its own daemon cleans up."""
    try:
        return row.job.output if row.job_json else None
    except JobFormatError:
        return None
