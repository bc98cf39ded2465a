"""Chains with a VST3 plug-in, each in a process of its own: a plug-in that crashes or hangs takes nothing with it.

A process serves one output of one song and ends: plug-ins never carry state from song to song. What a plug-in does to
its process is noted (see `quarantine`); which of several in a chain it was is known, because the child says which one
it is about to call.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import EffectError, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.effects.output import Effect, Output
from tsbs_daw.effects.protocol import effect_to_json, receive, send
from tsbs_daw.effects.table import PLUGIN

CRASHES_ALLOWED = 1
FILES_LOOKED_AT = 500  # of a plug-in's bundle


class Quarantine:
    """Args: file: where crashes are noted; made when first needed"""

    def __init__(self, file: Path):
        self.file = file

    def check(self, plugin: Path) -> None:
        """Raises: EffectError: the plug-in has crashed or hung twice and was not updated since"""
        entry = self._read().get(str(plugin))
        if entry and entry["modified_ns"] == modified_ns(plugin) and entry["crashes"] > CRASHES_ALLOWED:
            raise EffectError(
                f"The plug-in {shown(plugin)} is not used any more, because it {entry['last']} "
                f"{entry['crashes']} times; update it, or try it with `tsbs-daw presets check --run`."
            )

    def add(self, plugin: Path, how: str) -> int:
        """Note a crash (`how`: "crashed", "hung"). Returns how many there are now."""
        with self._locked():
            entries = self._read()
            entry, modified = entries.get(str(plugin)), modified_ns(plugin)
            before = entry["crashes"] if entry and entry["modified_ns"] == modified else 0
            entries[str(plugin)] = {
                "crashes": before + 1,
                "last": how,
                "modified_ns": modified,
                "unix_s": round(time.time()),
            }
            self._write(entries)
        return before + 1

    def forgive(self, plugin: Path) -> None:
        """Forget a plug-in's crashes, to try it again."""
        if str(plugin) in self._read():
            with self._locked():
                self._write({key: entry for key, entry in self._read().items() if key != str(plugin)})

    def _locked(self):
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(str(self.file) + ".lock")

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
            for entry in entries.values():
                int(entry["crashes"]), int(entry["modified_ns"]), str(entry["last"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the list of crashed plug-ins %s is damaged and counts as empty: %s", shown(self.file), error)
            return {}
        return entries

    def _write(self, entries: dict[str, dict]) -> None:
        write_atomically(self.file, json.dumps(entries, indent=2))


def modified_ns(plugin: Path) -> int:
    """When any file of a plug-in was last changed; a plug-in is one file or a folder of them. 0: not there."""
    files = [plugin, *sorted(plugin.rglob("*"))[:FILES_LOOKED_AT]] if plugin.is_dir() else [plugin]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


log = logging.getLogger(__name__)

START_S = 120.0  # some plug-ins ask a licence server, or read gigabytes of samples
BLOCK_S = 60.0
BOOT_S = 120.0  # for Python and the audio library, before any plug-in
LAST_WORDS = 40  # lines of the child's own output that are kept for the log


def plugin_folders() -> list[Path]:
    """Where this system keeps VST3 plug-ins: the user's own first."""
    if sys.platform == "darwin":
        return [Path.home() / "Library/Audio/Plug-Ins/VST3", Path("/Library/Audio/Plug-Ins/VST3")]
    if sys.platform == "win32":
        roots = [os.environ.get("LOCALAPPDATA", "") + "\\Programs", os.environ.get("COMMONPROGRAMFILES", "")]
        return [Path(root, "Common" if "Programs" in root else "", "VST3") for root in roots if root]
    return [Path.home() / ".vst3", Path("/usr/local/lib/vst3"), Path("/usr/lib/vst3")]


def find_plugin(path: str, folders: list[Path] | None = None) -> Path:
    """The plug-in's file or bundle: an absolute path as it is, a bare name in the system's folders or below them.

    Raises: EffectError: not there
    """
    given = Path(path)
    if given.is_absolute():
        if given.exists():
            return given
        raise EffectError(f"The plug-in {shown(given)} is not there; install it or change its path in the preset.")
    folders = plugin_folders() if folders is None else folders
    for folder in folders:
        for found in (folder / given, *sorted(folder.glob(f"*/{given}"))):
            if found.exists():
                return found
    looked = ", ".join(shown(folder) for folder in folders)
    raise EffectError(f"The plug-in {shown(given)} is in none of {looked}; install it or give its whole path.")


@dataclass(frozen=True)
class PluginHost:
    """How plug-ins are run.

    start_s, block_s: how long a chain may take to be built, and to answer for one block, before it is killed
    quarantine:       None: the file in the cache folder
    folders:          where bare names are looked for; None: the system's
    """

    start_s: float = START_S
    block_s: float = BLOCK_S
    quarantine: Quarantine = field(
        default_factory=lambda: Quarantine(Settings.from_environment().cache / "plugins.json")
    )
    folders: tuple[Path, ...] | None = None

    def open(self, output: Output, sample_rate: int, channels: int) -> ChainProcess:
        """Start an output's chain in a process.

        Raises: EffectError: a plug-in that is missing, in quarantine, refuses its parameters, crashes, or hangs
        """
        chain = tuple(self._located(effect) for effect in output.chain)
        for effect in (inner for outer in chain for inner in outer.walk()):
            if effect.name == PLUGIN:
                self.quarantine.check(Path(effect.path))
        process = ChainProcess(self, output.name, chain, channels)
        process.start(sample_rate)
        return process

    def locate(self, effect: Effect) -> Path:
        """Where a plug-in's file is. Raises: EffectError"""
        return find_plugin(effect.path, None if self.folders is None else list(self.folders))

    def _located(self, effect: Effect) -> Effect:
        children = tuple(self._located(child) for child in effect.children)
        path = str(self.locate(effect)) if effect.name == PLUGIN else ""
        return replace(effect, children=children, path=path)


class ChainProcess:
    """A chain in another process, with the interface of a chain in this one."""

    def __init__(self, host: PluginHost, output_name: str, chain: tuple[Effect, ...], channels: int):
        self.host, self.output_name, self.channels = host, output_name, channels
        self.chain, self.effects = chain, [inner for outer in chain for inner in outer.walk()]
        self.at: Effect | None = None  # the effect that the child said it would call
        # The child watches itself too, in case this process dies; it must not be the first to give up.
        command = [sys.executable, "-m", "tsbs_daw.effects.child", str(2 * max(host.start_s, host.block_s))]
        pipe = subprocess.PIPE
        try:
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            message = f"No process could be started for the plug-ins of the output {output_name!r} ({error.strerror})"
            raise EffectError(f"{message}; close other programs and try again.") from error
        self.last_words: deque[bytes] = deque(maxlen=LAST_WORDS)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def _listen(self) -> None:
        """Plug-ins talk, some without end; keep the last lines only."""
        with suppress(ValueError, OSError):
            while line := self._child.stderr.readline(4096):
                self.last_words.append(line)

    def start(self, sample_rate: int) -> None:
        """Have the chain built. Raises: EffectError"""
        chain = [effect_to_json(effect) for effect in self.chain]
        asked = {"chain": chain, "sample_rate": sample_rate, "channels": self.channels}
        with self._watched(BOOT_S, "while it started"):
            self._answer(b"R")
        with self._watched(self.host.start_s, "while it was loaded"):
            send(self._child.stdin, b"C", json.dumps(asked).encode())
            self._answer(b"R")
        log.info("chain of output %s runs in process %d", self.output_name, self.pid)

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Raises: EffectError: the child crashed, hung, or said what went wrong"""
        with self._watched(self.host.block_s, "while it worked"):
            send(self._child.stdin, b"E" if last else b"B", np.ascontiguousarray(block, np.float32).tobytes())
            payload = self._answer(b"B")
        return np.frombuffer(payload, np.float32).reshape(self.channels, -1)

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self._listener.join()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            with suppress(OSError):
                stream.close()

    def _answer(self, wanted: bytes) -> bytes:
        while True:
            kind, payload = receive(self._child.stdout)
            if kind == b"A":
                self.at = self.effects[int(payload)]
            elif kind == b"X":
                raise EffectError(payload.decode())
            elif kind == wanted:
                self.at = None
                return payload

    @contextmanager
    def _watched(self, limit_s: float, when: str) -> Iterator[None]:
        """Kill the child when it takes longer, and turn its end into a sentence."""
        late = threading.Event()
        timer = threading.Timer(limit_s, self._give_up, [late])
        timer.start()
        try:
            yield
        except EffectError:
            self.close()
            raise
        except (EOFError, OSError, ValueError) as error:
            raise self._ended(late.is_set(), limit_s, when) from error
        finally:
            timer.cancel()

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self._child.kill()

    def _ended(self, late: bool, limit_s: float, when: str) -> EffectError:
        """The sentence for a child that is gone, and a note against the plug-in it was in."""
        self.close()
        words = b"".join(self.last_words).decode("utf-8", "replace").strip()
        log.warning("the chain of output %s ended: %s; it said: %s", self.output_name, self._code(), words or "nothing")
        how = f"hung (no answer in {limit_s:g} s)" if late else f"crashed ({self._code()})"
        if self.at is None or self.at.name != PLUGIN:
            return EffectError(
                f"The effects of the output {self.output_name!r} {how} {when}; try again, and report it if it stays."
            )
        crashes = self._note("hung" if late else "crashed")
        again = "it will not be used again" if crashes > 1 else "if it happens again it will not be used any more"
        return EffectError(
            f"The plug-in {shown(self.at.path)} {how} {when}; update it or take it out of the preset, {again}."
        )

    def _note(self, how: str) -> int:
        try:
            return self.host.quarantine.add(Path(self.at.path), how)
        except OSError as error:
            log.warning("the crash of %s could not be noted: %s", shown(self.at.path), error)
            return 1

    def _code(self) -> str:
        code = self._child.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def forgive_plugins(output: Output, host: PluginHost | None = None) -> None:
    """Give the plug-ins of an output another chance, as far as they were put aside.

    Raises: EffectError: one is not there
    """
    host = host or PluginHost()
    for effect in output.effects():
        if effect.name == PLUGIN:
            host.quarantine.forgive(host.locate(effect))
