"""`tsbs-daw reaper`: put the actions into REAPER, look at what is there, take them out again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli.json_output import AsJson, about_the_daemon, say_json

if TYPE_CHECKING:
    from tsbs_daw.integrations.reaper.install import Installation, ModelEntry, PresetEntry

app = typer.Typer(no_args_is_help=True, help="The REAPER actions: install, uninstall, status.")

Resource = Annotated[
    Path | None,
    typer.Option("--resource", help="REAPER's resource folder, for a portable installation.", metavar="FOLDER"),
]


@app.command()
def install(
    resource: Resource = None,
    settings_only: Annotated[
        bool, typer.Option("--settings-only", help="For a REAPER that has the scripts from ReaPack.")
    ] = False,
) -> None:
    """Copy the scripts into REAPER and register the actions: one for each preset, your own too.

    REAPER has to be closed meanwhile: it reads its list of actions when it starts, and writes it when it ends. The list
    as it was is kept beside it, as reaper-kb.ini.before-tsbs-daw. Run it again when you have made a preset.

    Example: tsbs-daw reaper install
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations.reaper import install as reaper_install
    from tsbs_daw.integrations.reaper.folder import find_folder
    from tsbs_daw.integrations.reaper.running import reaper_is_running

    folder = find_folder(resource)
    settings = Settings.from_environment()
    start = reaper_install.start_command(settings.home, Path(sys.executable))
    presets, own = _presets_and_own_actions()
    document = reaper_install.settings_document(settings.spool, start, presets, _models())
    found = reaper_install.install(folder, document, scripts=not settings_only, more_actions=own)
    typer.echo(_summary(found))
    if reaper_is_running() and not settings_only:
        typer.echo(
            "REAPER is running and will overwrite its action list when it closes. Close it and run this again, or load "
            f"{found.scripts / 'tsbs-daw_Setup.lua'} in REAPER: Actions > New action > Load ReaScript."
        )
    else:
        typer.echo('Start REAPER and look for "tsbs-daw" in its action list (?).')
    if start is None:
        typer.echo(
            "A path with quotes or the like keeps REAPER from starting the daemon; start `tsbs-daw watch` yourself."
        )
    if not str(document["spool"]).isascii() and sys.platform == "win32":
        typer.echo(
            f"The spool {document['spool']} has characters outside ASCII, which REAPER may not be able to use. Set "
            "TSBS_DAW_HOME to a folder such as C:\\tsbs-daw and run this again."
        )


@app.command()
def uninstall(resource: Resource = None) -> None:
    """Take the scripts and actions out of REAPER. Your key bindings to them stay for another time.

    Example: tsbs-daw reaper uninstall
    """
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.integrations.reaper import install as reaper_install
    from tsbs_daw.integrations.reaper.folder import find_folder
    from tsbs_daw.integrations.reaper.running import reaper_is_running

    folder = find_folder(resource)
    if reaper_is_running():
        raise UsageError("REAPER is running and would restore the actions when it closes. Close it and run this again.")
    found = reaper_install.uninstall(folder)
    typer.echo(f"Removed tsbs-daw from {folder}.")
    if found.reapack:
        typer.echo(f"ReaPack's copy stays in {found.scripts}. Uninstall the package in ReaPack.")


