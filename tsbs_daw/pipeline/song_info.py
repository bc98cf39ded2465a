"""Facts about a song, and the file names and DAW sessions that show them.

`SongInfo` has artist, title, tempo and key. File names come from a preset's template:
`{artist} - {title} [{bpm} BPM {camelot}] {stem}`. An unknown field is omitted, together with the text after it up to
the next field or bracket; empty brackets are removed, too: `Title [8A] vocals`, `Title vocals`.

A session has the song's tracks in groups and, if the song was analysed, tempo map and markers.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tsbs_daw.contracts.analysis import Analysis, Key
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.sessions.session import About, Marker, Session, SessionTrack, TempoChange, usual_group

DOUBTFUL = "~"  # before a figure that may be wrong
_SPACED_DASH = re.compile(r"\s+[-\u2013\u2014]\s+")


@dataclass(frozen=True)
class SongInfo:
    """Facts about a song for names, tags and sessions.

    Attributes:
        song: Name of the song.
        artist: From the tags or the song's name; "" if unknown.
        title: From the tags or the song's name.
        analysis: None if the song was not analysed.
    """

    song: str
    artist: str
    title: str
    analysis: Analysis | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a name template except the stem; "" for an unknown value."""
        bpm = key = camelot = ""
        if self.analysis is not None:
            tempo, found = self.analysis.tempo, self.analysis.key
            if tempo.bpm is not None:
                bpm = f"{DOUBTFUL if tempo.doubtful else ''}{tempo.bpm:.1f}"
            if found is not None:
                mark = DOUBTFUL if found.doubtful else ""
                key, camelot = mark + short_key(found), mark + found.camelot
        known = {"artist": self.artist, "title": self.title, "song": self.song}
        return {**known, "bpm": bpm, "key": key, "camelot": camelot}

    @property
    def sure_bpm(self) -> float | None:
        """The tempo in BPM, unless it is unknown or doubtful."""
        tempo = self.analysis.tempo if self.analysis else None
        return tempo.bpm if tempo and not tempo.doubtful else None

    @property
    def sure_key(self) -> Key | None:
        """The key, unless it is unknown or doubtful."""
        key = self.analysis.key if self.analysis else None
        return key if key and not key.doubtful else None


def info_from_tags(song: str, artist: str, title: str) -> SongInfo:
    """Return a SongInfo from the tags, or from a name like `Artist - Title` if they have no title.

    Args:
        song: Name of the song.
        artist: From the tags, or "".
        title: From the tags, or "".
    """
    artist, title = artist.strip(), title.strip()
    parts = _SPACED_DASH.split(song, maxsplit=1)
    named = len(parts) == 2 and all(re.search(r"[^\W\d_]", part) for part in parts)  # not `01 - Title`
    if not title and named and artist.casefold() in ("", parts[0].casefold()):
        artist, title = artist or parts[0], parts[1]
    return SongInfo(song, artist, title or song)


def short_key(key: Key) -> str:
    """Return the key in short notation, such as `Am` or `Db`, for tags and file names."""
    return key.tonic + ("m" if key.mode == "minor" else "")


# Together with the folder's name, this keeps within the length of a path on Windows.
FILE_BYTES = 160
_TEXTS = ("artist", "title", "song")  # fields that may be shortened; figures and stems are not
_ANY = 100_000

_BRACKET = re.compile(r"[\[\]()]")
_EMPTY = re.compile(r"\[[\s_-]*\]|\([\s_-]*\)")


def file_names(template: str, fields: Mapping[str, str], stems: Sequence[str], ending: str) -> list[str]:
    """Return a file name for every stem. The names are valid on every system and unique even when case is ignored.

    Args:
        template: Name template with `{stem}`.
        fields: All fields except `stem`; "" or missing if unknown.
        stems: Names of the stems.
        ending: File extension with its dot.
    """
    names: list[str] = []
    taken: set[str] = set()
    for stem in stems:
        name = _fitting(template, {**fields, "stem": stem}, FILE_BYTES - len(ending.encode()))
        different, number = name, 2
        while _key(different) in taken:
            different, number = f"{name} {number}", number + 1
        taken.add(_key(different))
        names.append(different + ending)
    return names


def song_name(template: str, fields: Mapping[str, str], fallback: str) -> str:
    """Return the common part of the names of a song's files: the template without its stem."""
    named = filled(template, {**fields, "stem": ""})
    return _fitting(template, {**fields, "stem": ""}, FILE_BYTES) if named else safe_name(fallback)


def filled(template: str, fields: Mapping[str, str]) -> str:
    """Return the template with its fields filled in, not yet a safe file name. Unknown fields: see the module."""
    parts: list[str] = []
    missing = some_missing = False
    for text, field, _, _ in string.Formatter().parse(template):
        if missing:
            bracket = _BRACKET.search(text)
            text = text[bracket.start() :] if bracket else ""
        parts.append(text)
        if field is not None:
            value = fields.get(field, "")
            missing = not value
            some_missing |= missing
            parts.append(value)
    name = "".join(parts)
    if some_missing:
        name = _EMPTY.sub(" ", name)
        name = re.sub(r"\s+(?=[\])])", "", re.sub(r"(?<=[\[(])\s+", "", name)).strip(" -_")
    return " ".join(name.split())


