"""Writer for one REAPER project with all songs of a batch in a row, each with a region and a tempo.

Tracks of the same name are merged: the vocals of all songs are on one track. If a track is muted in some songs only,
the merged track plays and the items of those songs are muted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tsbs_daw.sessions import rpp
from tsbs_daw.sessions.rpp import Track
from tsbs_daw.sessions.session import (
    DEFAULT_BEATS,
    DEFAULT_BPM,
    GROUP_COLORS,
    Session,
    SessionTrack,
    TimelineChange,
    below,
    changes_of,
    steps,
    with_lead_in,
)

GAP_S = 4  # between two songs, at least


@dataclass(frozen=True)
class BatchSong:
    """A song of a batch.

    Attributes:
        session: The song's session; its position on its own timeline is ignored.
        folder: Folder of the song's files, relative to the batch's project.
    """

    session: Session
    folder: str


@dataclass(frozen=True)
class _Placed:
    """A song with its position on the timeline of the batch."""

    index: int
    session: Session
    folder: str
    start_s: Fraction

    @property
    def length_s(self) -> Fraction:
        return Fraction(self.session.samples, self.session.sample_rate)

    @property
    def end_s(self) -> Fraction:
        return self.start_s + self.length_s


# Tracks of different songs are merged if they agree in folders, name, and index among the tracks of that name.
_Row = tuple[tuple[str, ...], str, int]


def write_batch_rpp(songs: Iterable[BatchSong], path: Path) -> None:
    """Write songs, in order, as one REAPER project; its file paths are relative to its folder.

    The project has the sample rate of most songs; REAPER resamples the others on playback. The same songs give the same
    bytes.

    Raises:
        OutputError: The format cannot express a file name.
        OSError: The file cannot be written.
    """
    path.write_bytes(batch_text(songs).encode("utf-8"))


def batch_text(songs: Iterable[BatchSong]) -> str:
    """Return the text of the project."""
    placed = _placed(songs)
    regions = [
        line
        for song in placed
        for line in rpp.region(song.index + 1, song.start_s, song.end_s, region_name(song.session), _key(song))
    ]
    return rpp.text_of(
        [
            *rpp.settings(_sample_rate(placed), Fraction(0)),
            *rpp.tempo(steps(_tempo_map(placed)), "crate/tempo"),
            *regions,
            *(line for track in _tracks(placed) for line in track.lines()),
        ]
    )


def region_name(session: Session) -> str:
    """Return `Artist - Title [128.0 BPM 8A]`, without the parts that are unknown."""
    about = session.about
    name = " - ".join(part for part in (about.artist, about.title) if part) if about.title else session.song
    measured = " ".join(part for part in (about.tempo, about.key) if part)
    return f"{name} [{measured}]" if measured else name


def _placed(songs: Iterable[BatchSong]) -> list[_Placed]:
    """Place the songs at integer seconds, which are integer samples at every sample rate."""
    found: list[_Placed] = []
    start_s = 0
    for index, song in enumerate(songs):
        found.append(_Placed(index, song.session, song.folder, Fraction(start_s)))
        start_s = math.ceil(found[-1].end_s) + GAP_S
    return found


def _sample_rate(songs: Sequence[_Placed]) -> int:
    """Return the most frequent sample rate; the highest one if there is a tie."""
    counts = Counter(song.session.sample_rate for song in songs)
    return max(counts, key=lambda rate: (counts[rate], rate), default=44100)


def _tempo_map(songs: Sequence[_Placed]) -> list[TimelineChange]:
    """Return each song's tempo map from its start, or the default tempo if it has none; empty if no song has one."""
    if not any(song.session.tempo for song in songs):
        return []
    default = (Fraction(DEFAULT_BPM), (DEFAULT_BEATS, 4))
    found: list[TimelineChange] = []
    for song in songs:
        own = with_lead_in(changes_of(song.session, song.start_s), song.start_s)
        found += own or [TimelineChange(song.start_s, *default)]
    return found


def _tracks(songs: Sequence[_Placed]) -> list[Track]:
    """Return the top level, in order of first appearance: tracks without a group, and folders."""
    members: dict[_Row, list[tuple[_Placed, SessionTrack]]] = {}
    for song in songs:
        for row, track in _rows(song.session):
            members.setdefault(row, []).append((song, track))
    channels = max((song.session.channels for song in songs), default=2)
    top = Track("", GROUP_COLORS[""], channels, "crate")
    folders: dict[tuple[str, ...], Track] = {(): top}
    for row, items in members.items():
        into = rpp.folder_of(row[0], folders, lambda path: f"crate/group/{path}")
        into.children.append(_track(row, items, channels))
    return top.children


def _rows(session: Session) -> list[tuple[_Row, SessionTrack]]:
    seen: Counter[tuple[tuple[str, ...], str]] = Counter()
    found = []
    for track in session.shown:
        found.append(((track.path, track.name, seen[track.path, track.name]), track))
        seen[track.path, track.name] += 1
    return found


def _track(row: _Row, items: Sequence[tuple[_Placed, SessionTrack]], channels: int) -> Track:
    muted = all(track.muted for _, track in items)
    path, name, index = row
    key = "/".join(("crate/track", "/".join(path), name, str(index)))
    found = Track(name, items[0][1].color, channels, key, muted=muted)
    for song, track in items:
        found.content += rpp.item(
            song.start_s,
            song.length_s,
            f"{song.session.song} - {track.name}",
            below(song.folder, track.file),
            f"{key}/{_key(song)}",
            muted=track.muted and not muted,
        )
    return found


def _key(song: _Placed) -> str:
    return f"crate/{song.index}/{song.folder}/{song.session.song}"
