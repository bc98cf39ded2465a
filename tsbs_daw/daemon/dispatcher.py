"""Gives jobs to workers, and decides what an ended lease means: done, tried again, or given up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pydantic import ValidationError

from tsbs_daw.contracts.job import Progress, Result, State
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError, JobFormatError
from tsbs_daw.daemon.worker_handle import Lease, Outcome, WorkerSlot
from tsbs_daw.queue.events import Register
from tsbs_daw.queue.options import DaemonOptions, back_off
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.store import Requeued

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.5
_EXTEND_EVERY_S = 2.0
_LOOK_FOR_CANCELS_S = 1.0
_CANCELS_AT_ONCE = 500


class Foreman:
    """Owns the worker slots.

    releasing: jobs that end now without a result go back into the queue as if they had not begun
    """

    def __init__(
        self, options: DaemonOptions, settings: Settings, register: Register, run_id: str, wake: Callable[[], None]
    ):
        self._options, self._register, self._run_id = options, register, run_id
        self._store, self._spool = register.store, register.spool
        log_path = settings.home / "logs" / "worker.log"
        self._slots = [WorkerSlot(options, settings, log_path, wake) for _ in range(options.workers)]
        self.releasing = False
        self._looked_for_cancels, self._looked_up_to = 0.0, 0

    @property
    def busy(self) -> bool:
        return any(slot.leases for slot in self._slots)

    @property
    def worker_pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def hear(self, now: float) -> None:
        """Take in what the workers said, and write down what it means."""
        for slot in self._slots:
            failed_starts = slot.failed_starts
            slot.listen(now)
            if slot.failed_starts > failed_starts:
                self._register.tell("worker", message=slot.complaint)
            for lease in list(slot.leases):
                if lease.outcome is None:
                    with self._register.confine(lease.row.id):
                        self._note_progress(lease, now)
                else:
                    with self._register.confine(lease.row.id):
                        self._conclude(lease, lease.outcome, now)
                    slot.leases.remove(lease)

    def heed_cancels(self, now: float) -> None:
        """Ask workers to end jobs that are not wanted any more; end those that wait, and move them where asked."""
        for slot, lease in self._leases():
            if lease.outcome is None and lease.dropped is None and self._unwanted(lease.row):
                slot.drop(lease, now)
        if now - self._looked_for_cancels < _LOOK_FOR_CANCELS_S:
            return
        self._looked_for_cancels = now
        waiting = self._store.waiting_after(self._looked_up_to, _CANCELS_AT_ONCE)
        self._looked_up_to = waiting[-1][0] if len(waiting) == _CANCELS_AT_ONCE else 0
        for _, job_id in waiting:
            with self._register.confine(job_id):
                if self._spool.cancel_wanted(job_id):
                    self._end_unwanted(self._store.get(job_id), State.CANCELLED)
                elif where := self._spool.take_move(job_id):
                    self._store.move(job_id, where)

    def prepare(self, now: float) -> None:
        """Work is about to come: have a worker ready when it does."""
        self._slots[0].start(now)

    def give_work(self, now: float) -> None:
        """Lease waiting jobs to workers that are ready; start a worker when one is missing."""
        for slot in self._slots:
            for _ in range(slot.room):
                row = self._next(now)
                if row is None:
                    return
                if not slot.ready:
                    slot.start(now)
                if not slot.takes(row):
                    break
                with self._register.confine(row.id):
                    self._lease(slot, row, now)

    def check_workers_start(self) -> None:
        """Raises: DaemonError: none of them can, and that was tried often enough"""
        if all(slot.failed_starts >= self._options.start_limit for slot in self._slots):
            raise DaemonError(self._slots[0].complaint)

    def sweep(self, now: float) -> None:
        """Jobs that run in the store but in nobody's hands, after an error between two steps, wait again."""
        held = {lease.row.id for _, lease in self._leases()}
        for row in self._store.rows([State.RUNNING]):
            if row.id not in held and row.lease_until < now:
                with self._register.confine(row.id):
                    self._requeue(row, Requeued.RETRIED)

    def grant(self, seconds: float) -> None:
        for slot in self._slots:
            slot.grant(seconds)

    def release(self, now: float) -> None:
        """Ask every worker to let go of its job, so that another run can take it up."""
        self.releasing = True
        for slot, lease in self._leases():
            slot.drop(lease, now)

    def close(self) -> None:
        """End all workers; what they still had is queued again, at no cost to the job."""
        leases = [lease for _, lease in self._leases()]
        for slot in self._slots:
            if slot.leases:
                slot.kill()
            else:
                slot.close()
            slot.leases = []
        for lease in leases:
            self._requeue(lease.row, Requeued.RELEASED)

    def _leases(self) -> list[tuple[WorkerSlot, Lease]]:
        return [(slot, lease) for slot in self._slots for lease in slot.leases]

    def _next(self, now: float) -> JobRow | None:
        """The next job that really needs a worker."""
        while (row := self._store.next(now)) is not None:
            with self._register.confine(row.id):
                if self._needs_a_worker(row):
                    return row
        return None

    def _needs_a_worker(self, row: JobRow) -> bool:
        """Whether a waiting job is wanted, readable, and not done already; else it is ended here."""
        if wish := self._unwanted(row):
            self._end_unwanted(row, wish)
            return False
        twin = self._store.done_twin(row) if row.from_watch_folder else None
        result = _result_of(twin) if twin is not None else None
        if result is not None and result.manifest is not None and result.manifest.is_file():
            self._register.finish(row, State.DUPLICATE, result=result)
            return False
        if twin is not None:  # its stems are not there any more
            self._store.forget_content(twin.id)
        row.job.checked()  # of another version, it is ended with the sentence that this raises
        return True

    def _lease(self, slot: WorkerSlot, row: JobRow, now: float) -> None:
        folder = self._spool.folder(row.id)
        if not folder.is_dir():
            sentence = f"The folder {folder} was removed while the job waited; submit {row.song} again."
            self._register.finish(row, State.FAILED, error=sentence)
            return
        leased = self._store.lease(row, self._run_id, now + self._options.lease_s)
        if leased is not None:
            try:
                self._spool.write_fence(leased.id, leased.fence)
            except OSError as error:
                sentence = f"The spool cannot be written to ({error.strerror}); make room or check permissions there."
                self._conclude_failed(leased, Outcome("failed", error=sentence, retryable=True), now)
                return
            slot.give(leased, folder, now)
            self._register.tell("started", leased)
            log.info("job %s started: %s (attempt %d)", leased.id, leased.song, leased.attempts)

    def _note_progress(self, lease: Lease, now: float) -> None:
        row = lease.row
        if now - lease.told >= _TELL_EVERY_S and (lease.fraction, lease.message) != lease.told_what:
            lease.told, lease.told_what = now, (lease.fraction, lease.message)
            self._register.tell("progress", row, fraction=lease.fraction, message=lease.message)
            self._write_progress(row, State.RUNNING, lease.fraction, lease.message)
        if now - lease.extended >= _EXTEND_EVERY_S:
            lease.extended = now
            until = lease.heard + self._options.lease_s
            self._store.extend(row.id, row.fence, until, lease.fraction, lease.message)

    def _write_progress(self, row: JobRow, state: State, fraction: float, message: str) -> None:
        now = time.time()
        progress = Progress(
            id=row.id, state=state, fraction=fraction, message=message, attempt=row.attempts, updated_unix_s=now
        )
        try:
            self._spool.write_progress(progress)
        except OSError as error:  # a full disk, or a reader on Windows: the next one is due soon
            log.debug("job %s: its progress cannot be written: %s", row.id, error)

    def _requeue(self, row: JobRow, why: Requeued, *, not_before: float = 0.0, error: str | None = None) -> None:
        if self._store.requeue(row.id, row.fence, why, not_before=not_before, error=error):
            self._write_progress(row, State.QUEUED, 0.0, error or "")

    def _conclude(self, lease: Lease, outcome: Outcome, now: float) -> None:
        row = lease.row
        wish = self._unwanted(row)
        if outcome.kind == "done":
            self._conclude_done(row, outcome)
        elif wish is not None:
            self._register.finish(row, wish, fence=row.fence, error=_why(wish))
        elif self.releasing or outcome.kind == "released":
            self._requeue(row, Requeued.RELEASED)
        elif outcome.kind == "cancelled":
            self._register.finish(row, State.CANCELLED, fence=row.fence, error=_why(State.CANCELLED))
        elif outcome.kind == "failed":
            self._conclude_failed(row, outcome, now)
        elif outcome.blameless or outcome.kind == "lost":
            sentence = f"The run of {row.song} was ended from outside; `tsbs-daw jobs retry` tries again."
            self._conclude_failed(row, Outcome("failed", error=sentence, retryable=True), now)
        else:
            self._conclude_crashed(row, outcome)

    def _conclude_done(self, row: JobRow, outcome: Outcome) -> None:
        try:
            result = Result.model_validate(outcome.result)
        except ValidationError as error:
            log.error("job %s: the worker's result is not one: %s", row.id, error)
            sentence = f"The worker reported something unreadable about {row.song}; its log has the details."
            self._register.finish(row, State.FAILED, fence=row.fence, error=sentence)
            return
        self._register.finish(row, State.DONE, fence=row.fence, result=result)

    def _conclude_failed(self, row: JobRow, outcome: Outcome, now: float) -> None:
        options = self._options
        if not outcome.retryable or row.retries + 1 >= options.retry_limit:
            self._register.finish(row, State.FAILED, fence=row.fence, error=outcome.error, retryable=outcome.retryable)
            return
        wait_s = back_off(row.retries + 1, options.retry_first_s, options.retry_longest_s)
        self._requeue(row, Requeued.RETRIED, not_before=now + wait_s, error=outcome.error)
        log.warning("job %s: %s Again in %.0f s (attempt %d)", row.id, outcome.error, wait_s, row.attempts)
        self._register.tell("retrying", row, message=outcome.error)

    def _conclude_crashed(self, row: JobRow, outcome: Outcome) -> None:
        if not outcome.company and row.crashes + 1 >= self._options.crash_limit:
            error = (
                f"The separation worker crashed {row.crashes + 1} times on {row.song} ({outcome.error}); "
                "the worker's log has the details, `tsbs-daw jobs retry` tries again."
            )
            self._register.finish(row, State.DEAD, fence=row.fence, error=error)
            return
        others = " and others, which run alone now" if outcome.company else ""
        error = f"The separation worker crashed on {row.song}{others} ({outcome.error})."
        self._requeue(row, Requeued.CRASHED, error=error)
        self._register.tell("retrying", row, message=error)

    def _unwanted(self, row: JobRow) -> State | None:
        """The state in which the job shall end now, if it shall."""
        current = self._store.get(row.id)
        if current is None or current.state.finished:
            return None
        if current.cancel_requested:
            return State(current.cancel_requested)
        if self._spool.cancel_wanted(row.id):
            self._store.request_cancel(row.id, State.CANCELLED)
            return State.CANCELLED
        return None

    def _end_unwanted(self, row: JobRow, wish: State) -> None:
        self._register.finish(row, wish, error=_why(wish))


def _result_of(row: JobRow) -> Result | None:
    """None also for one that only another version understands."""
    try:
        return row.result
    except JobFormatError:
        return None


def _why(wish: State) -> str:
    return "Cancelled." if wish is State.CANCELLED else "The file changed, and its newer version is separated instead."
