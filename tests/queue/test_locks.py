"""Locks in folders that others may write to: what they put there is neither written to nor believed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness.stage import QUICK, settings_in

from tsbs_daw.core.errors import DaemonError
from tsbs_daw.core.files import create_new, write_atomically, write_synced
from tsbs_daw.core.locks import FOLDER_LOCK, DaemonLocks, HeldElsewhere, LockFile, lock_owner, watching_process
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.watch.folders import WatchFolder

PRECIOUS = "export PATH=/usr/bin\n"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "bashrc"
    path.write_text(PRECIOUS)
    return path


def plant(kind: str, path: Path, target: Path) -> None:
    """Put something under the name of a lock, as whoever may write to the folder can."""
    if kind == "link":
        path.symlink_to(target)
    elif kind == "second name":
        path.hardlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target.with_name("made by following it"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "somebody's file":
        path.write_text(PRECIOUS)


KINDS = ["link", "second name", "dangling link", "pipe", "folder", "somebody's file"]


@pytest.mark.parametrize("runtime", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [FOLDER_LOCK, ".tsbs-daw.pid"])
def test_what_lies_under_a_locks_name_is_not_written_to(tmp_path, monkeypatch, precious, name, kind, runtime):
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    folder.path.mkdir()
    runtime_folder = tmp_path / "runtime"
    runtime_folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_folder) if runtime else "")
    plant(kind, folder.path / name, precious)
    before = os.lstat(folder.path / name)
    with Daemon(settings_in(tmp_path), (folder,), options=QUICK):
        with pytest.raises(DaemonError, match=f"process {os.getpid()}"):
            Daemon(settings_in(tmp_path / "other" if runtime else tmp_path), (folder,), options=QUICK).__enter__()
        fallback = list((runtime_folder if runtime else tmp_path / "home" / "locks").glob("*.lock"))
        assert len(fallback) == (1 if name == FOLDER_LOCK else 0)
    assert precious.read_text() == PRECIOUS
    assert not precious.with_name("made by following it").exists()
    after = os.lstat(folder.path / name)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


def test_nothing_is_kept_in_a_runtime_folder_that_others_may_write_to(tmp_path, monkeypatch):
    folder = WatchFolder(tmp_path / "in", tmp_path / "out")
    (folder.path / FOLDER_LOCK).mkdir(parents=True)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    with Daemon(settings_in(tmp_path), (folder,), options=QUICK):
        assert not list(shared.iterdir())
        assert list((tmp_path / "home" / "locks").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_home_that_cannot_be_locked_is_refused_with_a_sentence(tmp_path, precious, kind):
    settings = settings_in(tmp_path)
    settings.home.mkdir()
    plant(kind, settings.home / "daemon.lock", precious)
    with pytest.raises(DaemonError, match="TSBS_DAW_HOME"):
        Daemon(settings, options=QUICK).__enter__()
    assert precious.read_text() == PRECIOUS


def test_the_number_of_the_process_lies_in_the_lock_and_goes_with_it(tmp_path):
    lock, second = LockFile(tmp_path / FOLDER_LOCK), LockFile(tmp_path / FOLDER_LOCK)
    lock.acquire()
    assert watching_process(tmp_path) == lock_owner(lock.path) == os.getpid()
    with pytest.raises(HeldElsewhere, match=f"process {os.getpid()}"):
        second.acquire()
    lock.release()
    assert watching_process(tmp_path) is None
    second.acquire()
    second.release()
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER_LOCK]


def test_the_number_of_a_killed_process_does_not_keep_the_next_one_out(tmp_path):
    (tmp_path / FOLDER_LOCK).write_text("4194304")
    lock = LockFile(tmp_path / FOLDER_LOCK)
    lock.acquire()
    assert lock_owner(lock.path) == os.getpid()
    lock.release()


@pytest.mark.parametrize("kind", ["link", "second name", "dangling link", "pipe", "folder", "somebody's file"])
@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_write_follows_nothing_that_lies_under_its_temporary_name(tmp_path, precious, kind, durable):
    path = tmp_path / "catalogue.json"
    plant(kind, tmp_path / "catalogue.json.tmp", precious)
    write_atomically(path, "new", durable=durable)
    assert path.read_text() == "new"
    assert not path.is_symlink()
    assert precious.read_text() == PRECIOUS
    assert not precious.with_name("made by following it").exists()


@pytest.mark.parametrize("kind", ["link", "second name", "dangling link"])
def test_a_write_takes_the_place_of_a_link_and_leaves_what_it_leads_to(tmp_path, precious, kind):
    path = tmp_path / "manifest.json"
    plant(kind, path, precious)
    write_synced(path, "new")
    assert path.read_text() == "new"
    create_new(path).close()
    assert precious.read_text() == PRECIOUS


def test_what_the_program_keeps_is_for_its_user_alone(tmp_path):
    settings = settings_in(tmp_path)
    with Daemon(settings, options=QUICK):
        for folder in (settings.home, settings.spool, settings.cache, settings.home / "logs"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        assert stat.S_IMODE(settings.store.stat().st_mode) == 0o600


def test_folders_of_earlier_versions_are_closed_but_not_those_that_are_shared_on_purpose(tmp_path):
    settings = settings_in(tmp_path)
    for folder, mode in ((settings.home, 0o755), (settings.spool, 0o755), (settings.cache, 0o2775)):
        folder.mkdir()
        folder.chmod(mode)
    settings.make_folders()
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (settings.home, settings.spool, settings.cache)]
    assert modes == [0o755, 0o700, 0o2775], "the user named this home, so its permissions are theirs"


def test_a_lock_that_is_not_to_stay_goes_with_its_holder_and_with_nobody_else(tmp_path):
    path = tmp_path / FOLDER_LOCK
    lock, second = LockFile(path, leave=False), LockFile(path, leave=False)
    lock.acquire()
    with pytest.raises(HeldElsewhere):
        second.acquire()
    second.release()
    assert path.exists()
    lock.release()
    assert not path.exists()
    second.acquire()
    second.release()
    assert not path.exists()


def test_the_lock_of_a_folder_that_took_the_place_of_ours_is_left_alone(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    ours, theirs = (LockFile(drop / FOLDER_LOCK, leave=False) for _ in range(2))
    ours.acquire()
    drop.rename(tmp_path / "moved")
    drop.mkdir()
    theirs.acquire()
    ours.release()
    assert theirs.path.exists()
    with pytest.raises(HeldElsewhere):
        LockFile(theirs.path).acquire()
    theirs.release()


def test_a_file_that_another_machine_has_removed_is_no_lock(tmp_path, monkeypatch):
    real, asked = os.truncate, []

    def truncate(descriptor, length):
        asked.append(descriptor)
        if len(asked) == 1:
            (tmp_path / FOLDER_LOCK).unlink()  # the other machine's; this one still sees it in its cache
            raise OSError(errno.ESTALE, "Stale file handle")
        real(descriptor, length)

    monkeypatch.setattr(os, "truncate", truncate)
    lock = LockFile(tmp_path / FOLDER_LOCK, leave=False)
    lock.acquire()
    assert lock.path.exists()
    lock.release()


CONTENDER = """
import os, sys
from pathlib import Path
from tsbs_daw.core.locks import HeldElsewhere, LockFile
folder, held = Path(sys.argv[1]), 0
while held < 150:
    lock = LockFile(folder / "lock", leave=False)
    try:
        lock.acquire()
    except (HeldElsewhere, OSError):
        continue
    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails where two are inside at once
    os.unlink(folder / "inside")
    lock.release()
    held += 1
"""


def test_a_lock_that_is_removed_and_made_again_has_one_holder_at_a_time(tmp_path):
    command = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    contenders = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [contender.communicate()[1] for contender in contenders] == [b""] * 4
    assert not list(tmp_path.iterdir())


def test_a_daemon_that_ends_leaves_no_lock_among_the_songs(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    locks = DaemonLocks(tmp_path / "home")
    locks.lock_folder(drop)
    assert watching_process(drop) == os.getpid()
    with pytest.raises(DaemonError, match="already watches"):
        DaemonLocks(tmp_path / "another home").lock_folder(drop)
    locks.release()
    assert not list(drop.iterdir())


def test_a_home_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(DaemonError, match=r"Cannot lock .*daemon\.lock' \(.*\); remove it, or set TSBS_DAW_HOME"):
        DaemonLocks(tmp_path / "home").lock_home()
