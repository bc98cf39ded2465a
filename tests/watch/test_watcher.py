"""A watch folder, step by step, at times that the test chooses."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.stage import settings_in, wav_bytes, write_song

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.config import DaemonOptions
from tsbs_daw.queue.jobs import Event
from tsbs_daw.queue.records import NewJob, SeenFile
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch import ingest, watcher
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.ingest import Budget
from tsbs_daw.watch.watcher import Watcher, make_watchers

POLLING = replace(DaemonOptions(), share=DaemonOptions().local)  # no threads: the test makes time pass


class Watched:
    """A watcher on <folder>/in whose clock stands still until the test moves it."""

    def __init__(self, folder: Path, *, budget_bytes: int = 1 << 40, once: bool = False, **options: object):
        self.root, self.settings = folder / "in", settings_in(folder)
        self.spool = Spool(self.settings.spool)
        self.spool.create()
        self.store = JobStore.open(self.settings.store)
        self.budget = Budget(budget_bytes)
        self.watch = WatchFolder(self.root, folder / "out", **({"polling": True} | options))
        self.now, self.once = 1000.0, once
        self.restart()

    def restart(self) -> None:
        self.watcher: Watcher = make_watchers(
            (self.watch,), self.settings, self.store, self.budget, POLLING, once=self.once
        )[0]

    def pass_time(self, seconds: float) -> list[NewJob | SeenFile | Event]:
        """Step every quarter of a second, and enqueue what arrives. Returns: the news"""
        news = []
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            self.watcher.step(self.now)
            found = self.watcher.news()
            self.store.enqueue(item for item in found if isinstance(item, NewJob))
            self.store.remember_files(item for item in found if isinstance(item, SeenFile))
            news += found
        return news

    def songs(self, seconds: float) -> list[str]:
        return [item.file.relative for item in self.pass_time(seconds) if isinstance(item, NewJob)]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in").mkdir()
    watched = Watched(tmp_path)
    monkeypatch.setattr(watcher, "time", SimpleNamespace(monotonic=lambda: watched.now, thread_time=lambda: 0.0))
    yield watched
    watched.store.close()


def test_a_song_that_stands_still_becomes_a_job_after_two_seconds(watched):
    path = write_song(watched.root / "Night Drive.wav")
    assert watched.songs(2.0) == []
    (arrival,) = watched.pass_time(1.0)
    folder = watched.spool.folder(arrival.job.id)
    copy = arrival.job.source.path
    assert copy.parent.parent == folder
    assert copy.read_bytes() == path.read_bytes()
    assert arrival.file.input_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (arrival.job.song, arrival.job.origin, arrival.job.priority) == ("Night Drive", "watch", "batch")
    assert arrival.job.output == watched.watch.output
    assert arrival.job.deliver == {"watched": str(path)}
    assert watched.spool.read_request(folder) == arrival.job
    assert watched.songs(60.0) == []


def test_a_growing_file_is_waited_for(watched):
    path = watched.root / "a.mp3"
    for size in range(1, 20):
        path.write_bytes(b"sound" * size)
        assert watched.songs(1.5) == []
    assert watched.songs(4.0) == ["a.mp3"]


def test_a_file_shorter_than_its_header_says_is_waited_for_but_not_for_ever(watched):
    data, path = wav_bytes(), watched.root / "a.wav"
    path.write_bytes(data[:500])
    assert [(item.kind, item.song) for item in watched.pass_time(50.0)] == [("waiting", "a.wav")]
    path.write_bytes(data)
    assert watched.songs(4.0) == ["a.wav"]
    path.write_bytes(data[:600])
    assert watched.songs(58.0) == []
    assert watched.songs(40.0) == ["a.wav"]  # the reader will say what is wrong with it


def test_an_old_mtime_makes_no_difference(watched):
    path = write_song(watched.root / "a.wav")
    os.utime(path, (1, 1))
    assert watched.songs(2.0) == []
    assert watched.songs(1.0) == ["a.wav"]


def test_restarting_repeats_nothing_and_forgets_nothing(watched):
    write_song(watched.root / "a.wav")
    write_song(watched.root / "notes.txt")
    assert len(watched.pass_time(4.0)) == 2
    watched.restart()
    write_song(watched.root / "b.wav", 1)
    (arrival,) = watched.pass_time(4.0)
    assert arrival.file.relative == "b.wav"


def test_another_preset_concerns_every_song_again(watched):
    write_song(watched.root / "a.wav")
    assert watched.songs(4.0) == ["a.wav"]
    watched.watch = replace(watched.watch, treatment=Treatment(preset="karaoke"))
    watched.restart()
    assert watched.songs(4.0) == ["a.wav"]


def test_songs_of_subfolders_go_to_subfolders(watched):
    write_song(watched.root / "Album" / "CD 1" / "a.wav")
    (arrival,) = watched.pass_time(4.0)
    assert arrival.job.output == watched.watch.output / "Album" / "CD 1"


@pytest.mark.parametrize(
    "name", ["new\nline", "caf\u00e9 \U0001f3b5", "cafe\u0301", "not utf8 \udcff", "-rf", "a" * 240]
)
def test_any_name_is_a_song(watched, name):
    write_song(watched.root / name / f"{name}.wav")
    (arrival,) = watched.pass_time(4.0)
    assert arrival.job.to_json().encode("utf-8")
    assert arrival.file.relative == os.path.join(name, f"{name}.wav")  # noqa: PTH118
    assert watched.store.files_of(str(watched.root))[arrival.file.relative] == arrival.file
    assert watched.songs(40.0) == []


def test_other_files_are_recorded_once(watched):
    write_song(watched.root / "notes.txt")
    (ignored,) = watched.pass_time(1.0)
    assert (ignored.relative, ignored.job_id) == ("notes.txt", None)
    (watched.root / "notes.txt").write_text("changed")
    assert watched.pass_time(60.0) == []
    assert [file.relative for file in watched.store.ignored()] == ["notes.txt"]


def test_a_file_replaced_while_it_is_copied_is_taken_anew(watched, monkeypatch):
    path = write_song(watched.root / "a.wav", 1)
    real = ingest.sync_file
    replaced = []

    def replace_it_now(descriptor: int) -> None:
        if not replaced:
            replaced.append(write_song(watched.root / "b.tmp", 2).replace(path))
        real(descriptor)

    monkeypatch.setattr(ingest, "sync_file", replace_it_now)
    (arrival,) = watched.pass_time(8.0)
    assert replaced
    assert arrival.job.source.path.read_bytes() == wav_bytes(2)
    assert watched.spool.live_folders() == [watched.spool.folder(arrival.job.id)]


def test_a_file_written_to_while_it_is_copied_is_taken_anew(watched, monkeypatch):
    path = write_song(watched.root / "a.mp3", 1)
    real = ingest.sync_file
    written = []

    def write_now(descriptor: int) -> None:
        if not written:
            with path.open("ab") as file:
                written.append(file.write(b"more"))
        real(descriptor)

    monkeypatch.setattr(ingest, "sync_file", write_now)
    (arrival,) = watched.pass_time(8.0)
    assert arrival.job.source.path.read_bytes() == wav_bytes(1) + b"more"


def test_a_missing_folder_is_offline_and_comes_back(watched):
    write_song(watched.root / "a.wav")
    assert watched.songs(4.0) == ["a.wav"]
    away = watched.root.rename(watched.root.with_name("away"))
    assert [event.kind for event in watched.pass_time(60.0)] == ["offline"]
    away.rename(watched.root)
    write_song(watched.root / "b.wav", 1)
    news = watched.pass_time(6.0)
    assert [item.kind for item in news if isinstance(item, Event)] == ["online"]
    assert [item.file.relative for item in news if isinstance(item, NewJob)] == ["b.wav"]


def test_only_so_much_is_copied_ahead(tmp_path):
    (tmp_path / "in").mkdir()
    watched = Watched(tmp_path, budget_bytes=2500)
    for number in range(5):
        write_song(watched.root / f"{number}.wav", number)
    assert watched.songs(5.0) == ["0.wav", "1.wav"]
    assert watched.watcher.pending == 3
    assert watched.budget.refused
    watched.budget.set(0)
    assert watched.songs(2.0) == ["2.wav", "3.wav"]
    watched.store.close()


def test_a_file_larger_than_the_budget_is_copied_all_the_same(tmp_path):
    watched = Watched(tmp_path, budget_bytes=1)
    write_song(watched.root / "a.wav")
    assert watched.songs(4.0) == ["a.wav"]
    watched.store.close()


SPOOL_TROUBLE = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE]


def refuse(monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    """Let the system refuse a step of the copying: `sync_file` writes, `mkdir` begins a copy, `rename` ends it."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    owner = Path if where in ("mkdir", "rename") else ingest
    monkeypatch.setattr(owner, where, refused)


