"""`tsbs-daw batch`: prepare a folder of songs for remixing.

Finished songs are printed to stdout; progress and other messages to stderr.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import options
from tsbs_daw.cli.console import counted, duration, one_line
from tsbs_daw.cli.progress import FULL_WIDTH

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from tsbs_daw.batch.catalogue import Exports
    from tsbs_daw.batch.plan import BatchRequest
    from tsbs_daw.batch.run import Batch, BatchProgress
    from tsbs_daw.contracts.catalogue import Catalogue, SongEntry

DEFAULT_TREATMENT = options.Treatment(preset="crate")

Folder = Annotated[Path, typer.Argument(help="Folder of songs, including its subfolders.", metavar="FOLDER")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder, for the songs and the catalogue.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON per song.")]

_FAILURES_SHOWN = 5
_EVERY = 0.1


@options.grouped
def command(
    folder: Folder,
    *,
    out: Out,
    treatment: options.Treatment = DEFAULT_TREATMENT,
    salvage: options.Salvage = False,
    compute: options.Compute,
    sharing: options.Sharing,
    as_json: Json = False,
    changes: options.Changes,
) -> int:
    """Prepare a folder of songs for remixing.

    Each song gets a folder with its stems, tempo, key and sessions. The whole folder gets one session of all songs and
    a catalogue: catalogue.html to browse and listen, .csv and .json. The preset decides how files are named, how loud
    they are and what else is written; flags override it for one run.

    A song that fails does not stop the others; the catalogue says why it failed. Rerun the command after you
    add songs, press Ctrl-C or lose power: it does only what is missing or changed, and retries what failed. With other
    flags, nothing is separated again; songs get new folders beside the old ones. A running daemon does the work;
    without one, it is done here, --at-once songs at a time.

    Example: tsbs-daw batch ~/Music/crate --out ~/Music/remix --format flac24 --loops 4,8
    """
    from tsbs_daw.batch.catalogue import write_exports
    from tsbs_daw.batch.run import Batch
    from tsbs_daw.core.config import DaemonOptions
    from tsbs_daw.models.registry import members, resolve
    from tsbs_daw.presets.preset import load_preset

    settings = sharing.settings(compute.settings())
    request = _request(folder, out, treatment, salvage, changes)
    request.delivery(settings.presets)
    passes = load_preset(request.treatment.preset, settings.presets).passes
    for model in (request.treatment.model, *(step.model for step in passes)):
        for name in members(model):
            resolve(name, settings)  # report a typo now rather than for every song
    started_s = time.monotonic()
    with batch_progress(as_json=as_json) as progress, _signals_as_interrupts():
        batch = Batch(request, settings, options=DaemonOptions(songs_at_once=sharing.songs_at_once), listener=progress)
        try:
            catalogue = batch.run()
        except KeyboardInterrupt:
            progress.note(_interrupted(batch))
            raise
        exports = write_exports(catalogue, request.out, settings.presets)
        for problem in exports.problems:
            progress.note(problem)
    _sum_up(catalogue, exports, time.monotonic() - started_s, batch.without_analysis, as_json=as_json)
    return 1 if exports.problems or any(song.state == "failed" for song in catalogue.songs) else 0


def _request(
    folder: Path, out: Path, treatment: options.Treatment, salvage: bool, changes: options.Changes
) -> BatchRequest:
    """Build the request from the options.

    Raises:
        UsageError: The stage is unknown, the delivery options are invalid, or --out cannot be written to.
    """
    from tsbs_daw.batch.plan import BatchRequest
    from tsbs_daw.contracts.job import Treatment

    places = options.absolute(folder), options.output_folder(out)
    return BatchRequest(*places, Treatment(**vars(treatment.checked()), salvage=salvage, delivery=changes.options()))


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and a closed terminal stop a batch like Ctrl-C. Ignored signals stay ignored, for nohup."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(batch: Batch) -> str:
    ended, total = batch.ended
    summary = f"{ended} of {total} songs are finished." if total else "No song was started."
    if batch.other_daemon is not None:
        summary += f" The running daemon (process {batch.other_daemon}) continues with the songs submitted to it."
    return f"{summary} Nothing is lost: rerun the command to resume."


def _sum_up(
    catalogue: Catalogue, exports: Exports, took_s: float, without_analysis: list[str], *, as_json: bool
) -> None:
    counts = dict.fromkeys(("done", "failed", "duplicate"), 0)
    for song in catalogue.songs:
        counts[song.state] += 1
    if as_json:
        files = {name: str(path) for name, path in exports.files.items()}
        typer.echo(json.dumps({**counts, "without_analysis": without_analysis, "took_s": round(took_s, 1), **files}))
        return
    typer.echo(
        f"{counted(len(catalogue.songs), 'song')} in {duration(took_s)}: {counts['done']} done, "
        f"{counts['failed']} failed, {counted(counts['duplicate'], 'duplicate')}."
    )
    for song in catalogue.songs:
        if song.state == "failed":
            typer.echo(one_line(f"  {song.source}: {song.reason}"))
    for name, path in exports.files.items():
        typer.echo(one_line(f"{name}: {path}"))
    if without_analysis:
        many = counted(len(without_analysis), "song")
        typer.echo(f"{many} without an analysis, because it failed. Rerun the command to try again.")
    if counts["failed"]:
        typer.echo("Fix the problems and rerun the command; it does only what is missing.")


class _Lines:
    """Prints a line for each finished song, and one on stderr for every tenth of the batch."""

    def __init__(self) -> None:
        self._there = 0
        self._next = _EVERY

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        if entry.state == "done" and not fresh:
            self._there += 1
        else:
            self._print(_ending(entry), sys.stdout)

    def update(self, progress: BatchProgress) -> None:
        share = progress.ended / max(progress.total, 1)
        if progress.counts["waiting"] and share >= self._next:
            self._next = share + _EVERY
            self._print(_standing(progress), sys.stderr)

    def note(self, sentence: str) -> None:
        self._print(one_line(sentence), sys.stderr)

    def finish(self) -> None:
        if self._there:
            self.note(f"{counted(self._there, 'song')} already done.")

    def _print(self, line: str, stream: Any) -> None:
        print(line, file=stream, flush=True)


class _Json(_Lines):
    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        shown = {"source", "state", "reason", "duplicate_of", "folder", "sessions", "warnings"}
        self._print(json.dumps({**entry.model_dump(mode="json", include=shown), "fresh": fresh}), sys.stdout)

    def update(self, progress: BatchProgress) -> None:
        pass

    def finish(self) -> None:
        pass


class _Table(_Lines):
    """Prints finished songs above a live table of the whole batch, the running songs and the last failures."""

    def __init__(self, live: Live):
        super().__init__()
        self._live = live
        self._failures: list[SongEntry] = []

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        if entry.state == "failed":
            self._failures.append(entry)
        super().ended(entry, fresh=fresh)

    def update(self, progress: BatchProgress) -> None:
        self._live.update(_table(progress, self._failures, wide=self._live.console.width >= FULL_WIDTH))

    def _print(self, line: str, stream: Any) -> None:
        if stream is sys.stdout and not sys.stdout.isatty():
            print(line, flush=True)
        else:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def batch_progress(*, as_json: bool) -> Iterator[_Lines]:
    """Provide a listener for a batch: a live table in a terminal, lines in a pipe, JSON for scripts."""
    listener: _Lines
    if as_json:
        listener = _Json()
        yield listener
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            listener = _Table(live)
            yield listener
    else:
        listener = _Lines()
        yield listener
    listener.finish()


def _table(progress: BatchProgress, failures: list[SongEntry], *, wide: bool) -> RenderableType:
    """Build the live table. In a narrow terminal, bars are shorter to leave room for names."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = 24 if wide else 8
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=40, overflow="ellipsis", no_wrap=True)
    table.add_column(width=bar)
    table.add_column(no_wrap=True)
    share = sum(song.fraction for song in progress.running) + progress.ended
    table.add_row(
        Text("total", style="bold"),
        ProgressBar(progress.total, share, width=bar),
        Text(_standing(progress) if wide else ""),
    )
    for song in progress.running:
        name, message = one_line(song.found.relative), one_line(song.message)
        table.add_row(Text(f"  {name}"), ProgressBar(1.0, song.fraction, width=bar), Text(message))
    lines = [Text(one_line(f"  {one.source}: {one.reason}"), style="red") for one in failures[-_FAILURES_SHOWN:]]
    lines = [Text(f"{len(failures)} failed:", style="red"), *lines] if failures else []
    if not wide:
        lines.insert(0, Text(_standing(progress)))
    if progress.note:
        lines.append(Text(one_line(progress.note), style="yellow"))
    return Group(table, *lines)


def _standing(progress: BatchProgress) -> str:
    left = f", about {duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    failed = f", {progress.counts['failed']} failed" if progress.counts["failed"] else ""
    return f"{progress.ended} of {counted(progress.total, 'song')}{failed}{left}"


def _ending(entry: SongEntry) -> str:
    if entry.state == "done":
        notes = "".join(f"\n  note: {one_line(warning)}" for warning in entry.warnings)
        return one_line(f"{entry.source}: done -> {entry.folder}") + notes
    return one_line(f"{entry.source}: {entry.state}: {entry.reason}")
