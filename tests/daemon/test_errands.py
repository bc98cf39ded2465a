"""What the daemon does with a song's file once it is done: kept, moved or deleted, through kills, returns and hours."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness.stage import (
    QUICK,
    DaemonProcess,
    DaemonThread,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    settings_in,
    until,
    write_song,
)

from tsbs_daw.contracts.job import State, Treatment
from tsbs_daw.queue import errands
from tsbs_daw.queue.spool import submit
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.rules import After, Hours, Patterns, Subfolder


class Place:
    """A home, a watch folder, and where its songs are moved to."""

    def __init__(self, folder: Path):
        self.settings, self.root, self.done, self.out = (
            settings_in(folder),
            folder / "in",
            folder / "done",
            folder / "out",
        )
        self.root.mkdir()

    def watch(self, after: str = "keep", **values: object) -> WatchFolder:
        rule = After.parse(after.replace("DONE", str(self.done)), Path())
        return WatchFolder(self.root, self.out, after=rule, polling=True, **values)

    def run_once(self, folder: WatchFolder, **values: object) -> DaemonThread:
        with DaemonThread(self.settings, (folder,), once=True, **values) as daemon:
            daemon.wait()
        return daemon

    def notes(self) -> list[str]:
        store = JobStore.open_for_reading(self.settings.store)
        try:
            return [note for row in store.rows() for note in errands.notes(store.database, [row.id]).get(row.id, [])]
        finally:
            store.close()

    def songs(self, folder: Path) -> list[str]:
        return sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and ".lock" not in path.name
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return Place(tmp_path)


def test_songs_are_moved_with_their_subfolders_and_failed_ones_stay(place):
    write_song(place.root / "a.wav")
    write_song(place.root / "x" / "b.wav", 1)
    write_song(place.root / "refuse me.wav", 2)
    daemon = place.run_once(place.watch("move DONE"))
    assert place.songs(place.done) == ["a.wav", "x/b.wav"]
    assert place.songs(place.root) == ["refuse me.wav"]
    assert sorted(event.kind for event in daemon.events if event.kind in ("after", "kept")) == ["after", "after"]
    assert sum("was moved to" in note for note in place.notes()) == 2


def test_a_subfolder_can_ask_for_something_else(place):
    for number, name in enumerate(("a.wav", "keep/b.wav")):
        write_song(place.root / name, number)
    keep = Subfolder("keep", Treatment(), After())
    place.run_once(place.watch("delete", subfolders=(keep,)))
    assert place.songs(place.root) == ["keep/b.wav"]
    assert len(lines(place.settings, "published.log")) == 2


def test_a_duplicate_and_a_song_that_comes_back_go_the_same_way(place):
    write_song(place.root / "a.wav")
    write_song(place.root / "same.wav")
    place.run_once(place.watch("delete"))
    assert place.songs(place.root) == []
    write_song(place.root / "a.wav")
    place.run_once(place.watch("delete"))
    assert place.songs(place.root) == []
    assert len(lines(place.settings, "published.log")) == 1


def test_songs_that_were_done_before_the_rule_came_stay(place):
    write_song(place.root / "old.wav")
    place.run_once(place.watch())
    write_song(place.root / "new.wav", 1)
    place.run_once(place.watch("delete"))
    assert place.songs(place.root) == ["old.wav"]


def test_a_target_that_comes_back_is_tried_again_and_once_says_so(place):
    write_song(place.root / "a.wav")
    place.done.touch()  # the mount point is not a folder now
    folder = place.watch("move DONE/x")
    place.done.unlink()
    with DaemonThread(place.settings, (folder,), once=True) as daemon:
        place.done.touch()
        daemon.wait()
    assert daemon.daemon.incomplete
    assert place.songs(place.root) == ["a.wav"]
    assert "It will be retried." in place.notes()[0]
    place.done.unlink()
    daemon = place.run_once(folder)
    assert place.songs(place.done) == ["x/a.wav"]
    assert not daemon.daemon.incomplete


@pytest.mark.parametrize("after", ["move DONE"])
@pytest.mark.parametrize(
    "step",
    [
        "store:JobStore.finish:after",
        "tsbs_daw.daemon.errand_runner:ErrandRunner._begin:before",
        "tsbs_daw.daemon.errand_runner:ErrandRunner._do:before",
        "tsbs_daw.daemon.errand_runner:ErrandRunner._do:after",
        "tsbs_daw.daemon.errand_runner:ErrandRunner._record_reports:after",
    ],
)
def test_a_kill_at_any_step_loses_no_file(place, tmp_path, after, step):
    path = write_song(place.root / "a.wav")
    content = path.read_bytes()
    config = tmp_path / "folders.yaml"
    asked = after.replace("DONE", "done")
    config.write_text(f"folders: [{{path: in, output: out, polling: true, after: {asked}}}]", encoding="utf-8")
    with DaemonProcess(place.settings, once=True, config=config, die_at=step) as daemon:
        assert daemon.wait() == 137
    with DaemonProcess(place.settings, once=True, config=config) as daemon:
        assert daemon.wait() == 0
    assert place.songs(place.root) == []
    assert after == "delete" or place.songs(place.done) == ["a.wav"]
    assert after == "delete" or (place.done / "a.wav").read_bytes() == content
    assert len(lines(place.settings, "published.log")) == 1


def test_outside_the_hours_songs_wait_and_a_daw_does_not(place):
    write_song(place.root / "a.wav")
    minute = (time.localtime().tm_hour * 60 + time.localtime().tm_min + 720) % 1440
    away = Hours(((minute, (minute + 60) % 1440),))
    job = job_for(place.root.parent, "from the DAW", priority="interactive", origin="reaper")
    with DaemonThread(place.settings, (place.watch(hours=away),)) as daemon:
        until(lambda: any(event.kind == "queued" for event in daemon.events))
        submit(place.settings.spool, job)
        until(lambda: result_of(place.settings, job))
        assert result_of(place.settings, job).state is State.DONE
        assert [event.message for event in daemon.events if event.kind == "held"]
    assert not any(line.split()[-1] == "a" for line in lines(place.settings, "runs.log"))
    place.run_once(place.watch(hours=away))  # somebody wants them now
    assert len(lines(place.settings, "published.log")) == 2


def test_no_more_songs_of_a_folder_run_at_once_than_it_allows(place):
    names = [f"held {number}" for number in range(3)]
    for number, name in enumerate(names):
        write_song(place.root / f"{name}.wav", number)
    job = job_for(place.root.parent, "held too", seed=9)
    options = replace(QUICK, songs_at_once=3)
    with DaemonThread(place.settings, (place.watch(songs_at_once=1),), options=options):
        until(lambda: len(lines(place.settings, "runs.log")) == 1)
        submit(place.settings.spool, job)
        until(lambda: len(lines(place.settings, "runs.log")) == 2)
        let_go(place.settings, "held too")
        until(lambda: result_of(place.settings, job))
        assert len(lines(place.settings, "runs.log")) == 2
        let_go(place.settings, *names)
        until(lambda: len(lines(place.settings, "published.log")) == 4)


def test_what_the_patterns_leave_out_is_taken_when_they_change(place):
    for number, name in enumerate(("a.wav", "b.mp3.wav")):
        write_song(place.root / name, number)
    daemon = place.run_once(place.watch(patterns=Patterns(exclude=("*.mp3.*",))))
    assert [event.file for event in daemon.events if event.kind == "ignored"] == [str(place.root / "b.mp3.wav")]
    place.run_once(place.watch())
    assert len(lines(place.settings, "published.log")) == 2


def test_each_subfolder_has_its_own_treatment_and_a_changed_one_separates_anew(place):
    for number, name in enumerate(("a.wav", "x/b.wav")):
        write_song(place.root / name, number)

    def presets() -> dict[str, str]:
        store = JobStore.open_for_reading(place.settings.store)
        try:
            return {row.song: row.job.stage for row in sorted(store.rows(), key=lambda row: row.seq)}
        finally:
            store.close()

    def rule(stage: str) -> tuple[Subfolder, ...]:
        return (Subfolder("x", Treatment(stage=stage), After()),)

    place.run_once(place.watch(subfolders=rule("mask")))
    assert presets() == {"a": "full", "b": "mask"}
    place.run_once(place.watch(subfolders=rule("mask")))
    assert len(lines(place.settings, "runs.log")) == 2
    place.run_once(place.watch(subfolders=rule("full")))
    assert presets() == {"a": "full", "b": "full"}
    assert len(lines(place.settings, "runs.log")) == 3
