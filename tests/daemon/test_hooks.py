"""Hooks in a real daemon: told once for each job, again with the same id after a kill, and no harm to any job."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli.program import run
from harness.stage import QUICK, DaemonProcess, DaemonThread, python_path, settings_in, until, write_song

from tsbs_daw.queue import errands
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.hooks import Hook
from tsbs_daw.watch.rules import After
from tsbs_daw.web.queue import QueueReader

KEEPS = "import sys; open(sys.argv[1], 'a').write(' '.join(sys.stdin.read().split()) + chr(10))"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", python_path())
    (tmp_path / "in").mkdir()
    return tmp_path


def keeping(path: Path) -> Hook:
    return Hook((sys.executable, "-c", KEEPS, str(path)))


def told(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_once(place: Path, **values: object) -> None:
    folder = WatchFolder(place / "in", place / "out", polling=True, **values)
    with DaemonThread(settings_in(place), (folder,), once=True) as daemon:
        daemon.wait()


def jobs(place: Path) -> dict[str, tuple[str, list[str]]]:
    """State and notes of every job, by song."""
    store = JobStore.open_for_reading(settings_in(place).store)
    try:
        found = store.rows()
        notes = errands.notes(store.database, [row.id for row in found])
        return {row.song: (row.state.value, notes.get(row.id, [])) for row in found}
    finally:
        store.close()


def shown_on_the_page(place: Path) -> dict[str, list[str]]:
    """The same notes, as the page has them."""
    reader = QueueReader(settings_in(place))
    try:
        return {job["song"]: job["afterwards"] for job in asyncio.run(reader.snapshot())["jobs"]}
    finally:
        reader.close()


def shown_as_json(place: Path) -> dict[str, list[str]]:
    """The same notes, as `jobs show --json` has them."""
    home = settings_in(place).home
    listed = json.loads(run(home, "jobs", "list", "--json").stdout)
    shown = [json.loads(run(home, "jobs", "show", job["id"], "--json").stdout) for job in listed]
    return {job["song"]: job["afterwards"] for job in shown}


def test_each_job_is_told_once_after_it_was_published_and_its_file_moved(place):
    for number, name in enumerate(("a", "b", "refuse this")):
        write_song(place / "in" / f"{name}.wav", number)
    write_song(place / "in" / "copy of a.wav", 0)
    done, failed = place / "done.txt", place / "failed.txt"
    hooks = {"on_done": keeping(done), "on_failed": keeping(failed), "after": After("move", place / "kept")}
    run_once(place, **hooks)
    run_once(place, **hooks)
    assert sorted((one["song"], one["event"]) for one in told(done)) == [
        ("a", "done"),
        ("b", "done"),
        ("copy of a", "done"),
    ]
    (failure,) = told(failed)
    assert (failure["event"], failure["state"], failure["folder"]) == ("failed", "failed", None)
    assert failure["error"]
    assert failure["source"] == failure["source_now"] == str(place / "in" / "refuse this.wav")
    for one in told(done):
        assert Path(one["manifest"]).is_file()
        assert all(Path(stem["path"]).is_file() for stem in one["stems"])
        assert one["source_now"] == str(place / "kept" / Path(one["source"]).name)
        assert Path(one["source_now"]).is_file()
    assert len({one["id"] for one in told(done) + told(failed)}) == 4
    assert {notes[-1] for _, notes in jobs(place).values()} == {
        f"on_done: called '{Path(sys.executable).name}'.",
        f"on_failed: called '{Path(sys.executable).name}'.",
    }


@pytest.mark.parametrize(
    ("code", "sentence"),
    [("raise SystemExit(7)", "ended with exit code 7."), ("import time; time.sleep(600)", "was stopped.")],
)
def test_a_hook_that_fails_or_hangs_is_said_and_harms_no_job(place, code, sentence):
    write_song(place / "in" / "a.wav")
    folder = WatchFolder(place / "in", place / "out", polling=True, on_done=Hook((sys.executable, "-c", code)))
    with DaemonThread(settings_in(place), (folder,), once=True, options=replace(QUICK, hook_s=0.5)) as daemon:
        daemon.wait()
    state, notes = jobs(place)["a"]
    assert state == "done"
    assert notes[0].startswith("on_done: ") and notes[0].endswith(sentence)
    assert [event.message for event in daemon.events if event.kind == "hook"] == notes
    assert shown_on_the_page(place)["a"] == shown_as_json(place)["a"] == notes


def test_a_daemon_that_is_killed_while_a_hook_runs_tells_it_again_with_the_same_id(place):
    out, go = place / "told.txt", place / "go"
    script = place / "hook.py"
    script.write_text(
        f"import os, sys, time\n{KEEPS.split('; ', 1)[1].replace('sys.argv[1]', repr(str(out)))}\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
    )
    config = place / "folders.yaml"
    command = json.dumps([sys.executable, str(script)])
    config.write_text(f"folders: [{{path: in, output: out, polling: true, on_done: {command}}}]")
    write_song(place / "in" / "a.wav")
    with DaemonProcess(settings_in(place), config=config) as daemon:
        until(lambda: told(out))
        daemon.kill()
    go.touch()
    with DaemonProcess(settings_in(place), config=config, once=True) as daemon:
        assert daemon.wait() == 0
    with DaemonProcess(settings_in(place), config=config, once=True) as daemon:
        assert daemon.wait() == 0
    assert len(told(out)) == 2
    assert len({one["id"] for one in told(out)}) == 1


def test_a_file_that_cannot_be_moved_yet_does_not_tell_the_hook_twice(place):
    write_song(place / "in" / "a.wav")
    rules = {"on_done": keeping(place / "told.txt"), "after": After("move", place / "kept" / "x")}
    folder = WatchFolder(place / "in", place / "out", polling=True, **rules)
    with DaemonThread(settings_in(place), (folder,)) as daemon:
        (place / "kept").touch()
        until(lambda: any(event.kind == "kept" for event in daemon.events))
        until(lambda: told(place / "told.txt"))
        (place / "kept").unlink()
        until(lambda: any(event.kind == "after" for event in daemon.events))
    assert len(told(place / "told.txt")) == 1
    assert (place / "kept" / "x" / "a.wav").is_file()
