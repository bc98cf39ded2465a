"""`tsbs-daw reaper`: install the actions into REAPER, show what is installed, remove them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.cli.console import AsJson, counted, daemon_status, print_json

if TYPE_CHECKING:
    from tsbs_daw.integrations.reaper import Installation, ModelEntry, PresetEntry
    from tsbs_daw.presets.preset import Preset

app = typer.Typer(no_args_is_help=True, help="Install, inspect and remove the REAPER actions.")

Resource = Annotated[
    Path | None,
    typer.Option(
        "--resource", help="REAPER's resource folder. Only needed for a portable installation.", metavar="FOLDER"
    ),
]


@app.command()
def install(
    resource: Resource = None,
    settings_only: Annotated[
        bool,
        typer.Option("--settings-only", help="Write only the settings, for scripts from ReaPack."),
    ] = False,
) -> None:
    """Install the scripts into REAPER and register the actions.

    There is an action for every preset, including your own; run this again after you add one. Close REAPER first: it
    reads its list of actions when it starts and writes it when it exits. The previous list is kept beside it, as
    reaper-kb.ini.before-tsbs-daw.

    Example: tsbs-daw reaper install
    """
    from tsbs_daw.integrations import reaper
    from tsbs_daw.integrations.reaper_application import find_folder, reaper_is_running

    folder = find_folder(resource)
    document, own = _settings_and_own_actions(folder)
    found = reaper.install(folder, document, scripts=not settings_only, more_actions=own)
    typer.echo(_summary(found))
    if reaper_is_running() and not settings_only:
        typer.echo(
            "REAPER is running: its action list gets the actions when it starts again. To have them now, load "
            f"{found.scripts / 'tsbs-daw_Setup.lua'} in REAPER: Actions > New action > Load ReaScript."
        )
    else:
        typer.echo('Start REAPER and search for "tsbs-daw" in its action list (press ?).')
    if "start" not in document:
        typer.echo("REAPER cannot start the daemon, because of quotes in a path. Start `tsbs-daw watch` yourself.")
    for finding in _reaper_findings(found):
        typer.echo(f"{finding['what']} {finding['advice']}")


@app.command()
def uninstall(resource: Resource = None) -> None:
    """Remove the scripts and actions from REAPER.

    Your key bindings to them are kept in case you install again.

    Example: tsbs-daw reaper uninstall
    """
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.integrations import reaper
    from tsbs_daw.integrations.reaper_application import find_folder, reaper_is_running

    folder = find_folder(resource)
    if reaper_is_running():
        raise UsageError("REAPER is running and would restore the actions when it closes. Close it and run this again.")
    found = reaper.uninstall(folder)
    typer.echo(f"Removed tsbs-daw from {folder}.")
    if found.reapack:
        typer.echo(f"ReaPack's copy stays in {found.scripts}. Uninstall the package in ReaPack.")


@app.command()
def status(resource: Resource = None, as_json: AsJson = False) -> None:
    """Show what is installed, and whether a daemon is running.

    The exit code is 1 if something is missing.

    Example: tsbs-daw reaper status
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations import reaper
    from tsbs_daw.integrations.reaper_application import ascii_spelling, find_folder
    from tsbs_daw.queue.spool import living_daemon

    found = reaper.installation(find_folder(resource))
    settings = Settings.from_environment()
    heartbeat = living_daemon(settings.spool)
    if as_json:
        paths = {"resource": str(found.resource), "scripts": str(found.scripts)}
        facts = {**vars(found), **paths, "second": None if found.second is None else str(found.second)}
        print_json({**facts, "daemon": heartbeat.pid if heartbeat else None})
    else:
        typer.echo(_summary(found))
        for finding in _reaper_findings(found):
            typer.echo(f"{finding['what']} {finding['advice']}")
        if found.spool is not None and found.spool != str(ascii_spelling(settings.spool)):
            typer.echo(
                f"The scripts use the spool {found.spool}, but this program uses {settings.spool}. Install again."
            )
        typer.echo(daemon_status(heartbeat))
    if found.version is None or found.missing:
        raise typer.Exit(1)