@app.command()
def status(resource: Resource = None, as_json: AsJson = False) -> None:
    """Say what is installed, and whether a daemon is there to do the work. The exit code is 1 if something is missing.

    Example: tsbs-daw reaper status
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations.reaper import install as reaper_install
    from tsbs_daw.integrations.reaper.folder import find_folder
    from tsbs_daw.queue.spool import living_daemon

    found = reaper_install.installation(find_folder(resource))
    settings = Settings.from_environment()
    alive = living_daemon(settings.spool)
    if as_json:
        facts = {**vars(found), "resource": str(found.resource), "scripts": str(found.scripts)}
        say_json({**facts, "daemon": alive.pid if alive else None})
    else:
        typer.echo(_summary(found))
        if found.spool is not None and found.spool != str(reaper_install.ascii_spelling(settings.spool)):
            typer.echo(f"It looks into {found.spool}, and this program's spool is {settings.spool}; install again.")
        typer.echo(about_the_daemon(alive))
    if found.version is None or found.missing:
        raise typer.Exit(1)


@app.command()
def serve(home: Annotated[Path, typer.Option(help="Folder of the spool, the queue and the logs.")]) -> int:
    """Run the daemon for what REAPER sends. The scripts start this; `tsbs-daw watch` does the same, and more.

    Example: tsbs-daw reaper serve --home ~/.local/share/tsbs-daw
    """
    from tsbs_daw.cli import watch
    from tsbs_daw.core.config import Settings

    if home.absolute() != Settings.from_environment().home:
        os.environ["TSBS_DAW_HOME"] = str(home)
    return watch.command()


@app.command()
def actions(
    folder: Annotated[Path | None, typer.Option(help="Where to write them, if not beside the others.")] = None,
) -> None:
    """Write one action for every preset that comes with the program, or has come to lie in your folder of presets.

    Example: tsbs-daw reaper actions
    """
    from tsbs_daw.integrations.reaper.install import source_folder
    from tsbs_daw.integrations.reaper.reapack import preset_actions

    target = folder or source_folder()
    for name, content in preset_actions(_presets()).items():
        (target / name).write_text(content, encoding="utf-8")
        typer.echo(str(target / name))


@app.command()
def index(
    url: Annotated[str, typer.Option(help="What serves reaper_scripts, pinned to a commit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("index.xml"),
    time: Annotated[str, typer.Option(help="The version's time, as 2026-01-31T12:00:00Z; else now.")] = "",
) -> None:
    """Write the index that ReaPack installs from.

    Example: tsbs-daw reaper index --url https://example.org/tsbs-daw/0123abc/reaper_scripts
    """
    from datetime import datetime, timezone

    from tsbs_daw.integrations.reaper import reapack
    from tsbs_daw.integrations.reaper.install import source_folder

    moment = time or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    out.write_text(reapack.index(source_folder(), url, moment), encoding="utf-8")
    typer.echo(str(out))


def _summary(found: Installation) -> str:
    if found.version is None:
        return f"tsbs-daw is not installed in {found.resource}; `tsbs-daw reaper install` does it."
    if not found.actions and not found.missing:
        return (
            f"The settings of tsbs-daw {found.version} are in {found.resource}, but no actions. Install the package in "
            "ReaPack, or run `tsbs-daw reaper install`."
        )
    owner = " by ReaPack" if found.reapack else ""
    lines = [f"tsbs-daw {found.version} is installed{owner} in {found.scripts}, with {len(found.actions)} actions."]
    if found.missing:
        lines.append(f"{len(found.missing)} actions are not registered; install again.")
    return "\n".join(lines)


def _presets() -> list[PresetEntry]:
    from tsbs_daw.integrations.reaper.install import PresetEntry
    from tsbs_daw.presets.preset import list_presets

    return [
        PresetEntry(preset.name, preset.description, tuple(output.name for output in preset.outputs))
        for preset in list_presets()
    ]


def _presets_and_own_actions() -> tuple[list[PresetEntry], dict[str, str]]:
    """All presets that can be read, and the actions of the user's own. What cannot be offered is told, and left out."""
    from tsbs_daw.core.errors import TsbsDawError
    from tsbs_daw.integrations.reaper.install import PresetEntry
    from tsbs_daw.integrations.reaper.reapack import preset_actions
    from tsbs_daw.presets.preset import preset_files, read_preset, user_folder

    entries, actions = [], {}
    for path in preset_files().values():
        try:
            preset = read_preset(path)
            entry = PresetEntry(preset.name, preset.description, tuple(output.name for output in preset.outputs))
            entries.append(entry)
            if path.parent == user_folder():
                actions |= preset_actions([entry])
        except TsbsDawError as error:
            typer.echo(f"{error} REAPER does without it.", err=True)
    return entries, actions


def _models() -> list[ModelEntry]:
    """The models on this machine, the bundled one first. One that cannot be read is reported and left out."""
    from tsbs_daw.core.errors import TsbsDawError
    from tsbs_daw.integrations.reaper.install import ModelEntry
    from tsbs_daw.models.registry import list_models
    from tsbs_daw.network.checkpoint import read_config

    found = []
    for entry in list_models():
        if entry.path is None:
            continue
        try:
            stems = tuple(read_config(entry.path).stems)
        except TsbsDawError as error:
            typer.echo(f"{error} REAPER does without it.", err=True)
            continue
        found.append(ModelEntry(entry.name, entry.known.description if entry.known else "A model of your own.", stems))
    return found
