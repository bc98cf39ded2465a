"""A real Firefox without a screen, driven through its own Marionette, and a sound card for it that is none.

Without a sound card it plays, and yet says that each file is broken. Where a program is missing, the test is skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from timeouts import PATIENCE_S

PROGRAMS = ("firefox-esr", "firefox")


class Firefox:
    """One page.

    Messages are `length:[type, number, name, parameters]` in JSON, answers `length:[type, number, error, value]`.
    """

    def __init__(self, connection: socket.socket):
        self._file, self._number = connection.makefile("rwb"), 0
        self._read()  # it introduces itself
        self._call("WebDriver:NewSession", capabilities={})

    def open(self, page: Path | str) -> None:
        """Args: page: a file, or an address"""
        self._call("WebDriver:Navigate", url=page if isinstance(page, str) else page.resolve().as_uri())

    def run(self, script: str) -> Any:
        """What the body of a function returns."""
        return self._call("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def run_in_page(self, script: str) -> Any:
        """As one of the page's own scripts: what it defines stays."""
        return self._call("WebDriver:ExecuteScript", script=script, args=[], sandbox=None)["value"]

    def wait_for(self, script: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < end, f"still not true: {script}"
            time.sleep(0.1)

    def _call(self, name: str, **parameters: object) -> Any:
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._file.write(b"%d:%s" % (len(message), message))
        self._file.flush()
        _, _, error, value = self._read()
        assert error is None, error
        return value

    def _read(self) -> Any:
        length = b""
        while (digit := self._file.read(1)) != b":":
            length += digit
        return json.loads(self._file.read(int(length)))


@contextlib.contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """Args: profile: an empty folder"""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    sound = shutil.which("pulseaudio")
    if program is None or sound is None:
        pytest.skip("no Firefox here, or no PulseAudio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"marionette.port": port, "media.autoplay.default": 0}
    lines = (f"user_pref({json.dumps(name)}, {value});" for name, value in settings.items())
    (profile / "user.js").write_text("\n".join(lines))
    words = [program, "--headless", "--no-remote", "--marionette", "--profile", str(profile)]
    card = [sound, "-n", "--daemonize=no", "--exit-idle-time=-1", "-L", "module-null-sink"]
    card += ["-L", "module-native-protocol-unix"]
    quiet = {
        "env": os.environ | {"HOME": str(profile), "XDG_RUNTIME_DIR": str(profile)},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    processes = [subprocess.Popen(card, **quiet), subprocess.Popen(words, **quiet)]
    try:
        with _connected(port) as connection:
            yield Firefox(connection)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _connected(port: int) -> socket.socket:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "Firefox does not answer"
            time.sleep(0.2)
