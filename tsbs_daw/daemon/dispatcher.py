"""Assigns jobs to workers, and decides at the end of each lease whether the job is done, retried or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pydantic import ValidationError

from tsbs_daw.contracts.job import Progress, Result, State
from tsbs_daw.core.config import DaemonOptions, Settings, back_off
from tsbs_daw.core.errors import DaemonError, JobFormatError
from tsbs_daw.daemon.worker_handle import Lease, Outcome, WorkerHandle
from tsbs_daw.queue.jobs import JobLifecycle
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.store import Requeued

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.5
_EXTEND_EVERY_S = 2.0
_REQUESTS_EVERY_S = 1.0
_REQUESTS_PER_TICK = 500


class Dispatcher:
    """Owns the workers and the leases of their jobs.

    Attributes:
        releasing: Whether jobs that end without a result return to the queue as if they had not started.
    """

    def __init__(
        self, options: DaemonOptions, settings: Settings, lifecycle: JobLifecycle, run_id: str, wake: Callable[[], None]
    ):
        self._options, self._lifecycle, self._run_id = options, lifecycle, run_id
        self._store, self._spool = lifecycle.store, lifecycle.spool
        log_path = settings.home / "logs" / "worker.log"
        self._workers = [WorkerHandle(options, settings, log_path, wake) for _ in range(options.workers)]
        self.releasing = False
        self._last_requests, self._requests_read_to = 0.0, 0

    @property
    def busy(self) -> bool:
        return any(worker.leases for worker in self._workers)

    @property
    def worker_pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def process_events(self, now: float) -> None:
        """Handle the events of the workers, and store their consequences."""
        for worker in self._workers:
            failed_starts = worker.failed_starts
            worker.poll(now)
            if worker.failed_starts > failed_starts:
                self._lifecycle.emit("worker", message=worker.start_error)
            for lease in list(worker.leases):
                if lease.outcome is None:
                    with self._lifecycle.confine(lease.row.id):
                        self._note_progress(lease, now)
                else:
                    with self._lifecycle.confine(lease.row.id):
                        self._conclude(lease, lease.outcome, now)
                    worker.leases.remove(lease)

    def apply_user_requests(self, now: float) -> None:
        """Cancel and move jobs on user request: running jobs through their workers, waiting jobs directly."""
        for worker, lease in self._leases():
            if lease.outcome is None and lease.dropped is None and self._unwanted(lease.row):
                worker.drop(lease, now)
        if now - self._last_requests < _REQUESTS_EVERY_S:
            return
        self._last_requests = now
        waiting = self._store.waiting_after(self._requests_read_to, _REQUESTS_PER_TICK)
        self._requests_read_to = waiting[-1][0] if len(waiting) == _REQUESTS_PER_TICK else 0
        for _, job_id in waiting:
            with self._lifecycle.confine(job_id):
                if self._spool.cancel_wanted(job_id):
                    row = self._store.get(job_id)
                    assert row is not None, "it is waiting"
                    self._end_unwanted(row, State.CANCELLED)
                elif where := self._spool.take_move(job_id):
                    self._store.move(job_id, where)

    def prepare(self, now: float) -> None:
        """Start a worker now, so that its model is loaded when a job arrives."""
        self._workers[0].start(now)

    def assign_jobs(self, now: float) -> None:
        """Lease waiting jobs to ready workers; start workers that are not running."""
        for worker in self._workers:
            for _ in range(worker.free_capacity):
                row = self._next(now)
                if row is None:
                    return
                if not worker.ready:
                    worker.start(now)
                if not worker.can_accept(row):
                    break
                with self._lifecycle.confine(row.id):
                    self._lease(worker, row, now)

    def check_workers_can_start(self) -> None:
        """Check whether any worker can start.

        Raises:
            DaemonError: Every worker has failed to start as often as allowed.
        """
        if all(worker.failed_starts >= self._options.start_limit for worker in self._workers):
            raise DaemonError(self._workers[0].start_error)

    def requeue_orphaned(self, now: float) -> None:
        """Requeue jobs that are running according to the store but have no worker, after an error between two steps."""
        held = {lease.row.id for _, lease in self._leases()}
        for row in self._store.rows([State.RUNNING]):
            if row.id not in held and row.lease_until < now:
                with self._lifecycle.confine(row.id):
                    self._requeue(row, Requeued.RETRIED)

    def extend_leases(self, seconds: float) -> None:
        """Extend all leases; see `WorkerHandle.extend_leases`."""
        for worker in self._workers:
            worker.extend_leases(seconds)

    def release(self, now: float) -> None:
        """Ask every worker to drop its job, and return the jobs to the queue for the next daemon."""
        self.releasing = True
        for worker, lease in self._leases():
            worker.drop(lease, now)

    def close(self) -> None:
        """End all workers, and return their jobs to the queue without counting a retry or a crash."""
        leases = [lease for _, lease in self._leases()]
        for worker in self._workers:
            if worker.leases:
                worker.kill()
            else:
                worker.close()
            worker.leases = []
        for lease in leases:
            self._requeue(lease.row, Requeued.RELEASED)

    def _leases(self) -> list[tuple[WorkerHandle, Lease]]:
        return [(worker, lease) for worker in self._workers for lease in worker.leases]

    def _next(self, now: float) -> JobRow | None:
        """Return the next job that needs a worker, and finish the waiting jobs before it that need none."""
        while (row := self._store.next(now)) is not None:
            with self._lifecycle.confine(row.id):
                if self._needs_worker(row):
                    return row
        return None

    def _needs_worker(self, row: JobRow) -> bool:
        """Return whether a waiting job must run; finish it if it was cancelled or is a duplicate."""
        if requested_state := self._unwanted(row):
            self._end_unwanted(row, requested_state)
            return False
        duplicate = self._store.done_duplicate(row) if row.from_watch_folder else None
        result = _result_of(duplicate) if duplicate is not None else None
        if result is not None and result.manifest is not None and result.manifest.is_file():
            self._lifecycle.finish(row, State.DUPLICATE, result=result)
            return False
        if duplicate is not None:  # its stems no longer exist
            self._store.forget_content(duplicate.id)
        row.job.checked()  # raises for a job of another version; the job then fails with that message
        return True

    def _lease(self, worker: WorkerHandle, row: JobRow, now: float) -> None:
        folder = self._spool.folder(row.id)
        if not folder.is_dir():
            sentence = f"The folder {folder} was removed while the job waited. Submit {row.song} again."
            self._lifecycle.finish(row, State.FAILED, error=sentence)
            return
        leased = self._store.lease(row, self._run_id, now + self._options.lease_s)
        if leased is not None:
            try:
                self._spool.write_fence(leased.id, leased.fence)
            except OSError as error:
                sentence = f"Cannot write to the spool ({error.strerror}). Free some space or check permissions."
                self._conclude_failed(leased, Outcome("failed", error=sentence, retryable=True), now)
                return
            worker.assign(leased, folder, now)
            self._lifecycle.emit("started", leased)
            log.info("job %s started: %s (attempt %d)", leased.id, leased.song, leased.attempts)

    def _note_progress(self, lease: Lease, now: float) -> None:
        row = lease.row
        if now - lease.last_reported >= _REPORT_EVERY_S and (lease.fraction, lease.message) != lease.reported:
            lease.last_reported, lease.reported = now, (lease.fraction, lease.message)
            self._lifecycle.emit("progress", row, fraction=lease.fraction, message=lease.message)
            self._write_progress(row, State.RUNNING, lease.fraction, lease.message)
        if now - lease.extended >= _EXTEND_EVERY_S:
            lease.extended = now
            until = lease.last_seen + self._options.lease_s
            self._store.extend(row.id, row.fence, until, lease.fraction, lease.message)

    def _write_progress(self, row: JobRow, state: State, fraction: float, message: str) -> None:
        now = time.time()
        progress = Progress(
            id=row.id, state=state, fraction=fraction, message=message, attempt=row.attempts, updated_unix_s=now
        )
        try:
            self._spool.write_progress(progress)
        except OSError as error:  # a full disk, or a reader on Windows; progress is written again soon
            log.debug("job %s: its progress cannot be written: %s", row.id, error)

    def _requeue(self, row: JobRow, why: Requeued, *, not_before: float = 0.0, error: str | None = None) -> None:
        if self._store.requeue(row.id, row.fence, why, not_before=not_before, error=error):
            self._write_progress(row, State.QUEUED, 0.0, error or "")

    def _conclude(self, lease: Lease, outcome: Outcome, now: float) -> None:
        row = lease.row
        requested_state = self._unwanted(row)
        if outcome.kind == "done":
            self._conclude_done(row, outcome)
        elif requested_state is not None:
            self._lifecycle.finish(row, requested_state, fence=row.fence, error=_reason_for(requested_state))
        elif self.releasing or outcome.kind == "released":
            wait_s = self._options.retry_first_s if outcome.error else 0.0
            self._requeue(row, Requeued.RELEASED, not_before=now + wait_s, error=outcome.error or None)
        elif outcome.kind == "cancelled":
            self._lifecycle.finish(row, State.CANCELLED, fence=row.fence, error=_reason_for(State.CANCELLED))
        elif outcome.kind == "failed":
            self._conclude_failed(row, outcome, now)
        elif outcome.blameless or outcome.kind == "lost":
            sentence = f"The worker of {row.song} was terminated. `tsbs-daw jobs retry` runs the job again."
            self._conclude_failed(row, Outcome("failed", error=sentence, retryable=True), now)
        else:
            self._conclude_crashed(row, outcome)

    def _conclude_done(self, row: JobRow, outcome: Outcome) -> None:
        try:
            result = Result.model_validate(outcome.result)
        except ValidationError as error:
            log.error("job %s: the worker sent an invalid result: %s", row.id, error)
            sentence = f"The worker sent an invalid result for {row.song}; see its log for details."
            self._lifecycle.finish(row, State.FAILED, fence=row.fence, error=sentence)
            return
        self._lifecycle.finish(row, State.DONE, fence=row.fence, result=result)

    def _conclude_failed(self, row: JobRow, outcome: Outcome, now: float) -> None:
        options = self._options
        if not outcome.retryable or row.retries + 1 >= options.retry_limit:
            self._lifecycle.finish(row, State.FAILED, fence=row.fence, error=outcome.error, retryable=outcome.retryable)
            return
        wait_s = back_off(row.retries + 1, options.retry_first_s, options.retry_longest_s)
        self._requeue(row, Requeued.RETRIED, not_before=now + wait_s, error=outcome.error)
        log.warning("job %s: %s Retrying in %.0f s (attempt %d)", row.id, outcome.error, wait_s, row.attempts)
        self._lifecycle.emit("retrying", row, message=outcome.error)

    def _conclude_crashed(self, row: JobRow, outcome: Outcome) -> None:
        if not outcome.shared and row.crashes + 1 >= self._options.crash_limit:
            error = (
                f"The separation worker crashed {row.crashes + 1} times on {row.song} ({outcome.error}). "
                "See the worker's log for details; `tsbs-daw jobs retry` runs the job again."
            )
            self._lifecycle.finish(row, State.DEAD, fence=row.fence, error=error)
            return
        others = " and other songs, each of which now runs alone" if outcome.shared else ""
        error = f"The separation worker crashed on {row.song}{others} ({outcome.error})."
        self._requeue(row, Requeued.CRASHED, error=error)
        self._lifecycle.emit("retrying", row, message=error)

    def _unwanted(self, row: JobRow) -> State | None:
        """Return the state in which the user asked the job to end; None if it may continue."""
        current = self._store.get(row.id)
        if current is None or current.state.finished:
            return None
        if current.cancel_requested:
            return State(current.cancel_requested)
        if self._spool.cancel_wanted(row.id):
            self._store.request_cancel(row.id, State.CANCELLED)
            return State.CANCELLED
        return None

    def _end_unwanted(self, row: JobRow, requested_state: State) -> None:
        self._lifecycle.finish(row, requested_state, error=_reason_for(requested_state))


def _result_of(row: JobRow) -> Result | None:
    """Return the result of a job; None if there is none or another version wrote it."""
    try:
        return row.result
    except JobFormatError:
        return None


def _reason_for(state: State) -> str:
    return "Cancelled." if state is State.CANCELLED else "The file changed; its newer version is separated instead."
