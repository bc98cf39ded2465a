"""Progress of running jobs: bars in a terminal, lines in a pipe, JSON for scripts, and desktop notifications.

Finished jobs are printed to stdout; progress and other messages to stderr.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from tsbs_daw.cli.console import contents, one_line, song_label

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tsbs_daw.queue.jobs import Event

FULL_WIDTH = 80  # columns that a terminal needs for bars and the time left
_LINE_EVERY = 0.1  # fraction of a job between two lines

# ---- one job, in this process ----------------------------------------------------------------------------------------


class Report(Protocol):
    """Reports progress: the fraction done, 0 to 1, and the current step, such as "separating"."""

    def __call__(self, fraction: float, message: str) -> None: ...


@contextlib.contextmanager
def job_progress(name: str, *, quiet: bool = False) -> Iterator[Report]:
    """Show the progress of a job under a name: a bar in a terminal, lines in a pipe."""
    if quiet:
        yield lambda fraction, message: None
    elif sys.stderr.isatty():
        with _job_bar(name) as report:
            yield report
    else:
        yield _JobLines(name)


class _JobLines:
    """Prints a line when the message changes, and for every tenth of the job."""

    def __init__(self, name: str):
        self._name = one_line(name)
        self._message = ""
        self._next = 0.0

    def __call__(self, fraction: float, message: str) -> None:
        if message == self._message and fraction < self._next:
            return
        self._message, self._next = message, fraction + _LINE_EVERY
        print(f"{self._name}: {message} {fraction:.0%}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _job_bar(name: str) -> Iterator[Report]:
    """Show a bar. In a narrow terminal, the name is truncated, and the bar and the time left are omitted."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    longest = min(40, max(console.width - 20, 8))
    song = TextColumn("{task.fields[song]}", markup=False, table_column=Column(no_wrap=True, max_width=longest))
    share = TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4))
    message_column = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=10))
    wide = console.width >= FULL_WIDTH
    columns: list[ProgressColumn] = [BarColumn(), share, TimeRemainingColumn()] if wide else [share]
    with Progress(song, *columns, message_column, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0, song=one_line(name))
        yield lambda fraction, message: bars.update(task, completed=fraction, description=message)


# ---- the events of a daemon ------------------------------------------------------------------------------------------

_ENDINGS = ("done", "duplicate", "failed", "dead", "cancelled", "superseded")


class Listener:
    """Base of the daemon's listeners: prints finished jobs, and leaves progress to its subclasses."""

    def __call__(self, event: Event) -> None:
        if event.kind in _ENDINGS:
            self._end(event)
            self._print(_ending(event), sys.stdout)
        elif event.kind in ("started", "progress"):
            self._progress(event)
        elif event.kind != "queued":
            self._print(f"{_about(event)}{event.kind}: {one_line(event.message)}".rstrip(": "), sys.stderr)

    def _print(self, line: str, stream: Any) -> None:
        print(line, file=stream, flush=True)

    def _progress(self, event: Event) -> None:
        raise NotImplementedError

    def _end(self, event: Event) -> None:
        raise NotImplementedError


class _EventLines(Listener):
    """Prints a line when the message changes, and for every tenth of a job."""

    def __init__(self) -> None:
        self._last_reported: dict[str, tuple[str, float]] = {}

    def _progress(self, event: Event) -> None:
        message, fraction = self._last_reported.get(event.id, ("", -1.0))
        if event.message == message and event.fraction < fraction + _LINE_EVERY:
            return
        self._last_reported[event.id] = (event.message, event.fraction)
        self._print(f"{_about(event)}{event.message or event.kind} {event.fraction:.0%}", sys.stderr)

    def _end(self, event: Event) -> None:
        self._last_reported.pop(event.id, None)


class _EventBars(Listener):
    """Shows a bar for each running job, with finished jobs above the bars."""

    def __init__(self, bars: Progress):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def _progress(self, event: Event) -> None:
        if event.id not in self._tasks:
            self._tasks[event.id] = self._bars.add_task(
                "", total=1.0, song=one_line(song_label(event.song, event.file))
            )
        self._bars.update(self._tasks[event.id], completed=event.fraction, description=event.message)

    def _end(self, event: Event) -> None:
        task = self._tasks.pop(event.id, None)
        if task is not None:
            self._bars.remove_task(task)

    def _print(self, line: str, stream: Any) -> None:
        if stream is sys.stdout and not sys.stdout.isatty():
            print(line, flush=True)
        else:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _EventJson(Listener):
    def __call__(self, event: Event) -> None:
        document: dict[str, Any] = {"event": event.kind, "id": event.id, "song": event.song, "file": event.file}
        document |= {"fraction": round(event.fraction, 4), "message": event.message}
        document["result"] = json.loads(event.result.to_json()) if event.result else None
        self._print(json.dumps(document), sys.stdout)


