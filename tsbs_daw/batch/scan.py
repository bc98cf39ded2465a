"""Finds the songs of a batch, and gives each a name of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tsbs_daw.core.errors import UsageError, shown
from tsbs_daw.core.filenames import safe_name, source_name
from tsbs_daw.watch.scan import AUDIO_ENDINGS, Found, Scanner


@dataclass(frozen=True)
class FoundSong:
    """A sound file of the batch.

    relative:   below the batch's folder, with forward slashes; printable whatever bytes the name has
    path:       absolute
    state:      equal as long as nobody touches the file, see `scan.file_state`
    size_bytes: of the file
    reason:     why it cannot be a song, one sentence; None for one that can
    """

    relative: str
    path: Path
    state: str
    size_bytes: int
    reason: str | None = None


def find_songs(folder: Path, *, excluded: Iterable[Path] = ()) -> list[FoundSong]:
    """Every sound file below `folder`, and every folder that cannot be listed, in the order of their names.

    Left out: what is hidden or temporary, folders of stems that this program made, what is not sound by its ending,
    and what lies below one of `excluded`. A link that cannot be followed is found, with its reason.

    Raises: UsageError: the folder is not there or cannot be listed
    """
    if not folder.is_dir():
        raise UsageError(f"{shown(folder)} is not a folder; name the one that your songs are in.")
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
    """Better one song too many in the catalogue than songs that nobody knows of."""
    reason = f"It is a folder that cannot be listed ({why}); check its permissions."
    return FoundSong(source_name(Path(relative)).replace(os.sep, "/"), folder / relative, "", 0, reason)


@dataclass(frozen=True)
class Place:
    """Where a song goes. folder: below the batch's out folder, "." for the top; song: its own folder's name."""

    folder: str
    song: str

    @property
    def key(self) -> str:
        """Equal for two places that some file system takes for the same."""
        return str(PurePosixPath(self.folder, self.song)).casefold()


def places(songs: Iterable[FoundSong], known: Mapping[str, Place]) -> dict[str, Place]:
    """A place of its own for every song, by its `relative`; songs of subfolders go to subfolders of the same names.

    Args: known: places from earlier runs; they are kept
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
