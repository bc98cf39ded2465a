"""The daemon's side of a worker: its process, if it is running, and the jobs leased to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tsbs_daw.core import machine
from tsbs_daw.core.child import describe_exit, python
from tsbs_daw.core.config import DaemonOptions, Settings, back_off
from tsbs_daw.core.errors import printable
from tsbs_daw.queue.records import JobRow

log = logging.getLogger(__name__)


LOG_BYTES = 10_000_000  # a larger log is rotated; one old log is kept


class WorkerProcess:
    """A running `python -m tsbs_daw.daemon.worker` and the connection to it.

    Args:
        arguments: Arguments of the worker: --runner, --songs, --device.
        log_path: File for its stderr.
        wake: Called from a thread when an event has arrived.
    """

    def __init__(self, arguments: Sequence[str], log_path: Path, wake: Callable[[], None]):
        log_path.parent.mkdir(parents=True, exist_ok=True)
        _rotate(log_path)
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._wake = wake
        with log_path.open("ab") as stderr:
            self._process = subprocess.Popen(
                python("tsbs_daw.daemon.worker", *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=worker_environment(os.environ),
            )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"worker-{self.pid}", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"worker-{self.pid}-orders", daemon=True)
        self._reader.start()
        self._writer.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended and all of its events have been read."""
        return self._process.poll() is not None and not self._reader.is_alive()

    @property
    def exit_text(self) -> str:
        """How it ended, such as "signal SIGSEGV" or "exit code 1"."""
        return describe_exit(self._process.poll())

    @property
    def was_terminated(self) -> bool:
        """Whether SIGTERM ended it, as when the system shuts down; the job did not cause that."""
        return self._process.poll() == -signal.SIGTERM

    def send(self, order: dict[str, Any]) -> None:
        """Enqueue an order without waiting for the worker to read it. Orders to a dead worker are lost."""
        self._orders.put(order)

    def events(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    def kill(self) -> None:
        self._process.kill()

    def close(self, patience_s: float = 1.0) -> None:
        """Close its stdin, and kill it if it does not exit within `patience_s`."""
        self._orders.put(None)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._writer.join(patience_s)
        self._reader.join(patience_s)
        if not self._reader.is_alive():  # if it is alive, a grandchild still holds the pipe, which stays open
            self._stdout.close()

    def _write(self) -> None:
        """Write orders in a thread, because a pipe holds only 64 KiB and the worker may not be reading."""
        with contextlib.suppress(OSError, ValueError):
            while (order := self._orders.get()) is not None:
                self._stdin.write(json.dumps(order).encode() + b"\n")
                self._stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            self._stdin.close()

    def _read(self) -> None:
        for line in self._stdout:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if not isinstance(event, dict):
                log.warning("worker %d sent an invalid event: %r", self.pid, line[:200])
                continue
            self._events.put(event)
            if event.get("event") != "alive":
                self._wake()
        self._wake()


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment, which leaves one core to the DAW and other programs.

    Torch's threads wait for each other at every step, so all of them slow down if one has to share its core. If
    OMP_NUM_THREADS is set, it overrides this.
    """
    threads = max(1, machine.usable_cores() - 1)
    return {"OMP_NUM_THREADS": str(threads), **environment}


def _rotate(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))


OUTCOMES = ("done", "failed", "cancelled", "lost", "crashed", "released")


@dataclass(frozen=True)
class Outcome:
    """How a lease ended.

    Attributes:
        kind: One of OUTCOMES.
        result: The result document, if done.
        error: A sentence if the job failed; the exit status of the worker if it crashed.
        retryable: Whether another attempt may succeed.
        blameless: Whether the worker crashed for a reason other than the job.
        shared: Whether other jobs ran in the worker that crashed, one of which may be the cause.
    """

    kind: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    retryable: bool = False
    blameless: bool = False
    shared: bool = False


@dataclass
class Lease:
    """A job that is leased to a worker. Times are of the monotonic clock.

    Attributes:
        row: The job.
        last_seen: When the worker last sent anything.
        last_progress: When the job last made progress.
        fraction: Progress of the job.
        message: What the job is doing.
        dropped: When the worker was asked to end it.
        outcome: How it ended, until the store knows.
        last_reported: When progress was last reported.
        reported: The reported (fraction, message).
        extended: When the lease was last extended.
    """

    row: JobRow
    last_seen: float
    last_progress: float
    fraction: float = 0.0
    message: str = ""
    dropped: float | None = None
    outcome: Outcome | None = None
    last_reported: float = float("-inf")
    reported: tuple[float, str] = (-1.0, "")
    extended: float = 0.0


class WorkerHandle:
    """Starts a worker when there are jobs, handles its events, and kills it if it hangs.

    A job that was running when a worker crashed runs alone from then on, so that another crash must be its own and
    affects no other job.
    """

    def __init__(self, options: DaemonOptions, settings: Settings, log_path: Path, wake: Callable[[], None]):
        self._options, self._settings, self._log_path, self._wake = options, settings, log_path, wake
        self.process: WorkerProcess | None = None
        self.leases: list[Lease] = []
        self.ready = False
        self._capacity = 1  # jobs at once, as reported by the worker
        self.failed_starts = 0
        self.start_error = ""  # why the worker cannot start, for the user
        self._pending_error = ""  # the error that a worker sent before its process ended
        self._crashes_in_a_row = 0
        self._restart_at = 0.0
        self._idle_since: float | None = None

    @property
    def free_capacity(self) -> int:
        """Number of jobs that it can still accept."""
        return self._capacity - len(self.leases)

    def can_accept(self, row: JobRow) -> bool:
        """Return whether it can start this job now."""
        alone = any(other.crashes for other in (row, *(lease.row for lease in self.leases)))
        return self.ready and (not self.leases if alone else self.free_capacity > 0)

    def start(self, now: float) -> None:
        """Start a worker, unless one is running or the last one crashed too recently."""
        self._idle_since = None
        if self.process is not None or now < self._restart_at:
            return
        try:
            options = self._options
            arguments = ["--runner", options.runner, "--songs", str(options.songs_at_once)]
            self.process = WorkerProcess([*arguments, "--device", self._settings.device], self._log_path, self._wake)
        except OSError as error:
            self._note_failed_start(
                f"Cannot start the separation worker ({error}). Check that there is enough memory and disk space.", now
            )
        else:
            log.info("worker %d started", self.process.pid)

    def assign(self, row: JobRow, folder: Path, now: float) -> None:
        """Send a job to the worker. `folder` is the job's folder in the spool."""
        settings = self._settings
        self.leases.append(Lease(row, last_seen=now, last_progress=now))
        self._idle_since = None
        job = row.job.model_dump(mode="json", by_alias=True)
        # The worker needs only "watched"; the other values of `deliver` are copied from the row to the result.
        job["deliver"] = {name: job["deliver"][name] for name in ("watched",) if name in job["deliver"]}
        assert self.process is not None, "only a ready worker gets jobs"
        self.process.send(
            {
                "job": job,
                "folder": str(folder),
                "fence": row.fence,
                "attempt": row.attempts,
                "settings": {name: str(value) for name, value in asdict(settings).items()},
            }
        )

    def drop(self, lease: Lease, now: float) -> None:
        """Ask the worker to end this run of a job."""
        if self.process is not None and lease.dropped is None:
            lease.dropped = now
            self.process.send({"drop": lease.row.id, "fence": lease.row.fence})

    def poll(self, now: float) -> None:
        """Handle new events, and detect whether the worker died or hangs."""
        if self.process is None:
            return
        dead = self.process.dead  # before the events are read, so that none can follow
        for event in self.process.events():
            self._handle_event(event, now)
        if dead:
            self._reap(self.process, now)
        elif self.leases:
            self._check_timeouts(now)
        elif self.ready:
            self._idle_since = now if self._idle_since is None else self._idle_since
            if now - self._idle_since > self._options.worker_idle_s:
                log.info("worker %d has been idle for too long and is stopped", self.process.pid)
                self.close()

    def extend_leases(self, seconds: float) -> None:
        """Extend all leases by the time that the daemon was suspended, so that none expires because of it."""
        for lease in self.leases:
            lease.last_seen += seconds
            lease.last_progress += seconds

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
        self.process, self.ready, self._idle_since = None, False, None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.close()

    def _handle_event(self, event: dict[str, Any], now: float) -> None:
        kind, run = event.get("event"), (event.get("id"), event.get("fence"))
        lease = next((lease for lease in self.leases if (lease.row.id, lease.row.fence) == run), None)
        for other in self.leases:  # any event shows that the process is alive
            other.last_seen = now
        if kind == "ready":
            self.ready, self.failed_starts, self.start_error = True, 0, ""
            self._capacity = event["songs"]
        elif kind == "unusable":
            self._pending_error = printable(str(event.get("error")))
        elif kind == "alive":
            pass
        elif lease is None:
            log.warning("job %s: ignoring %s under the old lease %s", run[0], kind, run[1])
        elif kind == "progress":
            if (event["fraction"], printable(event["message"])) != (lease.fraction, lease.message):
                lease.last_progress = now
            lease.fraction, lease.message = max(lease.fraction, event["fraction"]), printable(event["message"])
        elif kind in OUTCOMES:
            self._crashes_in_a_row = 0
            details = {name: event[name] for name in ("result", "error", "retryable") if name in event}
            details |= {"error": printable(event["error"])} if "error" in event else {}
            lease.outcome = lease.outcome or Outcome(kind, **details)

    def _check_timeouts(self, now: float) -> None:
        options = self._options
        for lease in self._open_leases():
            if lease.dropped is not None and now - lease.dropped > options.cancel_kill_s:
                log.warning("job %s did not stop on request; its worker is killed", lease.row.id)
                lease.outcome = Outcome("cancelled")
                for other in self._open_leases():
                    other.outcome = Outcome("released")
            elif now - lease.last_seen > options.lease_s:
                self._crashed(f"it did not answer for {options.lease_s:.0f} s")
            elif now - lease.last_progress > options.stall_s:
                self._crashed(f"it made no progress for {options.stall_s:.0f} s")
            if lease.outcome is not None:
                self.kill()
                return

    def _open_leases(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.outcome is None]

    def _crashed(self, error: str, *, blameless: bool = False) -> None:
        """End every open lease as crashed, because any of the jobs may be the cause."""
        crashed = self._open_leases()
        for lease in crashed:
            log.error("job %s: its worker died: %s", lease.row.id, error)
            lease.outcome = Outcome("crashed", error=error, blameless=blameless, shared=len(crashed) > 1)

    def _reap(self, process: WorkerProcess, now: float) -> None:
        ready = self.ready
        ended, blameless = process.exit_text, process.was_terminated
        self.close()
        self._crashed(ended, blameless=blameless)
        if not ready:
            start_error = f"The separation worker ended while it started ({ended}); see {self._log_path}."
            self._note_failed_start(self._pending_error or start_error, now)
        else:
            self._wait_to_restart(now)

    def _note_failed_start(self, start_error: str, now: float) -> None:
        self.failed_starts += 1
        self.start_error, self._pending_error = start_error, ""
        log.error("%s", start_error)
        self._wait_to_restart(now)

    def _wait_to_restart(self, now: float) -> None:
        self._crashes_in_a_row += 1
        options = self._options
        self._restart_at = now + back_off(self._crashes_in_a_row, options.restart_first_s, options.restart_longest_s)
