"""The command line. Only what is below this package, and `__main__`, prints or sets an exit code.

One module per command. A module has `command`, a function for typer, or `app`, a typer application with commands of
its own. It is imported when its command is called and not before, so that `tsbs-daw --help` answers at once; modules
import torch, pydantic and the like inside their functions for the same reason.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tsbs_daw.core.errors import UsageError

PROGRAM = "tsbs-daw"
INTERRUPTED = 130

_EXAMPLE = re.compile(r"(?m)^(Examples?:)")


@dataclass(frozen=True)
class Entry:
    """One line of the command table: the command, which is also its module's name, and what it does."""

    name: str
    summary: str

    @property
    def module(self) -> str:
        return f"{__name__}.{self.name}"

    @property
    def exists(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


TABLE = (
    Entry("demo", "Make a short song, separate it, and show what came of it."),
    Entry("separate", "Separate files here and now."),
    Entry("watch", "Separate whatever is dropped into a folder."),
    Entry("batch", "Prepare a whole crate of songs for remixing."),
    Entry("submit", "Hand a file to the running daemon."),
    Entry("jobs", "List, show, retry and cancel jobs."),
    Entry("presets", "List, show and check effect presets."),
    Entry("models", "List, download and convert models."),
    Entry("reaper", "Install the REAPER actions."),
    Entry("ardour", "Install the Ardour scripts."),
    Entry("doctor", "Say what works on this machine, and what to do about the rest."),
    Entry("bench", "Measure speed and memory on this machine."),
    Entry("train", "Train a model."),
    Entry("evaluate", "Measure a model on songs whose stems are known."),
)


def commands() -> list[Entry]:
    """The commands that this installation has, in the order of the table."""
    return [entry for entry in TABLE if entry.exists]


def help_text() -> str:
    """What `tsbs-daw --help` prints."""
    entries = commands()
    width = max(len(entry.name) for entry in entries)
    lines = "\n".join(f"  {entry.name.ljust(width)}  {entry.summary}" for entry in entries)
    return (
        f"Usage: {PROGRAM} COMMAND [ARGUMENTS]...\n\n"
        "Take a song apart inside your DAW: vocals, drums, bass and the rest, with a session that opens in REAPER.\n\n"
        f"Commands:\n{lines}\n\n"
        "Options:\n"
        "  --help     This text. After a command: what it takes, with an example.\n"
        "  --version  The version of this program.\n"
        "  --verbose  Say on stderr what is going on inside.\n\n"
        f"Example: {PROGRAM} demo\n"
    )


def find(name: str) -> Entry:
    """Raises: UsageError: no such command; names the closest one"""
    names = [entry.name for entry in commands()]
    if name in names:
        return next(entry for entry in TABLE if entry.name == name)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"`{PROGRAM} --help` lists the commands."
    raise UsageError(f"There is no command {name!r}; {hint}")


def load(entry: Entry) -> Any:
    """The typer command or group of an entry. Help is plain text, so that it reads the same in a pipe."""
    import typer
    from typer.main import get_command

    module = importlib.import_module(entry.module)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer()
        app.command(name=entry.name)(module.command)
    app.rich_markup_mode = None
    app._add_completion = False
    found = get_command(app)
    _prepare_help(found)
    return found


def _prepare_help(command: Any) -> None:
    """Let examples stand as they are written, so that they can be copied, and give a group its first command's."""
    below = list(getattr(command, "commands", {}).values())
    for one in below:
        _prepare_help(one)
    # A line with a backspace before a paragraph tells click to leave its lines alone.
    command.help = _EXAMPLE.sub("\b\n\\1", command.help or "")
    if below and not _EXAMPLE.search(command.help):
        first = next((one.help[match.start() :] for one in below if (match := _EXAMPLE.search(one.help))), "")
        command.help += f"\n\n\b\n{first}"


def run(entry: Entry, arguments: Sequence[str]) -> int:
    """Run a command. Returns the exit code: what the command chose, or 2 for arguments that it does not take.

    Raises: what the command raises; KeyboardInterrupt
    """
    import typer

    try:
        returned = load(entry).main(list(arguments), prog_name=f"{PROGRAM} {entry.name}", standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort as abort:
        raise KeyboardInterrupt from abort
    except Exception as error:
        # Wrong arguments. The class of these errors has lived in several places, so it is known by what it can do.
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        error.show()
        return error.exit_code
    if returned == INTERRUPTED:  # typer's own answer to Ctrl-C, where it has one
        raise KeyboardInterrupt
    return returned if isinstance(returned, int) else 0
