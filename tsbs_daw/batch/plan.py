"""The songs of a batch: finding them, assigning their folders, and identifying their content.

`find_songs` finds them, `places` gives each a folder of its own, and `Plan` knows their content, jobs and duplicates.

Between runs, `.crate.json` in the output folder stores the content hash of each file and the folder of its stems. If it
is lost, songs are hashed again, and existing results are recognised by their manifests.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from tsbs_daw.batch.queue import job_id
from tsbs_daw.contracts import Document, Part
from tsbs_daw.contracts.catalogue import SongEntry
from tsbs_daw.contracts.job import ContentHashes, Job, Source, Treatment
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobFormatError, UsageError, shown
from tsbs_daw.core.filenames import safe_name, source_name
from tsbs_daw.core.files import file_sha256, write_atomically
from tsbs_daw.pipeline.song_info import info_from_tags
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import load_preset
from tsbs_daw.watch.scan import AUDIO_ENDINGS, Found, Scanner, file_state

log = logging.getLogger(__name__)

FILE_NAME = ".crate.json"


@dataclass(frozen=True)
class FoundSong:
    """An audio file of the batch.

    Attributes:
        relative: Path below the batch's folder, with forward slashes. Printable, whatever bytes the name contains.
        path: Absolute path.
        state: Changes whenever the file is modified, see `scan.file_state`.
        size_bytes: Size of the file.
        reason: Why it cannot be separated, in one sentence; None if it can.
    """

    relative: str
    path: Path
    state: str
    size_bytes: int
    reason: str | None = None


def find_songs(folder: Path, *, excluded: Iterable[Path] = ()) -> list[FoundSong]:
    """Find every audio file below a folder, and every subfolder that cannot be listed.

    Skips hidden and temporary files, stem folders made by this program, and files without an audio extension. A link
    that cannot be followed is returned with its reason.

    Args:
        folder: Folder of songs.
        excluded: Folders to skip.

    Returns:
        The songs, sorted by their relative paths.

    Raises:
        UsageError: The folder does not exist or cannot be listed.
    """
    if not folder.is_dir():
        raise UsageError(f"{shown(folder)} is not a folder. Specify the folder of your songs.")
    root = os.path.realpath(folder)
    inside = (real for place in excluded if (real := os.path.realpath(place)).startswith(root + os.sep))
    scanner = Scanner(Path(root), recursive=True, excluded=tuple(Path(real) for real in inside))
    try:
        found = [song for one in scanner.scan() if (song := _song(folder, one)) is not None]
    except OSError as error:
        raise UsageError(
            f"{shown(folder)} cannot be listed ({error.strerror}); check its name and permissions."
        ) from error
    found += [_unlisted(folder, relative, why) for relative, why in scanner.unlisted.items()]
    return sorted(found, key=lambda song: song.relative)


def _song(folder: Path, found: Found) -> FoundSong | None:
    if Path(found.relative).suffix.lower() not in AUDIO_ENDINGS:
        return None
    reason = found.reason.replace("the watch folder", "the folder of songs") if found.reason else None
    relative = source_name(Path(found.relative)).replace(os.sep, "/")
    return FoundSong(relative, folder / found.relative, found.state, found.size_bytes, reason)


def _unlisted(folder: Path, relative: str, why: str) -> FoundSong:
    """Represent an unlisted folder by an entry of its own, so that its songs are not silently missing."""
    reason = f"It is a folder that cannot be listed ({why}); check its permissions."
    return FoundSong(source_name(Path(relative)).replace(os.sep, "/"), folder / relative, "", 0, reason)


@dataclass(frozen=True)
class Place:
    """The destination of a song.

    Attributes:
        folder: Parent folder, relative to the batch's output folder; "." for the output folder itself.
        song: Name of the song's own folder.
    """

    folder: str
    song: str

    @property
    def key(self) -> str:
        """Key that is equal for two places if some file system considers them the same."""
        return str(PurePosixPath(self.folder, self.song)).casefold()


def places(songs: Iterable[FoundSong], known: Mapping[str, Place]) -> dict[str, Place]:
    """Assign every song a place of its own. Songs of subfolders go to subfolders of the same names.

    Args:
        songs: The songs of the batch.
        known: Places from earlier runs, which are kept.

    Returns:
        The place of each song, by `FoundSong.relative`.
    """
    songs = list(songs)
    given = {song.relative: known[song.relative] for song in songs if song.relative in known}
    taken = {place.key for place in known.values()}
    folders = {song.relative: _folder(song) for song in songs}
    for folder in set(folders.values()):
        taken |= {str(part).casefold() for part in (folder, *folder.parents)}
    for song in songs:
        if song.relative not in given:
            place = given[song.relative] = _free_place(folders[song.relative], song.path.stem, taken)
            taken.add(place.key)
    return given


def _folder(song: FoundSong) -> PurePosixPath:
    return PurePosixPath(*(safe_name(part, fallback="folder") for part in PurePosixPath(song.relative).parent.parts))


def _free_place(folder: PurePosixPath, name: str, taken: set[str]) -> Place:
    name, number = safe_name(name), 2
    place = Place(str(folder), name)
    while place.key in taken:
        place, number = Place(str(folder), f"{name} ({number})"), number + 1
    return place


class SongRecord(Part):
    """What is stored about one file of the batch.

    Attributes:
        state: State of the file when it was hashed, see `scan.file_state`; the file is hashed again once this changes.
        sha256: Hash of its content.
        place: Destination of its stems.
        settings: Fingerprint of the preset, model and options that `folder` was made with.
        folder: Actual folder of its stems, relative to the output folder; None until the song is done.
    """

    state: str = ""
    sha256: str | None = None
    place: Place
    settings: str = ""
    folder: str | None = None


class BatchState(Document):
    """The document `.crate.json`.

    Attributes:
        folder: Folder of songs.
        songs: Records of its files, by `FoundSong.relative`.
    """

    kind: Literal["crate"] = "crate"
    folder: str | None = None
    songs: dict[str, SongRecord] = Field(default_factory=dict)


def read_state(out: Path) -> BatchState:
    """Read the state stored in `out`; empty if the file is missing or damaged."""
    path = out / FILE_NAME
    try:
        return BatchState.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return BatchState()
    except (OSError, JobFormatError) as error:
        log.warning("ignoring %s and hashing all songs again: %s", path, error)
        return BatchState()


def write_state(out: Path, state: BatchState) -> None:
    write_atomically(out / FILE_NAME, state.to_json())


@dataclass(frozen=True)
class BatchRequest:
    """The parameters of a batch.

    Attributes:
        folder: Folder of songs, absolute.
        out: Output folder, absolute.
        treatment: How to separate every song.
    """

    folder: Path
    out: Path
    treatment: Treatment = field(default_factory=lambda: Treatment(preset="crate"))

    @property
    def name(self) -> str:
        """Name of the batch."""
        return self.folder.name or "crate"

    def delivery(self, presets: Path) -> DeliveryOptions:
        """Combine the delivery options of the preset with those of the treatment.

        Args:
            presets: `Settings.presets`.

        Raises:
            PresetError: The preset is missing or invalid.
            UsageError: The options contradict each other.
        """
        delivery = load_preset(self.treatment.preset, presets).delivery.overridden_by(self.treatment.delivery)
        if problem := delivery.problem():
            raise UsageError(f"Invalid delivery options: {problem}.")
        return delivery


_READINGS = 3  # attempts to hash a file that changes while it is read


class SongRefused(Exception):
    """A file that cannot be separated. The message is one sentence, which becomes the reason in the song's entry."""


