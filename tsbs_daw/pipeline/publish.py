"""Publishing a song's folder: complete or not at all, and never over something that is there, but for an equal run
whose analysis had failed, see `equal`.

    <output>/.tmp-<job>-<fence>/     stems are written here, on the same file system as the result
        -> every file fsynced, then manifest.json, then the folder
    <output>/<song>/                 appears by one rename; then <output> is fsynced

Whatever happens on the way - an error, a full disk, Ctrl-C - the temporary folder is removed. A kill or a power cut
leaves it behind, hidden by its dot, and `remove_stale` takes it away.

Folders of earlier runs that an equal one need not make again, or may make better.

A run whose analysis was asked for and failed is complete all the same: the stems are what counts. The next equal run
tries the analysis again, and takes the folder's place if that succeeds and nobody has touched the folder since.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, read_manifest
from tsbs_daw.core import failpoint
from tsbs_daw.core.errors import LeaseLost, NoSpaceLeft, OutputError, OutputUnavailable, shown
from tsbs_daw.core.filenames import candidates, safe_name
from tsbs_daw.core.files import may_pass, sync_folder, sync_tree, unmounted, write_synced

log = logging.getLogger(__name__)


def find_previous_run(output: Path, song: str, identity: str, *, analysed: bool = False) -> Path | None:
    """The folder of an equal run that is still complete, whatever number it has; None if there is none.

    Args: analysed: its analysis has to be there, too
    """
    song = safe_name(song)
    try:
        names = sorted(entry.name for entry in os.scandir(output) if entry.is_dir())
    except OSError:
        return None
    for name in names:
        if (name == song or name.startswith(f"{song} (")) and is_equal(output / name, identity, analysed=analysed):
            return output / name
    return None


def is_equal(folder: Path, identity: str, *, analysed: bool = False) -> bool:
    """Whether `folder` holds an equal run with every file as long as its manifest says."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.identity != identity or (analysed and not has_analysis(folder, manifest)):
        return False
    try:
        return all((folder / entry.file).stat().st_size == entry.size_bytes for entry in manifest.stems)
    except OSError:
        return False


def has_analysis(folder: Path, manifest: Manifest) -> bool:
    return manifest.analysis is not None and (folder / manifest.analysis).is_file()


