"""Settings of the application: where files live, what to compute on, and the limits and intervals of the daemon.

The environment is read once at the edge, and settings are passed on as frozen values. Only `failpoint`, which is for
tests, reads the environment wherever it is called.
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
    """Folders and devices of the application.

    `TSBS_DAW_HOME` puts all folders below one folder; `TSBS_DAW_DEVICE` and `TSBS_DAW_PRECISION` select how to compute.

    Attributes:
        home: Folder of the spool, the job store and the logs.
        cache: Folder of separated stems, by content, and of the plug-in quarantine.
        models: Folder of downloaded and converted checkpoints.
        device: Device that the network runs on: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: Precision of its matrix products: "auto", "float32" or "bfloat16".
        presets: Folder of the user's own presets. Default: `TSBS_DAW_PRESETS`, or `presets` in the home.
        cluster: "auto" or host:port of a Ray head whose nodes compute instead of this machine; empty for none.
        cluster_fallback: What to do if no node is available: "local" computes on this machine, "wait" waits.
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
        """Folder through which jobs arrive."""
        return self.home / "spool"

    @property
    def store(self) -> Path:
        """Database of the jobs."""
        return self.home / "jobs.sqlite3"

    def make_folders(self) -> None:
        """Create the folders home, spool, logs and cache, readable by this user alone: they hold songs and paths.

        Existing folders that others can read are closed to them, except a home that the user chose: its permissions
        are up to the user.

        Raises:
            SettingsError: A folder cannot be created or written to.
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
        """Create settings from their fields as text, as they are passed to another process."""
        values: dict[str, Any] = {name: text if name in _TEXTS else Path(text) for name, text in texts.items()}
        return cls(**values)

    @classmethod
    def from_environment(cls) -> Settings:
        """Create settings from environment variables. Without `TSBS_DAW_HOME`, use the folders of the platform."""
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
    """Return the user's runtime folder, `XDG_RUNTIME_DIR`; None if there is none that only this user can write to."""
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    try:
        status = place.stat()
    except OSError:
        return None
    ours = place.is_absolute() and hasattr(os, "geteuid") and status.st_uid == os.geteuid()
    return place if ours and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022 else None


def state_folder() -> Path:
    """Return the folder for state that all homes of this user share. It depends on the user alone."""
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
    """Return the folder `presets` or `reaper_scripts`: inside the installed package, or at the top of a checkout."""
    import importlib.resources

    package = Path(str(importlib.resources.files("tsbs_daw")))
    installed = package / "resources" / name
    return installed if installed.is_dir() else package.parent / name


# ---- limits and intervals of the daemon; only tests change them ------------------------------------------------------

PIPELINE = "tsbs_daw.pipeline.run:run_job"  # the function that a worker runs
DONE_DAYS = 30  # how long the folders of finished jobs are kept


@dataclass(frozen=True)
class WatchTimings:
    """When a file counts as completely written.

    Attributes:
        samples: Number of samples in a row that must show the file unchanged.
        span_s: Shortest time that these samples must span.
        sample_every_s: Interval between samples of files that are not stable yet.
        look_every_s: Shortest interval between full scans while events arrive; scans never take more than a tenth of
            the time.
        rescan_s: Interval between full scans without events, which are the only scans if the folder is polled.
        incomplete_s: How long a file that is shorter than its header states may stay unchanged before it is accepted.
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
    """Time limits, intervals and retry limits of the daemon.

    Attributes:
        runner: Function that a worker runs, as module:function.
        workers: Number of worker processes.
        songs_at_once: Songs that one worker separates at a time; 0 picks a number for the device, one on a CPU.
        busy_tick_s: Pause between two ticks while there is work.
        idle_tick_s: Pause between two ticks while there is none.
        lease_s: A worker that sends nothing for this long counts as dead.
        stall_s: A job without progress for this long counts as hanging.
        cancel_kill_s: A cancelled job that does not end within this time is killed.
        crash_limit: A job fails for good after this many workers have died running it.
        retry_limit: Most attempts after errors that may pass by themselves, such as a full disk.
        retry_first_s: Wait before the first retry; it doubles with each failure, see `back_off`.
        retry_longest_s: Longest wait before a retry.
        restart_first_s: Wait before the first restart of a worker; it doubles as well.
        restart_longest_s: Longest wait before a restart.
        start_limit: The daemon gives up if every worker has failed to start this many times in a row.
        worker_idle_s: A worker without work for this long is stopped, which frees its memory.
        finish_s: Time for a job to finish after SIGTERM.
        release_s: Time to release the job after that; the sum of both stays below 10 s.
        heartbeat_s: Interval between updates of the heartbeat file.
        copies_bytes: Most bytes of watched files that are copied into the spool at once.
        patience_s: With `once`, how long to wait for files that are still growing.
        hook_s: A hook that takes longer is killed.
        done_days: Days for which the folders of finished jobs are kept.
        local: Timings for watch folders that report events, as local disks do.
        share: Timings for watch folders that are polled, such as network shares.
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
    """Return the seconds to wait after so many failures in a row: doubling, up to a limit."""
    return min(first_s * 2.0 ** max(min(failures, 30) - 1, 0), longest_s)


# ---- for tests -------------------------------------------------------------------------------------------------------

FAILPOINTS = ("before-write", "before-manifest", "before-rename", "after-rename")
FAILPOINT_EXIT_CODE = 137  # what a shell reports for a process killed by SIGKILL


def failpoint(name: str) -> None:
    """Mark a place at which a test can let the process die like in a power cut, without any cleanup.

    `TSBS_DAW_FAILPOINT=before-rename` kills every process that gets there; `before-rename@FILE` only the first one,
    which creates FILE. Without the variable, which only tests set, nothing happens.
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
