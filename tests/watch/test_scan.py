"""A look at a watch folder: songs are found, everything else is left out, and says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness.publishing import publish
from harness.stage import until, write_song
from watchdog.observers import Observer

from tsbs_daw.audio.probe import AUDIO_SUFFIXES
from tsbs_daw.batch.plan import find_songs
from tsbs_daw.watch.scan import AUDIO_ENDINGS, Notifications, Scanner


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
    assert "broken link" in reasons["nowhere.wav"]
    assert "broken link" in reasons["loop.wav"]


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


THROWN_AWAY_NAMES = [
    *(
        "@eaDir",
        "#recycle",
        "#Recycle",
        "#snapshot",
        "@tmp",
        "@sharebin",
        "@Recycle",
        "@Recently-Snapshot",
        ".@__thumb",
    ),
    *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "RECYCLED", "System Volume Information", "SYSTEM VOLUME INFORMATION"),
    *(".Trash-1000", ".Trash-0", ".Trashes", ".Trash", "lost+found", "LOST+FOUND", "found.000", "Recycle Bin"),
    *(".snapshot", ".snapshots", "~snapshot", ".zfs", "Backups.backupdb", "@GMT-2026.01.02-03.04.05", "trashbox"),
    *("__MACOSX", "__macosx", ".AppleDouble", "Network Trash Folder", "Temporary Items", ".fseventsd", ".thumbnails"),
    *(
        ".stversions",
        ".stfolder",
        ".sync",
        ".dropbox.cache",
        ".tmp.drivedownload",
        ".tmp.driveupload",
        "files_trashbin",
    ),
    *(".recycle", "_NAS_Recycle_", "$Extend", "TheVolumeSettingsFolder"),
]


@pytest.mark.parametrize("name", THROWN_AWAY_NAMES)
def test_what_was_thrown_away_is_left_out_in_watch_folders_and_batches(tmp_path, name):
    for place in ("", "Album/CD 1"):
        write_song(tmp_path / place / "a.wav")
        write_song(tmp_path / place / name / "deep" / "deleted.wav")
    (tmp_path / "in.wav").symlink_to(tmp_path / name / "deep" / "deleted.wav")
    songs = ["Album/CD 1/a.wav", "a.wav"]
    assert sorted(path.replace(os.sep, "/") for path in scan(tmp_path)) == songs
    assert [song.relative for song in find_songs(tmp_path)] == songs


@pytest.mark.parametrize(
    "name",
    ["Recycled", "Rubbish", "#1 Hits", "@Home", "Recycling", "Snapshot", "Lost and Found", "Trash Metal", "$ign"],
)
def test_albums_with_similar_names_are_not_thrown_away(tmp_path, name):
    write_song(tmp_path / name / "a.wav")
    assert scan(tmp_path) == {str(Path(name, "a.wav")): None}


def test_a_folder_that_is_named_so_itself_is_watched_when_asked(tmp_path):
    write_song(tmp_path / "@Recycle" / "a.wav")
    assert scan(tmp_path / "@Recycle") == {"a.wav": None}


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "loop", "dangling", "huge", "depth", "text", "list"])
def test_a_manifest_that_is_not_ours_stops_no_look(tmp_path, kind):
    write_song(tmp_path / "Album" / "a.wav")
    path = tmp_path / "Album" / "manifest.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("link", "loop", "dangling"):
        path.symlink_to({"link": "/dev/zero", "loop": path.name, "dangling": "/nowhere"}[kind])
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(5 << 30)
    else:
        path.write_text(
            {"depth": "[" * 100_000, "text": "\ud83d".encode("utf-8", "replace").decode(), "list": "[1]"}[kind]
        )
    assert scan(tmp_path)[str(Path("Album", "a.wav"))] is None
    assert [song.relative for song in find_songs(tmp_path) if song.reason is None] == ["Album/a.wav"]


def test_a_link_that_takes_the_place_of_a_song_is_judged_as_a_link(tmp_path):
    root = tmp_path / "in"
    path = write_song(root / "a.wav")
    scanner = Scanner(root, recursive=True)
    (found,) = scanner.scan()
    assert scanner.rescan_file("a.wav") == found
    path.unlink()
    assert scanner.rescan_file("a.wav") is None
    path.symlink_to(write_song(tmp_path / "outside.wav"))
    assert "out of the watch folder" in scanner.rescan_file("a.wav").reason
    path.unlink()
    os.mkfifo(path)
    assert "pipe" in scanner.rescan_file("a.wav").reason


def test_the_system_is_not_asked_for_events_that_our_own_looks_cause(tmp_path, monkeypatch):
    asked = []
    real = Observer.schedule

    def schedule(self, *positional, event_filter=None, **named):
        asked.append({event.__name__ for event in event_filter or ()})
        return real(self, *positional, event_filter=event_filter, **named)

    monkeypatch.setattr(Observer, "schedule", schedule)
    changes = []
    notifications = Notifications(tmp_path, recursive=True, changed=lambda: changes.append(1))
    assert notifications.start()
    (kinds,) = asked
    assert kinds.isdisjoint({"FileOpenedEvent", "FileClosedNoWriteEvent", "DirModifiedEvent"})
    write_song(tmp_path / "a.wav")
    until(lambda: changes)
    notifications.stop()
