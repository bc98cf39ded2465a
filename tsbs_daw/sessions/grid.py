"""Tempo and bar changes on a timeline, in seconds and quarter notes, as exact fractions.

A song rarely begins on a bar line of a timeline that starts earlier. There are two solutions, for two kinds of DAWs:
the last bar before the song is cut short (`steps` marks it), or that bar gets a length and a tempo of its own, so that
it ends where the song's first bar begins (`fitted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tsbs_daw.sessions.session import Session

DEFAULT_BPM, DEFAULT_BEATS = 120, 4  # the defaults of a new project in any DAW

_SLOWEST, _FASTEST = 20, 666  # tempi in BPM that every DAW accepts
_UNITS = (4, 8, 16)  # denominators of time signatures
SCRAP_S = Fraction(60, _UNITS[-1] // 4 * _FASTEST)  # the shortest possible bar
_CLOSE = Fraction(1, 1000)  # quarter notes: neither audible nor visible


@dataclass(frozen=True)
class Change:
    """A tempo change on a timeline.

    Attributes:
        at_s: position in seconds
        bpm: quarter notes per minute from here
        bar: time signature (numerator, denominator) of the bar that begins here; None: bars continue
        quarters: position in quarter notes, set by `steps`
        cut: length of the bar that this change cuts short, in quarter notes, set by `steps`; 0: none
    """

    at_s: Fraction
    bpm: Fraction
    bar: tuple[int, int] | None = None
    quarters: Fraction = Fraction(0)
    cut: Fraction = Fraction(0)


def changes_of(session: Session, at_s: Fraction) -> list[Change]:
    """The tempo map of a song that begins at `at_s`; empty if its tempo is unknown.

    The grid must pass through the first change, so a bar begins there, of four beats unless the analysis says
    otherwise.
    """
    found: list[Change] = []
    for change in session.tempo:
        bar = (change.beats_per_bar, 4) if change.beats_per_bar else None
        if not found:
            bar = bar or (DEFAULT_BEATS, 4)
        at = at_s + Fraction(change.at_samples, session.sample_rate)
        found.append(Change(at, Fraction(change.bpm), bar))
    return found


def with_lead_in(changes: Sequence[Change], at_s: Fraction, shortest_s: Fraction = Fraction(1, 2000)) -> list[Change]:
    """Extend the first tempo and bar back to `at_s`. A lead-in below `shortest_s` becomes part of the first bar."""
    if not changes or changes[0].at_s == at_s:
        return list(changes)
    earlier = replace(changes[0], at_s=at_s)
    return [earlier, *changes[1 if changes[0].at_s - at_s < shortest_s else 0 :]]


def steps(changes: Sequence[Change]) -> list[Change]:
    """Add positions in quarter notes to changes, the first of which is at the start of the timeline."""
    found: list[Change] = []
    bar_at, bar_length = Fraction(0), Fraction(DEFAULT_BEATS)
    for change in changes:
        quarters, cut = Fraction(0), Fraction(0)
        if found:
            last = found[-1]
            quarters = last.quarters + (change.at_s - last.at_s) * last.bpm / 60
        if change.bar is not None:
            into = (quarters - bar_at) % bar_length
            cut = into if min(into, bar_length - into) > _CLOSE else cut
            bar_at, bar_length = quarters, Fraction(change.bar[0] * 4, change.bar[1])
        found.append(replace(change, quarters=quarters, cut=cut))
    return found


def bars_before(changes: Sequence[Change]) -> int:
    """Number of bars in a lead-in, the last of which may be cut short.

    Args:
        changes: the two ends of the lead-in, from `steps`
    """
    start, first = changes
    assert start.bar is not None
    length = Fraction(start.bar[0] * 4, start.bar[1])
    return round((first.quarters - start.quarters - first.cut) / length) + (first.cut > 0)


def fitted(changes: Sequence[Change]) -> list[Change]:
    """Tempo changes from 0 on that cut no bar: the bar before a cut gets a time signature of its real length.

    That bar is counted in quarters, or in shorter notes if necessary, at the tempo nearest to the song's that makes it
    end on time. If there is none (a tempo change inside that bar, or only a few milliseconds), the bar stays cut.

    Args:
        changes: of one song, from `changes_of`
    """
    found: list[Change] = []
    bar_length = Fraction(0)
    for step in steps(_from_zero(changes)):
        if step.cut:
            bar = _last_bar(found[-1], step, bar_length)
            if bar is not None and bar.at_s == found[-1].at_s:
                found.pop()
            found += [bar] if bar else []
        if step.bar is not None:
            bar_length = Fraction(step.bar[0] * 4, step.bar[1])
        found.append(Change(step.at_s, step.bpm, step.bar))
    return found


def _from_zero(changes: Sequence[Change]) -> list[Change]:
    """Add a lead-in from 0. If it is too short for a bar, it becomes part of the song's first bar, which slows down."""
    bar = changes[0].bar if changes else None
    if bar is None or not 0 < changes[0].at_s < SCRAP_S:
        return with_lead_in(changes, Fraction(0))
    first, rest = changes[0], changes[1:]
    quarters = Fraction(bar[0] * 4, bar[1])
    end_s = first.at_s + quarters * 60 / first.bpm
    if rest and rest[0].at_s < end_s:
        return with_lead_in(changes, Fraction(0), SCRAP_S)
    whole = Change(Fraction(0), quarters * 60 / end_s, first.bar)
    return [whole, *([] if rest and rest[0].at_s == end_s else [Change(end_s, first.bpm)]), *rest]


def _last_bar(last: Change, step: Change, bar_length: Fraction) -> Change | None:
    """The bar that ends where `step` cuts it. A rest of less than half a beat is added to the bar before."""
    lengths = [step.cut, step.cut + bar_length] if step.cut >= Fraction(1, 2) else [step.cut + bar_length, step.cut]
    for length in lengths:
        start_s = step.at_s - length * 60 / last.bpm
        for unit in _UNITS:
            exact = length * unit / 4
            count = max(1, round(exact))
            bpm = last.bpm * count / exact
            near = Fraction(4, 5) <= count / exact <= Fraction(5, 4) or unit == _UNITS[-1]
            if start_s >= last.at_s and near and _SLOWEST <= bpm <= _FASTEST:
                return Change(start_s, bpm, (count, unit))
    return None
