"""`tsbs-daw ardour`: install the scripts into Ardour, show what is installed, remove them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli.console import AsJson, daemon_status, print_json

if TYPE_CHECKING:
    from tsbs_daw.integrations.ardour import Installation

app = typer.Typer(no_args_is_help=True, help="Install, inspect and remove the Ardour scripts.")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Ardour's configuration folder. Default: every one found.", metavar="FOLDER"),
]


@app.command()
def install(
    config: Config = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="Preset that the action applies.")] = "none",
) -> None:
    """Install the scripts into every Ardour found.

    Close Ardour first: it reads its list of scripts when it opens a session. The previous list is kept beside it, as
    ui_scripts.before-tsbs-daw.

    Example: tsbs-daw ardour install
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations import ardour
    from tsbs_daw.presets.preset import load_preset

    folders = ardour.find_folders(config)
    load_preset(preset, Settings.from_environment().presets)  # report a typo now rather than in Ardour
    spool = Settings.from_environment().spool
    for folder in folders:
        typer.echo(_text(ardour.install(folder, spool, preset)))


@app.command()
def uninstall(config: Config = None) -> None:
    """Remove the scripts from Ardour. Other scripts stay.

    Example: tsbs-daw ardour uninstall
    """
    from tsbs_daw.integrations import ardour

    for folder in ardour.find_folders(config):
        ardour.uninstall(folder)
        typer.echo(f"Removed tsbs-daw from {folder}.")


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Show what is installed, and whether a daemon is running.

    The exit code is 1 if something is missing.

    Example: tsbs-daw ardour status
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations import ardour
    from tsbs_daw.queue.spool import living_daemon

    found = [ardour.installation(folder) for folder in ardour.find_folders(config)]
    spool = Settings.from_environment().spool
    heartbeat = living_daemon(spool)
    if as_json:
        folders = [{**vars(installation), "config": str(installation.config)} for installation in found]
        print_json({"folders": folders, "daemon": heartbeat.pid if heartbeat else None})
    else:
        for installation in found:
            typer.echo(_text(installation))
            if installation.spool not in (None, spool.as_posix()):
                typer.echo(
                    f"The scripts use the spool {installation.spool}, but this program uses {spool}. Install again."
                )
        typer.echo(daemon_status(heartbeat))
    if not all(installation.complete for installation in found):
        raise typer.Exit(1)


def _text(found: Installation) -> str:
    if not found.files:
        return f"tsbs-daw is not installed in {found.config}. Run `tsbs-daw ardour install`."
    lines = [f"The scripts are in {found.config / 'scripts'}."]
    lines += [f'  "{name}" is active.' for name in found.in_use]
    if found.missing:
        lines.append("  Add these in Ardour, under Edit > Lua Scripts > Script Manager (one action, one action hook):")
        lines += [f'  "{name}"' for name in found.missing]
    return "\n".join(lines)
