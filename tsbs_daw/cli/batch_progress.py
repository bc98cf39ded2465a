"""A crate, shown: a live table in a terminal, lines in a pipe, JSON for scripts.

What became of a song goes to stdout. How it goes on, and what is not about a song, goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tsbs_daw.cli.formatting import counted, duration, one_line
from tsbs_daw.cli.progress import ROOM_FOR_ALL

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from tsbs_daw.batch.catalogue_document import SongEntry
    from tsbs_daw.batch.progress import View

_FAILURES_SHOWN = 5
_EVERY = 0.1


class _Lines:
    """A line for every song that ends, and on stderr one for every tenth of the crate."""

    def __init__(self) -> None:
        self._there = 0
        self._next = _EVERY

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        if entry.state == "done" and not fresh:
            self._there += 1
        else:
            self._say(_ending(entry), sys.stdout)

    def look(self, view: View) -> None:
        share = view.ended / max(view.total, 1)
        if view.counts["waiting"] and share >= self._next:
            self._next = share + _EVERY
            self._say(_standing(view), sys.stderr)

    def note(self, sentence: str) -> None:
        self._say(one_line(sentence), sys.stderr)

    def finish(self) -> None:
        if self._there:
            self.note(f"{counted(self._there, 'song')} had been done before.")

    def _say(self, line: str, stream: Any) -> None:
        print(line, file=stream, flush=True)


class _Json(_Lines):
    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        shown = {"source", "state", "reason", "duplicate_of", "folder", "sessions", "warnings"}
        self._say(json.dumps({**entry.model_dump(mode="json", include=shown), "fresh": fresh}), sys.stdout)

    def look(self, view: View) -> None:
        pass

    def finish(self) -> None:
        pass


class _Table(_Lines):
    """What has ended scrolls by; below it, the crate, the songs at work, and what failed last."""

    def __init__(self, live: Live):
        super().__init__()
        self._live = live
        self._failures: list[SongEntry] = []

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        if entry.state == "failed":
            self._failures.append(entry)
        super().ended(entry, fresh=fresh)

    def look(self, view: View) -> None:
        self._live.update(_picture(view, self._failures, wide=self._live.console.width >= ROOM_FOR_ALL))

    def _say(self, line: str, stream: Any) -> None:
        if stream is sys.stdout and not sys.stdout.isatty():
            print(line, flush=True)
        else:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def crate_news(*, as_json: bool) -> Iterator[_Lines]:
    """A listener for a crate, until the block ends."""
    if as_json:
        tell = _Json()
        yield tell
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            tell = _Table(live)
            yield tell
    else:
        tell = _Lines()
        yield tell
    tell.finish()


def _picture(view: View, failures: list[SongEntry], *, wide: bool) -> RenderableType:
    """Where there is little room, names have more of it than bars."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = 24 if wide else 8
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=40, overflow="ellipsis", no_wrap=True)
    table.add_column(width=bar)
    table.add_column(no_wrap=True)
    share = sum(song.fraction for song in view.at_work) + view.ended
    table.add_row(
        Text("crate", style="bold"), ProgressBar(view.total, share, width=bar), Text(_standing(view) if wide else "")
    )
    for song in view.at_work:
        name, message = one_line(song.found.relative), one_line(song.message)
        table.add_row(Text(f"  {name}"), ProgressBar(1.0, song.fraction, width=bar), Text(message))
    lines = [Text(one_line(f"  {one.source}: {one.reason}"), style="red") for one in failures[-_FAILURES_SHOWN:]]
    lines = [Text(f"{len(failures)} failed:", style="red"), *lines] if failures else []
    if not wide:
        lines.insert(0, Text(_standing(view)))
    if view.note:
        lines.append(Text(one_line(view.note), style="yellow"))
    return Group(table, *lines)


def _standing(view: View) -> str:
    left = f", about {duration(view.seconds_left)} left" if view.seconds_left is not None else ""
    failed = f", {view.counts['failed']} failed" if view.counts["failed"] else ""
    return f"{view.ended} of {counted(view.total, 'song')}{failed}{left}"


def _ending(entry: SongEntry) -> str:
    if entry.state == "done":
        notes = "".join(f"\n  note: {one_line(warning)}" for warning in entry.warnings)
        return one_line(f"{entry.source}: done -> {entry.folder}") + notes
    return one_line(f"{entry.source}: {entry.state}: {entry.reason}")
