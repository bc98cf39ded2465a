"""Which songs of a crate go together: tempo within n %, also at half and double time, and keys that blend.

Keys are compared on the Camelot wheel, where neighbours share all notes but one: the same code (8A and 8A), one hour
on (8A and 7A or 9A; 12A and 1A), or the relative major or minor (8A and 8B). A song without a key, a drum loop say,
goes with every key. A song without a tempo goes with none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tsbs_daw.contracts.catalogue import SongEntry

TEMPO_PERCENT = 6.0  # what most players' tempo sliders do, and time stretching hides

_RATIOS = (1.0, 2.0, 0.5)
_CAMELOT = re.compile(r"(1[0-2]|[1-9])([AB])")


@dataclass(frozen=True)
class Match:
    """A song that goes with another.

    source:         its source
    ratio:          2 if two of its beats fall on one of the other's, 0.5 if one falls on two, else 1
    tempo_percent:  by how much it has to be played faster (slower if negative) to run along
    key:            "same", "neighbour", "relative", or "none" if one of the two has no key
    doubtful:       tempo or key of one of the two is
    """

    source: str
    ratio: float
    tempo_percent: float
    key: str
    doubtful: bool


def compatible(songs: Iterable[SongEntry], tempo_percent: float = TEMPO_PERCENT) -> dict[str, tuple[Match, ...]]:
    """For every done song with an analysis, by source: those that go with it, the closest first.

    If a goes with b, b goes with a.
    """
    known = [song for song in songs if song.state == "done" and song.analysis is not None]
    return {song.source: _matches(song, known, tempo_percent) for song in known}


def _matches(song: SongEntry, songs: list[SongEntry], tempo_percent: float) -> tuple[Match, ...]:
    found = (match for other in songs if other is not song if (match := _match(song, other, tempo_percent)))
    return tuple(sorted(found, key=lambda match: (match.key == "none", abs(match.tempo_percent), match.source)))


def _match(song: SongEntry, other: SongEntry, tempo_percent: float) -> Match | None:
    assert song.analysis is not None and other.analysis is not None
    tempo = tempo_relation(song.analysis.tempo.bpm, other.analysis.tempo.bpm, tempo_percent)
    keys = song.analysis.key, other.analysis.key
    key = key_relation(*(one.camelot if one else None for one in keys))
    if tempo is None or key is None:
        return None
    parts = [song.analysis.tempo, other.analysis.tempo, *(one for one in keys if one)]
    return Match(other.source, *tempo, key, any(part.doubtful for part in parts))


def tempo_relation(bpm: float | None, other_bpm: float | None, percent: float) -> tuple[float, float] | None:
    """(ratio, by how many % the other has to be played faster), see `Match`; None: too far apart, or no tempo."""
    if not bpm or not other_bpm:
        return None
    ratio = min(_RATIOS, key=lambda one: _distance(bpm * one / other_bpm))
    change = bpm * ratio / other_bpm
    return (ratio, 100 * (change - 1)) if _distance(change) <= percent / 100 + 1e-9 else None


def _distance(change: float) -> float:
    """How far two tempos are apart, whichever of the two is called the first."""
    return max(change, 1 / change) - 1


def key_relation(camelot: str | None, other: str | None) -> str | None:
    """ "same", "neighbour", "relative", "none" if one is None; None: they do not blend."""
    if camelot is None or other is None:
        return "none"
    codes = _CAMELOT.fullmatch(camelot), _CAMELOT.fullmatch(other)
    assert codes[0] and codes[1], f"not a Camelot code: {camelot}, {other}"
    hours = (int(codes[0][1]) - int(codes[1][1])) % 12
    same_side = codes[0][2] == codes[1][2]
    if hours == 0:
        return "same" if same_side else "relative"
    return "neighbour" if same_side and hours in (1, 11) else None
