"""The scripts in an Ardour: put there, found, taken out again."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cli.program import run

from tsbs_daw.core.errors import SettingsError, UsageError
from tsbs_daw.integrations import ardour
from tsbs_daw.integrations.ardour import find_folders, usual_place, version_of

NAMES = {"TSBS-DAW: background", "TSBS-DAW: separate selected regions", "TSBS-DAW: jobs"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "ardour7"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("platform", "environment", "place"),
    [
        ("linux", {"HOME": "/home/a"}, "/home/a/.config"),
        ("linux", {"HOME": "/home/a", "XDG_CONFIG_HOME": "/etc/a"}, "/etc/a"),
        ("darwin", {"HOME": "/Users/a"}, "/Users/a/Library/Preferences"),
        ("win32", {"LOCALAPPDATA": "/C/a/Local"}, "/C/a/Local"),
        ("win32", {"USERPROFILE": "/C/a"}, "/C/a/AppData/Local"),
    ],
)
def test_the_usual_place_is_that_of_the_platform(platform: str, environment: dict[str, str], place: str):
    assert usual_place(platform, environment) == Path(place)


def test_every_version_that_was_started_is_found_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tsbs_daw.integrations.ardour.usual_place", lambda: tmp_path)
    with pytest.raises(UsageError, match="start Ardour once"):
        find_folders()
    for name in ("ardour10", "Ardour8", "ardour7", "ardour3", "ardour", "other"):
        (tmp_path / name).mkdir()
    assert [version_of(folder) for folder in find_folders()] == [7, 8, 10]


def test_installing_and_uninstalling_leaves_nothing(config: Path):
    spool = config / 'a "spool" ♪'
    found = ardour.install(config, spool, preset="karaoke")
    assert found.complete and set(found.in_use) == NAMES and found.spool == spool.as_posix()
    assert 'local PRESET = "karaoke"' in (config / "scripts" / "tsbs-daw_separate_region.lua").read_text()
    assert ardour.install(config, spool) == found
    left = ardour.uninstall(config)
    assert not left.files and not left.in_use
    assert [path.name for path in config.rglob("*")] == ["scripts"]


def test_other_scripts_stay_and_the_list_is_kept_as_it_was(config: Path):
    theirs = ardour.add_scripts(b"", [ardour.Script("theirs", "-- theirs", hook=True)], ardour.SIGNALS[7])
    (config / "ui_scripts").write_bytes(theirs)
    ardour.install(config, config)
    ardour.install(config, config)
    assert (config / ardour.BACKUP).read_bytes() == theirs
    ardour.uninstall(config)
    assert ardour.registered_scripts((config / "ui_scripts").read_bytes()) == {"theirs"}


def test_a_version_that_was_not_tried_gets_the_files_and_is_told_the_rest(tmp_path: Path):
    config = tmp_path / "ardour10"
    config.mkdir()
    found = ardour.install(config, tmp_path)
    assert len(found.files) == 3 and set(found.missing) == NAMES and not (config / "ui_scripts").exists()


def test_a_list_that_cannot_be_understood_is_left_alone(config: Path):
    (config / "ui_scripts").write_bytes(b"<UIScripts>")
    with pytest.raises(SettingsError, match="Script Manager"):
        ardour.install(config, config)
    assert (config / "ui_scripts").read_bytes() == b"<UIScripts>"


@pytest.mark.skipif(shutil.which("luac5.3") is None, reason="luac5.3 is not installed")
def test_every_script_compiles(tmp_path: Path):
    # Ardour crashes when it opens a session with a script that does not.
    for name, script in ardour.scripts(tmp_path / 'odd " name').items():
        for text in (script.text, script.program):
            (tmp_path / name).write_text(text, encoding="utf-8")
            done = subprocess.run(["luac5.3", "-p", str(tmp_path / name)], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_command_installs_reports_and_uninstalls(config: Path, tmp_path: Path):
    home = tmp_path / "home"
    assert run(home, "ardour", "status", "--config", config).returncode == 1
    done = run(home, "ardour", "install", "--config", config)
    assert done.returncode == 0 and all(name in done.stdout for name in NAMES)
    status = run(home, "ardour", "status", "--config", config, "--json")
    (folder,) = json.loads(status.stdout)["folders"]
    assert status.returncode == 0 and set(folder["in_use"]) == NAMES
    assert folder["spool"] == (home / "spool").as_posix()
    assert run(home, "ardour", "uninstall", "--config", config).returncode == 0
    assert run(home, "ardour", "status", "--config", config).returncode == 1
    assert run(home, "ardour", "install", "--config", config / "gone").returncode == 2
