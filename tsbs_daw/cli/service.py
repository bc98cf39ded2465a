"""`tsbs-daw service`: the daemon as a service that starts when the user logs in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tsbs_daw.integrations.service import Plan

app = typer.Typer(
    help="Start the daemon at login, and keep it running.\n\nExample: tsbs-daw service install --config folders.yaml",
    no_args_is_help=True,
)

Config = Annotated[
    Path | None, typer.Option(help="YAML file of watch folders. Without it, the service only runs submitted jobs.")
]
Web = Annotated[bool, typer.Option("--web", help="Also serve the page in the browser.")]
Notify = Annotated[
    bool, typer.Option("--notify", help="Show a desktop notification when a song is done or has failed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written and run, and change nothing.")]

_VARIABLES = ("HOME", "DEVICE", "PRECISION", "PRESETS")
_LIMIT_S = 60.0


@app.command()
def install(config: Config = None, web: Web = False, notify: Notify = False, dry_run: DryRun = False) -> int:
    """Install the service, or replace it, and start it.

    Uses systemd on Linux, launchd on macOS and Task Scheduler on Windows; the last two are untested.

    Example: tsbs-daw service install --config ~/Music/folders.yaml
    """
    from tsbs_daw.watch.folders import load_folders

    arguments = ["watch"]
    if config is not None:
        path = config.expanduser().absolute()
        load_folders(path)
        arguments += ["--config", str(path)]
    arguments += [option for option, wanted in (("--web", web), ("--notify", notify)) if wanted]
    plan = _plan(*arguments)
    if dry_run:
        typer.echo(f"# {plan.path}\n{_text(plan.content)}\n")
        _list_commands(plan.start)
        return 0
    _write(plan)
    typer.echo(f"Wrote {plan.path}.")
    if "launchctl" in plan.start[0]:
        _run(plan.stop[0], quiet=True)  # launchd refuses a second service of the same name
    if not all(_run(command) for command in plan.start):
        typer.echo(
            "The service is installed, but not running. Fix the problem above, or log out and in again.", err=True
        )
        return 1
    typer.echo("The service is running, and starts when you log in. `tsbs-daw service status` shows its status.")
    return 0


@app.command()
def status() -> int:
    """Show whether the service is installed and running, and where its logs are.

    Example: tsbs-daw service status
    """
    from tsbs_daw.cli.console import log_path, table
    from tsbs_daw.core.config import Settings
    from tsbs_daw.queue.spool import living_daemon

    settings, plan = Settings.from_environment(), _plan("watch")
    beat = living_daemon(settings.spool)
    is_installed = plan.path.is_file()
    lines = [
        ["service", str(plan.path) if is_installed else "not installed; `tsbs-daw service install` installs it"],
        ["system says", _answer(plan.query) if is_installed else ""],
        ["daemon", f"runs as process {beat.pid}" if beat else "does not run"],
        ["logs", str(log_path(settings, "watch"))],
        ["output", plan.logs if is_installed else ""],
    ]
    typer.echo(table(["", ""], [line for line in lines if line[1]]).strip("\n"))
    return 0 if is_installed and beat else 1


@app.command()
def remove(dry_run: DryRun = False) -> int:
    """Stop the service and remove it. The queue, the songs and the stems are kept.

    Example: tsbs-daw service remove
    """
    plan = _plan("watch")
    if dry_run:
        _list_commands(plan.stop)
        typer.echo(f"# then remove {plan.path}")
        return 0
    if not plan.path.exists():
        typer.echo("The service is not installed.")
        return 0
    _run(plan.stop[0])
    plan.path.unlink()
    for command in plan.stop[1:]:
        _run(command)
    typer.echo(f"Removed {plan.path}.")
    return 0


def _plan(*arguments: str) -> Plan:
    """Build the plan for this system's service manager.

    Args:
        arguments: The daemon's command line, without the program.

    Raises:
        UsageError: The system has no supported service manager.
    """
    from tsbs_daw.cli.console import log_path
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import UsageError
    from tsbs_daw.integrations.service import Service, plan

    variables = {f"TSBS_DAW_{name}": os.environ.get(f"TSBS_DAW_{name}", "") for name in _VARIABLES}
    for name in ("TSBS_DAW_HOME", "TSBS_DAW_PRESETS"):
        variables[name] = variables[name] and str(Path(variables[name]).expanduser().absolute())
    environment = {name: value for name, value in variables.items() if value}
    command = (sys.executable, "-m", "tsbs_daw", *arguments)
    found = plan(Service(command, environment, log_path(Settings.from_environment(), "service")))
    if found is None:
        raise UsageError(f"Services are not supported on {sys.platform}. Start `tsbs-daw watch` yourself.")
    return found


def _write(plan: Plan) -> None:
    """Write the service's file.

    Raises:
        UsageError: The service manager's program is missing.
        OutputError: The file cannot be written.
    """
    from tsbs_daw.core.errors import OutputError, UsageError, shown
    from tsbs_daw.core.files import create_new

    program = plan.start[0][0]
    if shutil.which(program) is None:
        raise UsageError(f"`{program}` is not on this system. Start `tsbs-daw watch` yourself.")
    temporary = plan.path.with_name(f"{plan.path.name}.tmp")
    try:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        with create_new(temporary) as file:
            file.write(plan.content)
        temporary.replace(plan.path)
    except OSError as error:
        raise OutputError(
            f"Cannot write {shown(plan.path)} ({error.strerror}). Check the folder's permissions."
        ) from error


def _run(command: tuple[str, ...], *, quiet: bool = False) -> bool:
    """Run a command of the system and return whether it succeeded. A failure is reported in one line."""
    code, output = _call(command)
    if code and not quiet:
        typer.echo(f"`{' '.join(command)}` failed{f': {output}' if output else '.'}", err=True)
    return code == 0


def _answer(command: tuple[str, ...]) -> str:
    code, output = _call(command)
    return output or f"`{' '.join(command)}` ended with exit code {code}"


def _call(command: tuple[str, ...]) -> tuple[int, str]:
    """Run a command, and return its exit code and the first line of its output."""
    from tsbs_daw.cli.console import one_line

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, one_line(str(error))
    return done.returncode, one_line((done.stdout.strip() or done.stderr.strip()).partition("\n")[0])


def _list_commands(commands: tuple[tuple[str, ...], ...]) -> None:
    import shlex

    for command in commands:
        typer.echo(shlex.join(command))


def _text(content: bytes) -> str:
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8").strip()
