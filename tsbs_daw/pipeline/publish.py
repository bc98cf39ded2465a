"""Publish a song's folder: complete or not at all, and never over an existing folder.

    <output>/.tmp-<job>-<fence>/     stems are written here, on the same file system as the result
        -> every file fsynced, then manifest.json, then the folder
    <output>/<song>/                 appears by one rename; then <output> is fsynced

After an error, a full disk or Ctrl-C, the temporary folder is removed. After a kill or a power cut it stays, hidden by
its dot, until `remove_stale` removes it.

Two runs are equal if their identities are (`contracts.manifest.identity_of`); the folder of an equal run is reused.
There is one exception: a run whose analysis failed still counts as complete, because its stems are. The next equal
run tries the analysis again; if that succeeds and the published folder is untouched, it replaces the folder.
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
from tsbs_daw.core.config import failpoint
from tsbs_daw.core.errors import LeaseLost, NoSpaceLeft, OutputError, OutputUnavailable, shown
from tsbs_daw.core.filenames import candidates, safe_name
from tsbs_daw.core.files import may_pass, sync_folder, sync_tree, unmounted, write_synced

log = logging.getLogger(__name__)


def find_previous_run(output: Path, song: str, identity: str, *, analysed: bool = False) -> Path | None:
    """Find the complete folder of an equal run, whichever number its name ends with.

    Args:
        output: Folder that holds the songs' folders.
        song: Name of the song.
        identity: From `contracts.manifest.identity_of`.
        analysed: Require its analysis as well.

    Returns:
        The folder, or None if there is none.
    """
    song = safe_name(song)
    try:
        names = sorted(entry.name for entry in os.scandir(output) if entry.is_dir())
    except OSError:
        return None
    for name in names:
        folder, is_candidate = output / name, name == song or name.startswith(f"{song} (")
        if is_candidate and holds_complete_run(folder, identity, analysed=analysed):
            return folder
    return None


def holds_complete_run(folder: Path, identity: str, *, analysed: bool = False) -> bool:
    """Return whether `folder` holds an equal run and every stem has the size in the manifest."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.identity != identity or (analysed and not has_analysis(folder, manifest)):
        return False
    try:
        return all((folder / entry.file).stat().st_size == entry.size_bytes for entry in manifest.stems)
    except OSError:
        return False


def has_analysis(folder: Path, manifest: Manifest) -> bool:
    """Return whether the folder holds the analysis that its manifest names."""
    return manifest.analysis is not None and (folder / manifest.analysis).is_file()


def untouched(folder: Path) -> bool:
    """Return whether nothing was added to, removed from or changed in a folder since it was published.

    The manifest is written last, so any newer file was written by somebody else, such as a DAW.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.sessions is None:  # older versions did not list the sessions
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


SPACE_MARGIN = 1.5  # times the estimate: for peak files, other programs and file system overhead

_TEMPORARY = re.compile(r"\.tmp-(?P<job>[A-Za-z0-9][A-Za-z0-9_-]{0,63})-(?P<fence>\d+)")
_STALE_AFTER_S = 86400.0  # for folders of unknown jobs
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Published:
    """A published folder.

    Attributes:
        folder: Where the stems are.
        recognised: Whether an equal run had published it before, so that nothing was written.
    """

    folder: Path
    recognised: bool = False


class StagedFolder:
    """A temporary folder that `publish` turns into the song's folder. Context manager; unpublished folders are removed.

    Args:
        output: Folder in which the song's folder appears; created if it is missing.
        song: Name of the song; `safe_name` makes it safe for file systems.
        preset: Added to the folder's name if another run has taken the song's name.
        identity: From `contracts.manifest.identity_of`.
        job: Id of the job.
        fence: Number of this attempt; folders of earlier attempts are removed.
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
        """Create the temporary folder.

        Raises:
            OutputUnavailable: The output folder cannot be created or written to now.
        """
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
        failpoint("before-write")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the folder if it was not published, and translate an OSError about it into an OutputError."""
        remove_folder(self.folder)
        if not isinstance(error, OSError):
            return
        is_ours = error.filename is None or self.output in Path(os.fsdecode(error.filename)).parents
        if error.errno in (*_FULL, errno.EFBIG) or (is_ours and may_pass(error)):
            raise self._explained(error) from error

    def publish(self, manifest: Manifest) -> Published:
        """Publish the folder durably under its final name.

        If an equal run was published in the meantime, that folder is returned and this one is dropped.

        Raises:
            OutputError: A file is missing or too short, or the system refused; nothing was published.
            NoSpaceLeft: The disk is full; nothing was published.
            LeaseLost: A later attempt at the same job removed this attempt's folder.
        """
        try:
            if not self.folder.is_dir():
                raise FileNotFoundError(self.folder)
            self._check_files(manifest)
            sync_tree(self.folder)
            failpoint("before-manifest")
            write_synced(self.folder / FILE_NAME, manifest.to_json())
            sync_folder(self.folder)
            failpoint("before-rename")
            return self._rename(manifest)
        except OSError as error:
            if not self.folder.is_dir():
                raise LeaseLost(
                    f"The job {self.job} was taken over by a later attempt; this attempt's stems are dropped."
                ) from error
            raise self._explained(error) from error

    def _names(self, manifest: Manifest) -> Iterator[str]:
        """Yield names for the folder, best first.

        A suffix tells it from the existing folder of that name: for another song, such as `a.mp3` beside `a.wav`, the
        format; for another run of the same song, the preset.
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
                elif holds_complete_run(target, self.identity, analysed=analysed):
                    return Published(target, recognised=True)
                else:
                    continue
            except OSError as error:
                if not os.path.lexists(target):
                    raise
                log.info("job %s: %s was taken at the last moment (%s)", self.job, target, error)
                if holds_complete_run(target, self.identity, analysed=analysed):
                    return Published(target, recognised=True)
            else:
                failpoint("after-rename")
                sync_folder(self.output)
                return Published(target)
        raise AssertionError("the names never end")

    def _lacks_only_its_analysis(self, target: Path) -> bool:
        """Return whether `target` holds an untouched equal run without its analysis, so that this run replaces it."""
        without, with_it = (holds_complete_run(target, self.identity, analysed=analysed) for analysed in (False, True))
        return without and not with_it and untouched(target)

    def _replace(self, target: Path) -> None:
        """Replace a folder. A kill in between loses no stems: they are cached, and the next attempt publishes them."""
        aside = self.folder.with_name(f".tmp-{self.job}-{self.fence - 1}")  # `remove_stale` recognises this name
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
                    f"{path.name} of {self.song!r} should have {entry.size_bytes} bytes but has {max(size, 0)}, so "
                    f"nothing was published; check the disk of {self.output} and try again."
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
                f"The disk of {self.output} does not support files as large as the stems of {self.song!r}; "
                "choose a folder on another disk."
            )
        reason = error.strerror or str(error)
        kind = OutputUnavailable if may_pass(error) else OutputError
        return kind(
            f"The stems of {self.song!r} cannot be written to {self.output} ({reason}); "
            "check the folder and its permissions, or choose another."
        )