@app.command()
def setup(
    home: Annotated[Path | None, typer.Option(help="Folder of the spool, the queue and the logs.")] = None,
    resource: Resource = None,
) -> None:
    """Write the settings for REAPER and check this installation, for the action *Setup*.

    The action runs this command itself and shows the result. The scripts are not changed.

    Example: tsbs-daw reaper setup
    """
    from dataclasses import asdict

    from tsbs_daw.core.config import Settings
    from tsbs_daw.doctor import examine
    from tsbs_daw.integrations import reaper
    from tsbs_daw.integrations.reaper_application import find_folder

    _use_home(home)
    folder = find_folder(resource)
    document, own = _settings_and_own_actions(folder)
    found = reaper.install(folder, document, scripts=False, more_actions=own)
    reaper.write_answer(found.resource, "checking")
    findings = [asdict(finding) for finding in examine(Settings.from_environment())]
    reaper.write_answer(found.resource, "done", [*_reaper_findings(found), *findings])
    typer.echo(_summary(found))


@app.command()
def serve(
    home: Annotated[Path, typer.Option(help="Folder of the spool, the queue and the logs.")],
    idle_minutes: Annotated[
        float, typer.Option(help="Minutes without a job after which the daemon exits.", min=0.01)
    ] = 15.0,
) -> None:
    """Run the daemon for jobs from REAPER.

    The scripts start this automatically; it exits when no job has arrived for a while. `tsbs-daw watch` runs until you
    stop it, and also watches folders.

    Example: tsbs-daw reaper serve --home ~/.local/share/tsbs-daw
    """
    from tsbs_daw.cli.progress import listening
    from tsbs_daw.core.config import Settings
    from tsbs_daw.daemon.daemon import Daemon
    from tsbs_daw.integrations.reaper_application import IdleWatch

    _use_home(home)
    settings = Settings.from_environment()
    with (
        listening(as_json=False) as listener,
        Daemon(settings, listener=listener) as daemon,
        IdleWatch(settings.spool, 60 * idle_minutes, daemon.stop),
    ):
        daemon.run()


@app.command()
def actions(
    folder: Annotated[Path | None, typer.Option(help="Folder to write to. Default: the folder of the scripts.")] = None,
) -> None:
    """Write a script for each preset (for packagers).

    Example: tsbs-daw reaper actions
    """
    from tsbs_daw.integrations.reapack import preset_actions
    from tsbs_daw.integrations.reaper import source_folder

    target = folder or source_folder()
    for name, content in preset_actions(_presets()).items():
        (target / name).write_text(content, encoding="utf-8")
        typer.echo(str(target / name))


@app.command()
def index(
    url: Annotated[str, typer.Option(help="URL of the folder reaper_scripts, pinned to a commit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Index file to write.")] = Path("index.xml"),
    time: Annotated[str, typer.Option(help="Time of the version, as 2026-01-31T12:00:00Z. Default: now.")] = "",
) -> None:
    """Write the ReaPack index (for packagers).

    Example: tsbs-daw reaper index --url https://example.org/tsbs-daw/0123abc/reaper_scripts
    """
    from datetime import datetime, timezone

    from tsbs_daw.integrations import reapack
    from tsbs_daw.integrations.reaper import source_folder

    moment = time or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    out.write_text(reapack.index(source_folder(), url, moment), encoding="utf-8")
    typer.echo(str(out))


def _reaper_findings(found: Installation, platform: str = sys.platform) -> list[dict[str, str]]:
    """List problems of an installation that `doctor` does not check, in the format of its findings."""
    problems = []
    if found.second is not None:
        problems.append(
            (
                f"The actions are installed twice, in {found.second} and by ReaPack in {found.scripts}.",
                "Run `tsbs-daw reaper uninstall`, then `tsbs-daw reaper install --settings-only`.",
            )
        )
    if found.spool is not None and not found.spool.isascii() and platform == "win32":
        problems.append(
            (
                f"The spool {found.spool} has characters outside ASCII, which REAPER may not be able to use.",
                "Set TSBS_DAW_HOME to a folder such as C:\\tsbs-daw and run `tsbs-daw reaper install` again.",
            )
        )
    return [{"topic": "reaper", "status": "problem", "what": what, "advice": advice} for what, advice in problems]


