"""Child processes: send a request to a child, answer one as a child, and end with the parent.

Whatever may crash, hang or use up all memory runs in a process of its own. There are two kinds:

* **One question, one answer** (analysis, tags, conversion, a doctor's probe). The parent calls `ask`; the child's
  module ends in `answer(work)`:

      found = child.ask(child.python("tsbs_daw.analysis.analyse"), {"mixture": "a.wav"}, limit_s=60)   # parent

      if __name__ == "__main__":                                                                      # child
          child.answer(work)      # work(request) -> anything that JSON can hold

  The request is one line on stdin. The answer goes through a file, so that nothing a library prints can damage it.
  stderr and stdout go to a log; `ChildFailed` carries its end.

* **A conversation** of many messages (decoders, effect chains): see `core.conversation`. The workers of a daemon
  exchange lines of JSON instead. Both kinds use the functions of this module.

Either way, a child that is killed, crashes or sends an invalid answer raises `ChildFailed`; one that does not answer in
time is killed and raises `ChildTimeout`. A child knows that its parent is gone when its stdin ends. It exits through
`os._exit`, because its answer is complete and native libraries may crash while they are unloaded.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tsbs_daw.core.errors import TsbsDawError

POLL_S = 0.1
LOG_TAIL_BYTES = 4000

# Variables that limit libraries which would otherwise start one thread per core.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ChildError(Exception):
    """Base class: a child gave no usable answer."""


class ChildFailed(ChildError):
    """A child crashed, was killed, or sent an invalid answer.

    Attributes:
        exit_text: How it ended, such as "signal SIGSEGV", "exit code 1" or "an invalid message".
        log: The end of its output.
        code: Its exit code; None if it is still running or cannot be killed.
    """

    def __init__(self, exit_text: str, log: str, code: int | None = None):
        super().__init__(exit_text)
        self.exit_text, self.log, self.code = exit_text, log, code


class ChildRefused(ChildError):
    """A child answered with an error: one sentence for the user."""


class ChildTimeout(ChildError):
    """A child did not answer within its time limit and was killed."""


# The parent's side


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment(
    *, threads: int | None = None, without: Collection[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return this process's environment, for a child that imports nothing from its working directory.

    Args:
        threads: Number of threads for numeric libraries; None keeps the current setting.
        without: Variables to remove.
        extra: Variables to add or override.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    limited = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
    # Effective from Python 3.11. The working directory must stay importable if the package runs from an uninstalled
    # checkout.
    safe = {} if Path(__file__).resolve().parents[2] == Path.cwd() else {"PYTHONSAFEPATH": "1"}
    return inherited | safe | limited | dict(extra or {})


def describe_exit(code: int | None) -> str:
    """Describe how a process ended, for people: "signal SIGSEGV", "exit code 1", "still running"."""
    if code is None:
        return "still running"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def ask(
    command: Sequence[str],
    request: Mapping[str, Any],
    *,
    limit_s: float,
    waiting: Callable[[float], None] = lambda elapsed_s: None,
    env: Mapping[str, str] | None = None,
) -> Any:
    """Start a child, send it one request, and wait for the answer.

    Args:
        command: Command line; see `python`.
        request: Argument of the function that the child passes to `answer`.
        limit_s: Seconds after which the child is killed.
        waiting: Called several times a second with the seconds since the start. An exception from it kills the child.
        env: Environment; see `environment`. None for one with one thread.

    Returns:
        The result of the child's function.

    Raises:
        ChildRefused: The child's function raised a TsbsDawError.
        ChildFailed: The child crashed, or its answer is damaged.
        ChildTimeout: The child took too long.
    """
    env = environment(threads=1) if env is None else env
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-") as folder, (Path(folder) / "log").open("w+b") as log:
        path = Path(folder) / "answer.json"
        line = json.dumps({**request, "answer": str(path)}).encode() + b"\n"
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
        assert child.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(line)
                child.stdin.flush()
            _wait(child, limit_s, waiting)
        finally:
            child.kill()
            child.wait()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        try:
            answer = json.loads(path.read_bytes())
            if "error" not in answer:
                return answer["result"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.seek(0)
            tail = log.read()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
            raise ChildFailed(describe_exit(child.returncode), tail, child.returncode) from error
        raise ChildRefused(str(answer["error"]))


def _wait(child: subprocess.Popen[bytes], limit_s: float, waiting: Callable[[float], None]) -> None:
    start_s = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
            return
        elapsed_s = time.monotonic() - start_s
        waiting(elapsed_s)
        if elapsed_s > limit_s:
            raise ChildTimeout(f"no answer within {limit_s:.0f} s")


# The child's side


def answer(work: Callable[[dict[str, Any]], Any]) -> NoReturn:
    """Read the request, write the answer, and end this process. The child's counterpart of `ask`.

    Args:
        work: Takes the request and returns a result that JSON can hold. It imports slow modules only when called.
    """
    faulthandler.enable()
    code = 1
    try:
        request = json.loads(sys.stdin.buffer.readline())
        end_with_parent()
        path = Path(request.pop("answer"))
        try:
            found: dict[str, Any] = {"result": work(request)}
        except TsbsDawError as error:
            found = {"error": str(error)}
        path.write_text(json.dumps(found), encoding="utf-8")
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_with_parent(*, only: bool = False) -> None:
    """Start a thread that ends this process when its stdin ends, which means that the parent is gone.

    Args:
        only: Also ignore signals that a terminal or a service manager sends to the whole process group, so that only
            the parent ends this process.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP") if only else ():
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def listen() -> None:
        # Read the raw descriptor; a buffered read would hold a lock that the interpreter needs to shut down.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=listen, name="parent", daemon=True).start()


def keep_stdout() -> BinaryIO:
    """Return stdout as a stream for messages, and redirect all other output, even that of C code, to stderr."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def limit_memory(limit_bytes: int) -> None:
    """Limit the address space of this process and disable core files, if the system supports it; 0 does nothing."""
    if not limit_bytes:
        return
    try:
        import resource
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, limit_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))