@contextlib.contextmanager
def listening(*, as_json: bool) -> Iterator[Listener]:
    """Provide a listener for the daemon: bars in a terminal, lines in a pipe, JSON for scripts."""
    if as_json:
        yield _EventJson()
    elif sys.stderr.isatty():
        with _event_bars() as bars:
            yield _EventBars(bars)
    else:
        yield _EventLines()


def _event_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    song = TextColumn("{task.fields[song]}", markup=False)
    message = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True)
    return Progress(song, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), message, console=console)


def _ending(event: Event) -> str:
    from tsbs_daw.contracts.manifest import read_manifest

    result = event.result
    where = f" -> {one_line(str(result.folder))}" if result and result.folder else ""
    why = f": {one_line(event.message)}" if event.message else ""
    manifest = read_manifest(result.folder) if result and result.folder else None
    written = f"\n  {contents(manifest)}" if manifest else ""
    notes = "".join(f"\n  note: {one_line(warning)}" for warning in (result.warnings if result else ()))
    return f"{_about(event)}{event.kind}{where}{why}{written}{notes}"


def _about(event: Event) -> str:
    return f"{one_line(song_label(event.song, event.file))}: " if event.song else ""


# ---- desktop notifications, through the system's own program ---------------------------------------------------------

_GATHER_S = 1.0  # songs that end within this time share one notification
_LIMIT_S = 10.0
_NAMES_SHOWN = 3

_APPLESCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
# Texts are passed to PowerShell as environment variables, so that the name of a song is never run as code.
_POWERSHELL = """
$manager = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime]
$kind = [Windows.UI.Notifications.ToastTemplateType, Windows.UI.Notifications, ContentType = WindowsRuntime]
$xml = $manager::GetTemplateContent($kind::ToastText02)
$texts = $xml.GetElementsByTagName('text')
$null = $texts.Item(0).AppendChild($xml.CreateTextNode($env:TSBS_DAW_TITLE))
$null = $texts.Item(1).AppendChild($xml.CreateTextNode($env:TSBS_DAW_TEXT))
$toast = New-Object Windows.UI.Notifications.ToastNotification $xml
$manager::CreateToastNotifier('tsbs-daw').Show($toast)
"""


def notice_command(title: str, text: str, platform: str = sys.platform) -> list[str] | None:
    """Return the command that shows a notification; None if the system has none.

    Its environment must contain TSBS_DAW_TITLE and TSBS_DAW_TEXT.
    """
    if platform == "darwin":
        program, arguments = "osascript", [part for line in _APPLESCRIPT for part in ("-e", line)] + [title, text]
    elif platform == "win32":
        program, arguments = "powershell", ["-NoProfile", "-NonInteractive", "-Command", _POWERSHELL]
    else:
        program, arguments = "notify-send", ["--app-name=tsbs-daw", "--", title, html.escape(text, quote=False)]
    found = shutil.which(program)
    return [found, *arguments] if found else None


class Notices:
    """A listener for the daemon that forwards every event and shows notifications. A context manager."""

    def __init__(self, listener: Callable[[Event], None]):
        self._listener = listener
        self._ended: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __enter__(self) -> Notices:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.put(None)
        self._thread.join(_LIMIT_S + _GATHER_S)

    def __call__(self, event: Event) -> None:
        self._listener(event)
        if event.kind in ("done", "failed", "dead"):
            self._ended.put((event.kind, one_line(event.song or event.id)))

    def _run(self) -> None:
        while (first := self._ended.get()) is not None:
            time.sleep(_GATHER_S)
            songs, last = [first], False
            with contextlib.suppress(queue.Empty):
                while (ended := self._ended.get_nowait()) is not None:
                    songs.append(ended)
                last = True
            show_notice(*notice_wording(songs))
            if last:
                return


def notice_wording(songs: list[tuple[str, str]]) -> tuple[str, str]:
    """Return title and text of a notification.

    Args:
        songs: For each song that ended, the event's kind and the song's name.
    """
    done = [song for kind, song in songs if kind == "done"]
    failed = [song for kind, song in songs if kind != "done"]
    parts = [f"{len(songs)} {what}" for songs, what in ((done, "done"), (failed, "failed")) if songs]
    title = f"Separation {'done' if done else 'failed'}" if len(songs) == 1 else f"Songs: {', '.join(parts)}"
    names = failed + done
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return title, ", ".join(names[:_NAMES_SHOWN]) + more


def show_notice(title: str, text: str) -> None:
    """Show a notification if the system has a program for it. Failures are ignored."""
    command = notice_command(title, text)
    if command is None:
        return
    environment = {**os.environ, "TSBS_DAW_TITLE": title, "TSBS_DAW_TEXT": text}
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment, timeout=_LIMIT_S, check=False)