@pytest.mark.parametrize("number", SPOOL_TROUBLE)
@pytest.mark.parametrize("where", ["mkdir", "sync_file", "write_new_job", "rename"])
def test_trouble_of_the_spool_pauses_the_watcher_and_is_charged_to_no_song(watched, monkeypatch, where, number):
    for name in ("a", "b", "c"):
        write_song(watched.root / f"{name}.wav", ord(name))
    with monkeypatch.context() as patch:
        refuse(patch, where, number)
        (event,) = watched.pass_time(300.0)
        assert event.kind == "paused"
        assert os.strerror(number) in event.message
        assert watched.spool.live_folders() == []
    news = watched.pass_time(70.0)
    assert [item.kind for item in news if isinstance(item, Event)] == ["resumed"]
    assert [item.file.relative for item in news if isinstance(item, NewJob)] == ["a.wav", "b.wav", "c.wav"]
    assert watched.store.ignored() == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_once_gives_up_on_a_spool_that_cannot_be_written_to_and_says_so(tmp_path, monkeypatch, number):
    watched = Watched(tmp_path, once=True)
    write_song(watched.root / "a.wav")
    refuse(monkeypatch, "sync_file", number)
    news = watched.pass_time(120.0)
    assert [(item.kind, item.song) for item in news] == [("paused", ""), ("left", "a.wav")]
    assert watched.watcher.settled
    assert watched.watcher.incomplete
    monkeypatch.undo()
    watched.restart()
    assert watched.songs(4.0) == ["a.wav"]
    assert not watched.watcher.incomplete
    watched.store.close()


