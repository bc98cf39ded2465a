"""Where a song can be cut so that the pieces tile: bars, as sample positions.

Downbeats that were heard waver by some milliseconds around a steady tempo; cut there, every loop would have another
length. A line through them is the grid that was played to. Where they do not lie on a line, the tempo moves, and each
downbeat is taken as it was heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEADY_S = 0.030  # how far from the line a downbeat may lie: half a 32nd at 120 BPM, and what detectors waver by
UNEVEN = 0.15  # a bar that differs so much from the usual one was not heard right


@dataclass(frozen=True)
class Bar:
    """A row of bars as one piece. number: of its first bar in the song, from 1; start and end in samples"""

    number: int
    start_samples: int
    end_samples: int


def bar_lines_s(downbeats_s: tuple[float, ...]) -> np.ndarray:
    """The bar lines: on a line if the tempo is steady, else the downbeats themselves.

    A steady song has one line more than downbeats: the end of its last bar.
    """
    found = np.asarray(downbeats_s, np.float64)
    if len(found) < 3:
        return found
    places = np.arange(len(found))
    bar_s, first_s = np.polyfit(places, found, 1)
    steady = np.abs(first_s + bar_s * places - found).max() <= STEADY_S
    return first_s + bar_s * np.arange(len(found) + 1) if steady else found


def pieces(downbeats_s: tuple[float, ...], bars: int, sample_rate: int, samples: int) -> list[Bar]:
    """The song in pieces of `bars` bars, each ending where the next begins, as far as it has whole ones.

    A piece with a bar of another length in it, where the meter changes or a downbeat was missed, is left out, and the
    next one begins behind that bar.
    """
    lines_s = bar_lines_s(downbeats_s)
    if len(lines_s) <= bars:
        return []
    lengths = np.diff(lines_s)
    usual = float(np.median(lengths))
    even = np.abs(lengths - usual) <= UNEVEN * usual
    at = np.rint(lines_s * sample_rate).astype(int)
    found, place = [], 0
    while place + bars < len(at):
        odd = np.flatnonzero(~even[place : place + bars])
        if len(odd):
            place += int(odd[-1]) + 1
            continue
        start, end = int(at[place]), int(at[place + bars])
        if start >= 0 and end <= samples:
            found.append(Bar(place + 1, start, end))
        place += bars
    return found
