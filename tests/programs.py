"""Programs with windows, on a screen of their own, and certainly ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def process(arguments: list[str], env: dict[str, str], **streams: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program and what it starts, in a group of their own, which ends with the block."""
    started = subprocess.Popen(arguments, env=env, start_new_session=True, **streams)
    try:
        yield started
    finally:
        for how, patience_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(patience_s)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A virtual screen under the first number that is free. Yields: the display's name"""
    reading, writing = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        with process(arguments, dict(os.environ), pass_fds=(writing,), **quiet):
            os.close(writing)
            writing = -1
            number = b""
            while not number.endswith(b"\n"):
                piece = os.read(reading, 16)
                assert piece, "Xvfb did not start"
                number += piece
            yield f":{int(number)}"
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
