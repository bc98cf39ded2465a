"""One worker as the daemon sees it: its process, if it runs, and the jobs it holds on lease."""

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
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import printable
from tsbs_daw.queue.options import DaemonOptions, back_off
from tsbs_daw.queue.records import JobRow

log = logging.getLogger(__name__)


LOG_BYTES = 10_000_000  # a log that has grown beyond this starts anew; the one before it is kept


class WorkerProcess:
    """Start `python -m tsbs_daw.daemon.worker` and talk to it.

    Args:
        arguments: of the worker: --runner, --songs, --device
        log_path:  where its stderr goes
        wake:      called, from a thread, when something has come
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
        """Whether it has ended, and all of its events have been read."""
        return self._process.poll() is not None and not self._reader.is_alive()

    @property
    def exit_text(self) -> str:
        """For people: "signal SIGSEGV" or "exit code 1"."""
        return describe_exit(self._process.poll())

    @property
    def was_terminated(self) -> bool:
        """Whether someone ended it politely, as a system that shuts down does: not the job's fault."""
        return self._process.poll() == -signal.SIGTERM

    def send(self, order: dict[str, Any]) -> None:
        """Queue an order; returns at once, whether the worker reads or not. Orders to a dead worker are lost."""
        self._orders.put(order)

    def events(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    def kill(self) -> None:
        self._process.kill()

    def close(self, patience_s: float = 1.0) -> None:
        """End it: politely by closing its stdin, then not."""
        self._orders.put(None)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._writer.join(patience_s)
        self._reader.join(patience_s)
        if not self._reader.is_alive():  # else a grandchild still holds the pipe; it is left to it
            self._process.stdout.close()

    def _write(self) -> None:
        """Write the orders: a pipe holds 64 KiB, and the daemon must not wait for a worker that does not read."""
        with contextlib.suppress(OSError, ValueError):
            while (order := self._orders.get()) is not None:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def _read(self) -> None:
        for line in self._process.stdout:
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
    """The worker's environment: one core is left to the DAW and everybody else.

    More than politeness: threads that wait for each other at every step crawl as soon as one of them has to share its
    core. Who sets OMP_NUM_THREADS decides otherwise.
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

    kind:      one of OUTCOMES
    result:    the result document, when done
    error:     a sentence when it failed, the way it died when it crashed
    retryable: trying again may help
    blameless: a crash for which the job is not to blame
    shared:    other jobs ran in the worker that crashed, and one of them may be the cause
    """

    kind: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    retryable: bool = False
    blameless: bool = False
    shared: bool = False


@dataclass
class Lease:
    """A job in a worker's hands. Times are of the monotonic clock.

    last_seen: when the worker last sent anything; last_progress: when the job last made progress
    dropped: when it was asked to end; outcome: how it ended, until the store knows
    last_reported, reported, extended: when progress was last reported, what it was, when the lease was last extended
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
    """Starts the worker when there is work, handles its events, and kills it when it hangs.

    A job that crashed a worker runs alone from then on, so that another crash is its own and harms no other job.
    """

    def __init__(self, options: DaemonOptions, settings: Settings, log_path: Path, wake: Callable[[], None]):
        self._options, self._settings, self._log_path, self._wake = options, settings, log_path, wake
        self.process: WorkerProcess | None = None
        self.leases: list[Lease] = []
        self.ready = False
        self._capacity = 1  # how many jobs at once, as the worker says
        self.failed_starts = 0
        self.start_error = ""  # why the worker cannot start, for people
        self._pending_error = ""  # the same, in the words of the one that is just ending
        self._crashes_in_a_row = 0
        self._restart_at = 0.0
        self._idle_since: float | None = None

    @property
    def free_capacity(self) -> int:
        """How many more jobs fit."""
        return self._capacity - len(self.leases)

    def can_accept(self, row: JobRow) -> bool:
        """Whether it can begin this job now."""
        alone = any(other.crashes for other in (row, *(lease.row for lease in self.leases)))
        return self.ready and (not self.leases if alone else self.free_capacity > 0)

    def start(self, now: float) -> None:
        """Start a worker, unless one runs already or the last one crashed too recently."""
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
        settings = self._settings
        self.leases.append(Lease(row, last_seen=now, last_progress=now))
        self._idle_since = None
        job = row.job.model_dump(mode="json", by_alias=True)
        # What is for the asker alone stays here, and joins the result from the row.
        job["deliver"] = {name: job["deliver"][name] for name in ("watched",) if name in job["deliver"]}
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
        dead = self.process.dead  # asked first: then nothing can come after the events below
        for event in self.process.events():
            self._handle_event(event, now)
        if dead:
            self._reap(now)
        elif self.leases:
            self._check_timeouts(now)
        elif self.ready:
            self._idle_since = now if self._idle_since is None else self._idle_since
            if now - self._idle_since > self._options.worker_idle_s:
                log.info("worker %d has had nothing to do and is let go", self.process.pid)
                self.close()

    def extend_leases(self, seconds: float) -> None:
        """Add the time that the daemon was suspended, so that no lease times out for it."""
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
        for other in self.leases:  # the process lives, and they with it
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
                log.warning("job %s does not end when it is asked to; its worker is killed", lease.row.id)
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
        """End every open lease as crashed: nobody knows which of the jobs caused it."""
        fallen = self._open_leases()
        for lease in fallen:
            log.error("job %s: its worker died: %s", lease.row.id, error)
            lease.outcome = Outcome("crashed", error=error, blameless=blameless, shared=len(fallen) > 1)

    def _reap(self, now: float) -> None:
        process, ready = self.process, self.ready
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
