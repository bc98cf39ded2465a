"""What the page of a catalogue knows of each song: plain values, ready for JSON, and no more than it shows.

File names become URLs that can only lead to below the page's own folder. Everything else stays text; the page puts it
in as text and never as markup.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from tsbs_daw.batch.catalogue_document import Catalogue, SongEntry, SongFile
from tsbs_daw.batch.waveform import Picture, inside, pictures
from tsbs_daw.contracts.analysis import Analysis, Key, StemSound, Tempo

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_VOICE = re.compile(r"vocal|voice|acapella", re.IGNORECASE)
_SOUNDING = 0.02  # of a song; a voice that is heard for less is bleed


def rows(catalogue: Catalogue, folder: Path) -> list[dict[str, Any]]:
    """One value per song, in the catalogue's order."""
    return [_row(song, folder) for song in catalogue.songs]


def relative_url(file: str) -> str:
    """A path of a catalogue as a URL that stays inside the page's folder, whatever it is called."""
    parts = [part for part in PurePosixPath(file).parts if part not in ("/", "//", "..")]
    # Bytes that are no UTF-8 came as surrogates, and go back to what they were.
    return "/".join([".", *(quote(part.encode("utf-8", "surrogateescape"), safe="") for part in parts)])


def _row(song: SongEntry, folder: Path) -> dict[str, Any]:
    drawn = pictures(folder, song.folder or song.source, [file.file for file in song.files]) if song.files else {}
    analysis = song.analysis
    return {
        "source": song.source,
        "title": song.title or PurePosixPath(song.source.replace("\\", "/")).stem or song.source,
        "artist": song.artist,
        "state": song.state,
        "reason": song.reason,
        "duplicateOf": song.duplicate_of,
        "durationS": _number(song.duration_s),
        "sampleRate": song.sample_rate,
        "channels": song.channels,
        "residualDb": _number(song.residual_db),
        "gainDb": _number(song.gain_db),
        "files": [_file(file, drawn[file.file], analysis) for file in song.files],
        "links": _links(song, folder),
        "warnings": [warning for warning in song.warnings if analysis is None or warning not in analysis.notes],
        # Doubts are told with their figures.
        "notes": [note for note in analysis.notes if "doubtful" not in note] if analysis else [],
        **_heard(analysis),
    }


def _links(song: SongEntry, folder: Path) -> list[dict[str, str]]:
    """What there is to open beside the sounds: the folder, the sessions, and what was made for decks and samplers."""
    places = [(song.folder, "Folder"), *((path, PurePosixPath(path).name) for path in song.sessions)]
    places += [(song.loops_folder, f"{song.loops} loop{'s' if song.loops != 1 else ''}")]
    places += [(song.stem_mp4, PurePosixPath(song.stem_mp4).name)] if song.stem_mp4 else []
    folders = (song.folder, song.loops_folder)
    return [
        {"name": name, "url": relative_url(path) + ("/" if path in folders else "")}
        for path, name in places
        if path and inside(folder, path) is not None
    ]


def _heard(analysis: Analysis | None) -> dict[str, Any]:
    """The part of a row that comes from listening to the song."""
    if analysis is None:
        return {"tempo": None, "key": None, "loudness": None, "meter": None, "sections": [], "doubts": {}}
    beats = analysis.beats
    vocals = [sound for name, sound in analysis.stems.items() if _VOICE.search(name)]
    return {
        "tempo": _tempo(analysis.tempo) if _number(analysis.tempo.bpm) else None,
        "key": _key(analysis.key) if analysis.key else None,
        "loudness": {
            "lufs": _number(analysis.loudness.integrated_lufs),
            "rangeLu": _number(analysis.loudness.range_lu),
            "peakDb": _number(analysis.loudness.true_peak_db),
        },
        "meter": {"beats": beats.beats_per_bar, "doubtful": beats.meter_doubtful} if beats.beats_per_bar else None,
        "introS": _number(analysis.intro_s),
        "vocals": any(_sounds(sound) for sound in vocals) if vocals else None,
        "sections": [[_number(part.start_s), _number(part.end_s), part.label] for part in analysis.sections],
        "doubts": _doubts(analysis),
    }


def _tempo(tempo: Tempo) -> dict[str, Any]:
    speeds = [change.bpm for change in tempo.changes] or [tempo.bpm]
    return {
        "bpm": _number(tempo.bpm),
        "confidence": tempo.confidence,
        "doubtful": tempo.doubtful,
        "steady": tempo.steady,
        "source": tempo.source,
        "slowest": _number(min(speeds)),
        "fastest": _number(max(speeds)),
    }


def _key(key: Key) -> dict[str, Any]:
    return {"name": key.name, "camelot": key.camelot, "confidence": key.confidence, "doubtful": key.doubtful}


def _doubts(analysis: Analysis) -> dict[str, str]:
    """Why a figure is marked as doubtful: one sentence each."""
    doubts = {}
    if analysis.tempo.bpm and analysis.tempo.doubtful:
        doubts["tempo"] = (
            f"The tempo is doubtful (confidence {analysis.tempo.confidence:.0%}): "
            f"it may be {analysis.tempo.bpm / 2:.1f} or {analysis.tempo.bpm * 2:.1f} BPM, or not be steady at all."
        )
    if analysis.key and analysis.key.doubtful:
        doubts["key"] = (
            f"The key is doubtful (confidence {analysis.key.confidence:.0%}): "
            "a neighbour on the Camelot wheel fits the song's notes almost as well."
        )
    if analysis.beats.beats_per_bar and analysis.beats.meter_doubtful:
        doubts["meter"] = (
            f"The beats in a bar are doubtful (confidence {analysis.beats.meter_confidence:.0%}): "
            "listen before you trust the bar lines."
        )
    return doubts


def _file(file: SongFile, picture: Picture, analysis: Analysis | None) -> dict[str, Any]:
    sound = analysis.stems.get(file.name) if analysis else None
    found: dict[str, Any] = {
        "name": file.name,
        "kind": file.kind,
        "url": relative_url(file.file),
        "color": file.color if _COLOR.fullmatch(file.color) else "#999999",
        "levels": picture.levels,
        "problem": picture.problem,
        "lufs": _number(file.loudness_lufs),
        "peakDb": _number(file.true_peak_db),
    }
    if sound:
        found["firstSoundS"] = _number(sound.first_sound_s)
        found["share"] = sound.active_share
        found["silences"] = [[_number(span.start_s), _number(span.end_s)] for span in sound.silences]
    return found


def _sounds(sound: StemSound) -> bool:
    return sound.first_sound_s is not None and sound.active_share >= _SOUNDING


def _number(value: float | None) -> float | None:
    """JSON has no infinities; a page needs no more than milliseconds and thousandths of a dB."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
