"""A worker process as the daemon sees it: orders go in, events come out, and death is noticed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsbs_daw.core import machine

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
                [sys.executable, "-m", "tsbs_daw.daemon.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=worker_environment(os.environ),
            )
        self._reader = threading.Thread(target=self._read, name=f"worker-{self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended, and everything it said before has been read."""
        return self._process.poll() is not None and not self._reader.is_alive()

    @property
    def how_it_ended(self) -> str:
        """For people: "signal SIGSEGV" or "exit code 1"."""
        code = self._process.poll()
        if code is None:
            return "still running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    @property
    def was_told_to_end(self) -> bool:
        """Whether someone ended it politely, as a system that shuts down does: not the job's fault."""
        return self._process.poll() == -signal.SIGTERM

    def send(self, order: dict[str, Any]) -> None:
        """A dead worker hears nothing; `dead` tells."""
        with contextlib.suppress(BrokenPipeError, OSError, ValueError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

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
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(patience_s)
        if not self._reader.is_alive():  # else a grandchild still holds the pipe; it is left to it
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                log.warning("worker %d said something that is no event: %r", self.pid, line[:200])
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
