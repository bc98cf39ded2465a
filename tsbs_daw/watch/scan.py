"""Scanning of watch folders: which files exist, which of them are ignored, and which are completely written.

A scan opens no files except manifest.json, to recognise our own output, so 30,000 files take a fraction of a second.
That name is common, so it is opened only if it is a regular file of a plausible size. Paths are strings here, because
as many Path objects would take longer than the rest of the scan.

A file is complete once several observations over some time have found it unchanged. `FileStabilityTracker` decides that
from the observations alone; it uses neither the clock nor the disk.

File system events are only hints: bursts lose events, network shares send none, and a watch can fail silently.
`Notifications` therefore only triggers scans, and the scan decides.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsbs_daw.contracts.manifest import FILE_NAME as MANIFEST
from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.rules import EVERYTHING, Patterns

# ruff: noqa: PTH116, PTH118, PTH122


log = logging.getLogger(__name__)

# Files with these extensions become jobs. If one cannot be decoded, its job says why.
AUDIO_ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "bwf", "rf64", "w64", "aif", "aiff", "aifc", "flac", "ogg", "oga", "opus", "mp3", "mp2"),
        *("caf", "au", "snd", "m4a", "m4b", "aac", "adts", "alac", "wma", "ape", "wv", "tta", "dsf", "dff", "ac3"),
        *("mp4", "m4v", "mov", "qt", "3gp", "mkv", "mka", "webm", "amr", "voc", "sd2", "avr", "ircam", "sf", "nist"),
        *("sph", "paf", "svx", "xi", "bw64", "afc", "fla", "mp1", "mpa", "mpga"),
    )
)
TEMPORARY_ENDINGS = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart")
IGNORED_PREFIXES = (".", "~$")  # hidden files, our temporary folders, lock files of office programs

# Recycle bins, snapshots, thumbnails and system folders; compared case-insensitively. Most names that start with a dot
# are ignored anyway and are listed for completeness.
THROWN_AWAY = frozenset(
    (
        # Synology, QNAP, ASUSTOR, TerraMaster, Buffalo, NETGEAR, Thecus and Samba
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@synoeastream", "@synoresource"),
        *("@recycle", "@recently-snapshot", ".@__thumb", ".@__qini", ".@upload_cache", ".streams", "@recycle_bin"),
        *("trashbox", "recycle bin", "_nas_recycle_", ".recycle", ".recycle_bin", "#trash", "@trash"),
        # snapshots: NetApp, ZFS, Btrfs, Snapper, Time Machine
        *(".snapshot", ".snapshots", "~snapshot", ".zfs", ".ckpt", "backups.backupdb", ".mobilebackups"),
        # Windows
        *("$recycle.bin", "recycler", "system volume information", "$extend", "$winreagent", "$sysreset"),
        # macOS, including its folders on shares and in archives
        *("__macosx", ".appledouble", ".appledb", ".appledesktop", ".trashes", ".trash", ".temporaryitems"),
        *("network trash folder", "temporary items", "thevolumesettingsfolder", ".spotlight-v100", ".fseventsd"),
        *(".documentrevisions-v100", ".apdisk"),
        # Linux
        *("lost+found", ".thumbnails"),
        # synchronisation programs
        *(".stversions", ".stfolder", ".sync", ".dropbox.cache", ".tmp.drivedownload", ".tmp.driveupload", ".debris"),
        *(".rubbish", ".owncloudsync", ".nextcloudsync", "files_trashbin", "files_versions", ".caltrash"),
    )
)
_THROWN_AWAY_LIKE = re.compile(r"\.trash-\d+|found\.\d{3}|@gmt-[\d.-]+|\.849c9593-.*")


def is_thrown_away(name: str) -> bool:
    """Whether a folder of this name holds deleted files, earlier versions, thumbnails or system files."""
    plain = unicodedata.normalize("NFC", name).casefold().rstrip(" .")
    if name == "RECYCLED":  # FAT's recycle bin is in capitals; in lower case it may be an album
        return True
    return plain in THROWN_AWAY or _THROWN_AWAY_LIKE.fullmatch(plain) is not None


@dataclass(frozen=True)
class Found:
    """A file of a watch folder, as it was scanned.

    Attributes:
        relative: Path below the root.
        state: Device, inode, size and times, as `file_state` returns them.
        size_bytes: Size; 0 for links that are ignored and for special files.
        reason: Why the file is ignored, as a sentence; None for a song.
    """

    relative: str
    state: str
    size_bytes: int
    reason: str | None = None


class Scanner:
    """Scans one folder repeatedly.

    Args:
        root: The folder; absolute.
        recursive: Whether to scan subfolders.
        excluded: Real paths of folders to skip: outputs, the spool, other watch folders.
        patterns: Which files are songs.

    Attributes:
        unlisted: Folders that could not be listed: their paths below the root, and the errors.
    """

    def __init__(
        self, root: Path, *, recursive: bool, excluded: tuple[Path, ...] = (), patterns: Patterns = EVERYTHING
    ):
        self._root, self._recursive, self._patterns = root, recursive, patterns
        self._excluded = frozenset(os.fspath(path) for path in excluded)
        self.unlisted: dict[str, str] = {}
        self._outputs: dict[str, tuple[int, bool]] = {}

    def scan(self) -> Iterator[Found]:
        """Yield songs and files that are ignored with a reason, in no particular order.

        Raises:
            OSError: The root itself cannot be listed.
        """
        real_root = os.path.realpath(self._root)
        folders = [("", real_root, True)]
        while folders:
            relative, path, is_root = folders.pop()
            try:
                with os.scandir(path) as listing:
                    entries = list(listing)
            except OSError as error:
                if is_root:
                    raise
                if relative not in self.unlisted:
                    log.warning("cannot list %r (%s); skipping its content", path, error.strerror)
                self.unlisted[relative] = error.strerror or str(error)
                continue
            self.unlisted.pop(relative, None)
            if not is_root and self._is_our_output(path, entries):
                continue
            for entry in entries:
                if entry.name.startswith(IGNORED_PREFIXES) or entry.name.lower().endswith(TEMPORARY_ENDINGS):
                    continue
                name = os.path.join(relative, entry.name)
                try:
                    found = self._classify_entry(entry, name, real_root)
                except OSError:  # it was deleted after it was listed
                    continue
                if found is not None:
                    yield found
                elif self._recursive and self._is_scanned(entry) and not self._patterns.excludes(name):
                    folders.append((name, entry.path, False))

    def rescan_file(self, relative: str) -> Found | None:
        """Return the current state of one file, or None if it is gone or must be ignored without a record."""
        path = os.path.join(self._root, relative)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                return self._classify_link(path, file_state(status), relative, os.path.realpath(self._root))
        except OSError:
            return None
        return self._classify(relative, status)

    def _is_scanned(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_dir(follow_symlinks=False) or entry.path in self._excluded:
            return False
        return not is_thrown_away(entry.name)

    def _classify_entry(self, entry: os.DirEntry[str], name: str, real_root: str) -> Found | None:
        """Classify an entry of a folder. Return None for a folder, and for what is ignored without a record."""
        if entry.is_symlink():
            return self._classify_link(entry.path, file_state(entry.stat(follow_symlinks=False)), name, real_root)
        if entry.is_dir(follow_symlinks=False):
            return None
        # DirEntry.stat has no inode on Windows
        status = entry.stat(follow_symlinks=False) if os.name != "nt" else os.stat(entry.path)
        return self._classify(name, status)

    def _classify_link(self, path: str, link: str, name: str, real_root: str) -> Found | None:
        target = os.path.realpath(path)
        if not _is_inside(target, real_root):
            return Found(name, link, 0, "It is a link that leads out of the watch folder.")
        if any(_is_inside(target, excluded) for excluded in self._excluded):
            return None
        if any(is_thrown_away(part) for part in Path(target).relative_to(real_root).parts):
            return None
        try:
            status = os.stat(path)
        except OSError:
            return Found(name, link, 0, "It is a broken link.")
        if stat.S_ISDIR(status.st_mode):
            return Found(name, link, 0, "It is a link to a folder inside the watch folder, which is scanned anyway.")
        return self._classify(name, status)

    def _classify(self, name: str, status: os.stat_result) -> Found:
        if not stat.S_ISREG(status.st_mode):
            return Found(name, file_state(status), 0, "It is a pipe, a socket or a device, not a file.")
        ending = os.path.splitext(name)[1].lower()
        if ending in AUDIO_ENDINGS:
            reason = self._patterns.reason(name) if self._patterns else None
            return Found(name, file_state(status), status.st_size, reason)
        what = f"The ending {ending} is" if ending else "A name without an ending is"
        return Found(name, file_state(status), status.st_size, f"{what} not that of a sound file.")

    def _is_our_output(self, path: str, entries: list[os.DirEntry[str]]) -> bool:
        """Whether a folder contains stems that this program wrote: it has a manifest of ours."""
        manifest = next((entry for entry in entries if entry.name == MANIFEST), None)
        if manifest is None:
            return False
        try:
            status = manifest.stat(follow_symlinks=False)
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        changed = status.st_mtime_ns
        known = self._outputs.get(path)
        if known is None or known[0] != changed:
            known = self._outputs[path] = (changed, read_manifest(Path(path)) is not None)
        return known[1]


def _is_inside(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath([folder, path]) == folder
    except ValueError:  # another drive
        return False


def file_state(status: os.stat_result) -> str:
    """Return device, inode, size and times as a text that changes whenever the file is changed."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@dataclass
