"""A look at a watch folder: songs are found, everything else is left out, and says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness.publishing import publish
from harness.stage import write_song

from tsbs_daw.audio.headers.probe import AUDIO_SUFFIXES
from tsbs_daw.watch.scan import AUDIO_ENDINGS, Scanner


def scan(root: Path, **options) -> dict[str, str | None]:
    """Relative path -> reason; None for a song."""
    return {found.relative: found.reason for found in Scanner(root, **({"recursive": True} | options)).scan()}


def test_songs_are_found_in_subfolders(tmp_path):
    for name in ("a.wav", "sub/B.FLAC", "sub/deep/c.mp3"):
        write_song(tmp_path / name)
    assert scan(tmp_path) == {"a.wav": None, str(Path("sub/B.FLAC")): None, str(Path("sub/deep/c.mp3")): None}
    assert scan(tmp_path, recursive=False) == {"a.wav": None}


@pytest.mark.parametrize("name", [".hidden.wav", "a.wav.part", "a.wav.crdownload", "~$a.wav", "A.TMP", "x.download"])
def test_hidden_and_temporary_files_are_passed_over(tmp_path, name):
    write_song(tmp_path / name)
    assert scan(tmp_path) == {}


def test_other_files_say_why_they_are_no_jobs(tmp_path):
    write_song(tmp_path / "notes.txt")
    write_song(tmp_path / "README")
    reasons = scan(tmp_path)
    assert ".txt" in reasons["notes.txt"]
    assert "without an ending" in reasons["README"]


def test_a_link_out_of_the_folder_is_ignored_and_one_inside_is_followed(tmp_path):
    root = tmp_path / "in"
    write_song(root / "a.wav")
    write_song(tmp_path / "outside.wav")
    (root / "out.wav").symlink_to(tmp_path / "outside.wav")
    (root / "in.wav").symlink_to(root / "a.wav")
    (root / "nowhere.wav").symlink_to(root / "gone.wav")
    (root / "loop.wav").symlink_to(root / "loop.wav")
    reasons = scan(root)
    assert reasons["a.wav"] is None
    assert reasons["in.wav"] is None
    assert "out of the watch folder" in reasons["out.wav"]
    assert "nowhere" in reasons["nowhere.wav"]
    assert "nowhere" in reasons["loop.wav"]


def test_a_link_to_a_folder_cannot_make_a_loop(tmp_path):
    write_song(tmp_path / "sub" / "a.wav")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    reasons = scan(tmp_path)
    assert sorted(reasons) == [str(Path("sub/a.wav")), str(Path("sub/up"))]
    assert reasons[str(Path("sub/a.wav"))] is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert "pipe" in scan(tmp_path)["pipe.wav"]


def test_excluded_folders_are_not_entered(tmp_path):
    write_song(tmp_path / "stems" / "a.wav")
    write_song(tmp_path / "b.wav")
    assert scan(tmp_path, excluded=(Path(os.path.realpath(tmp_path / "stems")),)) == {"b.wav": None}


def test_our_own_output_is_recognised_wherever_it_lies(tmp_path):
    folder = publish(tmp_path / "moved" / "here").folder
    assert (folder / "vocals.wav").is_file()
    assert scan(tmp_path) == {}
    write_song(tmp_path / "their own" / "a.wav")
    (tmp_path / "their own" / "manifest.json").write_text('{"name": "a web page"}')
    assert scan(tmp_path)[str(Path("their own/a.wav"))] is None


def test_a_folder_that_cannot_be_listed_does_not_stop_the_rest(tmp_path, monkeypatch):
    write_song(tmp_path / "a.wav")
    write_song(tmp_path / "secret" / "b.wav")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list everything, so the permission itself proves nothing
    assert scan(tmp_path) == {"a.wav": None}


def test_a_missing_root_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "gone")


def test_the_state_changes_with_every_kind_of_change(tmp_path):
    path = write_song(tmp_path / "a.wav")

    def state() -> str:
        (found,) = Scanner(tmp_path, recursive=True).scan()
        return found.state

    first = state()
    assert state() == first
    os.utime(path, (1, 1))
    touched = state()
    write_song(tmp_path / "b.tmp", 1).replace(path)
    assert len({first, touched, state()}) == 3


def test_every_ending_that_the_reader_knows_becomes_a_job():
    assert AUDIO_SUFFIXES <= AUDIO_ENDINGS
