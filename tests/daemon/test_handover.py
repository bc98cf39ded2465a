"""A second `tsbs-daw watch` beside a running one: its folders go to the daemon that is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli.program import run
from harness.stage import DaemonProcess, DaemonThread, lines, python_path, settings_in, until, write_song

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.core.locks import running_daemon
from tsbs_daw.daemon.takeover import take_over
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.watch.folders import WatchFolder, as_yaml, load_folders
from tsbs_daw.watch.hooks import Hook
from tsbs_daw.watch.rules import After, Hours, Patterns, Subfolder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", python_path())
    for name in ("in", "second in"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_folders_survive_the_way_to_the_other_daemon_as_they_are(tmp_path):
    script = tmp_path / "tell"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    asked = Treatment(preset="karaoke", delivery=DeliveryOptions(format="flac24", loudness_lufs=-14.0))
    folders = (
        WatchFolder(tmp_path / "Übung 音楽 🎵", tmp_path / "out: 'a'"),
        WatchFolder(
            tmp_path / "b",
            tmp_path / "out",
            asked,
            recursive=False,
            polling=True,
            after=After("move", tmp_path / "done it"),
            patterns=Patterns(("*.wav",), ("demos", "a/*")),
            hours=Hours.parse("22:00-06:00, 12:00-13:30"),
            songs_at_once=2,
            subfolders=(Subfolder("k", Treatment(model="musdb18"), After("delete")),),
            on_done=Hook((str(script), "a b")),
            on_failed=Hook(url="https://hooks.example.org/x?token=1"),
        ),
    )
    path = tmp_path / "handed.yaml"
    path.write_text(as_yaml(folders), encoding="utf-8")
    assert load_folders(path) == folders


def test_a_second_watch_hands_its_folder_over_and_ends(place):
    settings = settings_in(place)
    with DaemonProcess(settings, (WatchFolder(place / "in", place / "out"),)) as daemon:
        until(lambda: (settings.spool / "heartbeat.json").exists())
        done = run(settings.home, "watch", place / "second in", "--out", place / "second out")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"process {daemon.process.pid}) watches {place / 'second in'}" in done.stdout
        write_song(place / "second in" / "a.wav")
        until(lambda: lines(settings, "published.log"))
        assert (place / "second out" / "a" / "vocals.wav").is_file()
        bare = run(settings.home, "watch")
        assert (bare.returncode, "already running" in bare.stdout) == (0, True)
        (place / "third").mkdir()
        inside = run(settings.home, "watch", place / "third", "--out", place / "in" / "stems")
        assert inside.returncode == 1
        assert "which is watched already" in inside.stderr and inside.stderr.count("\n") == 1
        assert daemon.process.poll() is None
    assert list((settings.spool / "handover").iterdir()) == []


def test_a_daemon_that_was_killed_is_not_taken_for_a_running_one(place):
    settings = settings_in(place)
    with DaemonProcess(settings) as daemon:
        until(lambda: (settings.spool / "heartbeat.json").exists())
        assert running_daemon(settings.home).owner == daemon.process.pid
        daemon.kill()
    assert running_daemon(settings.home) is None


def test_a_folder_that_another_home_watches_is_refused_and_the_daemon_goes_on(place):
    folder = WatchFolder(place / "second in", place / "out", polling=True)
    with DaemonThread(settings_in(place / "a"), (folder,)), DaemonThread(settings_in(place / "b")) as other:
        with pytest.raises(DaemonError, match="already watches"):
            other.daemon.watch([folder])
        assert other.error is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("shared", ["group", "link"])
def test_a_handover_folder_that_others_may_write_to_is_not_read(place, shared):
    folder = place / "spool" / "handover"
    target = folder if shared == "group" else place / "elsewhere"
    target.mkdir(parents=True)
    folder.parent.mkdir(exist_ok=True)
    if shared == "link":
        folder.symlink_to(target)
    (target / "a.yaml").write_text(as_yaml([WatchFolder(place / "in", place / "out")]))
    target.chmod(0o770 if shared == "group" else 0o700)
    taken: list[WatchFolder] = []
    take_over(place / "spool", taken.extend)
    assert taken == []
    if shared == "group":
        target.chmod(0o700)
        take_over(place / "spool", taken.extend)
        assert [one.path for one in taken] == [place / "in"]
