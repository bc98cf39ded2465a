"""How far a job is: a bar in a terminal, plain lines in a pipe. Both on stderr; results go to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tsbs_daw.cli.text import one_line

_LINE_EVERY = 0.1


class Report(Protocol):
    def __call__(self, fraction: float, message: str) -> None:
        """fraction: 0..1 of the job; message: what it is at, such as "separating"."""


@contextmanager
def reporting(name: str, *, quiet: bool = False) -> Iterator[Report]:
    """Report on one job, called `name`, until the block ends."""
    if quiet:
        yield lambda fraction, message: None
    elif sys.stderr.isatty():
        with _bar(name) as report:
            yield report
    else:
        yield _Lines(name)


class _Lines:
    """A line when the message changes, and for every tenth of the way."""

    def __init__(self, name: str):
        self._name = one_line(name)
        self._message = ""
        self._next = 0.0

    def __call__(self, fraction: float, message: str) -> None:
        if message == self._message and fraction < self._next:
            return
        self._message, self._next = message, fraction + _LINE_EVERY
        print(f"{self._name}: {message} {fraction:.0%}", file=sys.stderr, flush=True)


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    song = TextColumn("{task.fields[song]}", markup=False)
    message_column = TextColumn("{task.description}", markup=False)
    columns = (song, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), message_column)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0, song=one_line(name))
        yield lambda fraction, message: bars.update(task, completed=fraction, description=message)
