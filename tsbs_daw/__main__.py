"""`tsbs-daw`, also as `python -m tsbs_daw`: finds the command, runs it, and reports every error in one sentence.

Exit codes: 0 success, 1 a job failed, 2 wrong usage, 130 interrupted. Only this module catches every error; whatever
does not derive from `TsbsDawError` is a bug, and its traceback goes to a file.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw import cli
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobCancelled, TsbsDawError, described, shown

COMPLETION_QUESTION = "_TSBS_DAW_COMPLETE"  # set by the completion script: the shell asks what can follow

_NEED_A_HOME = ("batch", "demo", "separate", "submit", "watch")  # the others say what they miss, or do without


def main() -> None:
    _print_any_character()
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # what could not be written has been reported; Python would try again at its end, and complain
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Send what is still to be written to stdout nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str]) -> int:
    settings = Settings.from_environment()
    try:
        code = _dispatch(arguments, settings)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # `tsbs-daw jobs list | head`: the reader closed the pipe.
        _drop_output()
        return 0
    except (KeyboardInterrupt, JobCancelled):
        _say("Interrupted.")
        return cli.INTERRUPTED
    except TsbsDawError as error:
        _say(str(error))
        return error.exit_code
    except Exception as error:
        return _unforeseen(error, settings)


def _dispatch(arguments: Sequence[str], settings: Settings) -> int:
    if COMPLETION_QUESTION in os.environ or arguments[:1] in (["--install-completion"], ["--show-completion"]):
        return cli.complete(arguments)
    verbose = "--verbose" in arguments[:1]
    arguments = arguments[1:] if verbose else arguments
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(cli.help_text(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from tsbs_daw import __version__

        print(f"{cli.PROGRAM} {__version__}")
        return 0
    entry = cli.find(arguments[0])
    from tsbs_daw.cli.console import start_logging

    if entry.name in _NEED_A_HOME and "--help" not in arguments:
        settings.make_folders()
    start_logging(settings, entry.name, verbose=verbose)
    return cli.run(entry, arguments[1:])


def _unforeseen(error: Exception, settings: Settings) -> int:
    """Report what the system or the installation causes like any other error, and the rest as a bug."""
    from tsbs_daw.cli import console

    text = "".join(traceback.format_exception(error))
    kept = console.keep_traceback(settings, text)
    if isinstance(error, OSError) and _is_of_home(error, settings):
        _say(f"Cannot use {shown(error.filename)} ({error.strerror}). Set TSBS_DAW_HOME to a folder you can write to.")
        return 1
    if isinstance(error, OSError) and (sentence := console.system_error(error)):
        _say(sentence)
        return 1
    if isinstance(error, ModuleNotFoundError) and (sentence := console.missing_package(error)):
        _say(sentence)
        return 2
    if kept is None:
        print(text, file=sys.stderr)
    _say(f"This is a bug ({described(error)}). Please report it" + (f" with the end of {kept}." if kept else "."))
    return 1


def _is_of_home(error: OSError, settings: Settings) -> bool:
    """Whether it is about the program's own folders, or one above them that cannot be made."""
    if not isinstance(error.filename, (str, os.PathLike)):
        return False
    own = (settings.home, settings.cache, settings.models)
    return any(place.is_relative_to(error.filename) or Path(error.filename).is_relative_to(place) for place in own)


def _say(sentence: str) -> None:
    print(f"{cli.PROGRAM}: {sentence}", file=sys.stderr)


def _print_any_character() -> None:
    """Escape characters that the terminal cannot show, and cope with closed streams."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
