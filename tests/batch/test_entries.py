"""Entries of the catalogue say what lies in a song's folder."""

from __future__ import annotations

from pathlib import Path

from batch.stage import batch_in
from harness.stage import settings_in

from tsbs_daw.batch.catalogue import done_entry
from tsbs_daw.batch.plan import Plan, find_songs
from tsbs_daw.contracts.catalogue import SongEntry
from tsbs_daw.contracts.manifest import Manifest, NamedHash, OtherFile, SourceEntry

HASH = "0" * 64


def entry_of(out: Path, *others: OtherFile, source: str = "Song.wav", song: str = "Song", title: str = "") -> SongEntry:
    """The entry of a song in out/sub/Song that was delivered with `others`.

    Args: source: the file's name; song: what its folder was to be called; title: as it was delivered
    """
    about = {"container": "WAV", "subtype": "FLOAT", "sample_rate": 44100, "channels": 2, "samples": 44100}
    manifest = Manifest(
        job="crate-1",
        song=song,
        title=title,
        identity=HASH,
        source=SourceEntry(path="Song.wav", sha256=HASH, **about),
        model=NamedHash(name="default", sha256=HASH),
        preset=NamedHash(name="crate", sha256=HASH),
        stage="full",
        null=False,
        salvage=False,
        stems=(),
        sessions=(),
        others=others,
    )
    waiting = SongEntry(source=f"sub/{source}", title=Path(source).stem)
    return done_entry(waiting, out, out / "sub" / "Song", manifest)


def test_loops_are_counted_and_their_folder_and_the_file_for_decks_are_named(tmp_path: Path):
    loops = [OtherFile(kind="loop", file=f"loops/drums 4 bars {number:03d}.wav") for number in (1, 5, 9)]
    song = entry_of(tmp_path, *loops, OtherFile(kind="stem.mp4", file="Song.stem.mp4"))
    assert (song.loops, song.loops_folder) == (3, "sub/Song/loops")
    assert song.stem_mp4 == "sub/Song/Song.stem.mp4"


def test_where_none_were_made_there_are_none(tmp_path: Path):
    song = entry_of(tmp_path)
    assert (song.loops, song.loops_folder, song.stem_mp4) == (0, None, None)


def test_a_title_is_the_tags_or_the_files_name_and_not_the_folders(tmp_path: Path):
    assert entry_of(tmp_path, source="what?.wav", song="what_ (2)", title="what_ (2)").title == "what?"
    assert entry_of(tmp_path, source="track 1.wav", song="track 1", title="Air").title == "Air"


def test_a_song_that_waits_is_called_as_its_name_tells(tmp_path: Path):
    request = batch_in(tmp_path, "Kay - One.wav", "01 - Air.wav", "Jóga.wav")
    found = find_songs(request.folder)
    intake = Plan(request, settings_in(tmp_path), found)
    named = {(entry.artist, entry.title) for entry in map(intake.entry, found)}
    assert named == {("Kay", "One"), ("", "01 - Air"), ("", "Jóga")}, "a number is nobody's name"
