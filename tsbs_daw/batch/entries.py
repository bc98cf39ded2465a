"""Entries of the catalogue, read from the folders that jobs delivered."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from tsbs_daw.batch.catalogue_document import SongEntry, SongFile
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.manifest import Manifest, read_manifest

log = logging.getLogger(__name__)

_SESSION_ENDINGS = (".rpp", ".dawproject")


def complete_manifest(folder: Path) -> Manifest | None:
    """The manifest of a song's folder, if every file that it names is there, as long as it was."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    try:
        whole = all((folder / entry.file).stat().st_size == entry.size_bytes for entry in manifest.stems)
    except OSError:
        return None
    return manifest if whole else None


def done_entry(waiting: SongEntry, out: Path, folder: Path, manifest: Manifest) -> SongEntry:
    """The entry of a song whose `folder` is complete.

    Args: waiting: its entry so far, with source, artist and title
          out:     the crate's out folder, which `folder` lies in
    """
    source, place = manifest.source, _relative(folder, out)
    analysis, complaint = _analysis(folder, manifest.analysis)
    return SongEntry(
        source=waiting.source,
        sha256=source.sha256,
        state="done",
        folder=place,
        artist=manifest.artist or waiting.artist,
        # A folder's name is cleaned and may have a number; without a tag, the file's own name is the better title.
        title=waiting.title if manifest.title in ("", manifest.song) else manifest.title,
        duration_s=source.samples / source.sample_rate,
        sample_rate=source.sample_rate,
        channels=source.channels,
        analysis=analysis,
        residual_db=manifest.residual_db,
        gain_db=manifest.gain_db,
        files=tuple(
            SongFile(
                name=entry.name,
                kind=entry.kind,
                file=f"{place}/{entry.file}",
                color=entry.color,
                muted=entry.muted,
                loudness_lufs=entry.loudness_lufs,
                true_peak_db=entry.true_peak_db,
            )
            for entry in manifest.stems
        ),
        sessions=tuple(f"{place}/{name}" for name in _sessions(folder, manifest.sessions)),
        **_others(place, manifest),
        warnings=(*manifest.warnings, *complaint),
    )


def _others(place: str, manifest: Manifest) -> dict[str, Any]:
    """What was made beside the stems and sessions."""
    loops = [entry.file for entry in manifest.others if entry.kind == "loop"]
    stems = [entry.file for entry in manifest.others if entry.kind == "stem.mp4"]
    return {
        "loops": len(loops),
        "loops_folder": str(PurePosixPath(place, loops[0]).parent) if loops else None,
        "stem_mp4": f"{place}/{stems[0]}" if stems else None,
    }


def _relative(folder: Path, out: Path) -> str:
    return folder.relative_to(out).as_posix()


def _sessions(folder: Path, known: tuple[str, ...] | None) -> list[str]:
    """As the manifest names them; a manifest of an older version does not."""
    if known is not None:
        return [name for name in known if (folder / name).is_file()]
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _SESSION_ENDINGS)


def _analysis(folder: Path, name: str | None) -> tuple[Analysis | None, tuple[str, ...]]:
    """The analysis, if one was made, and what is wrong with it."""
    if name is None:
        return None, ()
    try:
        return Analysis.model_validate_json((folder / name).read_bytes()), ()
    except (OSError, ValidationError) as error:
        log.warning("the analysis of %s is left out: %s", folder, error)
        return None, (f"{name} cannot be read; remove the song's folder and run the same command again.",)