def ensure_space(output: Path, estimate_bytes: int, song: str) -> None:
    """Check that the disk has room for `SPACE_MARGIN` times the estimate, and that the folder is writable.

    Args:
        output: Folder for the songs; need not exist.
        estimate_bytes: See `estimate_bytes`.
        song: Name of the song, for the message.

    Raises:
        NoSpaceLeft: The disk has too little free space.
        OutputUnavailable: The folder is not writable, or its disk is missing.
    """
    if not os.access(place := _existing(output), os.W_OK):
        raise OutputUnavailable(f"{place} cannot be written to; check its permissions, or choose another folder.")
    needed, free = int(estimate_bytes * SPACE_MARGIN), _free_bytes(output)
    if free < needed:
        raise NoSpaceLeft(
            f"{output} has {_gigabytes(free)} free and {song!r} needs {_gigabytes(needed)}; "
            "free some space or choose a folder on another disk."
        )


def estimate_bytes(files: int, channels: int, samples: int) -> int:
    """Return the bytes of `files` float WAVs of (channels, samples), plus room for headers, session and manifest."""
    return files * (channels * samples * 4 + 8192) + 65536


def temporary_folders(output: Path) -> list[tuple[Path, str, int]]:
    """Return (folder, job, fence) of every temporary folder in `output`."""
    folders = []
    with os.scandir(output) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), match["job"], int(match["fence"])))
    return folders


def remove_stale(
    output: Path, running: Callable[[str, int], bool | None], *, now_unix_s: float | None = None
) -> list[Path]:
    """Remove temporary folders of attempts that have ended.

    Args:
        output: Folder that holds the songs' folders.
        running: Given (job, fence), returns True if that attempt is running and its folder stays, False if it is dead
            and its folder is removed, None if the job is unknown. Another program may then be using the same output
            folder, so the temporary folder is removed only if nothing in it has changed for a day.
        now_unix_s: The current time; for tests.

    Returns:
        The removed folders.
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
            log.info("removed %s, which job %s left behind", folder, job)
            removed.append(folder)
    return removed


def remove_folder(folder: Path) -> bool:
    """Remove a folder with its content. Returns whether that succeeded; a failure is logged, not raised."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("cannot remove %s: %s", folder, error)
        return False
    return True


def _rename_folder(source: Path, target: Path) -> None:
    """Rename a folder; fails if the target is not empty. Retries on Windows, where a virus scanner may hold a file."""
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
                continue  # it was just removed, so the folder is in use, and the folder's own time is recent
    return max(times)


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk that `folder` is on, or will be on once it exists."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """Return `folder`, or its nearest existing parent."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place
    raise OutputUnavailable(f"The disk of {folder} is not connected; connect it, or choose another folder.")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
