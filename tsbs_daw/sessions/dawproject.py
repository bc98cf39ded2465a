"""Writer for DAWproject 1.0, the exchange format of Bitwig Studio, Studio One, Cubase and others: XML in a zip file.

Schema: Project.xsd and MetaData.xsd of github.com/bitwig/dawproject. Choices that the format leaves open:

- Clips and markers are placed in seconds, so that no tempo moves audio by even a sample, and audio is `raw`, never
  stretched. The tempo map is in quarter notes, as every DAW writes it.
- Bars are counted from the start of the timeline, and most DAWs cannot cut one short. A bar that ends early, usually
  the last one before the song, is written as a short bar at a tempo that makes it end on time.
- A group is a track of type `tracks`; the channels of its members feed its channel.
- Audio is referenced beside the project (`external`), or embedded in the zip file.
"""

from __future__ import annotations

import itertools
import os
import shutil
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath

from tsbs_daw import __version__
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.sessions.session import (
    DEFAULT_BEATS,
    DEFAULT_BPM,
    GROUP_COLORS,
    Session,
    SessionTrack,
    TimelineChange,
    changes_of,
    fitted,
    holdable,
    is_absolute,
    number,
    one_line,
    steps,
)

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same session gives the same bytes, whenever it is written
_READABLE = 0o644 << 16


