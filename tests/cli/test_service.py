"""`tsbs-daw service` as a real program, with a systemctl that only writes down how it was called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli.program import run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fake is systemd's")

_SYSTEMCTL = """#!/bin/sh
echo "$@" >> 'FOLDER/calls'
[ ! -e 'FOLDER/broken' ] || { echo 'Failed to connect to bus' >&2; exit 1; }
[ "$2" != is-active ] || echo active
"""


class Login:
    """A home with a systemctl of its own."""

    def __init__(self, folder: Path):
        self.folder, self.unit = folder, folder / "config" / "systemd" / "user" / "tsbs-daw.service"
        programs = folder / "bin"
        programs.mkdir()
        (programs / "systemctl").write_text(_SYSTEMCTL.replace("FOLDER", str(folder)))
        (programs / "systemctl").chmod(0o755)
        self.environment = {"PATH": str(programs), "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}

    def service(self, *arguments: str):
        return run(self.folder / "data home", "service", *arguments, **self.environment)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def login(tmp_path: Path) -> Login:
    return Login(tmp_path)


def test_it_is_installed_shown_and_removed(login):
    config = login.folder / "my folders.yaml"
    config.write_text("folders: [{path: in, output: out}]")
    done = login.service("install", "--config", str(config), "--notify")
    assert (done.returncode, done.stderr) == (0, "")
    text = login.unit.read_text()
    assert f'"watch" "--config" "{config}" "--notify"' in text
    assert f'Environment="TSBS_DAW_HOME={login.folder}/data home"' in text
    assert login.calls == ["--user daemon-reload", "--user enable tsbs-daw.service", "--user restart tsbs-daw.service"]
    shown = login.service("status")
    assert shown.returncode == 1  # no daemon runs behind this systemctl
    assert all(part in shown.stdout for part in (str(login.unit), "active", "does not run", "watch.log", "journalctl"))
    removed = login.service("remove")
    assert (removed.returncode, removed.stdout) == (0, f"Removed {login.unit}.\n")
    assert not login.unit.exists()
    assert login.calls[-2:] == ["--user disable --now tsbs-daw.service", "--user daemon-reload"]
    assert login.service("remove").stdout == "The service is not installed.\n"
    assert "not installed" in login.service("status").stdout


def test_a_dry_run_changes_nothing(login):
    done = login.service("install", "--dry-run")
    assert done.returncode == 0
    assert "[Service]" in done.stdout and "systemctl --user restart tsbs-daw.service" in done.stdout
    assert login.service("remove", "--dry-run").returncode == 0
    assert not login.unit.exists() and login.calls == []


def test_mistakes_are_one_sentence_before_anything_is_written(login):
    config = login.folder / "folders.yaml"
    config.write_text("folders: [{path: in, output: out, after: burn}]")
    done = login.service("install", "--config", str(config))
    assert done.returncode == 2
    assert "'burn' is not `keep`" in done.stderr and done.stderr.count("\n") == 1
    login.environment["PATH"] = "/nowhere"
    done = login.service("install")
    assert done.returncode == 2
    assert "`systemctl` is not on this system" in done.stderr and done.stderr.count("\n") == 1
    assert not login.unit.exists()


def test_a_system_that_does_not_answer_is_said(login):
    (login.folder / "broken").touch()
    done = login.service("install")
    assert done.returncode == 1
    assert "`systemctl --user daemon-reload` failed: Failed to connect to bus" in done.stderr
    assert login.unit.exists()
