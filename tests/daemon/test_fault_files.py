"""Faults of files in a watch folder, by the rows of the reliability table. Those of processes: test_faults.py.

| row | case | test |
|---|---|---|
| 15 | 30,000 files at once | test_a_flood_of_files_is_found |
| 16 | slow copy with pauses | test_a_slow_copy_ends_with_its_final_content |
| 17 | preallocated, sparse | test_a_preallocated_file_ends_with_its_final_content |
| 18 | cp -p | test_an_old_mtime_makes_no_difference |
| 19 | file or folder moved in | test_what_is_moved_in_is_found |
| 20 | mkdir and write | test_a_file_in_a_folder_made_a_moment_ago_is_found |
| 21 | replaced while hashing | test_a_file_that_is_replaced_all_the_time_ends_with_its_final_content; test_watcher.py |
| 22 | renamed or deleted while it runs | test_a_song_that_goes_away_while_it_runs_is_finished |
| 23 | copies and hard links | test_copies_and_links_are_computed_once |
| 24 | symlink out, loop, FIFO | test_what_is_no_file_is_ignored_with_one_line_each |
| 25 | own outputs under the watch root | test_our_own_outputs_are_never_taken_for_songs |
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from harness.repeats import repeated, rounds
from harness.stage import (
    QUICK,
    DaemonThread,
    ignored,
    let_go,
    lines,
    python_path,
    rows,
    settings_in,
    until,
    visible_sets,
    wav_bytes,
    write_song,
)
from harness.tally import Tally
from timeouts import PATIENCE_S

from tsbs_daw.contracts.job import State
from tsbs_daw.core.config import Settings
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.ingest import Budget
from tsbs_daw.watch.watcher import make_watchers

# What a file's header promises is waited for longer than any test takes.
WAITING = replace(QUICK, local=replace(QUICK.local, incomplete_s=PATIENCE_S))


@pytest.fixture(autouse=True)
def _workers_find_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


class Place:
    """A watch folder, its output, and a daemon on both."""

    def __init__(self, folder: Path, *, output: str = "out"):
        self.settings: Settings = settings_in(folder)
        self.root, self.output = folder / "in", folder / output
        self.root.mkdir()
        self.folder = WatchFolder(self.root, self.output)

    def daemon(self, **values: object) -> DaemonThread:
        return DaemonThread(self.settings, (self.folder,), **values)

    def published(self) -> list[str]:
        """SHA-256 of every source whose stems were published, in order."""
        return [line.rsplit(" ", 1)[1] for line in lines(self.settings, "published.log")]

    def wait_for(self, *contents: bytes) -> None:
        """Until their stems are published, and the daemon has written that down."""
        wanted = {hashlib.sha256(content).hexdigest() for content in contents}
        until(lambda: wanted <= set(self.published()) and not rows(self.settings, State.RUNNING))

    def count(self, tally: Tally, wanted: Collection[str], *, exactly: bool = True) -> None:
        """Add one fault, and what it did here."""
        tally.faults += 1
        tally.count(self.settings, self.output, wanted, exactly=exactly)

    def states(self) -> list[State]:
        return [row.state for row in rows(self.settings)]


@pytest.mark.parametrize("count", [2000, pytest.param(30_000, marks=pytest.mark.long)])
def test_a_flood_of_files_is_found(tmp_path, count):
    place = Place(tmp_path)
    place.settings.home.mkdir()
    for number in range(count):
        folder = place.root / f"{number // 1000}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.wav").touch()
    store = JobStore.open(place.settings.store)
    full = Budget(1)
    full.take(2)  # so that nothing is copied while they are counted
    (watcher,) = make_watchers((place.folder,), place.settings, store, full, QUICK)
    watcher.start()
    until(lambda: watcher.pending == count)
    watcher.stop()
    store.close()
    assert watcher.failure is None


@repeated(50)
def test_a_slow_copy_ends_with_its_final_content(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        place, content = Place(folder), bytes(range(256)) * 30
        with place.daemon(), (place.root / "a.mp3").open("wb") as file:
            for part in range(3):
                file.write(content[part * 2560 : (part + 1) * 2560])
                file.flush()
                time.sleep(0.6)  # longer than a file must stand still
            place.wait_for(content)
        assert place.states()[-1] is State.DONE
        place.count(tally, ["a"], exactly=False)  # what stands still for too long counts as a version of its own


@repeated(50)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_preallocated_file_ends_with_its_final_content(tmp_path, tally, sparse, times):
    for folder in rounds(tmp_path, times):
        place, content = Place(folder), wav_bytes(samples=4000)
        with place.daemon(), (place.root / "a.wav").open("wb") as file:
            if sparse:
                file.truncate(len(content))
            else:
                file.write(bytes(len(content)))
            for start in range(0, len(content), 3000):
                file.seek(start)
                file.write(content[start : start + 3000])
                file.flush()
                time.sleep(0.4)
            place.wait_for(content)
        assert place.states()[-1] is State.DONE
        place.count(tally, ["a"], exactly=False)  # what stands still for too long counts as a version of its own


@repeated(50)
def test_an_old_mtime_makes_no_difference(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        place, original = Place(folder), write_song(folder / "original.wav")
        os.utime(original, (1, 1))
        with place.daemon():
            shutil.copy2(original, place.root / "a.wav")
            place.wait_for(original.read_bytes())
        assert place.states() == [State.DONE]
        place.count(tally, ["a"])


@repeated(200)
def test_what_is_moved_in_is_found(tmp_path, tally, times):
    place = Place(tmp_path)
    with place.daemon():
        for number, folder in enumerate(rounds(tmp_path, times)):
            file = write_song(folder / "file.wav", 2 * number)
            album = write_song(folder / "album" / "track.wav", 2 * number + 1).parent
            file.rename(place.root / f"file {number}.wav")
            album.rename(place.root / f"album {number}")
            place.wait_for(wav_bytes(2 * number), wav_bytes(2 * number + 1))
    assert set(place.states()) == {State.DONE}
    tally.faults += 2 * times
    tally.count(place.settings, place.output, [f"file {number}" for number in range(times)] + ["track"] * times)


@repeated(500, short=3)
def test_a_file_in_a_folder_made_a_moment_ago_is_found(tmp_path, tally, times):
    place = Place(tmp_path)
    with place.daemon():
        for number in range(times):
            write_song(place.root / f"{number}" / "deep" / "er" / "a.wav", number)
            place.wait_for(wav_bytes(number))
    assert place.states() == [State.DONE] * times
    tally.faults += times
    tally.count(place.settings, place.output, ["a"] * times)


@repeated(100, short=15)
def test_a_file_that_is_replaced_all_the_time_ends_with_its_final_content(tmp_path, tally, times):
    place = Place(tmp_path)
    with place.daemon():
        for number in range(times):
            write_song(place.root / "new.tmp", number).replace(place.root / "a.wav")
            time.sleep(0.02 + (number % 5) * 0.08)
        place.wait_for(wav_bytes(times - 1))
    known = {hashlib.sha256(wav_bytes(number)).hexdigest() for number in range(times)}
    assert set(place.published()) <= known  # never half of one and half of another
    assert place.states()[-1] is State.DONE
    tally.faults += times
    tally.count(place.settings, place.output, ["a"], exactly=False)


@repeated(50)
@pytest.mark.parametrize("deed", ["rename", "delete", "truncate"])
def test_a_song_that_goes_away_while_it_runs_is_finished(tmp_path, tally, deed, times):
    for folder in rounds(tmp_path, times):
        place = Place(folder)
        path = write_song(place.root / "held.wav")
        with place.daemon(options=WAITING):
            until(lambda place=place: lines(place.settings, "runs.log"))
            if deed == "rename":
                path.rename(place.root / "held too.wav")
            elif deed == "delete":
                path.unlink()
            else:
                path.write_bytes(b"")
            let_go(place.settings, "held")
            place.wait_for(wav_bytes())
            if deed == "rename":
                until(lambda place=place: State.DUPLICATE in place.states())
        assert len(lines(place.settings, "runs.log")) == 1
        place.count(tally, ["held"])


@repeated(50)
def test_copies_and_links_are_computed_once(tmp_path, tally, times):
    for folder in rounds(tmp_path, times):
        place = Place(folder)
        original = write_song(place.root / "a.wav")
        shutil.copy(original, place.root / "b.wav")
        os.link(original, place.root / "c.wav")
        with place.daemon(once=True) as daemon:
            daemon.wait()
        os.link(original, place.root / "d.wav")  # which also changes the ctime of a.wav
        with place.daemon(once=True) as daemon:
            daemon.wait()
        assert len(lines(place.settings, "runs.log")) == 1
        assert place.states() == [State.DONE] + [State.DUPLICATE] * 3
        place.count(tally, [rows(place.settings, State.DONE)[0].song])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@repeated(20)
def test_what_is_no_file_is_ignored_with_one_line_each(tmp_path, tally, caplog, times):
    for folder in rounds(tmp_path, times):
        place = Place(folder)
        outside = write_song(folder / "outside.wav")
        (place.root / "out.wav").symlink_to(outside)
        (place.root / "loop.wav").symlink_to(place.root / "loop.wav")
        (place.root / "up").symlink_to(place.root, target_is_directory=True)
        os.mkfifo(place.root / "pipe.wav")
        write_song(place.root / "a.wav", 1)
        caplog.clear()
        with caplog.at_level(logging.INFO), place.daemon():
            place.wait_for(wav_bytes(1))
            (place.root / "again.txt").touch()
            until(lambda place=place: len(ignored(place.settings)) == 5)
        assert ignored(place.settings) == {
            "out.wav",
            "loop.wav",
            "up",
            "pipe.wav",
            "again.txt",
        }
        told = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
        assert len(told) == 5, told
        assert len(place.states()) == 1
        place.count(tally, ["a"])


@pytest.mark.parametrize("output", ["in/stems", "in", "in/deep/er"])
@pytest.mark.parametrize("scans", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_our_own_outputs_are_never_taken_for_songs(tmp_path, output, scans):
    place = Place(tmp_path, output=output)
    write_song(place.root / "a.wav")
    with place.daemon(once=True) as daemon:
        daemon.wait()
    moved = visible_sets(place.output)[-1].rename(place.root / "moved by the user")
    assert (moved / "vocals.wav").exists()
    store = JobStore.open(place.settings.store)
    options = replace(QUICK, share=replace(QUICK.share, rescan_s=0.1))
    watched = replace(place.folder, polling=True)
    (watcher,) = make_watchers((watched,), place.settings, store, Budget(1 << 30), options)
    now = 0.0
    for _ in range(scans):
        now += 2.0
        watcher.step(now)
    store.close()
    assert watcher.news() == []
    assert watcher.pending == 0
    assert place.states() == [State.DONE]
