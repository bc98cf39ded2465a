"""What every step of a job is handed beside its data: progress, cancelling, and a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tsbs_daw.core.errors import JobCancelled

Progress = Callable[[float, str], None]

# Where each step begins on the progress bar, and where it ends.
Shares = Mapping[str, tuple[float, float]]

T = TypeVar("T")


class Stopwatch:
    """Sums seconds per step. The time of a step inside another counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def each(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time that making them takes counts for `name`."""
        iterator = iter(values)
        while True:
            with self.step(name):
                try:
                    value = next(iterator)
                except StopIteration:
                    return
            yield value

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True)
class JobContext:
    """One run of one job, as its steps see it.

    Attributes:
        job_id: For the log.
        progress: Called with a fraction and a phrase.
        cancelled: Asked between blocks. May raise LeaseLost.
        timings: Sums the seconds of each step.
        shares: Of the progress bar, by step; see `run`.
    """

    job_id: str
    progress: Progress
    cancelled: Callable[[], bool]
    timings: Stopwatch = field(default_factory=Stopwatch)
    shares: Shares = field(default_factory=dict)

    def report(self, step: str, done: float, message: str) -> None:
        """Report how much of a step is done, as a fraction of that step."""
        begin, end = self.shares[step]
        self.progress(begin + (end - begin) * min(max(done, 0.0), 1.0), message)

    def check_cancelled(self) -> None:
        """Raises: JobCancelled: the job is not wanted any more"""
        if self.cancelled():
            raise JobCancelled("The job was cancelled.")
