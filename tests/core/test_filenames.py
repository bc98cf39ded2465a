"""Names that every operating system accepts."""

from __future__ import annotations

import random
import re
import unicodedata
from itertools import islice

import pytest

from tsbs_daw.core.filenames import PRESET_BYTES, SONG_BYTES, candidates, safe_name

DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")


@pytest.mark.parametrize(
    ("song", "name"),
    [
        ("Night Drive", "Night Drive"),
        ("AC/DC: Live?", "AC_DC_ Live_"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\\b", "a_b"),
        ("", "song"),
        ("...", "song"),
        (" .hidden. ", "hidden"),
        ("Mr. Nobody.", "Mr. Nobody"),
        ("nul", "nul_"),
        ("CON.live", "CON_.live"),
        ("com1 .take", "com1_ .take"),
        ("console", "console"),
        ("tab\there\nnewline\x00nul", "tab here newline nul"),
        ("cafe\u0301", "caf\u00e9"),
        ("Дорога さくら 🎧", "Дорога さくら 🎧"),
        ("\u202egnp.exe", "gnp.exe"),
        ("not utf8 \udcff", "not utf8 _"),
        (".tmp-job-1", "tmp-job-1"),
    ],
)
def test_songs_keep_their_names_as_far_as_possible(song: str, name: str):
    assert safe_name(song) == name


def test_any_text_gives_a_name_that_all_systems_accept():
    rng = random.Random(4)
    pool = (
        [chr(code) for code in range(0x250)]
        + list(". ..conNULcom1lpt9")
        + list("\udcff\u202e\u0301é🎧さ\u200d\u2028") * 8
    )
    for _ in range(20000):
        song = rng.choice(["", "", "con", "NUL.", "aux ."]) + "".join(rng.choices(pool, k=rng.randrange(12)))
        name = safe_name(song)
        assert name and safe_name(name) == name
        assert unicodedata.is_normalized("NFC", name)
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name)
        assert name[0] not in " ." and name[-1] not in " ."
        assert not DEVICES.fullmatch(name.split(".")[0].strip())
        name.encode("utf-8")


@pytest.mark.parametrize("letter", ["x", "é", "さ", "🎧"])
def test_long_names_are_cut_between_characters(letter: str):
    name = safe_name(letter * 500)
    assert set(name) == {letter}
    assert SONG_BYTES - 4 < len(name.encode()) <= SONG_BYTES


def test_candidates_are_numbered_after_the_preset_and_stay_short_enough():
    assert list(islice(candidates("Song", "karaoke"), 4)) == [
        "Song",
        "Song (karaoke)",
        "Song (karaoke 2)",
        "Song (karaoke 3)",
    ]
    for name in islice(candidates("さ" * 300, "/path/to/" + "x" * 300), 30):
        assert len(name.encode()) <= SONG_BYTES + PRESET_BYTES + 10 and "/" not in name
