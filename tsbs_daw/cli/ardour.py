"""`tsbs-daw ardour`: put the scripts into Ardour, look at what is there, take them out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli.json_output import AsJson, about_the_daemon, say_json

if TYPE_CHECKING:
    from tsbs_daw.integrations.ardour.install import Installation

app = typer.Typer(no_args_is_help=True, help="The Ardour scripts: install, uninstall, status.")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="One configuration folder of Ardour, if not the usual ones.", metavar="FOLDER"),
]


@app.command()
def install(
    config: Config = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="The preset that the action asks for.")] = "none",
) -> None:
    """Copy the scripts into Ardour, for every version that was ever started here.

    Ardour should be closed meanwhile: it reads its list of scripts when it opens a session. The list as it was is kept
    beside it, as ui_scripts.before-tsbs-daw.

    Example: tsbs-daw ardour install
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations.ardour import install as ardour_install
    from tsbs_daw.integrations.ardour.folder import find_folders
    from tsbs_daw.presets.preset import load_preset

    folders = find_folders(config)
    load_preset(preset)  # a typo is better found now than in Ardour
    spool = Settings.from_environment().spool
    for folder in folders:
        typer.echo(_told(ardour_install.install(folder, spool, preset)))


@app.command()
def uninstall(config: Config = None) -> None:
    """Take the scripts out of Ardour. Its other scripts stay.

    Example: tsbs-daw ardour uninstall
    """
    from tsbs_daw.integrations.ardour import install as ardour_install
    from tsbs_daw.integrations.ardour.folder import find_folders

    for folder in find_folders(config):
        ardour_install.uninstall(folder)
        typer.echo(f"tsbs-daw is not in {folder} any more.")


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Say what is installed, and whether a daemon is there to do the work. The exit code is 1 if something is missing.

    Example: tsbs-daw ardour status
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations.ardour import install as ardour_install
    from tsbs_daw.integrations.ardour.folder import find_folders
    from tsbs_daw.queue.spool import living_daemon

    found = [ardour_install.installation(folder) for folder in find_folders(config)]
    spool = Settings.from_environment().spool
    alive = living_daemon(spool)
    if as_json:
        folders = [{**vars(one), "config": str(one.config)} for one in found]
        say_json({"folders": folders, "daemon": alive.pid if alive else None})
    else:
        for one in found:
            typer.echo(_told(one))
            if one.spool not in (None, spool.as_posix()):
                typer.echo(f"It looks into {one.spool}, and this program's spool is {spool}; install again.")
        typer.echo(about_the_daemon(alive))
    if not all(one.complete for one in found):
        raise typer.Exit(1)


def _told(found: Installation) -> str:
    if not found.files:
        return f"tsbs-daw is not installed in {found.config}; `tsbs-daw ardour install` does it."
    lines = [f"The scripts are in {found.config / 'scripts'}."]
    lines += [f'  "{name}" is in use.' for name in found.in_use]
    if found.missing:
        lines.append("  In Ardour, Edit > Lua Scripts > Script Manager, add these (an action; an action hook):")
        lines += [f'  "{name}"' for name in found.missing]
    return "\n".join(lines)
