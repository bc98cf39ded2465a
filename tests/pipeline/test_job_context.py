from __future__ import annotations

import pytest

from tsbs_daw.pipeline import resolve
from tsbs_daw.pipeline.resolve import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to."""
    now = [100.0]
    monkeypatch.setattr(resolve.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_step_inside_another_counts_for_the_inner_one_only(clock):
    watch = Stopwatch()
    with watch.step("outer"):
        clock(1)
        with watch.step("inner"):
            clock(5)
        clock(2)
    assert watch.seconds == {"outer": 3, "inner": 5}


def test_what_happens_between_two_values_does_not_count_for_making_them(clock):
    def values():
        for value in range(3):
            clock(1)
            yield value

    watch = Stopwatch()
    for _ in watch.each("make", values()):
        clock(10)
    assert watch.seconds == {"make": 3}


def test_a_step_that_fails_ends(clock):
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.step("fails"):
        clock(1)
        raise ZeroDivisionError
    clock(7)
    with watch.step("next"):
        clock(2)
    assert watch.seconds == {"fails": 1, "next": 2}