UNREADABLE = [(errno.EACCES, 4), (errno.EPERM, 4), (errno.EIO, 200), (errno.ESTALE, 200), (errno.ETIMEDOUT, 200)]


def make_unreadable(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def unreadable(path: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(ingest, "open_regular", unreadable)


@pytest.mark.parametrize(("number", "after_s"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_ignored_with_the_reason_and_tried_again(watched, monkeypatch, number, after_s):
    write_song(watched.root / "a.wav")
    make_unreadable(monkeypatch, number)
    (ignored,) = watched.pass_time(after_s)
    assert os.strerror(number) in ignored.reason
    assert watched.watcher.incomplete
    assert watched.pass_time(600.0) == [], "it is said once"
    monkeypatch.undo()
    assert watched.songs(1000.0) == ["a.wav"]
    assert not watched.watcher.incomplete
    assert watched.store.ignored() == []


def test_a_file_that_could_not_be_read_is_tried_at_each_start(watched, monkeypatch):
    write_song(watched.root / "a.wav")
    with monkeypatch.context() as patch:
        make_unreadable(patch, errno.EACCES)
        assert len(watched.pass_time(4.0)) == 1
    watched.restart()
    assert watched.songs(4.0) == ["a.wav"]


def test_a_file_that_could_not_be_read_is_tried_when_its_rights_change(watched, monkeypatch):
    path = write_song(watched.root / "a.wav")
    with monkeypatch.context() as patch:
        make_unreadable(patch, errno.EACCES)
        assert len(watched.pass_time(4.0)) == 1
    path.chmod(0o600)
    assert watched.songs(40.0) == ["a.wav"]


def test_one_file_that_nobody_has_thought_of_holds_up_no_other(watched, monkeypatch):
    for name in ("a", "b"):
        write_song(watched.root / f"{name}.wav", ord(name))
    real = watcher.copy_to_spool

    def copy_to_spool(found, *rest):
        if found.relative == "a.wav":
            raise ZeroDivisionError("nobody expects this")
        return real(found, *rest)

    monkeypatch.setattr(watcher, "copy_to_spool", copy_to_spool)
    monkeypatch.setattr(watcher, "seems_unfinished", lambda path: {}["nobody expects this"])
    ignored, arrival = watched.pass_time(4.0)
    assert (ignored.relative, arrival.file.relative) == ("a.wav", "b.wav")
    assert "ZeroDivisionError" in ignored.reason


def test_a_folder_that_cannot_be_listed_any_more_is_told_once(watched, monkeypatch):
    write_song(watched.root / "Album" / "a.wav")
    assert watched.songs(4.0) == [os.path.join("Album", "a.wav")]  # noqa: PTH118
    real = os.scandir

    def scandir(path):
        if str(path).endswith("Album"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        (event,) = watched.pass_time(100.0)
        assert (event.kind, event.song) == ("ignored", "Album")
        assert watched.watcher.incomplete
    assert watched.pass_time(100.0) == []
    assert not watched.watcher.incomplete


def test_once_waits_for_what_is_still_only_so_long(tmp_path):
    (tmp_path / "in").mkdir()
    watched = Watched(tmp_path, once=True)
    growing = watched.root / "growing.mp3"
    write_song(watched.root / "a.wav")
    found = []
    for second in range(20):
        growing.write_bytes(b"x" * (second + 1))
        found += watched.songs(1.0)
    assert found == ["a.wav"]
    assert watched.watcher.settled
    watched.store.close()


def test_events_are_followed_by_looks_and_the_rest_is_silence(watched):
    watched.pass_time(10.0)
    assert watched.watcher.step(watched.now) > 10.0
    watched.watcher._on_event()
    write_song(watched.root / "a.wav")
    assert watched.songs(3.0) == ["a.wav"]


@pytest.mark.parametrize("quarters", range(6))
def test_an_event_is_followed_up_within_a_second_however_soon_it_comes_after_a_look(watched, quarters):
    watched.pass_time(10.0)
    due = watched.now + watched.watcher.step(watched.now)
    while watched.now < due:
        watched.pass_time(0.25)
    watched.pass_time(0.25 * quarters)
    watched.watcher._on_event()
    write_song(watched.root / "a.wav")
    watched.now += 0.01
    assert watched.watcher.step(watched.now) <= 1.0
    assert watched.songs(4.0) == ["a.wav"]


def test_a_look_that_costs_much_is_repeated_seldom(watched, monkeypatch):
    watched.pass_time(5.0)
    spent = [0.0]

    def thread_time() -> float:
        spent[0] += 0.5
        return spent[0]

    monkeypatch.setattr(watcher.time, "thread_time", thread_time)
    watched.pass_time(40.0)
    assert watched.watcher.step(watched.now) > 60.0
    watched.watcher._on_event()
    write_song(watched.root / "a.wav")
    assert watched.songs(4.0) == ["a.wav"], "events are followed at once"
