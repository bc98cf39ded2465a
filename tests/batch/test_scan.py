from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness.publishing import publish
from harness.stage import write_song

from tsbs_daw.batch.plan import FoundSong, Place, find_songs, places
from tsbs_daw.core.errors import UsageError


def names(folder: Path, **values) -> list[str]:
    return [song.relative for song in find_songs(folder, **values)]


def found(*sources: str) -> list[FoundSong]:
    return [FoundSong(source, Path("/crate") / source, "", 0) for source in sources]


def test_songs_are_found_in_all_subfolders_and_nothing_else_is(tmp_path):
    for name in (
        "One.wav",
        "a/b/Two.FLAC",
        "a/Three.mp3",
        ".hidden.wav",
        ".git/Four.wav",
        "Five.wav.part",
        "~$Six.wav",
    ):
        write_song(tmp_path / name)
    (tmp_path / "cover.jpg").write_bytes(b"no song")
    (tmp_path / "README").write_bytes(b"no song")
    assert names(tmp_path) == ["One.wav", "a/Three.mp3", "a/b/Two.FLAC"]


def test_folders_of_stems_and_excluded_places_are_left_out(tmp_path):
    write_song(tmp_path / "One.wav")
    write_song(tmp_path / "out" / "Two.wav")
    (tmp_path / "stems").mkdir()
    publish(tmp_path / "stems")
    assert names(tmp_path) == ["One.wav", "out/Two.wav"]
    assert names(tmp_path, excluded=[tmp_path / "out"]) == ["One.wav"]
    assert names(tmp_path, excluded=[tmp_path, tmp_path.parent]) == ["One.wav", "out/Two.wav"]


def test_a_folder_reached_through_a_link_is_looked_into(tmp_path):
    write_song(tmp_path / "real" / "One.wav")
    write_song(tmp_path / "real" / "out" / "Two.wav")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (song,) = find_songs(tmp_path / "link", excluded=[tmp_path / "link" / "out"])
    assert song.path == tmp_path / "link" / "One.wav"


def test_a_folder_that_cannot_be_listed_is_told_of(tmp_path, monkeypatch):
    write_song(tmp_path / "One.wav")
    write_song(tmp_path / "locked" / "Two.wav")
    listing = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    one, locked = find_songs(tmp_path)
    assert (one.relative, one.reason, locked.relative) == ("One.wav", None, "locked")
    assert "cannot be listed (Permission denied)" in locked.reason


def test_what_is_no_folder_is_wrong_use(tmp_path):
    song = write_song(tmp_path / "One.wav")
    for place in (song, tmp_path / "gone"):
        with pytest.raises(UsageError, match="is not a folder"):
            find_songs(place)


def test_places_are_where_the_songs_were_and_safe_everywhere():
    given = places(found("One.wav", "a/b/Two.flac", "a:b/CON/nul.wav", "x/ .mp3"), {})
    assert given == {
        "One.wav": Place(".", "One"),
        "a/b/Two.flac": Place("a/b", "Two"),
        "a:b/CON/nul.wav": Place("a_b/CON_", "nul_"),
        "x/ .mp3": Place("x", "song"),
    }


def test_no_two_songs_get_one_place_whatever_the_file_system_thinks_of_case():
    sources = ["Song.flac", "Song.wav", "sOng.mp3", "So?ng.wav", "So_ng.wav", "Song (2).wav", "song/a.wav"]
    given = places(found(*sources), {})
    assert len({place.key for place in given.values()}) == len(sources)
    assert given["Song.flac"].song == "Song (2)", "the folder song/ has the name already"


def test_a_place_that_was_given_stays():
    first = places(found("b/Song.wav"), {})
    second = places(found("b/Song.aiff", "b/Song.wav"), first)
    assert second["b/Song.wav"] == first["b/Song.wav"] == Place("b", "Song")
    assert second["b/Song.aiff"] == Place("b", "Song (2)")


def test_a_place_of_a_song_that_is_gone_is_not_given_away():
    assert places(found("Song.wav"), {"Song.flac": Place(".", "Song")})["Song.wav"] == Place(".", "Song (2)")
