"""catalogue.html: the catalogue of a batch to look at and listen to. One file, no server, no network.

The page carries its style, its program and its data inside. It may run nothing but that one program, and load nothing
but sound: its Content-Security-Policy says so, by the hashes of the two. Pictures are in the data; sounds are played
from the delivered files, by URLs relative to the page, so that the folder can be moved as a whole.

File names become URLs that cannot lead out of the page's own folder. Everything else stays text, and the page inserts
it as text, never as markup. `Thumbnails` updates the page while the batch runs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import json
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from tsbs_daw.batch.waveform import Waveform, forget_all_but, inside, waveforms
from tsbs_daw.contracts.analysis import Analysis, Key, StemSound, Tempo
from tsbs_daw.contracts.catalogue import CSV, Catalogue, SongEntry
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.errors import NoSpaceLeft, OutputError, shown
from tsbs_daw.core.files import disk_is_full, write_atomically

log = logging.getLogger(__name__)

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_VOICE = re.compile(r"vocal|voice|acapella", re.IGNORECASE)
_SOUNDING = 0.02  # of a song; a voice that is heard for less is bleed


# What leads to a file of a catalogue; None where nothing does.
Url = Callable[[str], "str | None"]


def relative_url(file: str) -> str:
    """A path of a catalogue as a URL that stays inside the page's folder, whatever it is called."""
    parts = [part for part in PurePosixPath(file).parts if part not in ("/", "//", "..")]
    # Bytes that are no UTF-8 came as surrogates, and go back to what they were.
    return "/".join([".", *(quote(part.encode("utf-8", "surrogateescape"), safe="") for part in parts)])


def song_row(song: SongEntry, folder: Path, *, url: Url = relative_url, cache: Path | None = None) -> dict[str, Any]:
    """What a page knows of one song.

    Args:
        folder: What the song's files are relative to.
        url: What leads to a file.
        memory: Where its waveforms are remembered; None: in `folder`.
    """
    files = [file.file for file in song.files]
    drawn = waveforms(folder, song.folder or song.source, files, cache) if song.files else {}
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
        "files": [_file(file, drawn[file.file], analysis, url) for file in song.files],
        "links": _links(song, folder, url),
        "warnings": [warning for warning in song.warnings if analysis is None or warning not in analysis.notes],
        # Doubts are told with their figures.
        "notes": [note for note in analysis.notes if "doubtful" not in note] if analysis else [],
        **_heard(analysis),
    }


def _links(song: SongEntry, folder: Path, url: Url) -> list[dict[str, str]]:
    """What there is to open beside the sounds: the folder, the sessions, and what was made for decks and samplers."""
    places = [(song.folder, "Folder"), *((path, PurePosixPath(path).name) for path in song.sessions)]
    places += [(song.loops_folder, f"{song.loops} loop{'s' if song.loops != 1 else ''}")]
    places += [(song.stem_mp4, PurePosixPath(song.stem_mp4).name)] if song.stem_mp4 else []
    folders = (song.folder, song.loops_folder)
    return [
        {"name": name, "url": leads + ("/" if path in folders else "")}
        for path, name in places
        if path and inside(folder, path) is not None and (leads := url(path)) is not None
    ]


