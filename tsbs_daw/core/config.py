"""Settings of the application: where files live, what to compute on, and the numbers of the daemon.

Read once at the edge, and handed inwards as frozen values. Only `failpoint`, which is for tests, asks the environment
wherever it is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsbs_daw.core.errors import SettingsError, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import private_folder

_TEXTS = ("device", "precision", "cluster", "cluster_fallback")


@dataclass(frozen=True)
class Settings:
    """`TSBS_DAW_HOME` moves all folders below one; `TSBS_DAW_DEVICE` and `TSBS_DAW_PRECISION` say how to compute.

    home:      the spool, the job store, logs
    cache:     separated stems by content, plug-in quarantine
    models:    downloaded and converted checkpoints
    presets:   the user's own presets; `presets` in the home unless `TSBS_DAW_PRESETS` names another folder
    device:    what the network runs on: "auto", "cpu", "cuda", "cuda:1", "mps"
    precision: of its matrix products: "auto", "float32", "bfloat16"
    cluster:   "auto" or host:port of a Ray head, whose nodes compute instead; empty for none
    cluster_fallback: while no node is there: "local" computes here, "wait" waits
    """

    home: Path
    cache: Path
    models: Path
    device: str = "auto"
    precision: str = "auto"
    presets: Path = Path()
    cluster: str = ""
    cluster_fallback: str = "local"

    def __post_init__(self) -> None:
        if self.presets == Path():
            object.__setattr__(self, "presets", self.home / "presets")

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    @property
    def store(self) -> Path:
        return self.home / "jobs.sqlite3"

    def make_folders(self) -> None:
        """Make home, spool, logs and cache, for this user alone: they hold songs, names and paths.

        Folders that others can look into are closed, but for a home that the user named: its permissions are theirs.

        Raises:
            SettingsError: One cannot be made or written to; one sentence.
        """
        places = (self.home, self.spool, self.home / "logs", self.cache)
        for folder in places:
            try:
                private_folder(folder, repair=folder != self.home or "tsbs-daw" in folder.name)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise SettingsError(
                    f"Cannot use the folder {shown(folder)} ({why}); set TSBS_DAW_HOME to one that you can write to."
                ) from error
            if source_name(folder) != str(folder):
                raise SettingsError(
                    f"The name of the folder {shown(folder)} is not valid UTF-8; set TSBS_DAW_HOME to another folder."
                )

    @classmethod
    def from_texts(cls, texts: dict[str, str]) -> Settings:
        """From the same fields as texts, as they travel to another process."""
        values: dict[str, Any] = {name: text if name in _TEXTS else Path(text) for name, text in texts.items()}
        return cls(**values)

    @classmethod
    def from_environment(cls) -> Settings:
        """`TSBS_DAW_HOME` if it is set, else the platform's own folders."""
        home = os.environ.get("TSBS_DAW_HOME")
        device, precision = (os.environ.get(f"TSBS_DAW_{name}", "auto") for name in ("DEVICE", "PRECISION"))
        own = os.environ.get("TSBS_DAW_PRESETS")
        presets = Path(own).expanduser().absolute() if own else Path()
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root, root / "cache", root / "models", device, precision, presets)
        import platformdirs

        data = platformdirs.user_data_path("tsbs-daw", appauthor=False)
        return cls(
            data, platformdirs.user_cache_path("tsbs-daw", appauthor=False), data / "models", device, precision, presets
        )


def runtime_folder() -> Path | None:
    """The folder that the system gives to this user alone, if there is one. Never a folder that others may write to."""
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    try:
        status = place.stat()
    except OSError:
        return None
    ours = place.is_absolute() and hasattr(os, "geteuid") and status.st_uid == os.geteuid()
    return place if ours and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022 else None


def state_folder() -> Path:
    """The folder for what all homes of this user share. It depends on the user, not on where a program was started."""
    import platformdirs

    chosen = os.environ.get("XDG_STATE_HOME", "")
    if sys.platform in ("win32", "darwin") or Path(chosen).is_absolute():
        return platformdirs.user_state_path("tsbs-daw", appauthor=False)
    import pwd

    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir, ".local", "state", "tsbs-daw")
    except KeyError:  # a user without an entry, as in containers
        return platformdirs.user_state_path("tsbs-daw", appauthor=False)


