"""What the daemon tells, shown: bars in a terminal, lines in a pipe, JSON for scripts.

Endings go to stdout. Progress, and what is not about a song, goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tsbs_daw.cli.formatting import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tsbs_daw.queue.events import Event

_ENDINGS = ("done", "duplicate", "failed", "dead", "cancelled", "superseded")
_EVERY = 0.1


class News:
    """A daemon's listener. Says what ended, and lets its `_progress` show what goes on."""

    def __call__(self, event: Event) -> None:
        if event.kind in _ENDINGS:
            self._end(event)
            self._say(_ending(event), sys.stdout)
        elif event.kind in ("started", "progress"):
            self._progress(event)
        elif event.kind != "queued":
            self._say(f"{_about(event)}{event.kind}: {one_line(event.message)}".rstrip(": "), sys.stderr)

    def _say(self, line: str, stream: Any) -> None:
        print(line, file=stream, flush=True)

    def _progress(self, event: Event) -> None:
        raise NotImplementedError

    def _end(self, event: Event) -> None:
        raise NotImplementedError


class _Lines(News):
    """A line for every new phrase and every tenth of the way."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def _progress(self, event: Event) -> None:
        message, fraction = self._said.get(event.id, ("", -1.0))
        if event.message == message and event.fraction < fraction + _EVERY:
            return
        self._said[event.id] = (event.message, event.fraction)
        self._say(f"{_about(event)}{event.message or event.kind} {event.fraction:.0%}", sys.stderr)

    def _end(self, event: Event) -> None:
        self._said.pop(event.id, None)


class _Bars(News):
    """A bar for every job at work, and what has ended above them."""

    def __init__(self, bars: Progress):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def _progress(self, event: Event) -> None:
        if event.id not in self._tasks:
            self._tasks[event.id] = self._bars.add_task("", total=1.0, song=one_line(event.song))
        self._bars.update(self._tasks[event.id], completed=event.fraction, description=event.message)

    def _end(self, event: Event) -> None:
        task = self._tasks.pop(event.id, None)
        if task is not None:
            self._bars.remove_task(task)

    def _say(self, line: str, stream: Any) -> None:
        if stream is sys.stdout and not sys.stdout.isatty():
            print(line, flush=True)
        else:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Json(News):
    def __call__(self, event: Event) -> None:
        found: dict[str, Any] = {"event": event.kind, "id": event.id, "song": event.song}
        found |= {"fraction": round(event.fraction, 4), "message": event.message}
        found["result"] = json.loads(event.result.to_json()) if event.result else None
        self._say(json.dumps(found), sys.stdout)


@contextmanager
def news(*, as_json: bool) -> Iterator[News]:
    if as_json:
        yield _Json()
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield _Bars(bars)
    else:
        yield _Lines()


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    song = TextColumn("{task.fields[song]}", markup=False)
    message = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True)
    return Progress(song, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), message, console=console)


def _ending(event: Event) -> str:
    result = event.result
    where = f" -> {one_line(str(result.folder))}" if result and result.folder else ""
    why = f": {one_line(event.message)}" if event.message else ""
    notes = "".join(f"\n  note: {one_line(warning)}" for warning in (result.warnings if result else ()))
    return f"{_about(event)}{event.kind}{where}{why}{notes}"


def _about(event: Event) -> str:
    return f"{one_line(event.song)}: " if event.song else ""