def _heard(analysis: Analysis | None) -> dict[str, Any]:
    """The part of a row that comes from the analysis."""
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
    speeds = [change.bpm for change in tempo.changes] or ([] if tempo.bpm is None else [tempo.bpm])
    return {
        "bpm": _number(tempo.bpm),
        "confidence": tempo.confidence,
        "doubtful": tempo.doubtful,
        "steady": tempo.steady,
        "source": tempo.source,
        "slowest": _number(min(speeds, default=None)),
        "fastest": _number(max(speeds, default=None)),
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


def _file(file: AudioFile, waveform: Waveform, analysis: Analysis | None, url: Url) -> dict[str, Any]:
    sound = analysis.stems.get(file.name) if analysis else None
    found: dict[str, Any] = {
        "name": file.name,
        "kind": file.kind,
        "url": url(file.file),
        "color": file.color if _COLOR.fullmatch(file.color) else "#999999",
        "levels": waveform.levels,
        "problem": waveform.problem,
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


NAME = "catalogue.html"

TEMPO_PERCENT = 6.0  # what most players' tempo sliders do, and time stretching hides
_PARTS = "page_parts"
# In this order they make one script.
_PROGRAM = ("words", "music", "picture", "player", "deck", "details", "row", "heading", "keys", "main")


def write_page(catalogue: Catalogue, folder: Path) -> Path:
    """Write the page of a catalogue, complete or not, into the batch's out folder.

    The songs' files are read once, for their waveforms; a second run reads only what is new. A file that is missing or
    damaged is shown as such.

    Returns: the page
    Raises:  OutputError, NoSpaceLeft: it cannot be written; a page from before is still whole
    """
    path = folder / NAME
    try:
        songs = [song_row(song, folder) for song in catalogue.songs]
        forget_all_but(folder, (song.folder or song.source for song in catalogue.songs))
        beside = [name for name in (catalogue.session, CSV) if (folder / name).is_file()]
        write_atomically(path, _page(catalogue, songs, beside))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(f"{NAME}.tmp").unlink(missing_ok=True)  # others need the room
        if disk_is_full(error):
            raise NoSpaceLeft(f"The disk is full at {shown(path)}; free some space and rerun the command.") from error
        raise OutputError(f"Cannot write {shown(path)} ({error.strerror}). Check the folder's permissions.") from error
    return path


def _page(catalogue: Catalogue, songs: list[dict], beside: list[str]) -> str:
    """All in one file. Args: beside: files of the whole batch that the page leads to"""
    style, program = joined_parts(style=True), joined_parts()
    policy = (
        f"default-src 'none'; script-src {_hash(program)}; style-src {_hash(style)}; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = _data(catalogue, songs, beside, relative_url)
    return _filled(policy, f"<style>{style}</style>", f"<script>{program}</script>", data)


def linked_page(catalogue: Catalogue, folder: Path, beside: list[str], *, url: Url) -> str:
    """The same page for a server, which sends style and program by themselves and says what leads to a file."""
    songs = [song_row(song, folder, url=url) for song in catalogue.songs]
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; base-uri 'none'"
    style, program = (
        '<link rel="stylesheet" href="/static/catalogue.css">',
        '<script src="/static/catalogue.js"></script>',
    )
    return _filled(policy, style, program, _data(catalogue, songs, beside, url))


def _data(catalogue: Catalogue, songs: list[dict], beside: list[str], url: Url) -> dict[str, Any]:
    return {
        "crate": catalogue.crate,
        "preset": catalogue.preset,
        "created": catalogue.created.isoformat(),
        "tempoPercent": TEMPO_PERCENT,
        "links": [{"name": name, "url": url(name)} for name in beside],
        "songs": songs,
    }


def _filled(policy: str, style: str, program: str, data: object) -> str:
    pieces = {"POLICY": policy, "STYLE": style, "PROGRAM": program, "DATA": embedded(data)}
    # In one pass: what comes in at one place is never searched for another.
    return re.sub("@(POLICY|STYLE|PROGRAM|DATA)@", lambda place: pieces[place[1]], _part("catalogue.html"))


def embedded(data: object) -> str:
    """JSON that can stand inside a <script> element: ASCII, and nothing in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def joined_parts(names: Iterable[str] = _PROGRAM, more: Iterable[str] = (), *, style: bool = False) -> str:
    """The page's program: parts by name, then `more`, in one scope. With `style`, its style sheet instead."""
    if style:
        return _part("catalogue.css")
    return "(() => {\n'use strict';\n" + "\n".join([*(_part(f"{name}.js") for name in names), *more]) + "})();\n"


def _hash(text: str) -> str:
    """How a Content-Security-Policy names the contents of an element."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


def _part(name: str) -> str:
    return (importlib.resources.files("tsbs_daw.batch") / _PARTS / name).read_text(encoding="utf-8")


_TIMEOUT_S = 5.0  # for the song being measured when the batch is interrupted
_PAGE_EVERY_S = 4.0
_PAGE_SHARE = 20  # at most a twentieth of the time is spent on writing it


class Thumbnails:
    """Measures waveforms and rewrites the page in a thread, from the first finished song on. Use it in a `with`.

    Whatever it has not measured by then is left to the last call of `write_page`.

    Args: catalogue: how the batch stands; called in that thread
    """

    def __init__(self, out: Path, catalogue: Callable[[], Catalogue]):
        self._out, self._catalogue = out, catalogue
        self._songs: queue.SimpleQueue[SongEntry | None] = queue.SimpleQueue()
        self._stop_wanted = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_wanted = True
        if self._thread is not None:
            self._songs.put(None)  # it may be waiting for a song
            self._thread.join(None if kind is None else _TIMEOUT_S)

    def add(self, song: SongEntry) -> None:
        """A song that has come to its end, however."""
        self._songs.put(song)
        if self._thread is None and not self._stop_wanted:
            self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        old, due = False, time.monotonic()  # the page, and when it may be written again
        while not self._stop_wanted:
            song = self._next(max(due - time.monotonic(), 0.0) if old else None)
            if song is not None:
                self._measure_song(song)
                old = True
            if old and not self._stop_wanted and time.monotonic() >= due:
                began = time.monotonic()
                self._write_page()
                old, due = False, began + max(_PAGE_EVERY_S, _PAGE_SHARE * (time.monotonic() - began))

    def _next(self, timeout_s: float | None) -> SongEntry | None:
        try:
            return self._songs.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _measure_song(self, song: SongEntry) -> None:
        from tsbs_daw.batch.waveform import waveforms

        try:
            waveforms(self._out, song.folder or song.source, [file.file for file in song.files])
        except Exception:  # the page tries again, and says what is wrong
            log.info("%s could not be drawn", song.source, exc_info=True)

    def _write_page(self) -> None:

        try:
            write_page(self._catalogue(), self._out)
        except Exception:  # a full disk, for example: the last page is written by whoever closes the batch, and says so
            log.info("the page could not be written yet", exc_info=True)
