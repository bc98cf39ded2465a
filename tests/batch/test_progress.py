from __future__ import annotations

import pytest
from batch.songs import entry

from tsbs_daw.batch.plan import FoundSong
from tsbs_daw.batch.run import Clock, Song, progress_of


def song(name: str, size: int, *, state: str = "waiting", submitted: bool = True, **values: object) -> Song:
    found = FoundSong(name, None, "", size)
    return Song(found, entry(name, state=state), submitted=submitted, **values)


def test_the_time_left_is_by_what_this_run_has_done_of_its_bytes():
    clock = Clock()
    songs = [song("a", 100), song("b", 300)]
    assert clock.seconds_left(songs, now=10.0) is None, "nothing is known yet"
    songs[0] = song("a", 100, state="done")
    assert clock.seconds_left(songs, now=20.0) == pytest.approx(30.0)
    songs[1].fraction = 0.5
    assert clock.seconds_left(songs, now=30.0) == pytest.approx(20.0 * 150 / 250)
    songs[1] = song("b", 300, state="failed")
    assert clock.seconds_left(songs, now=30.0) == 0.0


def test_songs_that_were_there_before_say_nothing_about_the_time_left():
    clock = Clock()
    songs = [song("old", 10**9, state="done", submitted=False), song("a", 100), song("b", 100)]
    assert clock.seconds_left(songs, now=0.0) is None
    songs[1].fraction = 1.0
    assert clock.seconds_left(songs, now=10.0) == pytest.approx(10.0)


def test_songs_that_wait_to_be_looked_at_count_as_work():
    clock = Clock()
    songs = [song("a", 100, state="done"), song("b", 100, submitted=False)]
    clock.seconds_left(songs, now=0.0)
    assert clock.seconds_left(songs, now=10.0) == pytest.approx(10.0)


def test_a_view_counts_and_names_what_is_at_work():
    songs = [
        song("a", 1, state="done"),
        song("b", 1, state="failed"),
        song("c", 1, job="x", message="separating", fraction=0.5),
        song("d", 1, job="y"),
    ]
    view = progress_of(songs, Clock(), "It waits.")
    assert view.counts == {"done": 1, "failed": 1, "duplicate": 0, "waiting": 2}
    assert (view.total, view.ended, view.note) == (4, 2, "It waits.")
    assert [one.found.relative for one in view.running] == ["c"]