def _summary(found: Installation) -> str:
    if found.version is None:
        return f"tsbs-daw is not installed in {found.resource}. Run `tsbs-daw reaper install`."
    if not found.actions and not found.missing:
        return (
            f"The settings of tsbs-daw {found.version} are in {found.resource}, but no actions. Install the package in "
            "ReaPack, or run `tsbs-daw reaper install`."
        )
    owner = " by ReaPack" if found.reapack else ""
    lines = [f"tsbs-daw {found.version} is installed{owner} in {found.scripts}, with {len(found.actions)} actions."]
    if found.missing:
        lines.append(f"{counted(len(found.missing), 'action')} not registered. Install again.")
    return "\n".join(lines)


def _use_home(home: Path | None) -> None:
    """Make this process use `home`, whatever the environment inherited from REAPER says."""
    from tsbs_daw.core.config import Settings

    if home is not None and home.absolute() != Settings.from_environment().home:
        os.environ["TSBS_DAW_HOME"] = str(home)


def _settings_and_own_actions(resource: Path) -> tuple[dict[str, object], dict[str, str]]:
    """Build the contents of installed.json, and the actions of the user's own presets."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.integrations import reaper
    from tsbs_daw.integrations.reaper_application import setup_command, start_command

    settings, python = Settings.from_environment(), Path(sys.executable)
    commands = {
        "start": start_command(settings.home, python),
        "setup": setup_command(settings.home, resource, python),
    }
    presets, own = _presets_and_own_actions()
    return reaper.settings_document(settings.spool, commands, presets, _models()), own


def _presets() -> list[PresetEntry]:
    from tsbs_daw.core.config import Settings
    from tsbs_daw.presets.preset import list_presets

    return [_entry(preset) for preset in list_presets(Settings.from_environment().presets)]


def _entry(preset: Preset) -> PresetEntry:
    from tsbs_daw.integrations.reaper import PresetEntry

    outputs = tuple(output.name for output in preset.outputs)
    return PresetEntry(preset.name, preset.description, outputs, preset.delivery.stems)


def _presets_and_own_actions() -> tuple[list[PresetEntry], dict[str, str]]:
    """List all readable presets, and the actions of the user's own. Unreadable presets are reported and skipped."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import TsbsDawError
    from tsbs_daw.integrations.reapack import preset_actions
    from tsbs_daw.presets.preset import preset_files, read_preset

    entries: list[PresetEntry] = []
    actions: dict[str, str] = {}
    own = Settings.from_environment().presets
    for path in preset_files(own).values():
        try:
            preset = read_preset(path)
            entry = _entry(preset)
            entries.append(entry)
            if path.parent == own:
                actions |= preset_actions([entry])
        except TsbsDawError as error:
            typer.echo(f"{error} It is not offered in REAPER.", err=True)
    return entries, actions


def _models() -> list[ModelEntry]:
    """List the models on this machine, the bundled one first. Unreadable models are reported and skipped."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import TsbsDawError
    from tsbs_daw.integrations.reaper import ModelEntry
    from tsbs_daw.models.kinds import read_config
    from tsbs_daw.models.registry import list_models

    entries = []
    for entry in list_models(Settings.from_environment()):
        if entry.path is None:
            continue
        try:
            stems = tuple(read_config(entry.path).stems)
        except TsbsDawError as error:
            typer.echo(f"{error} It is not offered in REAPER.", err=True)
            continue
        description = entry.known.description if entry.known else "A model of your own."
        entries.append(ModelEntry(entry.name, description, stems))
    return entries