class _Sighting:
    state: str
    since: float
    samples: int


class FileStabilityTracker:
    """Decides from repeated observations whether files are completely written.

    It never uses the age of a file's mtime, which `cp -p` preserves.

    Args:
        samples: How often the same state must be observed.
        span_s: Minimum time between the first and the last of these observations.
    """

    def __init__(self, samples: int = 3, span_s: float = 2.0):
        self._samples, self._span_s = samples, span_s
        self._sightings: dict[str, _Sighting] = {}

    def __len__(self) -> int:
        return len(self._sightings)

    def __contains__(self, key: str) -> bool:
        return key in self._sightings

    def keys(self) -> list[str]:
        return list(self._sightings)

    def observe(self, key: str, state: str, now: float) -> bool:
        """Record the state of a file at a time of a monotonic clock. Return whether the file is stable."""
        sighting = self._sightings.get(key)
        if sighting is None or sighting.state != state:
            self._sightings[key] = _Sighting(state, now, 1)
            return self._samples <= 1 and self._span_s <= 0
        sighting.samples += 1
        return sighting.samples >= self._samples and now - sighting.since >= self._span_s

    def still_for_s(self, key: str, now: float) -> float:
        """Return for how long a file has been unchanged; 0 for an unknown file."""
        sighting = self._sightings.get(key)
        return now - sighting.since if sighting else 0.0

    def forget(self, key: str) -> None:
        self._sightings.pop(key, None)


