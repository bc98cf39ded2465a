"""The process that owns a device and a loaded model, and runs jobs, one at a time or several at once.

    python -m tsbs_daw.daemon.worker [--runner module:function] [--songs 4] [--device cuda]

Simultaneous jobs have one thread each and share the separator, which combines their chunks in its batches.

Lines of JSON come in on stdin and go out on the original stdout. Anything that a library prints goes to stderr, which
the daemon redirects to the worker's log.

    in   {"job": {...}, "folder": ..., "fence": n, "attempt": n, "settings": {...}}
         {"drop": id, "fence": n}     end this run of the job, because it is cancelled or postponed
    out  {"event": "ready", "songs": 4} or {"event": "unusable", "error"}    once, after loading
         {"event": "alive"}                                      every second, busy or not
         {"event": "progress", "fraction", "message"}            this and the following also have "id" and "fence"
         {"event": "done", "result"}   {"event": "failed", "error", "retryable"}   {"event": "cancelled" or "lost"}
         {"event": "released", "error"}                          not the job's fault; it returns to the queue

The process exits at the end of stdin, whatever it is doing: the daemon is gone, and the next one restarts the job.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from tsbs_daw.contracts.job import Job, Result
from tsbs_daw.core.child import keep_stdout
from tsbs_daw.core.config import PIPELINE, Settings
from tsbs_daw.core.errors import ClusterUnavailable, DeviceLost, JobCancelled, LeaseLost, TsbsDawError, described, shown
from tsbs_daw.core.files import disk_is_full, may_pass

log = logging.getLogger(__name__)

ALIVE_EVERY_S = 1.0

Runner = Callable[..., Result]


class Channel:
    """Stream of events to the daemon. Thread-safe."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._lock = stream, threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}).encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


class Assignment:
    """A job under one lease. It sends the job's events and knows whether the job was cancelled."""

    def __init__(self, order: dict[str, Any], channel: Channel, dropped: set[tuple[str, int]]):
        self.job = Job.from_json(json.dumps(order["job"]), "the worker's order")
        self.fence, self.attempt = int(order["fence"]), int(order["attempt"])
        self.folder = Path(order["folder"])
        self.settings = Settings.from_texts(order["settings"])
        self._channel, self._dropped = channel, dropped

    def send(self, event: str, **values: Any) -> None:
        self._channel.send(event, id=self.job.id, fence=self.fence, **values)

    def progress(self, fraction: float, message: str) -> None:
        self.send("progress", fraction=min(max(float(fraction), 0.0), 1.0), message=str(message))

    def cancelled(self) -> bool:
        """Return whether the user or the daemon has asked the job to end.

        Raises:
            LeaseLost: Another worker has the job now, so this run must not publish anything.
        """
        try:
            current = int((self.folder / "fence").read_text(encoding="ascii"))
        except (OSError, ValueError):
            current = -1  # the folder was moved to done/
        if current != self.fence:
            raise LeaseLost(f"The job {self.job.id} was leased to another worker; this run ends without a result.")
        return (self.job.id, self.fence) in self._dropped or (self.folder / "cancel").exists()


class Worker:
    """Runs the jobs that arrive on stdin.

    Args:
        channel: Stream of events to the daemon.
        runner: Runs one job.
        songs: Number of jobs to run at once.
    """

    def __init__(self, channel: Channel, runner: Runner, songs: int = 1):
        self._channel, self._runner, self._songs = channel, runner, songs
        self._orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._running: set[Assignment] = set()
        self._dropped: set[tuple[str, int]] = set()

    def listen(self, stream: BinaryIO) -> None:
        """Read orders until the daemon is gone. Exits the process if a job is running then."""
        for line in stream:
            order = json.loads(line)
            if "drop" in order:
                self._dropped.add((order["drop"], order["fence"]))
            else:
                self._orders.put(order)
        if self._running:
            os._exit(0)  # the daemon is gone, so nobody can receive the job's result
        self._orders.put(None)

    def run(self) -> None:
        """Run jobs until there are no more orders. With one job at a time, it runs in the main thread."""
        others = [threading.Thread(target=self._take_orders, daemon=True) for _ in range(1, self._songs)]
        for thread in others:
            thread.start()
        self._take_orders()
        for thread in others:
            thread.join()

    def _take_orders(self) -> None:
        while (order := self._orders.get()) is not None:
            assignment = Assignment(order, self._channel, self._dropped)
            self._running.add(assignment)
            threading.current_thread().name = assignment.job.id  # shown on every line of the log
            try:
                run_assignment(assignment, self._runner)
            finally:
                self._running.discard(assignment)
        self._orders.put(None)  # for the next thread