def resource_folder(name: str) -> Path:
    """The folder `presets` or `reaper_scripts`: inside the installed package, or at the top of a checkout."""
    import importlib.resources

    package = Path(str(importlib.resources.files("tsbs_daw")))
    installed = package / "resources" / name
    return installed if installed.is_dir() else package.parent / name


# ---- the numbers of the daemon; nobody but a test has a reason to change them ----------------------------------------

PIPELINE = "tsbs_daw.pipeline.run:run_job"  # what a worker runs
DONE_DAYS = 30  # how long the folders of finished jobs are kept


@dataclass(frozen=True)
class WatchTimings:
    """When a file counts as completely written.

    samples, span_s: it must look the same that often, over at least that time
    sample_every_s:  how often files that are not stable yet are looked at
    look_every_s:    a full look at most so often, while events come; never more than a tenth of the time is spent on it
    rescan_s:        a full look, events or not; also the only look where there are no events
    incomplete_s:    how long a file shorter than its own header says may stand still before it is taken as it is
    """

    samples: int = 3
    span_s: float = 2.0
    sample_every_s: float = 0.5
    look_every_s: float = 1.0
    rescan_s: float = 30.0
    incomplete_s: float = 60.0


LOCAL = WatchTimings()
SHARE = WatchTimings(span_s=10.0, sample_every_s=2.5, rescan_s=10.0)


@dataclass(frozen=True)
class DaemonOptions:
    """How long things may take, and how often they may fail.

    songs_at_once:  how many songs one worker separates at a time; 0: what suits the device, one on a processor
    busy_tick_s, idle_tick_s: pause between two ticks, while something goes on and while nothing does
    lease_s:        a worker that says nothing for so long is dead
    stall_s:        a job that moves nowhere for so long hangs
    cancel_kill_s:  a job that is asked to end and does not in this time is killed
    crash_limit:    so many dead workers, and the job is dead too
    retry_limit:    so many attempts when the error may pass by itself, as a full disk does
    worker_idle_s:  without work for so long, the worker is let go, and its memory with it
    finish_s, release_s: after SIGTERM, time for the job to finish, then to let go; the sum stays below 10 s
    copies_bytes:   how much of the watched files may lie copied in the spool at once
    hook_s:         a hook that takes longer is ended
    patience_s:     with `once`, how long to wait for files that are still growing
    """

    runner: str = PIPELINE
    workers: int = 1
    songs_at_once: int = 0
    busy_tick_s: float = 0.2
    idle_tick_s: float = 1.0
    lease_s: float = 30.0
    stall_s: float = 1800.0
    cancel_kill_s: float = 10.0
    crash_limit: int = 3
    retry_limit: int = 8
    retry_first_s: float = 5.0
    retry_longest_s: float = 300.0
    restart_first_s: float = 0.5
    restart_longest_s: float = 60.0
    start_limit: int = 3
    worker_idle_s: float = 600.0
    finish_s: float = 3.0
    release_s: float = 3.0
    heartbeat_s: float = 2.0
    copies_bytes: int = 4 << 30
    patience_s: float = 15.0
    hook_s: float = 60.0
    done_days: float = DONE_DAYS
    local: WatchTimings = LOCAL
    share: WatchTimings = SHARE


def back_off(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, up to a limit."""
    return min(first_s * 2.0 ** max(min(failures, 30) - 1, 0), longest_s)


# ---- for tests -------------------------------------------------------------------------------------------------------

FAILPOINTS = ("before-write", "before-manifest", "before-rename", "after-rename")
FAILPOINT_EXIT_CODE = 137  # what a shell reports of a process killed by SIGKILL


def failpoint(name: str) -> None:
    """A place at which a test may let the process die, as a power cut would: no cleaning up, no last words.

    `TSBS_DAW_FAILPOINT=before-rename` kills every process that gets there; `before-rename@FILE` only the first one,
    which creates FILE. Without the variable, which is how everyone but a test runs, nothing happens.
    """
    wanted, _, marker = os.environ.get("TSBS_DAW_FAILPOINT", "").partition("@")
    if wanted != name:
        return
    if marker:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
    os._exit(FAILPOINT_EXIT_CODE)
