"""A real Audacity on a display of its own, driven through its script pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cli.program import environment
from programs import display, process
from timeouts import PATIENCE_S

MODULE = Path("/usr/lib/audacity/modules/mod-script-pipe.so")
# One name for each user, whatever the configuration: an Audacity that somebody works with has the same.
_USER = os.getuid() if hasattr(os, "getuid") else 0  # there is no such pipe on Windows
TO, FROM = (Path(f"/tmp/audacity_script_pipe.{way}.{_USER}") for way in ("to", "from"))

_CONFIG = """PrefsVersion=1.1.1r1
[Version]
Major=3
Minor=2
Micro=4
[GUI]
ShowSplashScreen=0
[Directories]
TempDir={temporary}
[Update]
DefaultUpdatesChecking=0
[FileFormats]
ExportFormat_SF1=65542
[FileFormats/ExportFormat_SF1_Type]
WAV_10000=6
[Quality]
HQDitherAlgorithmChoice=None
"""
_WITH_PIPE = """[Module]
mod-script-pipe=1
[ModulePath]
mod-script-pipe={module}
[ModuleDateTime]
mod-script-pipe={time}
"""


def missing() -> str:
    """Why Audacity cannot be driven here; empty if it can."""
    absent = [name for name in ("audacity", "Xvfb") if shutil.which(name) is None]
    if absent:
        return f"Audacity and Xvfb are not installed: no {', '.join(absent)}"
    if not MODULE.is_file():
        return f"this Audacity has no {MODULE}"
    return f"{TO} is there: an Audacity is open that these tests must not touch" if TO.exists() else ""


class Unanswered(AssertionError):
    pass


class Audacity:
    """Everything below one folder. `open` it, then `do` commands."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.temporary = folder / "temporary"
        for name in ("home/.config/audacity", "home/.local/share/audacity", "temporary"):
            (folder / name).mkdir(parents=True)
        self.settings = folder / "home" / ".config" / "audacity"

    @contextlib.contextmanager
    def open(self) -> Iterator[Audacity]:
        with display() as name:
            home = {"HOME": str(self.folder / "home"), "DISPLAY": name}
            env = {key: value for key, value in environment(self.folder).items() if not key.startswith("XDG_")} | home
            self._find_plugins(env)
            self._configure(with_pipe=True)
            try:
                log = (self.folder / "audacity.log").open("ab")
                with log, process(["audacity"], env, stdout=log, stderr=log) as self.program:
                    self._connect()
                    yield self
                    os.write(self.to, b"Exit:\n")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.program.wait(30)
            finally:
                for pipe in (TO, FROM):
                    pipe.unlink(missing_ok=True)

    def do(self, command: str, within_s: float = PATIENCE_S) -> str:
        """One command. Returns: what it says before its closing line"""
        os.write(self.to, f"{command}\n".encode())
        answer = b""
        end = time.monotonic() + within_s
        while not answer.endswith(b"\n\n"):
            ready, _, _ = select.select([self.answers], [], [], 0.2)
            assert self.program.poll() is None, f"Audacity ended at {command}"
            if time.monotonic() > end:
                raise Unanswered(f"{command}: {answer!r}")
            if ready:
                answer += os.read(self.answers, 65536)
        text = answer.decode().strip()
        assert text.endswith("finished: OK"), f"{command}: {text}"
        return text.rpartition("\n")[0]

    def clips(self) -> list[dict]:
        return json.loads(self.do("GetInfo: Type=Clips Format=JSON"))

    def _configure(self, *, with_pipe: bool) -> None:
        text = _CONFIG.format(temporary=self.temporary)
        if with_pipe:
            changed = datetime.fromtimestamp(int(MODULE.stat().st_mtime)).isoformat()
            text += _WITH_PIPE.format(module=MODULE, time=changed)
        (self.settings / "audacity.cfg").write_text(text, encoding="utf-8")

    def _find_plugins(self, env: dict[str, str]) -> None:
        """The first start looks for plug-ins, and the pipe would hang meanwhile. So it happens without the pipe.

        They are found when the list of them has not changed for as long as it took to begin with it, whatever that is
        on this machine, and at least for 4 s.
        """
        self._configure(with_pipe=False)
        found = self.settings / "pluginregistry.cfg"
        began = quiet_since = time.monotonic()
        quiet_s, size = 4.0, -1
        with (self.folder / "first start.log").open("ab") as log, process(["audacity"], env, stdout=log, stderr=log):
            while size <= 0 or time.monotonic() - quiet_since < quiet_s:
                assert time.monotonic() - began < PATIENCE_S, "the plug-ins were not found in time"
                now = found.stat().st_size if found.exists() else -1
                if now != size:
                    if size <= 0:
                        quiet_s = max(quiet_s, time.monotonic() - began)
                    size, quiet_since = now, time.monotonic()
                time.sleep(0.1)
        shutil.rmtree(self.temporary)
        self.temporary.mkdir()

    def _connect(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while not (TO.exists() and FROM.exists()):
            assert self.program.poll() is None and time.monotonic() < end, "the script pipe did not come"
            time.sleep(0.1)
        # Both ways at once, so that neither opening waits for the other side.
        self.to = os.open(TO, os.O_RDWR)
        self.answers = os.open(FROM, os.O_RDONLY | os.O_NONBLOCK)
        # What is asked before its window is ready is never answered. So ask for something harmless, again and again.
        while True:
            try:
                self.do("GetInfo: Type=Tracks Format=JSON", 3.0)
                break
            except Unanswered:
                assert time.monotonic() < end, "Audacity does not answer"
        # Answers come in their order: what was late has come when this word comes back.
        os.write(self.to, b'Message: Text="the last of them"\n')
        answer = b""
        while not (b"the last of them" in answer and answer.endswith(b"\n\n")):
            assert time.monotonic() < end, f"Audacity does not answer: {answer!r}"
            if select.select([self.answers], [], [], 0.2)[0]:
                answer += os.read(self.answers, 65536)
