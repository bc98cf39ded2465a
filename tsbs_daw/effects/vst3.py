"""Runs chains with a VST3 plug-in in separate processes, so that a plug-in that crashes or hangs does no harm.

A process serves one output of one song and ends, so plug-ins carry no state from song to song. Crashes and hangs are
recorded in a file in the cache folder, and a plug-in is refused after the second one; an update clears its record. The
child announces each plug-in before calling it, so a crash can be attributed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tsbs_daw.core import child
from tsbs_daw.core.config import Settings
from tsbs_daw.core.conversation import Conversation
from tsbs_daw.core.errors import EffectError, shown
from tsbs_daw.core.files import file_sha256, write_atomically
from tsbs_daw.effects.table import PLUGIN, Effect, Output, effect_to_json

CRASHES_ALLOWED = 1
MAX_BUNDLE_FILES = 500  # files of a plug-in's bundle that are checked for changes


class Record:
    """A small JSON file with one entry for each plug-in. Several processes may change it.

    Args:
        file: The JSON file, created on the first change.
    """

    what = "plug-ins"  # content of the record, for the log

    def __init__(self, file: Path):
        self.file = file

    def read(self) -> dict[str, Any]:
        """Return the record; empty if the file is missing or damaged."""
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
            for entry in entries.values():
                self.validate(entry)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("ignoring the damaged record of %s %s: %s", self.what, shown(self.file), error)
            return {}
        return dict(entries)

    def validate(self, entry: Any) -> None:
        """Raise ValueError, TypeError, KeyError or AttributeError if an entry is invalid."""

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the record under a lock.

        Args:
            change: Changes the entries in place.

        Raises:
            OSError: The file cannot be written.
        """
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.file) + ".lock"):
            entries = self.read()
            change(entries)
            write_atomically(self.file, json.dumps(entries, indent=2))


class Quarantine(Record):
    """The record of plug-ins that crash."""

    what = "crashed plug-ins"

    def validate(self, entry: Any) -> None:
        int(entry["crashes"]), int(entry["modified_ns"]), str(entry["last"])

    def check(self, plugin: Path) -> None:
        """Refuse a plug-in that has crashed or hung twice and has not been updated since.

        Raises:
            EffectError: The plug-in is refused.
        """
        entry = self.read().get(str(plugin))
        if entry and entry["modified_ns"] == modified_ns(plugin) and entry["crashes"] > CRASHES_ALLOWED:
            raise EffectError(
                f"The plug-in {shown(plugin)} is disabled because it {entry['last']} "
                f"{entry['crashes']} times; update it, or try it with `tsbs-daw presets check --run`."
            )

    def add(self, plugin: Path, how: str) -> int:
        """Record a crash; `how` is "crashed" or "hung". Returns the number of crashes so far."""
        crashes = 1

        def count(entries: dict[str, Any]) -> None:
            nonlocal crashes
            entry, modified = entries.get(str(plugin)), modified_ns(plugin)
            crashes = 1 + (entry["crashes"] if entry and entry["modified_ns"] == modified else 0)
            now = round(time.time())
            entries[str(plugin)] = {"crashes": crashes, "last": how, "modified_ns": modified, "unix_s": now}

        self.change(count)
        return crashes

    def clear(self, plugin: Path) -> None:
        """Clear the record of a plug-in, so that it is tried again."""
        if str(plugin) in self.read():
            self.change(lambda entries: entries.pop(str(plugin), None))


class TrustedPlugins(Record):
    """The record of plug-ins outside the system's folders that the user allowed to run, with a hash of each."""

    what = "trusted plug-ins"

    def validate(self, entry: Any) -> None:
        if not isinstance(entry, str):
            raise TypeError("a hash is missing")

    def check(self, plugin: Path) -> None:
        """Refuse a plug-in that the user has not allowed, or that has changed since then.

        Raises:
            EffectError: The plug-in is refused.
        """
        if not is_installed(plugin) and content_sha256(plugin) not in self.read().values():
            raise EffectError(
                f"The plug-in {shown(plugin)} is a program outside the system's plug-in folders and would run with "
                "your permissions. If you trust it, allow it once with `tsbs-daw presets trust` and the preset's name."
            )

    def add(self, plugin: Path) -> None:
        """Allow a plug-in with its current content.

        Raises:
            EffectError: The plug-in cannot be read, or the record cannot be written.
        """
        digest = content_sha256(plugin)
        try:
            self.change(lambda entries: entries.update({str(plugin): digest}))
        except OSError as error:
            raise EffectError(f"Cannot write {shown(self.file)} ({error.strerror}); check its folder.") from error


