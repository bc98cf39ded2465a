"""Notices on the desktop: which program shows them, what they say, and that nothing depends on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsbs_daw.cli import progress
from tsbs_daw.queue.jobs import Event

_SCRIPT = """#!/bin/sh
for part in "$@" "$TSBS_DAW_TITLE|$TSBS_DAW_TEXT"; do echo "$part" >> 'FILE'; done
exit 3
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with programs that write down how they were called."""
    for name in ("notify-send", "osascript", "powershell"):
        path = tmp_path / name
        path.write_text(_SCRIPT.replace("FILE", str(tmp_path / "called")))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_each_system_has_its_program_and_no_name_becomes_code(programs):
    title, text = "Separation done", "-x; $(rm) <b>'\" & co"
    linux = progress.notice_command(title, text, "linux")
    assert linux == [
        str(programs / "notify-send"),
        "--app-name=tsbs-daw",
        "--",
        title,
        "-x; $(rm) &lt;b&gt;'\" &amp; co",
    ]
    mac = progress.notice_command(title, text, "darwin")
    assert mac[0] == str(programs / "osascript") and mac[-2:] == [title, text]
    windows = progress.notice_command(title, text, "win32")
    assert windows[0] == str(programs / "powershell") and not any(text in part for part in windows)


def test_without_a_program_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [progress.notice_command("a", "b", system) for system in ("linux", "darwin", "win32")] == [None] * 3
    progress.show_notice("a", "b")


def test_every_event_is_passed_on_and_songs_that_end_together_are_one_notice(programs, monkeypatch):
    monkeypatch.setattr(progress, "_GATHER_S", 0.2)
    heard = []
    events = [
        Event("started", "1", "a"),
        Event("done", "1", "a"),
        Event("dead", "2", "b\nc"),
        Event("duplicate", "3", "d"),
    ]
    with progress.Notices(heard.append) as listener:
        for event in events:
            listener(event)
    assert heard == events
    called = (programs / "called").read_text().splitlines()
    assert called[-3:-1] == ["Songs: 1 done, 1 failed", "b c, a"] if os.name == "posix" else True
    assert called.count("Songs: 1 done, 1 failed") == 1


@pytest.mark.parametrize(
    ("songs", "said"),
    [
        ([("done", "a")], ("Separation done", "a")),
        ([("failed", "a")], ("Separation failed", "a")),
        ([("done", str(n)) for n in range(5)], ("Songs: 5 done", "0, 1, 2 and 2 more")),
    ],
)
def test_what_notices_say(songs, said):
    assert progress.notice_wording(songs) == said
