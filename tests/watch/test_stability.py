"""A file is stable when it looked the same often enough, for long enough."""

from __future__ import annotations

import pytest

from tsbs_daw.watch.scan import FileStabilityTracker


def observe(states: list[str], step_s: float, **limits: float) -> list[bool]:
    tracker = FileStabilityTracker(**limits)
    return [tracker.observe("song.wav", state, 1000.0 + step_s * number) for number, state in enumerate(states)]


def test_three_equal_samples_over_two_seconds_are_stable():
    assert observe(["a"] * 5, 0.5) == [False, False, False, False, True]


def test_many_samples_in_a_short_time_are_not():
    assert not any(observe(["a"] * 100, 0.01))


def test_two_samples_far_apart_are_not():
    assert observe(["a", "a", "a"], 60.0) == [False, False, True]


def test_a_change_starts_over():
    assert observe(["a", "a", "b", "b", "b", "b"], 1.0) == [False, False, False, False, True, True]


def test_growth_that_pauses_for_less_than_the_span_is_never_stable():
    assert not any(observe([str(number // 3) for number in range(300)], 0.9))


def test_files_do_not_influence_each_other():
    tracker = FileStabilityTracker()
    for second in range(3):
        tracker.observe("growing", str(second), second)
        stable = tracker.observe("still", "same", second)
    assert stable
    assert tracker.still_for_s("growing", 2.0) == 0.0
    assert tracker.still_for_s("still", 2.0) == 2.0
    assert tracker.still_for_s("unknown", 2.0) == 0.0


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_forgetting_starts_over(samples):
    tracker = FileStabilityTracker(samples, span_s=0.5)
    for second in range(samples + 1):
        stable = tracker.observe("song", "same", second)
    assert stable
    tracker.forget("song")
    assert "song" not in tracker
    assert not tracker.observe("song", "same", 100.0)
