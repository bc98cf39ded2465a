"""What the system or the installation is the cause of: one sentence and no talk of a bug."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.program import environment, run
from harness.stage import write_song

from tsbs_daw.cli import console


def failing(home: Path, error: str) -> subprocess.CompletedProcess[str]:
    """The program, with a command that raises `error`."""
    code = (
        "import sys\nfrom tsbs_daw import __main__, cli\n"
        f"def failing(entry, arguments): raise {error}\n"
        "cli.run = failing\nsys.argv = ['tsbs-daw', 'jobs', 'list']\n__main__.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(home), capture_output=True, text=True, check=False
    )


def test_missing_rights_are_told_with_the_file_and_no_traceback(tmp_path: Path):
    """Also where the home itself is refused, so that no traceback can be kept."""
    (tmp_path / "home").write_text("a file where the home should be")
    for home in (tmp_path, tmp_path / "home"):
        done = failing(home, "PermissionError(13, 'Permission denied', '/locked/song.wav')")
        assert done.returncode == 1
        assert done.stderr == (
            "tsbs-daw: Cannot access '/locked/song.wav' (Permission denied). Check its permissions, "
            "or choose another location.\n"
        )


def test_a_full_disk_is_told_with_what_did_not_fit():
    assert "Cannot write '/x/run': the disk is full." in console.system_error(OSError(errno.ENOSPC, "full", "/x/run"))
    assert console.system_error(OSError(errno.EBADF, "bad")) is None, "a bug"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_does_not_fit_is_no_bug(tmp_path: Path, unbuffered: str):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tsbs_daw", "--help"],
            env=environment(tmp_path, PYTHONUNBUFFERED=unbuffered), stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("tsbs-daw: Cannot write the output: the disk is full")
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_is_named(tmp_path: Path):
    done = failing(tmp_path, "ModuleNotFoundError('No module', name='lightning_fabric')")
    assert done.returncode == 2
    assert done.stderr == (
        "tsbs-daw: This command needs lightning-fabric, which is not installed. Run: pip install 'tsbs-daw[train]'\n"
    )
    assert console.missing_package(ModuleNotFoundError(name="numpy")) is None, "no extra's, so a bug"


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(tmp_path: Path, closed: str):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m tsbs_daw jobs list {closed}', sys.executable],
        env=environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert run(tmp_path, "jobs", "list").stdout == "There are no jobs.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_line_that_does_not_fit_is_lost_without_a_word(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "jobs.log").symlink_to("/dev/full")
    code = (
        "import logging, sys\nfrom tsbs_daw import __main__, cli\n"
        "def saying(entry, arguments): logging.getLogger('tsbs_daw').info('hello'); return 0\n"
        "cli.run = saying\nsys.argv = ['tsbs-daw', 'jobs', 'list']\n__main__.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command", ["separate", "watch", "batch", "submit", "jobs list", "models list", "presets list"]
)
def test_a_home_that_cannot_be_made_is_one_sentence_that_names_the_variable(tmp_path, command):
    home = tmp_path / "file" / "home"
    home.parent.write_bytes(b"no folder")
    (tmp_path / "in").mkdir()
    song = write_song(tmp_path / "in" / "a.wav")
    what = {"separate": [song], "submit": [song], "watch": [song.parent, "--once"], "batch": [song.parent]}
    places = [*what.get(command, []), "--out", tmp_path / "out"] if command in what else []
    done = run(home, *command.split(), *places)
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
    if command in what:
        assert done.returncode == 2
        assert done.stderr.count("TSBS_DAW_HOME") == 1
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 0 or "TSBS_DAW_HOME" in done.stderr


@pytest.mark.parametrize("kind", ["file", "dangling link", "too long", "proc"])
def test_whatever_keeps_a_home_from_being_made_is_one_sentence(tmp_path, kind):
    home = {"too long": tmp_path / ("h" * 300), "proc": Path("/proc/tsbs-daw")}.get(kind, tmp_path / "home")
    if kind == "file":
        home.write_bytes(b"no folder")
    elif kind == "dangling link":
        home.symlink_to(tmp_path / "away" / "home")
    done = run(home, "submit", write_song(tmp_path / "a.wav"), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "TSBS_DAW_HOME" in done.stderr
    assert len(done.stderr.splitlines()) == 1
