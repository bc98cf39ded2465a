"""catalogue.csv: one row per song, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from tsbs_daw.batch.catalogue_document import Catalogue, SongEntry
from tsbs_daw.contracts.analysis import Analysis, Tempo

Cell = str | float | int | bool | None

NAME = "catalogue.csv"

BYTE_ORDER_MARK = "\ufeff"  # without it, Excel takes UTF-8 for something else

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _of(analysis: Callable[[Analysis], Cell]) -> Callable[[SongEntry], Cell]:
    return lambda song: analysis(song.analysis) if song.analysis is not None else None


def _of_tempo(tempo: Callable[[Tempo], Cell]) -> Callable[[SongEntry], Cell]:
    """Nothing where there is no tempo, of which nothing could be doubtful, either."""
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
    """The table as text: comma-separated, decimal points, yes and no, an empty cell for what is not known."""
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
    """Text that no spreadsheet takes for a formula: one that would begin like it gets an apostrophe in front."""
    text = " ".join(text.split("\n"))
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
