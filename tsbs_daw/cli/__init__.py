"""The command line. Only this package and `__main__` print or set an exit code.

One module for each command, or for a few that belong together; `TABLE` lists them. A command is a function for typer,
or a typer application with subcommands. Its module is imported when it is called and not before, so that
`tsbs-daw --help` answers at once; for the same reason, modules import torch, pydantic and the like inside functions.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tsbs_daw.core.errors import UsageError, first_problem

PROGRAM = "tsbs-daw"
INTERRUPTED = 130

_EXAMPLE = re.compile(r"(?m)^(Examples?:)")


@dataclass(frozen=True)
class Entry:
    """One line of the command table.

    Attributes:
        name: Name of the command.
        summary: What it does.
        beside: Name of the module that contains this command, as a function or application named like the command. "":
            the module has the command's own name, and contains it as `command` or `app`.
    """

    name: str
    summary: str
    beside: str = ""

    @property
    def module(self) -> str:
        return f"{__name__}.{self.beside or self.name}"

    @property
    def exists(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def imported(self) -> Any:
        """Import the module and return the command: a function, or a typer application with subcommands."""
        module = importlib.import_module(self.module)
        if self.beside:
            return getattr(module, self.name)
        return module.app if hasattr(module, "app") else module.command


TABLE = (
    Entry("demo", "Make a short song, separate it and show the result."),
    Entry("separate", "Separate files now, in this process."),
    Entry("watch", "Watch folders and separate every song in them."),
    Entry("batch", "Prepare a folder of songs for remixing."),
    Entry("submit", "Enqueue files for the running daemon.", beside="separate"),
    Entry("jobs", "List, show, retry, move and cancel jobs."),
    Entry("web", "Serve a page that shows the queue and plays the stems.", beside="watch"),
    Entry("cluster", "Show the machines that compute for --cluster.", beside="doctor"),
    Entry("service", "Start the daemon at login, and keep it running."),
    Entry("presets", "List, show and check effect presets."),
    Entry("models", "List, download and convert models."),
    Entry("reaper", "Install, inspect and remove the REAPER actions."),
    Entry("ardour", "Install, inspect and remove the Ardour scripts."),
    Entry("doctor", "Check this installation, and say how to fix each problem."),
    Entry("bench", "Measure speed and memory on this machine.", beside="doctor"),
    Entry("train", "Train a model on songs whose true stems are known."),
    Entry("evaluate", "Measure a model on songs whose true stems are known.", beside="train"),
)


def commands() -> list[Entry]:
    """List the commands of this installation, in the order of the table."""
    return [entry for entry in TABLE if entry.exists]


def help_text() -> str:
    """Return the output of `tsbs-daw --help`."""
    entries = commands()
    width = max(len(entry.name) for entry in entries)
    lines = "\n".join(f"  {entry.name.ljust(width)}  {entry.summary}" for entry in entries)
    return (
        f"Usage: {PROGRAM} COMMAND [ARGUMENTS]...\n\n"
        "Separate songs into stems inside your DAW, with a session for each song.\n\n"
        f"Commands:\n{lines}\n\n"
        "Options:\n"
        "  --help                Show this text; after a command, its options.\n"
        "  --version             Show the version.\n"
        "  --verbose             Log to stderr in detail. Goes before the command.\n"
        "  --install-completion  Install completion for the current shell.\n"
        "  --show-completion     Show the completion script, to copy or customize it.\n\n"
        f"Example: {PROGRAM} demo\n"
    )


def find(name: str) -> Entry:
    """Find a command by name.

    Raises:
        UsageError: There is no such command; suggests the closest one.
    """
    names = [entry.name for entry in commands()]
    if name in names:
        return next(entry for entry in TABLE if entry.name == name)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean `{close[0]}`?" if close else f"`{PROGRAM} --help` lists all commands."
    raise UsageError(f"Unknown command {name!r}. {hint}")


def load(entry: Entry) -> Any:
    """Load the typer command or group of an entry. Its help is plain text, so that it reads the same in a pipe."""
    import typer
    from typer.main import get_command

    found = entry.imported()
    app = found if isinstance(found, typer.Typer) else typer.Typer()
    if app is not found:
        app.command(name=entry.name)(found)
    app.rich_markup_mode = None
    app._add_completion = False  # completion is for the whole program, see `complete`
    command = get_command(app)
    _prepare_help(command)
    return command


def complete(arguments: Sequence[str]) -> int:
    """Install or print shell completion, or complete a command line for the shell. Imports every command."""
    import typer
    from typer.main import get_command

    app = typer.Typer(name=PROGRAM, rich_markup_mode=None)
    for entry in commands():
        found = entry.imported()
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=entry.name, short_help=entry.summary)
        else:
            app.command(name=entry.name, short_help=entry.summary)(found)
    returned = get_command(app).main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    return returned if isinstance(returned, int) else 0


def _prepare_help(command: Any) -> None:
    """Keep the line breaks of examples, so that they can be copied, and give a group the example of a subcommand."""
    below = list(getattr(command, "commands", {}).values())
    for subcommand in below:
        _prepare_help(subcommand)
        # click truncates a summary taken from the help text, but wraps an explicit one.
        subcommand.short_help = subcommand.help.split("\n\n")[0].replace("\n", " ").strip()
    # A backspace before a paragraph tells click not to rewrap it.
    command.help = _EXAMPLE.sub("\b\n\\1", command.help or "")
    if below and not _EXAMPLE.search(command.help):
        first = next((part.help[match.start() :] for part in below if (match := _EXAMPLE.search(part.help))), "")
        command.help += f"\n\n\b\n{first}"


def run(entry: Entry, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; 2 for invalid arguments.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C.
        Exception: Any exception of the command.
    """
    import typer

    try:
        returned = load(entry).main(list(arguments), prog_name=f"{PROGRAM} {entry.name}", standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort as abort:
        raise KeyboardInterrupt from abort
    except Exception as error:
        # Invalid arguments. The class of these errors has moved between packages, so its attributes identify it.
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        if refused := _invalid_value(error, arguments):
            raise refused from error
        error.show()
        return error.exit_code
    if returned == INTERRUPTED:  # some versions of typer report Ctrl-C like this
        raise KeyboardInterrupt
    return returned if isinstance(returned, int) else 0


def _invalid_value(error: Any, arguments: Sequence[str]) -> UsageError | None:
    """Reword the error for a value that pydantic rejected on behalf of typer; None for any other error.

    An option with several spellings is named as the user wrote it in `arguments`.
    """
    from pydantic import ValidationError

    if not isinstance(error.__cause__, ValidationError) or getattr(error, "param", None) is None:
        return None
    written = {argument.partition("=")[0] for argument in arguments}
    option = next((spelling for spelling in error.param.opts if spelling in written), max(error.param.opts, key=len))
    name = option if option.startswith("-") else option.upper()
    return UsageError(f"Invalid {name}: {first_problem(error.__cause__).requirement.rstrip('.')}.")
