"""The catalogue of a batch: an entry for each song, read from its folder, and the files written from the entries.

catalogue.json, catalogue.csv   written while the batch runs
catalogue.html                  the page, see `page`
<batch>.RPP                     one REAPER project with all songs in a row
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tsbs_daw.batch.plan import BatchRequest, Plan, write_state
from tsbs_daw.contracts.analysis import Analysis, Tempo
from tsbs_daw.contracts.catalogue import CSV, JSON, Catalogue, SongEntry
from tsbs_daw.contracts.manifest import AudioFile, Manifest, read_manifest
from tsbs_daw.core.errors import NoSpaceLeft, OutputError, PresetError, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.pipeline.song_info import SongInfo, grouped_tracks, with_analysis
from tsbs_daw.presets.preset import load_preset
from tsbs_daw.sessions.batch_session import BatchSong, write_batch_rpp
from tsbs_daw.sessions.session import Session

if TYPE_CHECKING:
    from tsbs_daw.batch.run import Song

log = logging.getLogger(__name__)

Cell = str | float | int | bool | None

BYTE_ORDER_MARK = "\ufeff"  # without it, Excel does not recognise UTF-8

# In some locales, spreadsheets treat the full-width characters like the plain ones.
_FORMULA = (*"=+-@\uff1d\uff0b\uff0d\uff20", "\t", "\r", "\n")


def _of(analysis: Callable[[Analysis], Cell]) -> Callable[[SongEntry], Cell]:
    return lambda song: analysis(song.analysis) if song.analysis is not None else None


def _of_tempo(tempo: Callable[[Tempo], Cell]) -> Callable[[SongEntry], Cell]:
    """Read a column from the tempo; None for a song without a tempo."""
    return _of(lambda found: tempo(found.tempo) if found.tempo.bpm is not None else None)


def _vocals_from(analysis: Analysis) -> Cell:
    return analysis.stems["vocals"].first_sound_s if "vocals" in analysis.stems else None


COLUMNS: dict[str, Callable[[SongEntry], Cell]] = {
    "source": lambda song: song.source,
    "state": lambda song: song.state,
    "reason": lambda song: song.reason,
    "duplicate_of": lambda song: song.duplicate_of,
    "artist": lambda song: song.artist,
    "title": lambda song: song.title,
    "folder": lambda song: song.folder,
    "duration_s": lambda song: song.duration_s,
    "tempo_bpm": _of_tempo(lambda tempo: tempo.bpm),
    "tempo_confidence": _of_tempo(lambda tempo: tempo.confidence),
    "tempo_doubtful": _of_tempo(lambda tempo: tempo.doubtful),
    "tempo_steady": _of_tempo(lambda tempo: tempo.steady),
    "beats_per_bar": _of(lambda found: found.beats.beats_per_bar),
    "meter_doubtful": _of(lambda found: found.beats.meter_doubtful if found.beats.beats_per_bar else None),
    "key": _of(lambda found: found.key.name if found.key else None),
    "camelot": _of(lambda found: found.key.camelot if found.key else None),
    "key_confidence": _of(lambda found: found.key.confidence if found.key else None),
    "key_doubtful": _of(lambda found: found.key.doubtful if found.key else None),
    "loudness_lufs": _of(lambda found: found.loudness.integrated_lufs),
    "loudness_range_lu": _of(lambda found: found.loudness.range_lu),
    "true_peak_db": _of(lambda found: found.loudness.true_peak_db),
    "intro_s": _of(lambda found: found.intro_s),
    "vocals_from_s": _of(_vocals_from),
    "residual_db": lambda song: song.residual_db,
    "gain_db": lambda song: song.gain_db if song.state == "done" else None,
    "sample_rate": lambda song: song.sample_rate,
    "channels": lambda song: song.channels,
    "sessions": lambda song: " | ".join(song.sessions),
    "warnings": lambda song: " | ".join(song.warnings),
    "sha256": lambda song: song.sha256,
    "loops": lambda song: song.loops if song.state == "done" else None,
    "loops_folder": lambda song: song.loops_folder,
    "stem_mp4": lambda song: song.stem_mp4,
}


def to_csv(catalogue: Catalogue) -> str:
    """Format the catalogue as CSV: commas, decimal points, yes and no, and empty cells for unknown values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for song in catalogue.songs:
        writer.writerow([_cell(value(song)) for value in COLUMNS.values()])
    return BYTE_ORDER_MARK + text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return _harmless(value) if isinstance(value, str) else str(value)


def _harmless(text: str) -> str:
    """Escape text that a spreadsheet would take for a formula, with a leading apostrophe."""
    text = " ".join(text.split("\n"))
    return f"'{text}" if text.lstrip(" \u3000\u00a0").startswith(_FORMULA) else text


_SESSION_ENDINGS = (".rpp", ".dawproject")


def complete_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a song's folder; None unless every stem it lists exists with the recorded size."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    try:
        whole = all((folder / entry.file).stat().st_size == entry.size_bytes for entry in manifest.stems)
    except OSError:
        return None
    return manifest if whole else None


