"""Bars and tempo on a timeline: the arithmetic alone."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import pytest
from sessions.session_samples import random_session

from tsbs_daw.sessions.session import SCRAP_S, TimelineChange, bars_before, changes_of, fitted, steps, with_lead_in


def change(at_s: float | Fraction, bpm: float = 120, beats: int | None = 4) -> TimelineChange:
    return TimelineChange(Fraction(at_s), Fraction(bpm), (beats, 4) if beats else None)


def with_steps(changes: list[TimelineChange]):
    return steps(with_lead_in(changes, Fraction(0)))


@pytest.mark.parametrize(
    ("start_s", "bars", "cut"),
    [(0, 0, 0), (2, 1, 0), (4, 2, 0), (0.5, 1, 1), (2.5, 2, 1), (3600, 1800, 0), (Fraction(1, 48000), 0, 0)],
)
def test_bars_before_the_song_are_counted_and_the_last_is_cut_where_it_must(start_s, bars: int, cut: int):
    changes = [change(start_s), change(start_s + 8, 100)]
    found = with_steps(changes)
    assert [step.at_s for step in found][-2:] == [max(found[0].at_s, found[-2].at_s), start_s + 8]
    if bars:
        assert bars_before(found[:2]) == bars
        assert found[1].cut == cut
    else:
        assert len(found) == len(changes) and found[0].at_s == 0


def test_a_lead_in_of_one_bar_and_one_beat_becomes_two_bars_the_second_of_one_quarter():
    found = fitted([change(2.6)])
    assert [(step.at_s, step.bar) for step in found] == [
        (0, (4, 4)),
        (2, (1, 4)),
        (Fraction(2.6), (4, 4)),
    ]
    assert float(found[1].bpm) == pytest.approx(100)  # one quarter in 0.6 s


@pytest.mark.parametrize("start_ms", [23, 50, 100, 250, 999])
def test_a_song_that_begins_within_its_files_first_second_gets_a_bar_line_there(start_ms: int):
    found = steps(fitted([change(Fraction(start_ms, 1000), 128)]))
    assert found[-1].at_s == Fraction(start_ms, 1000) and not any(step.cut for step in found)
    assert all(20 <= step.bpm <= 666 and step.bar[1] <= 16 for step in found)


@pytest.mark.parametrize("start_ms", [1, 6, 12, 22])
@pytest.mark.parametrize("beats", [3, 4])
def test_a_lead_in_too_short_for_a_bar_belongs_to_the_first_which_ends_in_time(start_ms: int, beats: int):
    start_s = Fraction(start_ms, 1000)
    found = steps(fitted([change(start_s, 120, beats)]))
    assert [(step.at_s, step.bar, step.quarters) for step in found] == [
        (0, (beats, 4), 0),
        (start_s + Fraction(beats, 2), None, beats),
    ]
    assert 118 < found[0].bpm < 120 == found[1].bpm


def test_a_short_lead_in_before_a_bar_in_which_the_tempo_changes_is_dropped():
    assert fitted([change(Fraction(3, 1000)), change(1, 125, None)]) == [change(0), change(1, 125, None)]


def test_a_bar_cut_short_inside_the_song_is_written_as_a_short_bar():
    # Two bars of four and one of two, then four again.
    found = steps(fitted([change(0), change(5, 120)]))
    assert [(step.at_s, step.bar, step.bpm) for step in found] == [
        (0, (4, 4), 120),
        (4, (2, 4), 120),
        (5, (4, 4), 120),
    ]


def test_a_beat_tracker_that_is_late_by_a_little_moves_the_tempo_and_not_the_bars():
    found = steps(fitted([change(0), change(Fraction(8004, 1000))]))
    assert [(step.at_s, step.bar) for step in found] == [
        (0, (4, 4)),
        (Fraction(6), (4, 4)),
        (Fraction(8004, 1000), (4, 4)),
    ]
    assert float(found[1].bpm) == pytest.approx(240 / 2.004)


def test_any_tempo_map_keeps_its_times_and_its_tempos():
    rng = random.Random(3)
    for _ in range(300):
        session = random_session(rng, tempo=True)
        changes = changes_of(session, Fraction(session.start_samples, session.sample_rate))
        assert [float(found.bpm) for found in changes] == [found.bpm for found in session.tempo]
        dropped = {changes[0].at_s} if changes[0].at_s < SCRAP_S else set()
        for written in (with_steps(changes), steps(fitted(changes))):
            assert written[0].at_s == 0 and written[0].quarters == 0
            assert all(a.at_s < b.at_s and a.quarters < b.quarters for a, b in pairwise(written))
            assert {step.at_s for step in written} >= {change.at_s for change in changes} - dropped
        plain = {TimelineChange(step.at_s, step.bpm, step.bar) for step in with_steps(changes)}
        assert plain >= {change for change in changes if change.at_s not in dropped}


def test_bars_of_a_steady_song_are_whole_wherever_it_begins():
    rng = random.Random(4)
    for _ in range(300):
        bpm, beats = rng.choice([rng.uniform(40, 220), 128]), rng.choice([2, 3, 4, 5, 7])
        start_s = Fraction(rng.randrange(1, 44100 * rng.choice([1, 10, 3600])), 44100)
        found = steps(fitted([change(start_s, bpm, beats)]))
        assert not any(step.cut for step in found)
        assert all(20 <= step.bpm <= 666 for step in found)
        assert all(step.bar is None or step.bar[1] <= 16 for step in found)
        second_s = start_s + beats * 60 / Fraction(bpm)
        assert found[-1].at_s == (start_s if start_s >= SCRAP_S else second_s)