def _fitting(template: str, fields: Mapping[str, str], limit_bytes: int) -> str:
    """Return the filled template as a file name; if it is too long, shorten all texts in it to the same length."""

    def at_most(cap: int) -> str | None:
        cut = {name: _cut(value, cap) if name in _TEXTS else value for name, value in fields.items()}
        name = safe_name(filled(template, cut), limit_bytes=_ANY)
        return name if len(name.encode()) <= limit_bytes else None

    if name := at_most(limit_bytes):
        return name
    best, low, high = at_most(0) or safe_name(fields["stem"], limit_bytes=limit_bytes), 0, limit_bytes
    while high - low > 1:
        cap = (low + high) // 2
        if name := at_most(cap):
            best, low = name, cap
        else:
            high = cap
    return best


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore").strip()


def _key(name: str) -> str:
    """Return a key that is equal for names that a file system may treat as the same."""
    return unicodedata.normalize("NFKC", name).casefold()


MIXED_GROUP = "mixes"  # for outputs with stems of several groups


def bare_tracks(files: Iterable[AudioFile]) -> tuple[SessionTrack, ...]:
    """Return one track for every file, without groups."""
    return tuple(SessionTrack(file.name, file.file, file.color, file.muted, folders=file.folders) for file in files)


def grouped_tracks(files: Iterable[tuple[AudioFile, Sequence[str]]]) -> tuple[SessionTrack, ...]:
    """Return one track for every file, in groups.

    Args:
        files: Each file with its source stems.
    """
    return tuple(_grouped_track(file, sources) for file, sources in files)


def _grouped_track(file: AudioFile, sources: Sequence[str]) -> SessionTrack:
    group, folders = _group(file, sources), file.folders
    if folders and folders[0].casefold() == group:
        folders = folders[1:]  # a stem with the same name as its group needs no second folder
    return SessionTrack(file.name, file.file, file.color, file.muted, group, folders=folders)


def _group(file: AudioFile, sources: Sequence[str]) -> str:
    if file.kind == "source":
        return ""
    groups = {usual_group(source) for source in file.folders[:1] or sources}
    return groups.pop() if len(groups) == 1 else MIXED_GROUP


def with_analysis(session: Session, info: SongInfo, markers: str) -> Session:
    """Return the session with title, tempo, key, tempo map and markers.

    Args:
        session: The session with its tracks.
        info: The song with its analysis.
        markers: "sections", "bars" or "none".
    """
    fields, analysis = info.fields, info.analysis
    about = About(
        title=info.title,
        artist=info.artist,
        tempo=f"{fields['bpm']} BPM" if fields["bpm"] else "",
        key=" ".join(filter(None, (fields["key"], fields["camelot"] and f"({fields['camelot']})"))),
    )
    if analysis is None:
        return replace(session, about=about)
    return replace(
        session,
        about=about,
        tempo=_tempo_map(session, analysis),
        markers=_markers(session, analysis, markers),
    )


def _tempo_map(session: Session, analysis: Analysis) -> tuple[TempoChange, ...]:
    """Return the tempo map; empty if the tempo is doubtful, because a wrong grid is worse than none.

    The first bar begins at a downbeat.
    """
    if analysis.tempo.bpm is None or analysis.tempo.doubtful:
        return ()
    beats = analysis.beats
    changes = {_at(session, change.at_s): TempoChange(_at(session, change.at_s), change.bpm)
               for change in analysis.tempo.changes}  # fmt: skip
    if not changes and beats.times_s:
        first = _at(session, beats.times_s[0])
        changes[first] = TempoChange(first, analysis.tempo.bpm)
    if changes and beats.downbeats_s and beats.beats_per_bar and not beats.meter_doubtful:
        downbeat = _at(session, beats.downbeats_s[0])
        bpm = next((c.bpm for at, c in sorted(changes.items(), reverse=True) if at <= downbeat), analysis.tempo.bpm)
        changes[downbeat] = TempoChange(downbeat, bpm, beats.beats_per_bar)
        # The song starts with an incomplete bar, whose beats follow from the first bar line backwards.
        changes = {at: change for at, change in changes.items() if at >= downbeat}
    return tuple(change for at, change in sorted(changes.items()) if at <= session.samples)


def _markers(session: Session, analysis: Analysis, kind: str) -> tuple[Marker, ...]:
    named_times: list[tuple[float, str]] = []
    if kind == "sections":
        named_times = [(section.start_s, section.label) for section in analysis.sections]
    elif kind == "bars":
        named_times = [(at_s, f"bar {number}") for number, at_s in enumerate(analysis.beats.downbeats_s, start=1)]
    markers = (Marker(_at(session, at_s), name) for at_s, name in sorted(named_times))
    return tuple(marker for marker in markers if marker.at_samples <= session.samples)


def _at(session: Session, at_s: float) -> int:
    return max(0, round(at_s * session.sample_rate))
