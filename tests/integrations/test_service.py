"""The service's files: each is read back as its system reads it, whatever the paths are called."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tsbs_daw.integrations.service import Service, launchd_agent, plan, systemd_unit, task_definition

NAMES = [
    "plain",
    "two words",
    "100% done",
    "%h",
    "$HOME ${X}",
    'say "hi"',
    "back\\slash\\",
    "Übung 音楽",
    "it's",
    "a;b #c",
    "@x",
    "-n",
]
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def service(name: str) -> Service:
    command = ("/usr/bin/env", "-m", "tsbs_daw", "watch", "--config", f"/music/{name}/folders.yaml", name)
    return Service(command, {"TSBS_DAW_HOME": f"/home/{name}"}, Path(f"/logs/{name}.log"))


def setting(unit: str, name: str) -> str:
    (line,) = (line for line in unit.splitlines() if line.startswith(f"{name}="))
    return line.partition("=")[2]


@pytest.mark.parametrize("name", NAMES)
def test_systemd_reads_every_word_back(name):
    unit = systemd_unit(service(name))
    command, environment = setting(unit, "ExecStart"), setting(unit, "Environment")
    for text in (command, environment):
        assert text.replace("%%", "").count("%") == 0
    assert command.replace("$$", "").count("$") == 0
    words = [word.replace("$$", "$") for word in shlex.split(command.replace("%%", "%"))]
    assert words == list(service(name).command)
    assert shlex.split(environment.replace("%%", "%")) == [f"TSBS_DAW_HOME=/home/{name}"]


@pytest.mark.parametrize("name", [*NAMES, "a=b"])
def test_a_program_in_any_folder_is_started_with_its_arguments(tmp_path, name):
    program = tmp_path / name / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    program.chmod(0o755)
    unit = systemd_unit(Service((str(program), "a b", name)))
    words = [word.replace("$$", "$") for word in shlex.split(setting(unit, "ExecStart").replace("%%", "%"))]
    assert not set(words[0]) & set("\"'\\$")
    assert subprocess.run(words, capture_output=True, text=True).stdout == f"a b|{name}|"


def test_no_line_of_a_name_becomes_a_line_of_the_unit():
    unit = systemd_unit(service("a\nExecStartPre=/bin/rm"))
    assert "\nExecStartPre" not in unit
    assert "\\nExecStartPre" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", [*NAMES, "line\nbreak"])
def test_systemd_itself_finds_nothing_wrong_with_the_unit(tmp_path, name):
    folder = tmp_path / name.replace("/", "_")
    folder.mkdir()
    program = folder / "python"
    program.symlink_to(shutil.which("true"))
    described = service(name)
    unit = tmp_path / "tsbs-daw.service"
    unit.write_text(
        systemd_unit(Service((str(program), *described.command[1:]), described.environment)), encoding="utf-8"
    )
    checked = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert "tsbs-daw.service" not in checked.stderr
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", NAMES)
def test_launchd_reads_every_word_back(name):
    agent = plistlib.loads(launchd_agent(service(name)))
    assert agent["ProgramArguments"] == list(service(name).command)
    assert agent["EnvironmentVariables"] == {"TSBS_DAW_HOME": f"/home/{name}"}
    assert agent["StandardErrorPath"] == f"/logs/{name}.log"
    assert (agent["RunAtLoad"], agent["KeepAlive"]) == (True, {"SuccessfulExit": False})


@pytest.mark.parametrize("name", [*NAMES, "R&B <live>"])
def test_task_scheduler_gets_the_elements_of_its_schema(name):
    content = task_definition(service(name), "STUDIO\\me & co")
    assert content[:2] in (b"\xff\xfe", b"\xfe\xff")
    task = ElementTree.fromstring(content)
    assert (task.tag, task.get("version")) == (f"{TASK}Task", "1.2")
    assert [part.tag for part in task] == [
        TASK + part for part in ("RegistrationInfo", "Triggers", "Principals", "Settings", "Actions")
    ]
    action = task.find(f"{TASK}Actions/{TASK}Exec")
    assert action.findtext(f"{TASK}Command") == '"/usr/bin/env"'
    assert action.findtext(f"{TASK}Arguments") == subprocess.list2cmdline(service(name).command[1:])
    assert task.findtext(f"{TASK}Triggers/{TASK}LogonTrigger/{TASK}UserId") == "STUDIO\\me & co"
    assert task.find(f"{TASK}Principals/{TASK}Principal").get("id") == task.find(f"{TASK}Actions").get("Context")
    assert task.findtext(f"{TASK}Settings/{TASK}RestartOnFailure/{TASK}Interval") == "PT1M"
    assert task.findtext(f"{TASK}Settings/{TASK}ExecutionTimeLimit") == "PT0S"


def test_each_system_has_its_place_and_an_unknown_one_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    places = {system: plan(service("x"), system) for system in ("linux", "darwin", "win32")}
    assert places["linux"].path == tmp_path / "config" / "systemd" / "user" / "tsbs-daw.service"
    assert places["darwin"].path == tmp_path / "Library" / "LaunchAgents" / "tsbs-daw.watch.plist"
    assert places["win32"].path.name == "tsbs-daw-task.xml"
    assert plan(service("x"), "sunos5") is None
