"""What a finished batch is exported to: the page, and one REAPER project with all songs in a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tsbs_daw.batch.catalogue import JSON, complete_manifest
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.errors import NoSpaceLeft, OutputError, PresetError, shown
from tsbs_daw.pipeline.naming import SongInfo
from tsbs_daw.pipeline.sessions import grouped_tracks, with_analysis
from tsbs_daw.presets.preset import load_preset
from tsbs_daw.sessions.batch_session import BatchSong, write_batch_rpp
from tsbs_daw.sessions.session import Session

log = logging.getLogger(__name__)


def write_session(catalogue: Catalogue, out: Path, presets: Path | None) -> Path | None:
    """Write it beside the catalogue, with its name. Songs whose files went away meanwhile are left out.

    Returns: the project; None if there is no song that is done
    Raises:  OutputError: it cannot be written
    """
    sources = _sources_of_outputs(catalogue.preset, presets)
    done = (song for song in catalogue.songs if song.state == "done")
    songs = [found for song in done if (found := _batch_song(song, out, sources)) is not None]
    path = out / catalogue.session
    if not songs:
        return None
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        write_batch_rpp(songs, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"Cannot write the session of all songs to {shown(path)} ({error.strerror}). Free some space "
            "there and rerun the command."
        ) from error
    return path


def _batch_song(song: SongEntry, out: Path, sources: dict[str, Sequence[str]]) -> BatchSong | None:
    assert song.folder is not None, "a song that is done has a folder"
    manifest = complete_manifest(out / song.folder)
    if manifest is None:
        return None
    about, name = manifest.source, PurePosixPath(song.folder).name
    roots = {file.name: file.folders[0] for file in manifest.stems if file.folders}
    tracks = grouped_tracks(
        (file, [roots.get(name, name) for name in _made_of(file, sources)]) for file in manifest.stems
    )
    session = Session(name, about.sample_rate, 0, about.samples, about.channels, tracks)
    info = SongInfo(name, song.artist, song.title, song.analysis)
    return BatchSong(with_analysis(session, info, "sections"), song.folder)


def _made_of(file: AudioFile, sources: dict[str, Sequence[str]]) -> Sequence[str]:
    return sources.get(file.name, (file.name,)) if file.kind == "output" else (file.name,)


def _sources_of_outputs(preset: str, presets: Path | None) -> dict[str, Sequence[str]]:
    """The stems that each of the preset's outputs is made of."""
    try:
        return {output.name: output.sources for output in load_preset(preset, presets).outputs}
    except PresetError as error:  # it was edited while the batch ran
        log.warning("the outputs are not grouped: %s", error)
        return {}


@dataclass
class Exports:
    """files: what there is to open, by what it is; problems: what could not be made, one sentence each"""

    files: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def write_exports(catalogue: Catalogue, out: Path, presets: Path | None) -> Exports:
    """A problem with one of them neither stops the other nor undoes a song."""
    from tsbs_daw.batch.page import write_page

    exports = Exports({"catalogue": out / JSON})
    _make(exports, "session", lambda: write_session(catalogue, out, presets))
    _make(exports, "page", lambda: write_page(catalogue, out))  # after it, as it leads to it
    return exports


def _make(exports: Exports, what: str, make: Callable[[], Path | None]) -> None:
    try:
        path = make()
    except Exception as error:
        log.warning("the batch's %s could not be made", what, exc_info=True)
        known = isinstance(error, (OutputError, NoSpaceLeft))
        reason = str(error) if known else f"{' '.join(str(error).split()).rstrip('.') or type(error).__name__}"
        exports.problems.append(
            reason if known else f"The batch's {what} could not be made ({reason}); the songs are complete."
        )
    else:
        if path is not None:
            exports.files[what] = path