def run_assignment(assignment: Assignment, runner: Runner) -> None:
    """Run a job and send its outcome; every exception becomes an event with one sentence."""
    job = assignment.job
    try:
        result = runner(
            job,
            settings=assignment.settings,
            fence=assignment.fence,
            attempt=assignment.attempt,
            progress=assignment.progress,
            cancelled=assignment.cancelled,
        )
        assignment.send("done", result=json.loads(result.to_json()))
    except JobCancelled:
        assignment.send("cancelled")
    except LeaseLost as error:
        log.warning("job %s: %s", job.id, error)
        assignment.send("lost")
    except DeviceLost:
        log.exception("job %s: the device is lost; this process exits", job.id)
        os._exit(1)  # a new process can use the device again; the daemon requeues the jobs
    except ClusterUnavailable as error:
        log.warning("job %s waits: %s", job.id, error)
        assignment.send("released", error=str(error))
    except TsbsDawError as error:
        log.info("job %s failed", job.id, exc_info=True)
        assignment.send("failed", error=str(error), retryable=error.retryable)
    except (Exception, SystemExit) as error:
        log.exception("job %s failed", job.id)
        assignment.send("failed", error=_unexpected(job, error), retryable=may_pass(error))


def _unexpected(job: Job, error: BaseException) -> str:
    if disk_is_full(error):
        return f"The disk is full, so {job.source.path.name} is unfinished. Free some space; the job is retried."
    if isinstance(error, OSError) and may_pass(error):
        what = shown(error.filename) if error.filename else "a file"
        return (
            f"{job.source.path.name} could not be finished because {what} is unavailable ({error.strerror}). "
            "Check its disk and permissions; the job is retried."
        )
    if isinstance(error, MemoryError):
        return f"Not enough memory to separate {job.source.path.name}. Close other programs and retry the job."
    return (
        f"Unexpected error while separating {job.source.path.name} ({described(error)}). "
        "See the worker's log for details; `tsbs-daw jobs retry` runs the job again."
    )


def load_runner(name: str) -> Runner:
    """Import the runner `module:function`. For the pipeline, this loads torch, which takes seconds."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def songs_for(runner: Runner, asked: int, device: str) -> int:
    """Return the number of jobs to run at once: `asked`; if 0, what the runner's module suggests, or 1."""
    suited = getattr(sys.modules[runner.__module__], "songs_at_once", None)
    return asked or (suited(device) if suited else 1)


def _end_at_once(failure: threading.ExceptHookArgs) -> None:
    """Exit the process if a thread fails, so that the daemon notices and no job waits forever."""
    log.error("a thread of the worker failed", exc_info=failure.exc_value)
    os._exit(1)


def _stay_alive(channel: Channel) -> None:
    """Send "alive" every second. A process that is stopped or swapped out cannot, and its lease expires."""
    pause = threading.Event()
    while not pause.wait(ALIVE_EVERY_S):
        try:
            channel.send("alive")
        except OSError:
            os._exit(0)  # the daemon is gone


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tsbs_daw.daemon.worker", description="Started by the daemon.")
    parser.add_argument("--runner", default=PIPELINE, help=argparse.SUPPRESS)
    parser.add_argument("--songs", type=int, default=0, help="Number of jobs to run at once. 0 lets the runner choose.")
    parser.add_argument("--device", default="auto", help="Device that the jobs will use.")
    options = parser.parse_args(arguments)
    line = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=line, stream=sys.stderr)
    faulthandler.enable()  # writes the stack of a crash in a codec or a driver to the log
    channel = Channel(keep_stdout())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the daemon as well, which handles it
    threading.excepthook = _end_at_once
    threading.Thread(target=_stay_alive, args=(channel,), daemon=True).start()
    try:
        runner = load_runner(options.runner)
        songs = songs_for(runner, options.songs, options.device)
    except Exception as error:
        log.exception("the worker cannot start")
        what = f"The separation worker cannot start ({described(error)}). Run `tsbs-daw doctor` to see what is missing."
        channel.send("unusable", error=what)
        return 1
    channel.send("ready", songs=songs)
    worker = Worker(channel, runner, songs)
    threading.Thread(target=worker.listen, args=(sys.stdin.buffer,), daemon=True).start()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
