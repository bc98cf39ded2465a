"""How far a job is: a bar in a terminal, plain lines in a pipe. Both on stderr; results go to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tsbs_daw.cli.formatting import one_line

_LINE_EVERY = 0.1
ROOM_FOR_ALL = 80  # columns of a terminal


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
    """Where there is no room for all of it, the name is cut, and the bar and the time left are not shown."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    longest = min(40, max(console.width - 20, 8))
    song = TextColumn("{task.fields[song]}", markup=False, table_column=Column(no_wrap=True, max_width=longest))
    share = TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4))
    message_column = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=10))
    drawn = (BarColumn(), share, TimeRemainingColumn()) if console.width >= ROOM_FOR_ALL else (share,)
    with Progress(song, *drawn, message_column, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0, song=one_line(name))
        yield lambda fraction, message: bars.update(task, completed=fraction, description=message)