def is_installed(plugin: Path) -> bool:
    """Return whether a plug-in is in one of the system's plug-in folders, after resolving links."""
    real = plugin.resolve()
    return any(folder.resolve() in real.parents for folder in plugin_folders())


def content_sha256(plugin: Path) -> str:
    """Return a hash of a plug-in: of its file, or of all names and files of its bundle.

    Raises:
        EffectError: The plug-in cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in sorted(plugin.rglob("*")) if plugin.is_dir() else [plugin]:
            if not file.is_dir():
                digest.update(f"{file.relative_to(plugin)}\0{file_sha256(file)}\0".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise EffectError(f"Cannot read the plug-in {shown(plugin)} ({error.strerror}); check it.") from error
    return digest.hexdigest()


def modified_ns(plugin: Path) -> int:
    """Return when a plug-in's file or bundle was last changed; 0 if it is missing."""
    files = [plugin, *sorted(plugin.rglob("*"))[:MAX_BUNDLE_FILES]] if plugin.is_dir() else [plugin]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


log = logging.getLogger(__name__)

START_S = 120.0  # some plug-ins contact a licence server or load gigabytes of samples
BLOCK_S = 60.0
BOOT_S = 120.0  # to start Python and the audio library, before any plug-in is loaded
LOG_LINES = 40  # last lines of the child's output that are logged


def plugin_folders() -> list[Path]:
    """Return the VST3 folders of this system, the user's own folder first."""
    if sys.platform == "darwin":
        return [Path.home() / "Library/Audio/Plug-Ins/VST3", Path("/Library/Audio/Plug-Ins/VST3")]
    if sys.platform == "win32":
        roots = [os.environ.get("LOCALAPPDATA", "") + "\\Programs", os.environ.get("COMMONPROGRAMFILES", "")]
        return [Path(root, "Common" if "Programs" in root else "", "VST3") for root in roots if root]
    return [Path.home() / ".vst3", Path("/usr/local/lib/vst3"), Path("/usr/lib/vst3")]


def find_plugin(path: str, folders: list[Path] | None = None) -> Path:
    """Find a plug-in's file or bundle: by absolute path, or by name in the system's folders and their subfolders.

    Raises:
        EffectError: The plug-in is missing.
    """
    given = Path(path)
    if given.is_absolute():
        if given.exists():
            return given
        raise EffectError(f"The plug-in {shown(given)} is missing; install it, or change its path in the preset.")
    folders = plugin_folders() if folders is None else folders
    for folder in folders:
        for found in (folder / given, *sorted(folder.glob(f"*/{given}"))):
            if found.exists():
                return found
    searched = ", ".join(shown(folder) for folder in folders)
    raise EffectError(f"The plug-in {shown(given)} is in none of {searched}; install it, or give its full path.")


@dataclass(frozen=True)
class PluginHost:
    """Runs chains with plug-ins in separate processes.

    Attributes:
        start_s: Time limit for building a chain, after which its process is killed.
        block_s: Time limit for processing one block, after which the process is killed.
        quarantine: Record of crashes. Default: a file in the cache folder.
        folders: Folders to search for plug-ins by name. Default: the system's folders.
        trusted: Record of plug-ins by path that may run; None to allow all. Default: a file in the home folder.
    """

    start_s: float = START_S
    block_s: float = BLOCK_S
    quarantine: Quarantine = field(
        default_factory=lambda: Quarantine(Settings.from_environment().cache / "plugins.json")
    )
    folders: tuple[Path, ...] | None = None
    trusted: TrustedPlugins | None = field(
        default_factory=lambda: TrustedPlugins(Settings.from_environment().home / "trusted-plugins.json")
    )

    def open(self, output: Output, sample_rate: int, channels: int) -> ChainProcess:
        """Start the chain of an output in a process.

        Raises:
            EffectError: A plug-in is missing or disabled, refuses its parameters, crashes or hangs.
        """
        chain = tuple(self._located(effect) for effect in output.chain)
        for effect in (inner for outer in chain for inner in outer.walk()):
            if effect.name == PLUGIN:
                self.quarantine.check(Path(effect.path))
                if self.trusted:
                    self.trusted.check(Path(effect.path))
        process = ChainProcess(self, output.name, chain, channels)
        process.start(sample_rate)
        return process

    def locate(self, effect: Effect) -> Path:
        """Find the file of a plug-in.

        Raises:
            EffectError: The plug-in is missing.
        """
        return find_plugin(effect.path, None if self.folders is None else list(self.folders))

    def _located(self, effect: Effect) -> Effect:
        children = tuple(self._located(child) for child in effect.children)
        path = str(self.locate(effect)) if effect.name == PLUGIN else ""
        return replace(effect, children=children, path=path)


