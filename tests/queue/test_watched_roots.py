"""Daemons of different homes: no song lies in the watch folders of two of them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.stage import QUICK, settings_in

from tsbs_daw.core.config import state_folder
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.core.locks import FOLDER_LOCK, DaemonLocks, WatchedRoot
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.watch.folders import WatchFolder


@pytest.fixture(autouse=True)
def _list_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def daemon_of(home: Path, *folders: Path, recursive: bool = True) -> Daemon:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    watched = [WatchFolder(folder, home / "out", recursive=recursive) for folder in folders]
    return Daemon(settings_in(home), watched, options=QUICK)


def notes() -> list[str]:
    return sorted(path.name for path in (state_folder() / "watched").glob("*.json"))


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("drop", "drop/band", "'{drop}', which contains '{drop}/band'"),
        ("drop/band", "drop", "'{drop}/band', which lies in '{drop}'"),
        ("drop", "drop/a/deeply/nested/one", "which contains"),
        ("drop/a/deeply/nested/one", "drop", "which lies in"),
        ("drop", "drop", "already watches '{drop}'"),
        ("drop", "link to drop/band", "which contains"),
        ("link to drop/band", "drop", "which lies in"),
        ("drop", "link to drop", "already watches"),
    ],
)
def test_the_second_daemon_refuses_a_folder_around_or_inside_the_first_ones(tmp_path, first, second, says):
    drop = tmp_path / "drop"
    drop.mkdir()
    (tmp_path / "link to drop").symlink_to(drop)
    with daemon_of(tmp_path / "one", tmp_path / first):
        with pytest.raises(DaemonError, match=f"process {os.getpid()}") as refusal:
            daemon_of(tmp_path / "two", tmp_path / second).__enter__()
        assert says.format(drop=drop) in str(refusal.value)
        if (tmp_path / second).resolve() != (tmp_path / first).resolve():
            assert not (tmp_path / second / FOLDER_LOCK).exists(), "a refused daemon leaves nothing in the folder"
    with daemon_of(tmp_path / "two", tmp_path / second):
        pass
    assert notes() == []


def test_a_folder_that_cannot_hold_a_lock_is_watched_once_all_the_same(tmp_path):
    (tmp_path / "drop" / FOLDER_LOCK).mkdir(parents=True)
    with (
        daemon_of(tmp_path / "one", tmp_path / "drop"),
        pytest.raises(DaemonError, match="already watches"),
    ):
        daemon_of(tmp_path / "two", tmp_path / "drop").__enter__()


def test_folders_beside_each_other_and_those_of_one_daemon_are_no_trouble(tmp_path):
    drop = tmp_path / "drop"
    with (
        daemon_of(tmp_path / "one", drop, drop / "band"),
        daemon_of(tmp_path / "two", tmp_path / "dropped"),
        daemon_of(tmp_path / "three", tmp_path / "dr"),
    ):
        assert len(notes()) == 4
    assert notes() == []


def test_a_folder_whose_subfolders_are_not_watched_leaves_them_to_others(tmp_path):
    with (
        daemon_of(tmp_path / "one", tmp_path / "music" / "drop", recursive=False),
        daemon_of(tmp_path / "two", tmp_path / "music" / "drop" / "band"),
        pytest.raises(DaemonError, match="which lies in"),
    ):
        daemon_of(tmp_path / "three", tmp_path / "music").__enter__()


def test_another_name_of_the_same_folder_is_recognised_where_names_do_not_tell(tmp_path):
    """As on file systems that take capitals for small letters, and below bind mounts."""
    drop, other = WatchedRoot(tmp_path, True), WatchedRoot(tmp_path / "elsewhere" / "DROP", True)
    object.__setattr__(other, "identity", drop.identity)
    assert drop.holds(other)
    assert other.holds(drop)


def test_the_folders_of_a_killed_daemon_are_free_again(tmp_path):
    (tmp_path / "drop").mkdir()
    program = (
        "import sys, time; from pathlib import Path; from tsbs_daw.core.locks import DaemonLocks, WatchedRoot; "
        "locks = DaemonLocks(Path('home')); locks.claim([WatchedRoot(Path(sys.argv[1]), True)]); "
        "print('claimed', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "drop")], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"claimed\n"
        with pytest.raises(DaemonError, match=f"process {child.pid}"):
            daemon_of(tmp_path / "two", tmp_path / "drop" / "band").__enter__()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert len(notes()) == 1
    with daemon_of(tmp_path / "two", tmp_path / "drop" / "band"):
        assert len(notes()) == 1, "what the killed one left is removed"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": 3, "recursive": true}', b"\xff" * 100_000])
def test_a_note_that_cannot_be_read_stops_nobody(tmp_path, content):
    with daemon_of(tmp_path / "one", tmp_path / "drop"):
        (state_folder() / "watched" / notes()[0]).write_bytes(content)
        with daemon_of(tmp_path / "two", tmp_path / "drop" / "band"):
            pass


def test_a_daemon_that_could_not_write_its_note_still_keeps_others_out(tmp_path, monkeypatch):
    root, first = WatchedRoot(tmp_path / "drop", True), DaemonLocks(tmp_path / "one")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("tsbs_daw.core.locks.write_atomically", full)
        first.claim([root])
    with pytest.raises(DaemonError, match=f"process {os.getpid()}.*already watches .*drop"):
        DaemonLocks(tmp_path / "two").claim([root])
    first.release()


def test_without_a_place_for_the_list_the_daemon_works(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with daemon_of(tmp_path / "one", tmp_path / "drop"):
        pass


def test_all_homes_of_a_user_share_the_list(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    before = state_folder()
    for name in ("HOME", "TSBS_DAW_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    if sys.platform == "linux":
        assert state_folder() == before


def test_locks_of_a_daemon_that_watches_nothing_need_no_list(tmp_path):
    DaemonLocks(tmp_path).claim([])
    assert not (tmp_path / "state").exists()
