"""Child processes: how one is asked a question, how it answers, and how both notice that the other is gone.

Whatever may crash, hang or take all memory runs in a process of its own. There are two kinds:

* **One question, one answer** (analysis, tags, conversion, a doctor's probe). The parent calls `ask`; the child's
  module ends in `answer(work)`:

      found = child.ask(child.python("tsbs_daw.analysis.analyse"), {"mixture": "a.wav"}, limit_s=60)   # parent

      if __name__ == "__main__":                                                                      # child
          child.answer(work)      # work(request) -> anything that JSON can hold

  The request travels as one line on stdin, the answer through a file, so that nothing a library prints can damage it.
  stderr and stdout go to a log, whose end `ChildFailed` carries.

* **A conversation** of many messages (decoders, effect chains): see `core.conversation`. The worker of a daemon speaks
  in lines of JSON instead. Both take what they share from here.

Either way a child that is killed, crashes or answers nonsense is a `ChildFailed`, and one that does not answer is
killed and a `ChildTimeout`. The end of the child's stdin says that the parent is gone. A child leaves by `os._exit`:
everything is said, and native libraries may crash while they are unloaded.
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

# Libraries that would start a thread per core.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ChildError(Exception):
    """A child gave no answer that can be used. Base of the three reasons."""


class ChildFailed(ChildError):
    """A child gave no usable answer.

    Attributes:
        exit_text: "signal SIGSEGV", "exit code 1", "an invalid message".
        log: The end of what it printed.
        code: Its exit code; None if it was still running, or cannot be ended.
    """

    def __init__(self, exit_text: str, log: str, code: int | None = None):
        super().__init__(exit_text)
        self.exit_text, self.log, self.code = exit_text, log, code


class ChildRefused(ChildError):
    """A child answered that it cannot do it, in one sentence for the user."""


class ChildTimeout(ChildError):
    """A child did not answer within its limit, and was killed."""


# The parent's side


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment(
    *, threads: int | None = None, without: Collection[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This process's environment, for a child, which imports nothing from the folder that it is started in.

    Args:
        threads: How many threads numeric libraries may use; None leaves what is set.
        without: Variables that the child must not see.
        extra: Variables to set.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    limited = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
    # From Python 3.11 on. The folder counts only where this package is run from its source without being installed.
    safe = {} if Path(__file__).resolve().parents[2] == Path.cwd() else {"PYTHONSAFEPATH": "1"}
    return inherited | safe | limited | dict(extra or {})


def describe_exit(code: int | None) -> str:
    """How a process ended, for people: "signal SIGSEGV", "exit code 1", "still running"."""
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
    """Start a child, put one question to it, and wait for the answer.

    Args:
        command: From `python`.
        request: What `answer` hands to the child's function.
        limit_s: The child is killed after so many seconds.
        waiting: Called several times a second with the seconds since the start; what it raises ends the child.
        env: From `environment`; None: one thread.

    Returns:
        What the child's function returned.

    Raises:
        ChildRefused: The child's function raised a TsbsDawError.
        ChildFailed: It crashed, or its answer is damaged.
        ChildTimeout: It took too long.
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
    """Read the question, answer it, and end this process. The counterpart of `ask`.

    Args:
        work: Gets the request, and returns what JSON can hold. Imports what is slow only when it is called.
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
    """End this process, whatever it is doing, when its stdin ends: then the parent is gone.

    Args:
        only: Ignore what a terminal or a service sends to the whole group: the parent decides.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP") if only else ():
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def listen() -> None:
        # The raw descriptor: a buffered read would hold a lock that the interpreter needs when it shuts down.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=listen, name="parent", daemon=True).start()


def keep_stdout() -> BinaryIO:
    """Take stdout for messages; whatever is printed from now on, in Python or in C, goes to stderr."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def limit_memory(limit_bytes: int) -> None:
    """Limit the address space of this process, and let it write no core file, where the system can. 0: no limit."""
    if not limit_bytes:
        return
    try:
        import resource
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, limit_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))