class ChainProcess:
    """A chain in another process, with the interface of `Chain`."""

    def __init__(self, host: PluginHost, output_name: str, chain: tuple[Effect, ...], channels: int):
        self.host, self.output_name, self.channels = host, output_name, channels
        self.chain, self.effects = chain, [inner for outer in chain for inner in outer.walk()]
        self.at: Effect | None = None  # the last effect that the child announced
        # The child has its own, longer time limit, in case this process dies.
        command = child.python("tsbs_daw.effects.chain", str(2 * max(host.start_s, host.block_s)))
        try:
            self._chain = Conversation(command, log_lines=LOG_LINES)
        except OSError as error:
            message = f"Cannot start a process for the plug-ins of the output {output_name!r} ({error.strerror})"
            raise EffectError(f"{message}; close other programs and try again.") from error

    @property
    def pid(self) -> int:
        return self._chain.process.pid

    def start(self, sample_rate: int) -> None:
        """Build the chain.

        Raises:
            EffectError: The child crashed, hung, or reported an error.
        """
        chain = [effect_to_json(effect) for effect in self.chain]
        request = {"chain": chain, "sample_rate": sample_rate, "channels": self.channels}
        self._exchange(None, b"R", BOOT_S, "while it started")
        self._exchange((b"C", json.dumps(request).encode()), b"R", self.host.start_s, "while it was loaded")
        log.info("chain of output %s runs in process %d", self.output_name, self.pid)

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Process a block.

        Raises:
            EffectError: The child crashed, hung, or reported an error.
        """
        message = (b"E" if last else b"B", np.ascontiguousarray(block, np.float32).tobytes())
        payload = self._exchange(message, b"B", self.host.block_s, "while it worked")
        return np.frombuffer(payload, np.float32).reshape(self.channels, -1)

    def close(self) -> None:
        self._chain.close()

    def _exchange(self, message: tuple[bytes, bytes] | None, wanted: bytes, limit_s: float, when: str) -> bytearray:
        """Send a message, if there is one, and wait for the answer, both within the limit.

        Raises:
            EffectError: The child crashed, hung, or reported an error.
        """
        end_s = time.monotonic() + limit_s
        try:
            if message:
                self._chain.send(*message, limit_s=limit_s)
            while True:
                kind, payload = self._chain.receive(max(0.0, end_s - time.monotonic()))
                if kind == b"A":
                    self.at = self.effects[int(payload)]
                elif kind == b"X":
                    self.close()
                    raise EffectError(payload.decode())
                elif kind == wanted:
                    self.at = None
                    return payload
        except child.ChildTimeout as error:
            raise self._ended("hung", f"no answer in {limit_s:g} s", when) from error
        except child.ChildFailed as error:
            raise self._ended("crashed", error.exit_text.removeprefix("signal "), when) from error

    def _ended(self, how: str, detail: str, when: str) -> EffectError:
        """Record the crash of the plug-in that was running, and return the error to raise."""
        self.close()
        log.warning("the chain of %s ended: %s; its output: %s", self.output_name, detail, self._chain.log or "nothing")
        if self.at is None or self.at.name != PLUGIN:
            return EffectError(
                f"The effects of the output {self.output_name!r} {how} ({detail}) {when}; "
                "try again, and report it if it persists."
            )
        crashes = self._note(Path(self.at.path), how)
        consequence = "it is now disabled" if crashes > 1 else "it is disabled if this happens again"
        return EffectError(
            f"The plug-in {shown(self.at.path)} {how} ({detail}) {when}; "
            f"update it, or remove it from the preset; {consequence}."
        )

    def _note(self, plugin: Path, how: str) -> int:
        try:
            return self.host.quarantine.add(plugin, how)
        except OSError as error:
            log.warning("cannot record the crash of %s: %s", shown(plugin), error)
            return 1


def clear_plugins(output: Output, host: PluginHost | None = None) -> None:
    """Clear the crash records of the plug-ins of an output.

    Raises:
        EffectError: A plug-in is missing.
    """
    host = host or PluginHost()
    for effect in output.effects():
        if effect.name == PLUGIN:
            host.quarantine.clear(host.locate(effect))


def plugins_of(outputs: Iterable[Output], host: PluginHost | None = None) -> list[Path]:
    """Return the files of all plug-ins of outputs, including those inside chains and mixes.

    Raises:
        EffectError: A plug-in is missing.
    """
    host = host or PluginHost()
    effects = (effect for output in outputs for effect in output.effects())
    return list(dict.fromkeys(host.locate(effect) for effect in effects if effect.name == PLUGIN))
