"""A place for one worker: the process, if there is one, and the job it has on lease."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tsbs_daw.config import Settings
from tsbs_daw.jobs.options import DaemonOptions, back_off
from tsbs_daw.jobs.queue.rows import JobRow
from tsbs_daw.jobs.running.process import WorkerProcess

log = logging.getLogger(__name__)

OUTCOMES = ("done", "failed", "cancelled", "lost", "crashed")


@dataclass(frozen=True)
class Outcome:
    """How a lease ended.

    kind:      one of OUTCOMES
    result:    the result document, when done
    error:     a sentence when it failed, the way it died when it crashed
    retryable: trying again may help
    blameless: a crash for which the job is not to blame
    """

    kind: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    retryable: bool = False
    blameless: bool = False


@dataclass
class Lease:
    """A job in a worker's hands. Times are of the monotonic clock.

    heard: when the worker last said anything; moved: when the job last made progress
    dropped: when it was asked to end; outcome: how it ended, until the store knows
    told, told_what, extended: when, and what, was last written down of it
    """

    row: JobRow
    heard: float
    moved: float
    fraction: float = 0.0
    message: str = ""
    dropped: float | None = None
    outcome: Outcome | None = None
    told: float = float("-inf")
    told_what: tuple[float, str] = (-1.0, "")
    extended: float = 0.0


class WorkerSlot:
    """Starts the worker when there is work, hears what it says, and ends it when it hangs."""

    def __init__(self, options: DaemonOptions, settings: Settings, log_path: Path, wake: Callable[[], None]):
        self._options, self._settings, self._log_path, self._wake = options, settings, log_path, wake
        self.process: WorkerProcess | None = None
        self.lease: Lease | None = None
        self.ready = False
        self.failed_starts = 0
        self.complaint = ""  # why the worker cannot start, for people
        self._reason = ""  # the same, in the words of the one that is just ending
        self._crashes_in_a_row = 0
        self._restart_at = 0.0
        self._idle_since: float | None = None

    @property
    def free(self) -> bool:
        return self.ready and self.lease is None

    def start(self, now: float) -> None:
        """Have a worker ready soon. Does nothing while there is one, or while the last one's crash is too fresh."""
        self._idle_since = None
        if self.process is not None or now < self._restart_at:
            return
        try:
            self.process = WorkerProcess(self._options.runner, self._log_path, self._wake)
        except OSError as error:
            self._note_failed_start(
                f"The separation worker cannot be started ({error}); is there memory, and disk?", now
            )
        else:
            log.info("worker %d started", self.process.pid)

    def give(self, row: JobRow, folder: Path, now: float) -> None:
        settings = self._settings
        self.lease = Lease(row, heard=now, moved=now)
        self._idle_since = None
        self.process.send(
            {
                "job": row.job.model_dump(mode="json", by_alias=True),
                "folder": str(folder),
                "fence": row.fence,
                "attempt": row.attempts,
                "settings": {name: str(value) for name, value in asdict(settings).items()},
            }
        )

    def drop(self, now: float) -> None:
        """Ask the worker to end this run of its job."""
        lease = self.lease
        if self.process is not None and lease is not None and lease.dropped is None:
            lease.dropped = now
            self.process.send({"drop": lease.row.id, "fence": lease.row.fence})

    def listen(self, now: float) -> None:
        """Take in what the worker said, and find out whether it is dead or hangs."""
        if self.process is None:
            return
        dead = self.process.dead  # asked first: then nothing can come after the events below
        for event in self.process.events():
            self._hear(event, now)
        if dead:
            self._bury(now)
        elif self.lease is not None and self.lease.outcome is None:
            self._watch_over(self.lease, now)
        elif self.free:
            self._idle_since = now if self._idle_since is None else self._idle_since
            if now - self._idle_since > self._options.worker_idle_s:
                log.info("worker %d has had nothing to do and is let go", self.process.pid)
                self.close()

    def grant(self, seconds: float) -> None:
        """The daemon itself was asleep: nobody is late."""
        if self.lease is not None:
            self.lease.heard += seconds
            self.lease.moved += seconds

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
        self.process, self.ready, self._idle_since = None, False, None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.close()

    def _hear(self, event: dict[str, Any], now: float) -> None:
        kind, lease = event.get("event"), self.lease
        if lease is not None:
            lease.heard = now
        if kind == "ready":
            self.ready, self.failed_starts, self.complaint = True, 0, ""
        elif kind == "unusable":
            self._reason = str(event.get("error"))
        elif kind == "alive":
            pass
        elif lease is None or (event.get("id"), event.get("fence")) != (lease.row.id, lease.row.fence):
            log.warning("job %s: %s under lease %s is not listened to", event.get("id"), kind, event.get("fence"))
        elif kind == "progress":
            if (event["fraction"], event["message"]) != (lease.fraction, lease.message):
                lease.moved = now
            lease.fraction, lease.message = max(lease.fraction, event["fraction"]), event["message"]
        elif kind in OUTCOMES:
            self._crashes_in_a_row = 0
            details = {name: event[name] for name in ("result", "error", "retryable") if name in event}
            lease.outcome = lease.outcome or Outcome(kind, **details)

    def _watch_over(self, lease: Lease, now: float) -> None:
        options = self._options
        if lease.dropped is not None and now - lease.dropped > options.cancel_kill_s:
            log.warning("job %s does not end when it is asked to; its worker is killed", lease.row.id)
            lease.outcome = Outcome("cancelled")
        elif now - lease.heard > options.lease_s:
            lease.outcome = Outcome("crashed", error=f"it did not answer for {options.lease_s:.0f} s")
        elif now - lease.moved > options.stall_s:
            lease.outcome = Outcome("crashed", error=f"it made no progress for {options.stall_s:.0f} s")
        if lease.outcome is not None:
            self.kill()

    def _bury(self, now: float) -> None:
        process, ready = self.process, self.ready
        ended, blameless = process.how_it_ended, process.was_told_to_end
        self.close()
        if self.lease is not None and self.lease.outcome is None:
            log.error("job %s: its worker died: %s", self.lease.row.id, ended)
            self.lease.outcome = Outcome("crashed", error=ended, blameless=blameless)
        if not ready:
            complaint = f"The separation worker ended while it started ({ended}); see {self._log_path}."
            self._note_failed_start(self._reason or complaint, now)
        else:
            self._wait_to_restart(now)

    def _note_failed_start(self, complaint: str, now: float) -> None:
        self.failed_starts += 1
        self.complaint, self._reason = complaint, ""
        log.error("%s", complaint)
        self._wait_to_restart(now)

    def _wait_to_restart(self, now: float) -> None:
        self._crashes_in_a_row += 1
        options = self._options
        self._restart_at = now + back_off(self._crashes_in_a_row, options.restart_first_s, options.restart_longest_s)
