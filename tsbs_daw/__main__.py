"""`tsbs-daw`, also as `python -m tsbs_daw`: finds the command, runs it, and turns what goes wrong into one sentence.

Exit codes: 0 done, 1 a job failed, 2 wrong use, 130 interrupted. This is the one place where errors are caught for
good; whatever is not in the tree of `errors` is a bug, and its traceback goes to a file.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from tsbs_daw import cli
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobCancelled, TsbsDawError, described


def main() -> None:
    _print_any_character()
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: Sequence[str]) -> int:
    settings = Settings.from_environment()
    try:
        code = _dispatch(arguments, settings)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # `tsbs-daw jobs list | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, JobCancelled):
        _say("interrupted.")
        return cli.INTERRUPTED
    except TsbsDawError as error:
        _say(str(error))
        return error.exit_code
    except Exception as error:
        return _unforeseen(error, settings)


def _dispatch(arguments: Sequence[str], settings: Settings) -> int:
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
    from tsbs_daw.cli import logs

    logs.start(settings, entry.name, verbose=verbose)
    return cli.run(entry, arguments[1:])


def _unforeseen(error: Exception, settings: Settings) -> int:
    """What the system or the installation is the cause of is told like any other error; the rest is a bug."""
    from tsbs_daw.cli import errors, logs

    text = "".join(traceback.format_exception(error))
    kept = logs.keep_traceback(settings, text)
    if isinstance(error, OSError) and (sentence := errors.refused(error)):
        _say(sentence)
        return 1
    if isinstance(error, ModuleNotFoundError) and (sentence := errors.lacking(error)):
        _say(sentence)
        return 2
    if kept is None:
        print(text, file=sys.stderr)
    _say(f"this is a bug ({described(error)}); please report it" + (f" with the end of {kept}." if kept else "."))
    return 1


def _say(sentence: str) -> None:
    print(f"{cli.PROGRAM}: {sentence}", file=sys.stderr)


def _print_any_character() -> None:
    """A song's name must not end the program on a terminal, or in a pipe, that cannot show it, or where none is."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