def untouched(folder: Path) -> bool:
    """Whether a delivered folder is as it was published: nothing added, taken away or written to, as a DAW does.

    The manifest was written last, so that whatever is newer is somebody's work.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.sessions is None:  # of a version that did not name its sessions
        return False
    files = {FILE_NAME, *manifest.sessions}
    files |= {entry.file for entry in manifest.stems} | {entry.file for entry in manifest.others}
    files |= {manifest.analysis} if manifest.analysis else set()
    try:
        there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
        published = (folder / FILE_NAME).stat().st_mtime_ns
        return there.keys() == files and all(path.stat().st_mtime_ns <= published for path in there.values())
    except OSError:
        return False


SPACE_MARGIN = 1.5  # of the estimate: peaks files, other programs, a file system's own needs

_TEMPORARY = re.compile(r"\.tmp-(?P<job>[A-Za-z0-9][A-Za-z0-9_-]{0,63})-(?P<fence>\d+)")
_STALE_AFTER_S = 86400.0  # for folders of jobs that nobody knows
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Published:
    """folder: where the stems are. recognised: they were there before, from an equal run; nothing was written."""

    folder: Path
    recognised: bool = False


class StagedFolder:
    """A temporary folder that becomes the song's folder by `publish`, or vanishes. Use it in a `with`.

    Args:
        output:   folder in which the song's folder appears; made if it is not there
        song:     what the song is called; made safe for file systems, see `song` and `names.safe_name`
        preset:   goes into the folder's name when the song's own name is taken by another run
        identity: from `manifest.identity_of`
        job:      the job's id
        fence:    the number of this attempt; folders of earlier attempts are removed
    """

    def __init__(self, output: Path, song: str, *, preset: str, identity: str, job: str, fence: int):
        self.output = output
        self.song = safe_name(song)
        self.preset = preset
        self.identity = identity
        self.job = job
        self.fence = fence
        self.folder = output / f".tmp-{job}-{fence}"

    def __enter__(self) -> StagedFolder:
        """Raises: OutputUnavailable: the output folder cannot be made or written to now."""
        if mount_point := unmounted(self.output):
            raise OutputUnavailable(
                f"The disk or share of {shown(self.output)} is not mounted at {shown(mount_point)}; connect it."
            )
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            for earlier, job, fence in temporary_folders(self.output):
                if job == self.job and fence <= self.fence:
                    remove_folder(earlier)
            self.folder.mkdir()
        except OSError as error:
            raise self._explained(error) from error
        failpoint.reached("before-write")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was not published. Translates the system's error about this folder into an OutputError."""
        remove_folder(self.folder)
        if not isinstance(error, OSError):
            return
        is_ours = error.filename is None or self.output in Path(os.fsdecode(error.filename)).parents
        if error.errno in (*_FULL, errno.EFBIG) or (is_ours and may_pass(error)):
            raise self._explained(error) from error

    def publish(self, manifest: Manifest) -> Published:
        """Make the folder appear under its name, for good.

        An equal run that was published meanwhile is recognised, and this folder dropped.
        Raises: OutputError: a file is missing or short, or the system refused; nothing has appeared
                NoSpaceLeft: the disk is full; nothing has appeared
                LeaseLost:   a later attempt at the same job removed this one's folder
        """
        try:
            if not self.folder.is_dir():
                raise FileNotFoundError(self.folder)
            self._check_files(manifest)
            sync_tree(self.folder)
            failpoint.reached("before-manifest")
            write_synced(self.folder / FILE_NAME, manifest.to_json())
            sync_folder(self.folder)
            failpoint.reached("before-rename")
            return self._rename(manifest)
        except OSError as error:
            if not self.folder.is_dir():
                raise LeaseLost(
                    f"The job {self.job} was taken over by a later attempt; this attempt's stems are dropped."
                ) from error
            raise self._explained(error) from error

    def _names(self, manifest: Manifest) -> Iterator[str]:
        """Names for the folder, the best first. What differs from the song whose folder is there comes first.

        Songs like `a.wav` and `a.mp3` differ by their format; runs of one song, by their preset.
        """
        there, song = read_manifest(self.output / self.song), self.song
        endings = [Path(str(found.source.path)).suffix.lstrip(".").lower() for found in (there, manifest) if found]
        if there and there.source.sha256 != manifest.source.sha256 and endings[0] != endings[1] != "":
            song = f"{song} ({endings[1]})"
        return candidates(song, self.preset)

    def _rename(self, manifest: Manifest) -> Published:
        analysed = manifest.analysis is not None
        for name in self._names(manifest):
            target = self.output / name
            try:
                if not os.path.lexists(target):
                    _rename_folder(self.folder, target)
                elif analysed and self._lacks_only_its_analysis(target):
                    self._replace(target)
                elif is_equal(target, self.identity, analysed=analysed):
                    return Published(target, recognised=True)
                else:
                    continue
            except OSError as error:
                if not os.path.lexists(target):
                    raise
                log.info("job %s: %s was taken at the last moment (%s)", self.job, target, error)
                if is_equal(target, self.identity, analysed=analysed):
                    return Published(target, recognised=True)
            else:
                failpoint.reached("after-rename")
                sync_folder(self.output)
                return Published(target)
        raise AssertionError("the names never end")

    def _lacks_only_its_analysis(self, target: Path) -> bool:
        """Whether an equal run is there that this one, which has its analysis, shall take the place of."""
        without, with_it = (is_equal(target, self.identity, analysed=analysed) for analysed in (False, True))
        return without and not with_it and untouched(target)

    def _replace(self, target: Path) -> None:
        """Take a folder's place. A kill in between costs no stems: they are cached, and the next attempt goes on."""
        aside = self.folder.with_name(f".tmp-{self.job}-{self.fence - 1}")  # the janitor knows what that is
        target.rename(aside)
        try:
            _rename_folder(self.folder, target)
        except OSError:
            aside.rename(target)
            raise
        remove_folder(aside)

    def _check_files(self, manifest: Manifest) -> None:
        for entry in manifest.stems:
            path = self.folder / entry.file
            size = path.stat().st_size if path.is_file() else -1
            if size != entry.size_bytes:
                raise OutputError(
                    f"{path.name} of {self.song!r} should have {entry.size_bytes} bytes and has {max(size, 0)}; "
                    f"nothing was published, check the disk of {self.output} and try again."
                )

    def _explained(self, error: OSError) -> OutputError:
        if error.errno in _FULL:
            free = _gigabytes(_free_bytes(self.output))
            return NoSpaceLeft(
                f"The disk of {self.output} became full while {self.song!r} was written ({free} are free now); "
                "free some space and try again."
            )
        if error.errno == errno.EFBIG:
            return OutputError(
                f"The disk of {self.output} takes no file as large as the stems of {self.song!r}; "
                "choose a folder on another disk."
            )
        reason = error.strerror or str(error)
        kind = OutputUnavailable if may_pass(error) else OutputError
        return kind(
            f"The stems of {self.song!r} cannot be written to {self.output} ({reason}); "
            "check the folder and its permissions, or choose another."
        )


