"""`tsbs-daw watch`: run the daemon, for folders and for everything that is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli import request
from tsbs_daw.cli.option_groups import grouped

if TYPE_CHECKING:
    from tsbs_daw.watch.folders import WatchFolder

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder in which a folder for every song appears.")]
Folders = Annotated[list[Path] | None, typer.Argument(help="Folders that songs are dropped into.", metavar="FOLDER")]
Config = Annotated[Path | None, typer.Option(help="A YAML file: `folders:` and a list of {path:, output:, preset:}.")]
Once = Annotated[bool, typer.Option("--once", help="Separate what is there, then end.")]
AtOnce = Annotated[
    int | None,
    typer.Option(help="How many songs at a time; else what suits the device, one on a processor.", min=1, max=16),
]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON for everything that happens, for scripts.")]


@grouped
def command(
    folders: Folders = None,
    *,
    out: Out = None,
    treatment: request.Treatment,
    config: Config = None,
    compute: request.Compute,
    at_once: AtOnce = None,
    once: Once = False,
    as_json: Json = False,
) -> int:
    """Separate whatever is dropped into a folder, and whatever is submitted.

    Songs of subfolders go to subfolders of the same names. The originals are left as they are. Without a folder, only
    what `tsbs-daw submit` and the DAW send is separated. Ctrl-C ends it; nothing is lost.

    Example: tsbs-daw watch ~/Music/drop --out ~/Music/stems --preset karaoke
    """
    from tsbs_daw.cli.watch_progress import news
    from tsbs_daw.contracts.job import State
    from tsbs_daw.daemon.daemon import Daemon
    from tsbs_daw.queue.options import DaemonOptions

    settings = compute.settings()
    chosen = _chosen(folders or [], out, treatment, config)
    options = DaemonOptions(songs_at_once=at_once or 0)
    with news(as_json=as_json) as tell, Daemon(settings, chosen, options=options, listener=tell, once=once) as daemon:
        if not as_json:
            _greet(chosen, once=once)
        daemon.run()
        ended = daemon.register.ended
    return 1 if once and ended[State.FAILED] + ended[State.DEAD] else 0


def _chosen(
    folders: list[Path], out: Path | None, treatment: request.Treatment, config: Path | None
) -> tuple[WatchFolder, ...]:
    """Raises: UsageError: folders without --out, beside --config, or not there; SettingsError; PresetError"""
    from tsbs_daw.core.errors import UsageError, shown
    from tsbs_daw.presets.preset import load_preset
    from tsbs_daw.watch.folders import WatchFolder, load_folders

    if config is not None and folders:
        raise UsageError("Name folders or --config, not both; the folders can go into the file.")
    if config is not None:
        found = load_folders(config.expanduser())
    else:
        if folders and out is None:
            raise UsageError("Watching needs --out, the folder that the stems go to.")
        asked = vars(treatment.checked())
        for folder in folders:
            if not folder.expanduser().is_dir():
                raise UsageError(f"{shown(folder)} is not a folder; make it, or check its name.")
        output = request.whole_path(out or Path())
        found = tuple(WatchFolder(request.whole_path(folder), output, **asked) for folder in folders)
    for name in sorted({folder.preset for folder in found}):
        load_preset(name)  # a typo is better found now than with the first song
    return found


def _greet(folders: tuple[WatchFolder, ...], *, once: bool) -> None:
    for folder in folders:
        typer.echo(
            f"Watching {folder.path} -> {folder.output} (preset {folder.preset}, model {folder.model})", err=True
        )
    if not folders:
        typer.echo("Waiting for what is submitted.", err=True)
    if not once:
        typer.echo("Ctrl-C ends it; what is not done yet goes on at the next start.", err=True)
