"""Where tempo and bars change on a timeline, in seconds and in quarter notes.

A song rarely begins on a bar of a timeline that starts before it. Two ways out, for two kinds of DAWs: the last bar
before the song is cut short (`steps`), or the tempo before the song is chosen so that a bar ends where the song's
first begins (`fitted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tsbs_daw.daw.session import Session

DEFAULT_BPM, DEFAULT_BEATS = 120.0, 4  # what a new project of any DAW has

_SLOWEST, _FASTEST = 20, 666  # bpm that every DAW takes
_CLOSE = 1e-3  # quarter notes: below what is heard or seen


@dataclass(frozen=True)
class Change:
    """From `at_s` on: so many quarter notes a minute. bar: (n, d): a bar of n/d begins here; None: bars go on."""

    at_s: Fraction
    bpm: float
    bar: tuple[int, int] | None = None


@dataclass(frozen=True)
class Step:
    """A change, and where it is in quarter notes. cuts: its bar begins before the last one has ended."""

    at_s: Fraction
    quarters: float
    bpm: float
    bar: tuple[int, int] | None
    cuts: bool


def changes_of(session: Session, at_s: Fraction) -> list[Change]:
    """A song's tempo map for a song that begins at `at_s`; empty: no tempo is known.

    The grid must pass through the first change, so a bar begins there, of four beats if nobody knows better.
    """
    found: list[Change] = []
    for change in session.tempo:
        bar = (change.beats_per_bar, 4) if change.beats_per_bar else None
        if not found:
            bar = bar or (DEFAULT_BEATS, 4)
        found.append(Change(at_s + Fraction(change.at_samples, session.sample_rate), change.bpm, bar))
    return found


def with_lead_in(changes: Sequence[Change], at_s: Fraction) -> list[Change]:
    """The same, with the first tempo and bar from `at_s` on already."""
    if changes and changes[0].at_s > at_s:
        return [replace(changes[0], at_s=at_s), *changes]
    return list(changes)


def steps(changes: Sequence[Change]) -> list[Step]:
    """Changes from the timeline's start on, with their place in quarter notes."""
    found: list[Step] = []
    bar_at, bar_length = 0.0, float(DEFAULT_BEATS)
    for change in changes:
        quarters = _quarters_at(found[-1], change.at_s) if found else 0.0
        cuts = False
        if change.bar is not None:
            into = (quarters - bar_at) % bar_length
            cuts = min(into, bar_length - into) > _CLOSE
            bar_at, bar_length = quarters, change.bar[0] * 4 / change.bar[1]
        found.append(Step(change.at_s, quarters, change.bpm, change.bar, cuts))
    return found


def bars_before(changes: Sequence[Change]) -> int:
    """How many bars the lead-in has, the last one perhaps cut short."""
    if len(changes) < 2 or changes[0].bar is None or changes[0].at_s == changes[1].at_s:
        return 0
    beats = float(changes[1].at_s - changes[0].at_s) * changes[0].bpm / 60
    length = changes[0].bar[0] * 4 / changes[0].bar[1]
    return max(1, -int((_CLOSE - beats) // length))


def fitted(changes: Sequence[Change]) -> list[Change]:
    """Changes whose lead-in, from 0 on, ends with a whole bar: its tempo is altered, and its first bar may be short.

    Args: changes: of one song, the first where its first bar begins
    """
    if not changes or changes[0].at_s == 0:
        return list(changes)
    first = changes[0]
    assert first.bar is not None, "a bar begins at the first change"
    units, unit = _lead_in(float(first.at_s), first.bpm)
    if units == 0:  # a few milliseconds, which no tempo fits: they are the first bar's
        return [replace(first, at_s=Fraction(0)), *changes[1:]]
    bpm = 60 * units * 4 / unit / float(first.at_s)
    short = units % first.bar[0] if unit == 4 else units
    if short == units:
        return [Change(Fraction(0), bpm, (units, unit)), *changes]
    if short == 0:
        return [Change(Fraction(0), bpm, first.bar), *changes]
    return [Change(Fraction(0), bpm, (short, 4)), Change(first.at_s * short / units, bpm, first.bar), *changes]


def _lead_in(length_s: float, bpm: float) -> tuple[int, int]:
    """How many notes of which kind (4: quarters, 8: eighths ...) fill the lead-in at nearly this tempo; 0: none do."""
    for unit in (4, 8, 16, 32, 64):
        exact = length_s * bpm / 60 * unit / 4
        units = max(1, round(exact))
        if 2 / 3 <= units / exact <= 3 / 2 and _SLOWEST <= bpm * units / exact <= _FASTEST:
            return units, unit
    return (1, 64) if 60 / 16 / length_s <= _FASTEST else (0, 64)


def _quarters_at(step: Step, at_s: Fraction) -> float:
    return step.quarters + float(at_s - step.at_s) * step.bpm / 60