def done_entry(waiting: SongEntry, out: Path, folder: Path, manifest: Manifest) -> SongEntry:
    """Build the entry of a song whose folder is complete.

    Args:
        waiting: The song's entry so far, with source, artist and title.
        out: Output folder of the batch; contains `folder`.
        folder: The song's folder.
        manifest: The manifest of `folder`.
    """
    source, place = manifest.source, _relative(folder, out)
    analysis, complaint = _analysis(folder, manifest.analysis)
    return SongEntry(
        source=waiting.source,
        sha256=source.sha256,
        state="done",
        folder=place,
        artist=manifest.artist or waiting.artist,
        # The folder's name is sanitised and may be numbered; without a tag, the file's own name is the better title.
        title=waiting.title if manifest.title in ("", manifest.song) else manifest.title,
        duration_s=source.samples / source.sample_rate,
        sample_rate=source.sample_rate,
        channels=source.channels,
        analysis=analysis,
        residual_db=manifest.residual_db,
        gain_db=manifest.gain_db,
        files=tuple(entry.model_copy(update={"file": f"{place}/{entry.file}"}) for entry in manifest.stems),
        sessions=tuple(f"{place}/{name}" for name in _sessions(folder, manifest.sessions)),
        **_others(place, manifest),
        warnings=(*manifest.warnings, *complaint),
    )


def _others(place: str, manifest: Manifest) -> dict[str, Any]:
    """Fields for the loops and the .stem.mp4 file."""
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
    """Names of the session files: from the manifest or, if it is of an older version without them, by extension."""
    if known is not None:
        return [name for name in known if (folder / name).is_file()]
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _SESSION_ENDINGS)


def _analysis(folder: Path, name: str | None) -> tuple[Analysis | None, tuple[str, ...]]:
    """Read the analysis, if there is one, with a warning if it cannot be read."""
    if name is None:
        return None, ()
    try:
        return Analysis.model_validate_json((folder / name).read_bytes()), ()
    except (OSError, ValidationError) as error:
        log.warning("cannot read the analysis of %s: %s", folder, error)
        return None, (f"{name} cannot be read; remove the song's folder and rerun the command.",)


_EVERY_S = 2.0
_SHARE = 20  # writing takes at most a twentieth of the time


class CatalogueWriter:
    """Writes the catalogue of a running batch, at intervals that grow with the time it takes."""

    def __init__(self, request: BatchRequest, plan: Plan, songs: Sequence[Song]):
        self._request, self._plan, self._songs = request, plan, songs
        self._changed, self._not_before = True, float("-inf")

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(
            crate=self._request.name,
            preset=self._request.treatment.preset,
            songs=tuple(song.entry for song in self._songs),
        )

    def changed(self) -> None:
        self._changed = True

    def write_if_due(self) -> None:
        """Write if something has changed and the interval is over. A failure, such as a full disk, is retried later."""
        if not self._changed or time.monotonic() < self._not_before:
            return
        began = time.monotonic()
        try:
            self.write()
        except OutputError as error:
            log.warning("%s", error)
        self._not_before = time.monotonic() + max(_EVERY_S, _SHARE * (time.monotonic() - began))

    def write(self) -> None:
        """Write the state, catalogue.json and catalogue.csv.

        Raises:
            OutputError: The output folder cannot be written to.
        """
        out, catalogue = self._request.out, self.catalogue
        try:
            write_state(out, self._plan.state)
            write_atomically(out / JSON, catalogue.to_json())
            write_atomically(out / CSV, to_csv(catalogue))
        except OSError as error:
            for name in (JSON, CSV):
                Path(out, f"{name}.tmp").unlink(missing_ok=True)
            raise OutputError(
                f"Cannot write the catalogue to {shown(out)} ({error.strerror}). Fix this and rerun the command; "
                "it resumes where it stopped."
            ) from error
        self._changed = False


# ---- exports of a finished batch -------------------------------------------------------------------------------------


def write_session(catalogue: Catalogue, out: Path, presets: Path | None) -> Path | None:
    """Write one REAPER project of all songs beside the catalogue. Songs whose files have since disappeared are skipped.

    Returns:
        The project's path; None if no song is done.

    Raises:
        OutputError: The project cannot be written.
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
            "and rerun the command."
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
    """Map each of the preset's outputs to the stems that it is made from."""
    try:
        return {output.name: output.sources for output in load_preset(preset, presets).outputs}
    except PresetError as error:  # the preset was edited while the batch ran
        log.warning("cannot group the outputs: %s", error)
        return {}


@dataclass
class Exports:
    """The exported files of a batch.

    Attributes:
        files: Path of each file that was written: "catalogue", "session", "page".
        problems: One sentence for each file that could not be written.
    """

    files: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def write_exports(catalogue: Catalogue, out: Path, presets: Path | None) -> Exports:
    """Write the session and the page. A failure of one is reported and does not affect the other, or the songs."""
    from tsbs_daw.batch.page import write_page

    exports = Exports({"catalogue": out / JSON})
    _make(exports, "session", lambda: write_session(catalogue, out, presets))
    _make(exports, "page", lambda: write_page(catalogue, out))  # last, because it links to the session
    return exports


def _make(exports: Exports, what: str, make: Callable[[], Path | None]) -> None:
    try:
        path = make()
    except Exception as error:
        log.warning("cannot write the batch's %s", what, exc_info=True)
        known = isinstance(error, (OutputError, NoSpaceLeft))
        reason = str(error) if known else f"{' '.join(str(error).split()).rstrip('.') or type(error).__name__}"
        exports.problems.append(
            reason if known else f"Cannot write the batch's {what} ({reason}); the songs are complete."
        )
    else:
        if path is not None:
            exports.files[what] = path