class Plan:
    """Content, places and jobs of the songs of a batch. What it learns is stored in `state`.

    Raises:
        UsageError: The output folder belongs to another batch.
    """

    def __init__(self, request: BatchRequest, settings: Settings, found: Sequence[FoundSong]):
        self._request, self._settings_hash = request, _fingerprint(request, settings)
        state = read_state(request.out)
        _check_same_batch(request, state)
        there = {song.relative for song in found}
        self._known = {name: known for name, known in state.songs.items() if known.folder or name in there}
        self._first: dict[str, FoundSong] = {}
        given = places(found, {relative: known.place for relative, known in self._known.items()})
        for relative, place in given.items():
            self._known.setdefault(relative, SongRecord(place=place))
        self._gone = self._known.keys() - given.keys()

    @property
    def state(self) -> BatchState:
        return BatchState(folder=source_name(self._request.folder), songs=self._known)

    def entry(self, song: FoundSong) -> SongEntry:
        """Catalogue entry of a waiting song."""
        named = info_from_tags(PurePosixPath(song.relative).stem, "", "")
        return SongEntry(source=song.relative, artist=named.artist, title=named.title)

    def identify(self, song: FoundSong) -> SongEntry:
        """Return the song's catalogue entry: waiting, or a duplicate of another song. Hashes a new or changed file.

        Raises:
            SongRefused: The file cannot be read, or its name is not valid UTF-8.
        """
        if song.reason is not None:
            raise SongRefused(song.reason)
        if not _is_text(song.path):
            raise SongRefused("Its name, or that of its folder, is not UTF-8; rename it.")
        if not song.size_bytes:
            raise SongRefused("It is empty (0 bytes); copy it again.")
        if self._known[song.relative].state != song.state:
            self._read(song)
        known = self._known[song.relative]
        entry = self.entry(song).model_copy(update={"sha256": known.sha256})
        first = self._first.setdefault(known.sha256 or "", song)
        if first is song:
            return entry
        reason = f"It has the same content as {shown(first.relative)}; only that file is separated."
        return entry.model_copy(update={"state": "duplicate", "duplicate_of": first.relative, "reason": reason})

    def job_id(self, song: FoundSong) -> str:
        known = self._known[song.relative]
        place = (self._request.out, known.place.folder, known.place.song)
        return job_id(song.path, known.sha256, *place, self._settings_hash)

    def job(self, song: FoundSong) -> Job:
        request, place = self._request, self._known[song.relative].place
        return Job(
            id=self.job_id(song),
            source=Source(path=song.path),
            output=request.out / place.folder,
            song=place.song,
            **vars(request.treatment),
            origin="batch",
            priority="batch",
        )

    def known_folder(self, song: FoundSong) -> Path | None:
        """Folder of this content from an earlier run with the same settings, even if the file was renamed since."""
        mine = self._known[song.relative]
        for relative in (song.relative, *sorted(self._gone)):
            known = self._known[relative]
            if known.folder is not None and (known.sha256, known.settings) == (mine.sha256, self._settings_hash):
                return self._request.out / known.folder
        return None

    def note_done(self, song: FoundSong, folder: Path) -> None:
        self._update(song, folder=folder.relative_to(self._request.out).as_posix(), settings=self._settings_hash)

    def _read(self, song: FoundSong) -> None:
        """Hash the file.

        Raises:
            SongRefused: The file cannot be read, or keeps changing.
        """
        state = song.state
        for _ in range(_READINGS):
            try:
                before = file_state(song.path.stat())
                digest = file_sha256(song.path)
                state = file_state(song.path.stat())
            except OSError as error:
                raise SongRefused(
                    f"It cannot be read ({error.strerror}); check the file and its permissions."
                ) from error
            if state == before:
                known = self._known[song.relative]
                folder = known.folder if known.sha256 == digest else None  # same content, or another song
                self._update(song, state=state, sha256=digest, folder=folder)
                return
        raise SongRefused("It is still being written; rerun the command once it is complete.")

    def _update(self, song: FoundSong, **values: object) -> None:
        self._known[song.relative] = self._known[song.relative].model_copy(update=values)


def _check_same_batch(request: BatchRequest, state: BatchState) -> None:
    """Refuse an output folder of another batch. A batch whose folder was moved is the same: its old folder is gone."""
    before = Path(state.folder) if state.folder else request.folder
    if before.is_dir() and not before.samefile(request.folder):
        raise UsageError(f"{shown(request.out)} contains the songs of {shown(before)}. Choose another --out folder.")


def _is_text(path: Path) -> bool:
    return source_name(path) == str(path)


def _fingerprint(request: BatchRequest, settings: Settings) -> str:
    """Hash of everything that affects the result of a song, except its content."""
    hashes, anywhere = ContentHashes(settings), Path(os.sep)  # the output folder may be moved
    decisive = [request.treatment.fingerprint(hashes, anywhere), hashes.of_models(request.treatment)]
    return hashlib.sha256("\n".join(decisive).encode()).hexdigest()