def write_dawproject(session: Session, path: Path, *, folder: Path | None = None, embed: bool = False) -> None:
    """Write a session as a DAWproject. The same session gives the same bytes.

    Args:
        session: The session.
        path: File to write.
        folder: Folder that the tracks' files are relative to; None: the folder of `path`.
        embed: Embed the audio in the file instead of referencing it.

    Raises:
        OutputError: XML cannot express a file name, or audio cannot be read.
        OSError: The file cannot be written.
    """
    folder = path.parent if folder is None else folder
    files = {track.file: _path_in_zip(session, track) for track in session.shown} if embed else {}
    paths = files or {track.file: _reference(track, folder, path.parent) for track in session.shown}
    temporary = path.with_name(path.name + ".tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_entry("project.xml"), project_xml(session, paths, external=not embed))
            archive.writestr(_entry("metadata.xml"), metadata_xml(session))
            for file, name in files.items():
                _embed(archive, folder / file, name)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # a partial zip file is useless


def project_xml(session: Session, paths: Mapping[str, str], *, external: bool) -> bytes:
    """Return the main document, with everything except the tags.

    Args:
        session: The session.
        paths: Maps a track's file to its path in the document.
        external: The audio is referenced, not embedded.
    """
    return _written(_Document(session, paths, external).project())


def metadata_xml(session: Session) -> bytes:
    """Return the tags of the song, without unknown ones."""
    about = session.about
    measured = " ".join(text for text in (about.tempo, about.key) if text)
    root = ET.Element("MetaData")
    for tag, text in (
        ("Title", about.title or session.song),
        ("Artist", about.artist),
        ("Album", about.album),
        ("Year", about.year),
        ("Genre", about.genre),
        ("Comment", ", ".join(part for part in (about.comment, measured) if part)),
    ):
        if text:
            ET.SubElement(root, tag).text = one_line(text)
    return _written(root)


class _Document:
    """Builds the XML tree. Every element that may be referenced has an id, numbered in document order."""

    def __init__(self, session: Session, paths: Mapping[str, str], external: bool):
        self.session, self.paths, self.external = session, paths, external
        self.start_s = Fraction(session.start_samples, session.sample_rate)
        self.length_s = Fraction(session.samples, session.sample_rate)
        self.changes = changes_of(session, self.start_s)
        self.steps = steps(fitted(self.changes))
        self._ids = (f"id{count}" for count in itertools.count())
        self._master, self._tempo, self._bar = next(self._ids), next(self._ids), next(self._ids)
        self._tracks: list[tuple[str, SessionTrack]] = []

    def project(self) -> ET.Element:
        root = ET.Element("Project", version="1.0")
        ET.SubElement(root, "Application", name="tsbs-daw", version=__version__)
        self._transport(root)
        self._structure(root)
        self._arrangement(root)
        ET.SubElement(root, "Scenes")
        return root

    def _transport(self, root: ET.Element) -> None:
        # The song's own tempo, not the lead-in's: a DAW that reads no tempo map uses only this.
        bpm, bar = (self.changes[0].bpm, self.changes[0].bar) if self.changes else (DEFAULT_BPM, None)
        beats, unit = bar or (DEFAULT_BEATS, 4)
        tempos: list[Fraction | float] = [step.bpm for step in self.steps]
        fast: list[Fraction | float] = [666, *tempos]
        slow: list[Fraction | float] = [20, *tempos]
        limits = {"max": number(max(fast)), "min": number(min(slow))}
        transport = ET.SubElement(root, "Transport")
        ET.SubElement(transport, "Tempo", limits, unit="bpm", value=number(bpm), id=self._tempo, name="Tempo")
        ET.SubElement(transport, "TimeSignature", denominator=str(unit), numerator=str(beats), id=self._bar)

    def _structure(self, root: ET.Element) -> None:
        structure = ET.SubElement(root, "Structure")
        folders: dict[tuple[str, ...], tuple[ET.Element, str]] = {(): (structure, self._master)}
        for _, members in self.session.groups:
            for member in members:
                parent, destination = self._folder(member.path, folders)
                track = self._track(parent, member.name, member.color, "audio")
                self._channel(track, "regular", destination, muted=member.muted)
                self._tracks.append((track.attrib["id"], member))
        master = self._track(structure, "Master", GROUP_COLORS[""], "audio notes")
        self._channel(master, "master", None)

    def _folder(
        self, path: tuple[str, ...], folders: dict[tuple[str, ...], tuple[ET.Element, str]]
    ) -> tuple[ET.Element, str]:
        """Return the track of a folder and the id of its channel; create it and its parents if they do not exist."""
        if path not in folders:
            (parent, destination), name = self._folder(path[:-1], folders), path[-1]
            track = self._track(parent, name, GROUP_COLORS.get(name, GROUP_COLORS[""]), "tracks")
            folders[path] = track, self._channel(track, "submix", destination)
        return folders[path]

    def _track(self, parent: ET.Element, name: str, color: str, content: str) -> ET.Element:
        about = {"contentType": content, "loaded": "true", "id": next(self._ids)}
        return ET.SubElement(parent, "Track", about, name=one_line(name), color=color.lower())

    def _channel(self, track: ET.Element, role: str, destination: str | None, *, muted: bool = False) -> str:
        own = next(self._ids) if destination else self._master
        about = {"audioChannels": str(self.session.channels)} | ({"destination": destination} if destination else {})
        channel = ET.SubElement(track, "Channel", about, role=role, solo="false", id=own)
        middle = {"max": "1", "min": "0", "unit": "normalized", "value": "0.5"}
        unchanged = {"max": "2", "min": "0", "unit": "linear", "value": "1"}
        ET.SubElement(channel, "Mute", value="true" if muted else "false", id=next(self._ids), name="Mute")
        ET.SubElement(channel, "Pan", middle, id=next(self._ids), name="Pan")
        ET.SubElement(channel, "Volume", unchanged, id=next(self._ids), name="Volume")
        return own

    def _arrangement(self, root: ET.Element) -> None:
        arrangement = ET.SubElement(root, "Arrangement", id=next(self._ids))
        lanes = ET.SubElement(arrangement, "Lanes", timeUnit="seconds", id=next(self._ids))
        for track_id, track in self._tracks:
            lane = ET.SubElement(lanes, "Lanes", track=track_id, id=next(self._ids))
            self._clip(ET.SubElement(lane, "Clips", id=next(self._ids)), track)
        if self.session.markers:
            markers = ET.SubElement(arrangement, "Markers", timeUnit="seconds", id=next(self._ids))
            for marker in self.session.markers:
                at_s = self.start_s + Fraction(marker.at_samples, self.session.sample_rate)
                ET.SubElement(markers, "Marker", time=number(at_s), name=one_line(marker.name))
        if len(self.steps) > 1:
            self._tempo_map(arrangement, self.steps)

    def _clip(self, clips: ET.Element, track: SessionTrack) -> None:
        length = number(self.length_s)
        clip = ET.SubElement(
            clips,
            "Clip",
            time=number(self.start_s),
            duration=length,
            contentTimeUnit="seconds",
            playStart="0",
            playStop=length,
            name=one_line(track.name),
            color=track.color.lower(),
        )
        audio = ET.SubElement(
            clip,
            "Audio",
            algorithm="raw",
            channels=str(self.session.channels),
            duration=length,
            sampleRate=str(self.session.sample_rate),
            timeUnit="seconds",
            id=next(self._ids),
        )
        external = {"external": "true"} if self.external else {}
        ET.SubElement(audio, "File", {"path": self.paths[track.file], **external})

    def _tempo_map(self, arrangement: ET.Element, found: Sequence[TimelineChange]) -> None:
        tempos = ET.SubElement(arrangement, "TempoAutomation", timeUnit="beats", unit="bpm", id=next(self._ids))
        ET.SubElement(tempos, "Target", parameter=self._tempo)
        bars = ET.SubElement(arrangement, "TimeSignatureAutomation", timeUnit="beats", id=next(self._ids))
        ET.SubElement(bars, "Target", parameter=self._bar)
        for step in found:
            time = number(step.quarters)
            ET.SubElement(tempos, "RealPoint", time=time, value=number(step.bpm), interpolation="hold")
            if step.bar is not None:
                beats, unit = step.bar
                ET.SubElement(bars, "TimeSignaturePoint", time=time, numerator=str(beats), denominator=str(unit))


def _reference(track: SessionTrack, folder: Path, beside: Path) -> str:
    """Return the path of a track's file, relative to the folder of the project."""
    if is_absolute(track.file):
        return _holdable(track.file)
    if folder.absolute() == beside.absolute():
        return _holdable(track.file)
    try:
        relative = os.path.relpath(folder / track.file, beside)
    except ValueError:  # another drive
        relative = str((folder / track.file).absolute())
    return _holdable(Path(relative).as_posix())


def _path_in_zip(session: Session, track: SessionTrack) -> str:
    if not track.outside:
        return _holdable(f"audio/{track.file}")
    outside = [other.file for other in session.tracks if other.outside]
    return _holdable(f"audio/outside-{outside.index(track.file)}/{PurePosixPath(track.file).name}")


def _holdable(file: str) -> str:
    if holdable(file) != file:
        raise OutputError(f"A DAWproject cannot hold the file name {file!r}; rename the song.")
    return file


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.create_system, entry.external_attr = 3, _READABLE
    return entry


def _embed(archive: zipfile.ZipFile, file: Path, name: str) -> None:
    entry = _entry(name)
    try:
        source = file.open("rb")
    except OSError as error:
        raise OutputError(
            f"Cannot embed {shown(file)} in the DAWproject ({error.strerror}). Check that it exists."
        ) from error
    with source:
        entry.file_size = os.fstat(source.fileno()).st_size  # so that a large file gets a 64-bit header
        with archive.open(entry, "w") as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _written(root: ET.Element) -> bytes:
    ET.indent(root)
    return ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"
