"""Content of a song's DAW sessions: its tracks in groups and, if the song was analysed, tempo map and markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.pipeline.naming import SongInfo
from tsbs_daw.sessions.session import About, Marker, Session, SessionTrack, TempoChange, usual_group

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
    found: list[tuple[float, str]] = []
    if kind == "sections":
        found = [(section.start_s, section.label) for section in analysis.sections]
    elif kind == "bars":
        found = [(at_s, f"bar {number}") for number, at_s in enumerate(analysis.beats.downbeats_s, start=1)]
    markers = (Marker(_at(session, at_s), name) for at_s, name in sorted(found))
    return tuple(marker for marker in markers if marker.at_samples <= session.samples)


def _at(session: Session, at_s: float) -> int:
    return max(0, round(at_s * session.sample_rate))
