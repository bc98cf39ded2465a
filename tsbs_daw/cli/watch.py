"""`tsbs-daw watch`: run the daemon, for folders and for everything that is submitted.

Finished jobs go to stdout. Progress, and whatever is not about a song, goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.console import contents, one_line, song_label

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tsbs_daw.contracts.treatment import Treatment
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.locks import HeldElsewhere
    from tsbs_daw.queue.jobs import Event
    from tsbs_daw.watch.folders import WatchFolder

Folders = Annotated[list[Path] | None, typer.Argument(help="Folders to watch.", metavar="FOLDER")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Output folder. Each song gets a folder of its own in it.")
]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file that lists several folders: `folders: [{path: ..., output: ..., preset: ...}]`."),
]
Once = Annotated[bool, typer.Option("--once", help="Separate what is there, then exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON per event.")]
Notify = Annotated[
    bool, typer.Option("--notify", help="Show a notice on the desktop when a song is done or has failed.")
]
Web = Annotated[bool, typer.Option("--web", help="Serve the page in the browser, too, and print its link.")]

After = Annotated[
    str | None,
    typer.Option(
        help="Fate of a song's file once its stems are published and verified: `keep`, `move PATH` or `delete`. "
        "Default: keep.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Separate only files that match this pattern, such as `*.wav`. May be repeated."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave out files and folders that match this pattern, such as `demos`. May be repeated."),
]
OpenHours = Annotated[
    str | None,
    typer.Option(
        help="Start songs of the folders only in these hours, local time, such as `22:00-06:00`. Songs that a DAW "
        "sends start at any time."
    ),
]


@dataclass(frozen=True)
class Rules:
    """What the folders ask for beside the treatment of their songs."""

    after: After = None
    include: Include = None
    exclude: Exclude = None
    hours: OpenHours = None

    def values(self) -> dict[str, Any]:
        """Fields of a `WatchFolder`. Raises: UsageError: a value is not allowed"""
        from tsbs_daw.core.errors import UsageError
        from tsbs_daw.watch.rules import After, Hours, Patterns, check_pattern

        name = ""
        try:
            name = "after"
            after = After.parse(self.after if self.after is not None else "keep", Path.cwd())
            name = "hours"
            hours = Hours.parse(self.hours) if self.hours is not None else None
            name = "include"
            include = tuple(map(check_pattern, self.include or ()))
            name = "exclude"
            exclude = tuple(map(check_pattern, self.exclude or ()))
        except ValueError as error:
            raise UsageError(f"Invalid --{name}: {error}.") from error
        return {"after": after, "hours": hours, "patterns": Patterns(include, exclude)}


_ENDINGS = ("done", "duplicate", "failed", "dead", "cancelled", "superseded")
_EVERY = 0.1


@options.grouped
def command(
    folders: Folders = None,
    *,
    out: Out = None,
    treatment: options.Treatment,
    salvage: options.Salvage = False,
    rules: Rules,
    config: Config = None,
    compute: options.Compute,
    sharing: options.Sharing,
    once: Once = False,
    as_json: Json = False,
    web: Web = False,
    notify: Notify = False,
    changes: options.Changes,
) -> int:
    """Watch folders and separate every song in them.

    Also separates what `tsbs-daw submit` and the DAW send; without a folder, only that. Songs in subfolders go to
    subfolders of the same name. The originals stay as they are unless --after says otherwise. Press Ctrl-C to stop;
    unfinished songs resume at the next start.

    Example: tsbs-daw watch ~/Music/drop --out ~/Music/stems --preset karaoke
    """
    from tsbs_daw.cli.notices import Notices
    from tsbs_daw.cli.web import beside_daemon
    from tsbs_daw.contracts.job import State
    from tsbs_daw.contracts.treatment import Treatment
    from tsbs_daw.core.locks import running_daemon
    from tsbs_daw.daemon.daemon import Daemon
    from tsbs_daw.queue.options import DaemonOptions
    from tsbs_daw.watch.folders import load_folders

    settings = sharing.settings(compute.settings())
    if config is not None:
        _refuse_beside_config(folders, out, treatment, salvage, changes, rules)
        chosen = load_folders(config.expanduser())
    else:
        asked = Treatment(**vars(treatment.checked()), salvage=salvage, delivery=changes.options())
        chosen = _folders(folders or [], out, asked, rules)
    _check_treatments(chosen, settings.presets)
    if not once and (owner := running_daemon(settings.home)):
        return _hand_over(owner, chosen, settings)
    daemon_options = DaemonOptions(songs_at_once=sharing.songs_at_once)
    with (
        listening(as_json=as_json) as listener,
        Notices(listener) if notify else nullcontext(listener) as told,
        Daemon(settings, chosen, options=daemon_options, listener=told, once=once) as daemon,
        beside_daemon(out, wanted=web),
    ):
        if not as_json:
            _greet(chosen, once=once)
        daemon.run()
        ended = daemon.lifecycle.ended
        incomplete = daemon.incomplete
    return 1 if once and (ended[State.FAILED] + ended[State.DEAD] or incomplete) else 0


def _hand_over(owner: HeldElsewhere, chosen: tuple[WatchFolder, ...], settings: Settings) -> int:
    """A daemon runs already: let it watch these folders too. Raises: DaemonError: it cannot"""
    from tsbs_daw.daemon.takeover import hand_over

    if chosen:
        hand_over(settings.home, settings.spool, chosen)
    for folder in chosen:
        typer.echo(f"The daemon that runs ({owner}) watches {folder.path} until it ends.")
    if chosen:
        typer.echo("List the folder in its YAML file to keep it; options that are not about folders are those it has.")
    else:
        typer.echo(f"A daemon runs already ({owner}). It separates whatever is submitted.")
    return 0


def _refuse_beside_config(
    folders: list[Path] | None,
    out: Path | None,
    treatment: options.Treatment,
    salvage: bool,
    changes: options.Changes,
    rules: Rules,
) -> None:
    """Raises: UsageError: the file says for each folder what these options would say for all of them"""
    from tsbs_daw.core.errors import UsageError

    if folders:
        raise UsageError("Use either folders or --config, not both. The folders can be listed in the file.")
    stated = (
        out is not None,
        salvage,
        treatment != options.Treatment(),
        changes != options.Changes(),
        rules != Rules(),
    )
    if any(stated):
        raise UsageError(
            "--config lists output, preset, model, delivery and rules of every folder, so that they cannot be given "
            "beside it. Write them into the file."
        )


def _folders(folders: list[Path], out: Path | None, asked: Treatment, rules: Rules) -> tuple[WatchFolder, ...]:
    """Raises: UsageError: folders without --out, or not there; nothing can be written to --out; or an invalid rule"""
    from tsbs_daw.core.errors import UsageError, shown
    from tsbs_daw.watch.folders import WatchFolder

    if not folders:
        return ()
    if out is None:
        raise UsageError("--out is missing: the folder to write the stems to.")
    for folder in folders:
        if not folder.expanduser().is_dir():
            raise UsageError(f"{shown(folder)} is not a folder. Create it, or check its name.")
    output = options.output_folder(out)
    values = rules.values()
    return tuple(WatchFolder(options.absolute(folder), output, asked, **values) for folder in folders)


def _check_treatments(folders: tuple[WatchFolder, ...], presets: Path) -> None:
    """Report a mistake now rather than with the first song. Raises: UsageError: delivery; PresetError"""
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.presets.preset import load_preset

    treatments = [folder.treatment for folder in folders]
    treatments += [rule.treatment for folder in folders for rule in folder.subfolders]
    for treatment in treatments:
        delivery = load_preset(treatment.preset, presets).delivery.overridden_by(treatment.delivery)
        if problem := delivery.problem():
            raise UsageError(f"Invalid delivery options: {problem}.")


def _greet(folders: tuple[WatchFolder, ...], *, once: bool) -> None:
    for folder in folders:
        asked = folder.treatment
        typer.echo(f"Watching {folder.path} -> {folder.output} (preset {asked.preset}, model {asked.model})", err=True)
    if not folders:
        typer.echo("Waiting for submitted jobs.", err=True)
    if not once:
        typer.echo("Press Ctrl-C to stop. Unfinished songs resume at the next start.", err=True)


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


class _Lines(Listener):
    """Prints a line when the message changes, and for every tenth of a job."""

    def __init__(self) -> None:
        self._last_reported: dict[str, tuple[str, float]] = {}

    def _progress(self, event: Event) -> None:
        message, fraction = self._last_reported.get(event.id, ("", -1.0))
        if event.message == message and event.fraction < fraction + _EVERY:
            return
        self._last_reported[event.id] = (event.message, event.fraction)
        self._print(f"{_about(event)}{event.message or event.kind} {event.fraction:.0%}", sys.stderr)

    def _end(self, event: Event) -> None:
        self._last_reported.pop(event.id, None)


class _Bars(Listener):
    """Shows a bar for each running job, and finished jobs above them."""

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


class _Json(Listener):
    def __call__(self, event: Event) -> None:
        document: dict[str, Any] = {"event": event.kind, "id": event.id, "song": event.song, "file": event.file}
        document |= {"fraction": round(event.fraction, 4), "message": event.message}
        document["result"] = json.loads(event.result.to_json()) if event.result else None
        self._print(json.dumps(document), sys.stdout)


@contextmanager
def listening(*, as_json: bool) -> Iterator[Listener]:
    """A listener for the daemon: bars in a terminal, lines in a pipe, JSON for scripts."""
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
