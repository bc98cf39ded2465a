"""What the tests of the daemon are played on: a home, songs, a daemon in this process or in one of its own."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from harness.runners import RUNNER, RUNNERS_FOLDER, way_of
from timeouts import PATIENCE_S

from tsbs_daw.contracts.job import Job, Result, Source, State
from tsbs_daw.core.config import DaemonOptions, Settings, WatchTimings
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.queue.jobs import Event
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.spool import living_daemon, read_result
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder

# As patient as the real ones in kind, and quicker.
QUICK_WATCH = WatchTimings(span_s=0.2, sample_every_s=0.05, look_every_s=0.1, rescan_s=2.0, incomplete_s=1.5)
QUICK = DaemonOptions(
    runner=RUNNER,
    busy_tick_s=0.02,
    idle_tick_s=0.1,
    lease_s=120.0,
    retry_first_s=0.05,
    restart_first_s=0.02,
    cancel_kill_s=0.5,
    finish_s=1.0,
    release_s=1.0,
    patience_s=4.0,
    local=QUICK_WATCH,
    share=replace(QUICK_WATCH, span_s=0.3, rescan_s=0.5),
)


def settings_in(folder: Path) -> Settings:
    home = folder / "home"
    return Settings(home, home / "cache", home / "models")


def wav_bytes(seed: int = 0, samples: int = 500) -> bytes:
    """A small mono 16-bit WAV whose content depends on `seed`."""
    data = b"".join(struct.pack("<h", (seed * 7919 + n * 31) % 65536 - 32768) for n in range(samples))
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 44100, 88200, 2, 16)
    return head + struct.pack("<4sI", b"data", len(data)) + data


def write_song(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(seed))
    return path


def job_for(folder: Path, song: str, *, seed: int = 0, **values: object) -> Job:
    """A job about a small file of its own; what becomes of it is said by the song's name, see `runners`."""
    source = write_song(folder / "sources" / f"{song} {seed}.wav", seed)
    return Job(source=Source(path=source), output=folder / "out", song=song, **values)


def until(condition: Callable[[], object], *, daemon: Daemon | None = None) -> None:
    """Wait for something to become true, ticking a daemon meanwhile."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"still not true after {PATIENCE_S:.0f} s"
        if daemon is not None:
            daemon.tick(time.monotonic())
        time.sleep(0.01)


def let_go(settings: Settings, *songs: str) -> None:
    """Let held songs go on."""
    for song in songs:
        way_of(settings, song).touch()


def result_of(settings: Settings, job: Job) -> Result | None:
    return read_result(settings.spool, job.id)


def lines(settings: Settings, name: str) -> list[str]:
    path = settings.home / name
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def visible_sets(output: Path) -> list[Path]:
    """The stem sets that a user sees."""
    return (
        sorted(path for path in output.rglob("*") if path.is_dir() and not path.name.startswith("."))
        if output.exists()
        else []
    )


class DaemonProcess:
    """A daemon in a process of its own, which can be killed. Args: config: a YAML file that lists more folders"""

    def __init__(
        self,
        settings: Settings,
        folders: tuple[WatchFolder, ...] = (),
        *,
        once: bool = False,
        options: DaemonOptions = QUICK,
        die_at: str = "",
        config: Path | None = None,
    ):
        settings.home.mkdir(parents=True, exist_ok=True)
        order = {
            "settings": {name: str(path) for name, path in vars(settings).items()},
            "folders": [
                {
                    "recursive": folder.recursive,
                    "polling": folder.polling,
                    "path": str(folder.path),
                    "output": str(folder.output),
                    "treatment": folder.treatment.model_dump(mode="json"),
                }
                for folder in folders
            ],
            "options": asdict(options),
            "once": once,
            "die_at": die_at,
            "config": str(config) if config is not None else "",
        }
        self.log = settings.home / "daemon.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(RUNNERS_FOLDER / "daemon_process.py"), json.dumps(order)],
                stdout=log,
                stderr=log,
                env=worker_environment(),
            )

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


def is_beating(settings: Settings, daemon: DaemonProcess) -> bool:
    """Whether this daemon is at work: what its predecessor left has been looked after."""
    heartbeat = living_daemon(settings.spool)
    return heartbeat is not None and heartbeat.pid == daemon.process.pid


class DaemonThread:
    """A daemon in a thread of this process, so that a test can look into it."""

    def __init__(
        self,
        settings: Settings,
        folders: tuple[WatchFolder, ...] = (),
        *,
        options: DaemonOptions = QUICK,
        **values: bool,
    ):
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.daemon: Daemon | None = None
        self._arguments = (settings, folders), {"options": options, "listener": self.events.append, **values}
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        positional, named = self._arguments
        try:
            with Daemon(*positional, **named) as self.daemon:
                self.daemon.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> DaemonThread:
        self._thread.start()
        # With `once`, one that finds nothing to do ends before its first tick.
        until(lambda: not self._thread.is_alive() or (self.daemon and self.daemon.ticked))
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon is not None:
            self.daemon.stop()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def wait(self) -> None:
        """For one that ends by itself."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def kinds(self, song: str = "") -> list[str]:
        """What happened, without the progress."""
        return [event.kind for event in self.events if event.kind != "progress" and song in event.song]


def python_path() -> str:
    """PYTHONPATH with which workers find `runners`."""
    return os.pathsep.join(filter(None, [str(RUNNERS_FOLDER), os.environ.get("PYTHONPATH")]))


def worker_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path()}


def rows(settings: Settings, *states: State) -> list[JobRow]:
    """Jobs in these states, or all, in order of arrival; read as the command line does."""
    store = JobStore.open_for_reading(settings.store)
    if store is None:
        return []
    found = store.rows(states or tuple(State))[::-1]
    store.close()
    return found


def row_of(settings: Settings, job: Job) -> JobRow:
    (row,) = (row for row in rows(settings) if row.id == job.id)
    return row


def ignored(settings: Settings) -> set[str]:
    store = JobStore.open_for_reading(settings.store)
    found = {file.relative for file in store.ignored()}
    store.close()
    return found


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state_of(pid: int) -> str:
    """The letter that Linux shows for a process: T stopped, Z dead and not buried; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may go while it is read
        return ""
