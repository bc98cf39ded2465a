from __future__ import annotations

import csv
import io

import pytest
from batch.songs import analysis, entry

from tsbs_daw.batch.catalogue import BYTE_ORDER_MARK, COLUMNS, to_csv
from tsbs_daw.contracts.analysis import Loudness, StemSound
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry


def table(*songs: SongEntry) -> list[dict[str, str]]:
    text = to_csv(Catalogue(crate="mine", preset="none", songs=songs))
    assert text.startswith(BYTE_ORDER_MARK)
    return list(csv.DictReader(io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline="")))


def test_a_song_is_a_row_with_what_was_measured():
    vocals = StemSound(
        loudness=Loudness(integrated_lufs=-20, range_lu=1, true_peak_db=-3), first_sound_s=31.25, active_share=0.5
    )
    known = analysis(128.04, "8A").model_copy(update={"stems": {"vocals": vocals}})
    song = entry(
        "a.wav", analysis=known, artist="Björk", title="さくら", gain_db=-2.5, residual_db=-41.0, duration_s=183.5
    )
    (row,) = table(song)
    assert list(row) == list(COLUMNS)
    expected = {
        "source": "a.wav",
        "state": "done",
        "reason": "",
        "artist": "Björk",
        "title": "さくら",
        "duration_s": "183.5",
        "tempo_bpm": "128.04",
        "tempo_doubtful": "no",
        "key": "A minor",
        "camelot": "8A",
        "loudness_lufs": "-14.25",
        "vocals_from_s": "31.25",
        "residual_db": "-41",
        "gain_db": "-2.5",
    }
    assert {name: row[name] for name in expected} == expected


def test_what_is_not_known_is_an_empty_cell():
    waiting, bare = table(SongEntry(source="b.wav", state="failed", reason="No."), entry("c.wav", None, None))
    assert {name for name, cell in waiting.items() if cell} == {"source", "state", "reason"}
    unheard = ("tempo_bpm", "tempo_confidence", "tempo_doubtful", "tempo_steady", "beats_per_bar", "meter_doubtful")
    assert {bare[name] for name in (*unheard, "key", "camelot", "key_doubtful")} == {""}


WIDE = ["\uff1d1", "\uff0b1", "\uff0d1", "\uff20a", "\u3000=1"]


@pytest.mark.parametrize("text", [*WIDE, "=1+1", "+1", "-2", "@sum(a1)", "\tx", "\rx", "  =cmd|'/c calc'!a0", "\n=1"])
def test_no_name_becomes_a_formula(text):
    (row,) = table(entry("a.wav", artist=text, title=text, reason=text))
    assert row["artist"].startswith("'") and row["title"].startswith("'") and row["reason"].startswith("'")


@pytest.mark.parametrize("text", ['a "quoted" name', "one, two; three", "line\nbreak", "'apostrophe", "ok - fine"])
def test_names_come_back_as_they_were_in_one_line(text):
    (row,) = table(entry(text))
    assert row["source"] == text.replace("\n", " ")
