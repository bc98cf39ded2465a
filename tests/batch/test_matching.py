from __future__ import annotations

import itertools

import pytest
from batch.songs import analysis, entry

from tsbs_daw.batch.matching import compatible, key_relation, tempo_relation

CODES = [f"{hour}{side}" for hour in range(1, 13) for side in "AB"]


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
def test_keys_blend_with_their_neighbours_on_the_wheel(camelot, other, relation):
    assert key_relation(camelot, other) == relation


def test_every_key_blends_with_exactly_four_and_always_both_ways():
    for camelot in CODES:
        assert sum(key_relation(camelot, other) is not None for other in CODES) == 4
    for one, other in itertools.product(CODES, CODES):
        assert key_relation(one, other) == key_relation(other, one)


@pytest.mark.parametrize(
    ("bpm", "other", "expected"),
    [
        (120, 120, (1.0, 0.0)),
        (120, 125, (1.0, -4.0)),
        (120, 60, (0.5, 0.0)),
        (70, 140, (2.0, 0.0)),
        (120, 130, None),
        (120, 90, None),
        (None, 120, None),
        (120, None, None),
    ],
)
def test_tempos_match_within_six_percent_also_at_half_and_double_time(bpm, other, expected):
    found = tempo_relation(bpm, other, 6.0)
    assert found == (None if expected is None else pytest.approx(expected))


def test_songs_that_go_together_do_so_both_ways_the_closest_first():
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
    found = compatible(songs, 6.0)
    assert {song: [match.source for match in matches] for song, matches in found.items()} == {
        "a": ["c", "d", "b", "g"],
        "b": ["a", "g"],
        "c": ["a", "g"],
        "d": ["a", "g"],
        "e": ["g"],
        "f": [],
        "g": ["a", "e", "c", "d", "b"],
    }
    for song, matches in found.items():
        for match in matches:
            assert song in {back.source for back in found[match.source]}


def test_what_is_doubtful_in_one_of_two_songs_is_doubtful_in_their_match():
    songs = [entry("a"), entry("b", analysis=analysis(doubtful=True))]
    assert [match.doubtful for match in compatible(songs)["a"]] == [True]
    assert [match.doubtful for match in compatible([entry("a"), entry("b")])["a"]] == [False]
