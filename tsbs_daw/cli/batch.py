"""`tsbs-daw batch`: prepare a whole crate of songs for remixing."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli import delivery, request
from tsbs_daw.cli.formatting import counted, duration, one_line
from tsbs_daw.cli.option_groups import grouped

if TYPE_CHECKING:
    from tsbs_daw.batch.catalogue_document import Catalogue
    from tsbs_daw.batch.export import Closing
    from tsbs_daw.batch.request import CrateRequest
    from tsbs_daw.batch.run import Crate

DEFAULT_TREATMENT = request.Treatment(preset="crate")

Folder = Annotated[Path, typer.Argument(help="The folder with the songs; its subfolders too.", metavar="FOLDER")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the songs' folders and the catalogue.")]
Workers = Annotated[int, typer.Option(help="How many songs at a time.", min=1, max=64)]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON for every song, for scripts.")]


@grouped
def command(
    folder: Folder,
    *,
    out: Out,
    treatment: request.Treatment = DEFAULT_TREATMENT,
    salvage: request.Salvage = False,
    workers: Workers = 1,
    compute: request.Compute,
    as_json: Json = False,
    changes: delivery.Changes,
) -> int:
    """Prepare a whole crate of songs for remixing.

    Every song below FOLDER gets a folder with its stems, tempo, key and sessions, and the crate one session of all
    songs, and a catalogue: catalogue.html to look at and listen to, .csv and .json. All three grow while the crate
    runs. The preset says how files are named, how loud they are, and what else is made; flags change that for one run.

    A song that cannot be done stops nothing; the catalogue says why. Run the same command again, after new songs,
    after Ctrl-C or a power cut: only what is missing or changed is done, and what failed is tried again. With other
    flags, nothing is separated again; the songs get new folders beside the old ones. A daemon that is running does the
    work; else one is started here, with --workers songs at a time, each of which needs its own memory.

    Example: tsbs-daw batch ~/Music/crate --out ~/Music/remix --format flac24 --loops 4,8
    """
    from tsbs_daw.batch.export import close_crate
    from tsbs_daw.batch.run import Crate
    from tsbs_daw.cli.batch_progress import crate_news
    from tsbs_daw.models.registry import resolve
    from tsbs_daw.queue.options import DaemonOptions

    settings = compute.settings()
    asked = _request(folder, out, treatment, salvage, changes)
    resolve(asked.model, settings)  # a typo is better found now than with every song
    began = time.monotonic()
    with crate_news(as_json=as_json) as tell, _signals_as_interrupts():
        crate = Crate(asked, settings, options=DaemonOptions(workers=workers), listener=tell)
        try:
            catalogue = crate.run()
        except KeyboardInterrupt:
            tell.note(_interrupted(crate))
            raise
        closing = close_crate(catalogue, asked.out)
        for problem in closing.problems:
            tell.note(problem)
    _sum_up(catalogue, closing, time.monotonic() - began, crate.without_analysis, as_json=as_json)
    return 1 if closing.problems or any(song.state == "failed" for song in catalogue.songs) else 0


def _request(
    folder: Path, out: Path, treatment: request.Treatment, salvage: bool, changes: delivery.Changes
) -> CrateRequest:
    """Raises: UsageError: a preset, stage or delivery that cannot be"""
    from tsbs_daw.batch.request import CrateRequest

    options = changes.options()
    places = request.whole_path(folder), request.whole_path(out)
    asked = CrateRequest(*places, **vars(treatment.checked()), salvage=salvage, options=options)
    asked.delivery()
    return asked


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, end a crate as Ctrl-C does. What was ignored stays ignored, for nohup."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(crate: Crate) -> str:
    ended, total = crate.ended
    said = f"{ended} of {total} songs have come to their end." if total else "Nothing was begun."
    if crate.other_daemon is not None:
        said += f" The daemon (process {crate.other_daemon}) goes on with the songs that it was given."
    return f"{said} Nothing is lost: run the same command again, and it goes on from here."


def _sum_up(
    catalogue: Catalogue, closing: Closing, took_s: float, without_analysis: list[str], *, as_json: bool
) -> None:
    counts = dict.fromkeys(("done", "failed", "duplicate"), 0)
    for song in catalogue.songs:
        counts[song.state] += 1
    if as_json:
        files = {name: str(path) for name, path in closing.files.items()}
        typer.echo(json.dumps({**counts, "without_analysis": without_analysis, "took_s": round(took_s, 1), **files}))
        return
    typer.echo(
        f"{counted(len(catalogue.songs), 'song')} in {duration(took_s)}: {counts['done']} done, "
        f"{counts['failed']} failed, {counted(counts['duplicate'], 'duplicate')}."
    )
    for song in catalogue.songs:
        if song.state == "failed":
            typer.echo(one_line(f"  {song.source}: {song.reason}"))
    for name, path in closing.files.items():
        typer.echo(one_line(f"{name}: {path}"))
    if without_analysis:
        many = counted(len(without_analysis), "song")
        typer.echo(f"{many} without an analysis, which failed: run the same command again, and it is tried again.")
    if counts["failed"]:
        typer.echo("Run the same command again once that is mended: only what is missing is done.")
