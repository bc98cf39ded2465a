"""Ends the daemon that REAPER started once nothing has been asked of it for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path


def is_idle(spool: Path) -> bool:
    """Whether no job waits in a spool, or is under way. Half-written requests do not count."""
    return not any(next((spool / place).glob("*/job.json"), None) for place in ("inbox", "jobs"))


class IdleWatch:
    """Calls `stop` once a spool has been idle for `limit_s` seconds, from a thread of its own.

    Args:
        spool: the folder with the jobs
        limit_s: how long it may be idle
        stop: may be called from another thread
        every_s: how often it looks
    """

    def __init__(self, spool: Path, limit_s: float, stop: Callable[[], object], every_s: float = 5.0):
        self._spool, self._limit_s, self._stop, self._every_s = spool, limit_s, stop, every_s
        self._ended = threading.Event()
        self._busy_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="idle watch", daemon=True)

    def __enter__(self) -> IdleWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def look(self, now: float) -> bool:
        """Args: now: seconds of the monotonic clock. Returns: whether it has been idle for too long"""
        if not is_idle(self._spool):
            self._busy_at = now
        return now - self._busy_at >= self._limit_s

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            if self.look(time.monotonic()):
                self._stop()
                return
