"""Names, files and numbers as session files can hold them."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from tsbs_daw.sessions.session import below, can_be_named, is_absolute, number, one_line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (120.0, "120"),
        (128.1, "128.1"),
        (Fraction(1, 3), "0.333333333333"),
        (Fraction(2, 3), "0.666666666667"),
        (1e-13, "0"),
        (1e15, "1000000000000000"),
        (100.0, "100"),
    ],
)
def test_numbers_are_plain_decimals(value: float, text: str):
    assert number(value) == text


def test_any_sample_of_any_day_is_told_from_its_neighbours():
    rng = random.Random(2)
    for _ in range(2000):
        rate = rng.choice([8000, 44100, 96000, 384000])
        sample = rng.randrange(rate * 86400)
        assert round(Fraction(number(Fraction(sample, rate))) * rate * 1000) == sample * 1000


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" a\tb\r\n", "a b"),
        ("\ud800\uffff\U0001ffff", "\ufffd\ufffd\ufffd"),
        ("e\u0301 👩‍🎤", "e\u0301 👩‍🎤"),
        ("", ""),
    ],
)
def test_a_name_is_one_line_of_characters_that_every_format_holds(text: str, kept: str):
    assert one_line(text) == kept
    one_line(text).encode("utf-8")


@pytest.mark.parametrize(
    ("file", "can"),
    [("a.wav", True), (" a .wav", True), ("\"'.wav", True), ("\"'`.wav", False), ("a\n.wav", False), ("\udce9", False)],
)
def test_a_file_can_be_named_if_no_character_must_be_altered(file: str, can: bool):
    assert can_be_named(file) is can


@pytest.mark.parametrize(
    ("file", "absolute"),
    [
        ("/a", True),
        ("C:/a", True),
        ("C:\\a", True),
        ("//host/share/a", True),
        ("a/b", False),
        ("../a", False),
        ("C:a", False),
    ],
)
def test_absolute_is_absolute_on_any_system(file: str, absolute: bool):
    assert is_absolute(file) is absolute
    assert below("song", file) == file if absolute else not below("song", file).startswith("/")


def test_a_file_is_named_from_where_its_folder_is():
    assert below("crate/song", "stems/a.wav") == "crate/song/stems/a.wav"
    assert below("crate/song", "../../a.wav") == "a.wav"
    assert below(".", "a.wav") == "a.wav"
