"""catalogue.html: a page to browse a batch and listen to its songs. One file, no server, no network.

The page contains its style, its script and its data. Its Content-Security-Policy allows only this style and this
script, by their hashes, and audio. Waveforms are part of the data; audio is played from the delivered files, by URLs
relative to the page, so that the folder can be moved as a whole.

File names become URLs that cannot leave the page's own folder. Everything else is inserted as text, never as markup.
`Thumbnails` updates the page while the batch runs.
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
_SOUNDING = 0.02  # least share of a song; a voice that is active for less is bleed


# Maps a file of a catalogue to its URL; None if it has none.
Url = Callable[[str], "str | None"]


def relative_url(file: str) -> str:
    """Convert a path of a catalogue to a URL that cannot leave the page's folder."""
    parts = [part for part in PurePosixPath(file).parts if part not in ("/", "//", "..")]
    # Bytes that are not UTF-8 were decoded as surrogates; this restores them.
    return "/".join([".", *(quote(part.encode("utf-8", "surrogateescape"), safe="") for part in parts)])


def song_row(song: SongEntry, folder: Path, *, url: Url = relative_url, cache: Path | None = None) -> dict[str, Any]:
    """Collect a page's data of one song, as JSON.

    Args:
        song: The song's entry in the catalogue.
        folder: Folder that the paths of the song's files are relative to.
        url: Maps a file to its URL.
        cache: Folder of cached waveforms. None: a subfolder of `folder`.
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
        # Notes about doubtful figures are shown beside those figures, see `_doubts`.
        "notes": [note for note in analysis.notes if "doubtful" not in note] if analysis else [],
        **_heard(analysis),
    }


def _links(song: SongEntry, folder: Path, url: Url) -> list[dict[str, str]]:
    """Links to everything except audio: the folder, the sessions, the loops and the .stem.mp4 file."""
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
    """Say in one sentence for each doubtful figure why it is doubtful."""
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
    """Round to three decimals, enough for seconds and dB; None for infinity and NaN, which JSON lacks."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


NAME = "catalogue.html"

TEMPO_PERCENT = 6.0  # range of most players' tempo sliders, in which time stretching is inaudible
_PARTS = "page_parts"
# Joined in this order, the parts are one script.
_PROGRAM = ("words", "music", "picture", "player", "deck", "details", "row", "heading", "keys", "main")


def write_page(catalogue: Catalogue, folder: Path) -> Path:
    """Write the page of a catalogue, complete or not, into the batch's output folder.

    The songs' files are read once, for their waveforms; a second run reads only new files. A missing or damaged file
    is shown as such.

    Returns:
        Path of the page.

    Raises:
        OutputError, NoSpaceLeft: The page cannot be written; an earlier page stays intact.
    """
    path = folder / NAME
    try:
        songs = [song_row(song, folder) for song in catalogue.songs]
        forget_all_but(folder, (song.folder or song.source for song in catalogue.songs))
        beside = [name for name in (catalogue.session, CSV) if (folder / name).is_file()]
        write_atomically(path, _page(catalogue, songs, beside))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(f"{NAME}.tmp").unlink(missing_ok=True)  # frees space on a full disk
        if disk_is_full(error):
            raise NoSpaceLeft(f"The disk is full at {shown(path)}; free some space and rerun the command.") from error
        raise OutputError(f"Cannot write {shown(path)} ({error.strerror}). Check the folder's permissions.") from error
    return path


def _page(catalogue: Catalogue, songs: list[dict], beside: list[str]) -> str:
    """Build the page as one file, with style, script and data inline.

    Args:
        catalogue: The catalogue.
        songs: Its songs, from `song_row`.
        beside: Files of the whole batch that the page links to.
    """
    style, program = joined_parts(style=True), joined_parts()
    policy = (
        f"default-src 'none'; script-src {_hash(program)}; style-src {_hash(style)}; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = _data(catalogue, songs, beside, relative_url)
    return _filled(policy, f"<style>{style}</style>", f"<script>{program}</script>", data)


def linked_page(catalogue: Catalogue, folder: Path, beside: list[str], *, url: Url) -> str:
    """Build the same page for a server, which serves style and script separately and maps files to URLs."""
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
    # In one pass, so that inserted text is never searched for placeholders.
    return re.sub("@(POLICY|STYLE|PROGRAM|DATA)@", lambda place: pieces[place[1]], _part("catalogue.html"))


def embedded(data: object) -> str:
    """Encode as JSON that is safe inside a <script> element: ASCII, without anything that could end the element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def joined_parts(names: Iterable[str] = _PROGRAM, more: Iterable[str] = (), *, style: bool = False) -> str:
    """Join the page's script: parts by name, then `more`, in one scope. With `style`, return the style sheet."""
    if style:
        return _part("catalogue.css")
    return "(() => {\n'use strict';\n" + "\n".join([*(_part(f"{name}.js") for name in names), *more]) + "})();\n"


def _hash(text: str) -> str:
    """Hash of an element's contents, in the form that a Content-Security-Policy uses."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


def _part(name: str) -> str:
    return (importlib.resources.files("tsbs_daw.batch") / _PARTS / name).read_text(encoding="utf-8")


_TIMEOUT_S = 5.0  # for the song that is being measured when the batch is interrupted
_PAGE_EVERY_S = 4.0
_PAGE_SHARE = 20  # writing the page takes at most a twentieth of the time


class Thumbnails:
    """Measures waveforms and rewrites the page in a thread, starting with the first finished song. A context manager.

    Songs not measured when the context ends are measured by the final call of `write_page`.

    Args:
        out: Output folder of the batch.
        catalogue: Returns the current catalogue; called in that thread.
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
            self._songs.put(None)  # wakes the thread if it is waiting for a song
            self._thread.join(None if kind is None else _TIMEOUT_S)

    def add(self, song: SongEntry) -> None:
        """Add a song that has ended, whether done or failed."""
        self._songs.put(song)
        if self._thread is None and not self._stop_wanted:
            self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        old, due = False, time.monotonic()  # whether the page is outdated, and when it may be written again
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
        except Exception:  # `write_page` tries again and reports the problem
            log.info("cannot measure the waveforms of %s", song.source, exc_info=True)

    def _write_page(self) -> None:
        try:
            write_page(self._catalogue(), self._out)
        except Exception:  # such as a full disk; the final `write_page` tries again and reports the problem
            log.info("cannot write the page yet", exc_info=True)
