"""Names of files from a template, whatever the song is called and whatever is known of it."""

from __future__ import annotations

import random
import unicodedata

import pytest

from tsbs_daw.core.filenames import safe_name
from tsbs_daw.pipeline.song_info import FILE_BYTES, file_names, filled, song_name

TEMPLATE = "{artist} - {title} [{bpm} BPM {camelot}] {stem}"
KNOWN = {"artist": "AC/DC", "title": "Back: in Black?", "bpm": "128.0", "camelot": "8A"}


def named(template: str = TEMPLATE, missing: tuple[str, ...] = (), **fields: str) -> str:
    known = {name: value for name, value in {**KNOWN, **fields}.items() if name not in missing}
    return file_names(template, known, ["vocals"], ".wav")[0]


def test_a_song_of_which_all_is_known():
    assert named() == "AC_DC - Back_ in Black_ [128.0 BPM 8A] vocals.wav"
    assert named(title="Rain", bpm="~127.9") == "AC_DC - Rain [~127.9 BPM 8A] vocals.wav"


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        (("artist",), "Back_ in Black_ [128.0 BPM 8A] vocals.wav"),
        (("bpm",), "AC_DC - Back_ in Black_ [8A] vocals.wav"),
        (("camelot",), "AC_DC - Back_ in Black_ [128.0 BPM] vocals.wav"),
        (("bpm", "camelot"), "AC_DC - Back_ in Black_ vocals.wav"),
        (("artist", "bpm", "camelot"), "Back_ in Black_ vocals.wav"),
        (("artist", "title", "bpm", "camelot"), "vocals.wav"),
    ],
)
def test_what_is_not_known_is_left_out_with_its_words(missing: tuple[str, ...], name: str):
    assert named(missing=missing) == name


def test_separators_at_the_ends_go_with_what_they_separated():
    assert named("{stem} - {artist}", ("artist",)) == "vocals.wav"
    assert named("{artist} _ {stem} ({key})", ("artist",)) == "vocals.wav"
    assert filled("{title} ({key}) {stem}", {"title": "-M-", "key": "Am", "stem": "bass"}) == "-M- (Am) bass"


def test_no_two_files_of_a_song_have_one_name():
    names = file_names("{title} {stem}", {"title": "x"}, ["a/b", "a:b", "A_B", "a_b 2", "ﬁ", "fi"], ".flac")
    assert names == ["x a_b.flac", "x a_b 2.flac", "x A_B 3.flac", "x a_b 2 2.flac", "x ﬁ.flac", "x fi 2.flac"]


@pytest.mark.parametrize("letter", ["x", "é", "さ", "🎧"])
def test_long_titles_are_cut_and_figures_and_stems_are_not(letter: str):
    name = named(artist=letter * 5000, title=letter * 5000)
    assert name.endswith(" [128.0 BPM 8A] vocals.wav") and len(name.encode()) <= FILE_BYTES
    assert len(name.encode()) > FILE_BYTES - 12
    whole = named(artist="Nina", title=letter * 5000)
    assert whole.startswith("Nina - ") and len(whole.encode()) <= FILE_BYTES


def test_any_text_gives_a_name_that_all_systems_accept():
    rng = random.Random(5)
    pool = [chr(code) for code in range(0x180)] + list("[]()- {}.\udcff\u202e\u0301é🎧さ\u2028") * 12
    for _ in range(800):
        fields = {name: "".join(rng.choices(pool, k=rng.choice([0, 3, 90]))) for name in ("artist", "title", "bpm")}
        stems = ["".join(rng.choices(pool, k=rng.randrange(1, 9))) for _ in range(3)]
        names = file_names(TEMPLATE, fields, stems, ".wav")
        assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 3
        for name in names:
            assert safe_name(name.removesuffix(".wav"), limit_bytes=1000) == name.removesuffix(".wav")
            assert len(name.encode()) <= FILE_BYTES + 2


def test_a_song_has_a_name_without_its_stems():
    assert song_name(TEMPLATE, KNOWN, "x") == "AC_DC - Back_ in Black_ [128.0 BPM 8A]"
    assert song_name("{stem}", KNOWN, "x") == song_name(TEMPLATE, {}, "x") == "x"
