"""`tsbs-daw reaper`: the real program on a REAPER's folder, and the daemon that the scripts start."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli.program import environment, run
from timeouts import PATIENCE_S

from tsbs_daw.core.config import resource_folder


@pytest.fixture
def resource(tmp_path: Path) -> Path:
    folder = tmp_path / "REAPER"
    folder.mkdir()
    (folder / "reaper.ini").touch()
    return folder


def test_install_status_uninstall(resource: Path, tmp_path: Path):
    home = tmp_path / "home"
    before = run(home, "reaper", "status", "--resource", resource)
    assert before.returncode == 1 and "is not installed" in before.stdout
    done = run(home, "reaper", "install", "--resource", resource)
    assert done.returncode == 0 and "actions." in done.stdout, done.stderr
    settings = json.loads((resource / "Data/TSBS-DAW/installed.json").read_text(encoding="utf-8"))
    assert settings["spool"] == str(home / "spool") and len(settings["stems"]) == 4
    assert {path.stem for path in resource_folder("presets").glob("*.yaml")} <= {p["name"] for p in settings["presets"]}
    found = json.loads(run(home, "reaper", "status", "--resource", resource, "--json").stdout)
    assert found["missing"] == [] and found["daemon"] is None
    elsewhere = run(tmp_path / "other", "reaper", "status", "--resource", resource)
    assert "Install again" in elsewhere.stdout
    assert run(home, "reaper", "uninstall", "--resource", resource).returncode == 0
    assert run(home, "reaper", "status", "--resource", resource).returncode == 1


def test_a_users_own_presets_are_in_the_chooser_and_have_actions(resource: Path, tmp_path: Path):
    home = tmp_path / "home"
    (home / "presets").mkdir(parents=True)
    (home / "presets" / "my choir.yaml").write_text(
        "description: Voices, as I like them.\noutputs:\n  - {name: choir, from: [vocals]}\n"
    )
    (home / "presets" / "broken.yaml").write_text("outputs: [")
    done = run(home, "reaper", "install", "--resource", resource)
    assert done.returncode == 0 and "broken.yaml" in done.stderr and "It is not offered in REAPER" in done.stderr
    settings = json.loads((resource / "Data/TSBS-DAW/installed.json").read_text(encoding="utf-8"))
    (mine,) = [preset for preset in settings["presets"] if preset["name"] == "my choir"]
    assert mine == {"name": "my choir", "description": "Voices, as I like them.", "outputs": ["choir"]}
    action = resource / "Scripts/TSBS-DAW/tsbs-daw_Separate selected items (my choir).lua"
    assert 'preset = "my choir"' in action.read_text(encoding="utf-8")
    assert f'"TSBS-DAW/{action.name}"' in (resource / "reaper-kb.ini").read_text(encoding="utf-8")
    (home / "presets" / "my choir.yaml").unlink()
    run(home, "reaper", "install", "--resource", resource)
    assert not action.exists()
    run(home, "reaper", "uninstall", "--resource", resource)
    assert "my choir" not in (resource / "reaper-kb.ini").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="a copied program stands for REAPER on Linux alone")
def test_a_running_reaper_is_noticed(resource: Path, tmp_path: Path):
    shutil.copy(shutil.which("sleep"), tmp_path / "reaper")
    home = tmp_path / "home"
    assert "Start REAPER and search" in run(home, "reaper", "install", "--resource", resource).stdout
    reaper = subprocess.Popen([tmp_path / "reaper", "3600"])
    try:
        done = run(home, "reaper", "install", "--resource", resource)
        refused = run(home, "reaper", "uninstall", "--resource", resource)
    finally:
        reaper.kill()
        reaper.wait()
    assert refused.returncode == 2 and "Close it and run this again" in refused.stderr
    assert done.returncode == 0 and "when it starts again" in done.stdout and "tsbs-daw_Setup.lua" in done.stdout


def test_setup_writes_the_settings_and_what_the_doctor_finds(resource: Path, tmp_path: Path):
    home = tmp_path / "a home"
    done = run(tmp_path / "other", "reaper", "setup", "--home", home, "--resource", resource)
    assert done.returncode == 0, done.stderr
    answer = json.loads((resource / "Data/TSBS-DAW/setup.json").read_text(encoding="utf-8"))
    assert answer["state"] == "done" and {"python", "folders"} <= {found["topic"] for found in answer["findings"]}
    settings = json.loads((resource / "Data/TSBS-DAW/installed.json").read_text(encoding="utf-8"))
    assert settings["spool"] == str(home / "spool")
    assert shlex.split(settings["setup"])[-4:] == ["--home", str(home), "--resource", str(resource)]


def test_without_reaper_it_is_wrong_use(tmp_path: Path):
    done = run(tmp_path, "reaper", "install", "--resource", tmp_path)
    assert done.returncode == 2 and "start REAPER once" in done.stderr


def test_the_index_is_written(tmp_path: Path):
    out = tmp_path / "index.xml"
    done = run(tmp_path, "reaper", "index", "--url", "https://example.org/1", "--out", out)
    assert done.returncode == 0 and "<reapack " in out.read_text(encoding="utf-8"), done.stderr


def test_the_actions_of_presets_can_be_written_elsewhere(tmp_path: Path):
    done = run(tmp_path, "reaper", "actions", "--folder", tmp_path)
    assert done.returncode == 0 and (tmp_path / "tsbs-daw_Separate selected items (karaoke).lua").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_command_that_reaper_runs_starts_a_daemon_for_its_spool(resource: Path, tmp_path: Path):
    home = tmp_path / "a home"
    run(home, "reaper", "install", "--resource", resource)
    settings = json.loads((resource / "Data/TSBS-DAW/installed.json").read_text(encoding="utf-8"))
    elsewhere = environment(tmp_path / "not this")
    daemon = subprocess.Popen(shlex.split(settings["start"]), env=elsewhere, stderr=subprocess.PIPE, text=True)
    try:
        while not (home / "spool" / "heartbeat.json").exists():
            assert daemon.poll() is None, daemon.stderr.read()
            time.sleep(0.05)
    finally:
        daemon.send_signal(signal.SIGINT)
        _, said = daemon.communicate(timeout=PATIENCE_S)
    assert daemon.returncode == 0, said


def test_the_daemon_of_reaper_ends_when_it_is_idle(tmp_path: Path):
    done = run(tmp_path / "home", "reaper", "serve", "--home", tmp_path / "home", "--idle-minutes", "0.02")
    assert done.returncode == 0, done.stderr