def ensure_space(output: Path, estimate_bytes: int, song: str) -> None:
    """Raises NoSpaceLeft, with figures, unless `output`'s disk has 1.5 times the estimate; OutputError: no rights."""
    if not os.access(place := _existing(output), os.W_OK):
        raise OutputUnavailable(f"{place} cannot be written to; check its permissions, or choose another folder.")
    needed, free = int(estimate_bytes * SPACE_MARGIN), _free_bytes(output)
    if free < needed:
        raise NoSpaceLeft(
            f"{output} has {_gigabytes(free)} free and {song!r} needs {_gigabytes(needed)}; "
            "free some space or choose a folder on another disk."
        )


def estimate_bytes(files: int, channels: int, samples: int) -> int:
    """Bytes of `files` float WAVs of (channels, samples), with some room for headers, session and manifest."""
    return files * (channels * samples * 4 + 8192) + 65536


def temporary_folders(output: Path) -> list[tuple[Path, str, int]]:
    """(folder, job, fence) of every temporary folder in `output`."""
    found = []
    with os.scandir(output) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False):
                found.append((Path(entry.path), match["job"], int(match["fence"])))
    return found


def remove_stale(
    output: Path, running: Callable[[str, int], bool | None], *, now_unix_s: float | None = None
) -> list[Path]:
    """The janitor: remove temporary folders that nobody works in any more.

    Args:
        running: (job, fence) -> True: at work, leave it; False: dead, remove it; None: not known here (another
                 program may be at work in the same output folder), remove it when nothing in it changed for a day
    Returns: what was removed
    """
    now = time.time() if now_unix_s is None else now_unix_s
    try:
        folders = temporary_folders(output)
    except OSError:
        return []
    removed = []
    for folder, job, fence in folders:
        alive = running(job, fence)
        if alive is None:
            alive = now - _last_change_unix_s(folder) < _STALE_AFTER_S
        if not alive and remove_folder(folder):
            log.info("removed %s, left behind by job %s", folder, job)
            removed.append(folder)
    return removed


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that is in it. Whether it is gone; a failure is logged, the janitor comes again."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("cannot remove %s: %s", folder, error)
        return False
    return True


def _rename_folder(source: Path, target: Path) -> None:
    """A rename, which refuses a target with something in it. On Windows a virus scanner may hold a new file open."""
    for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6) if os.name == "nt" else ():
        try:
            source.rename(target)
            return
        except PermissionError:
            time.sleep(pause_s)
    source.rename(target)


def _last_change_unix_s(folder: Path) -> float:
    times = [0.0]
    for root, _, files in os.walk(folder):
        for path in (Path(root), *(Path(root) / name for name in files)):
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue  # vanished while we looked: somebody is at work, and the folder's own time says so
    return max(times)


def _free_bytes(folder: Path) -> int:
    """Free space of the disk that `folder` is on, or will be on once it is made."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """`folder`, or the next one above it that is there."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place
    raise OutputUnavailable(f"The disk of {folder} is not there; connect it, or choose another folder.")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
