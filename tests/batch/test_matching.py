"""Which songs of a batch go together: the rules of the page's `music.js`, run where they run."""

from __future__ import annotations

import pytest
from batch.browser import browser, matching_songs, run_music
from batch.songs import entry

CODES = [f"{hour}{side}" for hour in range(1, 13) for side in "AB"]


@pytest.fixture(scope="module")
def page():
    with browser() as chromium:
        yield chromium.new_page()


@pytest.mark.parametrize(
    ("camelot", "other", "relation"),
    [
        ("8A", "8A", "same"),
        ("8A", "8B", "relative"),
        ("8A", "9A", "neighbour"),
        ("12B", "1B", "neighbour"),
        ("1A", "12A", "neighbour"),
        ("8A", "9B", None),
        ("8A", "10A", None),
        ("8A", "2A", None),
        ("8A", None, "none"),
        (None, None, "none"),
    ],
)
def test_keys_blend_with_their_neighbours_on_the_wheel(page, camelot, other, relation):
    assert run_music(page, "keyRelation(...given)", [camelot, other]) == relation


def test_every_key_blends_with_exactly_four_and_always_both_ways(page):
    table = run_music(page, "given.map((one) => given.map((other) => keyRelation(one, other)))", CODES)
    assert all(sum(relation is not None for relation in row) == 4 for row in table)
    assert table == [list(column) for column in zip(*table, strict=True)]


@pytest.mark.parametrize(
    ("bpm", "other", "expected"),
    [
        (120, 120, (1.0, 0.0)),
        (120, 125, (1.0, -4.0)),
        (120, 60, (0.5, 0.0)),
        (70, 140, (2.0, 0.0)),
        (100, 94.34, (1.0, 6.0)),
        (120, 130, None),
        (120, 90, None),
        (None, 120, None),
        (120, None, None),
    ],
)
def test_tempos_match_within_six_percent_also_at_half_and_double_time(page, bpm, other, expected):
    found = run_music(page, "tempoRelation(...given)", [bpm, other, 6.0])
    assert (found and (found["ratio"], found["change"])) == (expected and pytest.approx(expected, abs=1e-3))


def test_songs_that_go_together_do_so_both_ways_the_closest_first(page):
    songs = [
        entry("a", 120, "8A"),
        entry("b", 124, "9A"),
        entry("c", 121, "8B"),
        entry("d", 60.5, "7A"),
        entry("e", 120, "2B"),
        entry("f", None, "8A"),
        entry("g", 120, None),
        entry("h", 120, "8A", state="failed"),
        entry("i", 120, "8A", analysis=None),
    ]
    found = matching_songs(page, songs)
    assert found == {
        "a": ["c", "d", "b", "g"],
        "b": ["a", "g"],
        "c": ["a", "g"],
        "d": ["a", "g"],
        "e": ["g"],
        "f": [],
        "g": ["a", "e", "c", "d", "b"],
        "h": [],
        "i": [],
    }
    assert all(song in found[other] for song, others in found.items() for other in others)