def excluded_places(folder: WatchFolder, folders: Sequence[WatchFolder], settings: Settings) -> tuple[Path, ...]:
    """Return the outputs, program folders and other watch folders that lie inside this folder, as real paths."""
    root = os.path.realpath(folder.path)
    places = [other.output for other in folders] + [other.path for other in folders if other is not folder]
    places += [settings.home, settings.cache, settings.models]
    real = (os.path.realpath(place) for place in places)
    return tuple(Path(place) for place in real if place != root and place.startswith(root + os.sep))


# ---- file system events ----------------------------------------------------------------------------------------------

_NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "davfs", "drvfs", "virtiofs"),
)


class Notifications:
    """Calls `changed` from a thread of its own whenever something changes below `root`."""

    def __init__(self, root: Path, *, recursive: bool, changed: Callable[[], None]):
        self._root, self._recursive, self._changed = root, recursive, changed
        self._observer: Any = None  # watchdog's, whose class depends on the system

    def start(self) -> bool:
        """Start to listen. Return False if there will be no events, as with too many folders for inotify."""
        from watchdog import events
        from watchdog.observers import Observer

        changed = self._changed

        class Handler(events.FileSystemEventHandler):
            def on_any_event(self, event: events.FileSystemEvent) -> None:
                changed()

        # No events for opening and closing, because our own scans cause them: with thousands of folders they overflow
        # the system's queue. watchdog then lists all folders, which overflows it again.
        wanted = [
            *(events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
            *(events.FileCreatedEvent, events.FileMovedEvent, events.FileDeletedEvent),
            *(events.FileModifiedEvent, events.FileClosedEvent),
        ]
        self.stop()
        # watchdog warns about a folder that it finds twice, by its event and by listing its parent; harmless.
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        observer = Observer()
        try:
            observer.schedule(Handler(), str(self._root), recursive=self._recursive, event_filter=wanted)
            observer.start()
        except (OSError, RuntimeError) as error:
            log.warning("%s sends no events (%s); scanning it regularly instead", self._root, error)
            return False
        self._observer = observer
        return True

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(2.0)


def sends_no_events(path: Path) -> bool:
    """Whether the path is on a known kind of network share, which sends no events for changes by other computers."""
    if sys.platform == "win32":
        import ctypes

        drive = os.path.splitdrive(os.path.realpath(path))[0]
        return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == 4  # DRIVE_REMOTE
    return _file_system(os.path.realpath(path)).startswith((*_NETWORK, "fuse.sshfs", "fuse.rclone", "fuse.davfs"))


def _file_system(path: str) -> str:
    """Return the type of the file system on Linux; empty if it is unknown."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _, place, kind = line.split(" ")[:3]
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)
        if (path == place or path.startswith(place.rstrip("/") + "/")) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]
