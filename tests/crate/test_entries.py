"""Entries of the catalogue say what lies in a song's folder."""

from __future__ import annotations

from pathlib import Path

from tsbs_daw.crate.catalogue import SongEntry
from tsbs_daw.crate.entries import done_entry
from tsbs_daw.jobs.delivery.manifest import Manifest, NamedHash, OtherFile, SourceEntry

HASH = "0" * 64


def entry_of(out: Path, *others: OtherFile) -> SongEntry:
    """The entry of a song in out/sub/Song that was delivered with `others`."""
    about = {"container": "WAV", "subtype": "FLOAT", "sample_rate": 44100, "channels": 2, "samples": 44100}
    manifest = Manifest(
        job="crate-1",
        song="Song",
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
    return done_entry(SongEntry(source="sub/Song.wav"), out, out / "sub" / "Song", manifest)


def test_loops_are_counted_and_their_folder_and_the_file_for_decks_are_named(tmp_path: Path):
    loops = [OtherFile(kind="loop", file=f"loops/drums 4 bars {number:03d}.wav") for number in (1, 5, 9)]
    song = entry_of(tmp_path, *loops, OtherFile(kind="stem.mp4", file="Song.stem.mp4"))
    assert (song.loops, song.loops_folder) == (3, "sub/Song/loops")
    assert song.stem_mp4 == "sub/Song/Song.stem.mp4"


def test_where_none_were_made_there_are_none(tmp_path: Path):
    song = entry_of(tmp_path)
    assert (song.loops, song.loops_folder, song.stem_mp4) == (0, None, None)
