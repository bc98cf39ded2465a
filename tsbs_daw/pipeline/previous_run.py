"""Folders of earlier runs that an equal one need not make again, or may make better.

A run whose analysis was asked for and failed is complete all the same: the stems are what counts. The next equal run
tries the analysis again, and takes the folder's place if that succeeds and nobody has touched the folder since.
"""

from __future__ import annotations

import os
from pathlib import Path

from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, read_manifest
from tsbs_daw.core.filenames import safe_name


def find_equal_run(output: Path, song: str, identity: str, *, analysed: bool = False) -> Path | None:
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
    files = {FILE_NAME, *manifest.sessions, *(entry.file for entry in (*manifest.stems, *manifest.others))}
    files |= {manifest.analysis} if manifest.analysis else set()
    try:
        there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
        published = (folder / FILE_NAME).stat().st_mtime_ns
        return there.keys() == files and all(path.stat().st_mtime_ns <= published for path in there.values())
    except OSError:
        return False
