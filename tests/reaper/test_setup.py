"""The setup action: every action in the list, the program found, and what is missing said in a window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reaper.stage import Studio

from tsbs_daw.integrations import reaper

FINDINGS = [
    {"topic": "python", "status": "ok", "what": "Python 3.11.", "advice": ""},
    {"topic": "space", "status": "problem", "what": "Only 1 GB of disk is free.", "advice": "Make room."},
    {"topic": "device", "status": "note", "what": "There is no GPU.", "advice": "It is slower."},
]


class Program:
    """tsbs-daw as the stand-in runs it: it answers to commands with a word in them."""

    def __init__(self, studio: Studio, word: str, state: str = "done", findings: list[dict] = FINDINGS):
        self.studio, self.word, self.state, self.findings = studio, word, state, findings
        self.ran: list[str] = []
        studio.reaper.runs = self.run

    def run(self, command: str) -> str | None:
        self.ran.append(command)
        if self.word in command:
            reaper.write_answer(self.studio.reaper.folder, self.state, self.findings)
            return "0"
        return None


def test_what_the_program_finds_is_shown_with_its_advice(studio: Studio):
    Program(studio, "reaper setup")
    studio.run("Setup")
    studio.ticks(12)
    window = studio.reaper.window("Setup")
    assert window.says("Problem: Only 1 GB of disk is free.") and window.says("Make room.")
    assert window.says("Note: There is no GPU.") and not window.says("Python 3.11.")
    assert window.says("1 problem to fix.") and studio.project.undo_steps == []


def test_a_machine_that_lacks_nothing_is_said_to(studio: Studio):
    Program(studio, "reaper setup", findings=FINDINGS[:1])
    studio.run("Setup")
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("Everything that is needed works.")


def test_while_it_checks_the_window_says_so(studio: Studio):
    program = Program(studio, "reaper setup", state="checking", findings=[])
    studio.run("Setup")
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("is checking this machine")
    program.state = "done"
    program.run("reaper setup")
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("Everything that is needed works.")


def test_places_of_installers_come_before_the_search_path(studio: Studio, tmp_path: Path, monkeypatch):
    place = tmp_path / "user" / ".local" / "bin" / "tsbs-daw"
    place.parent.mkdir(parents=True)
    place.touch()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    program = Program(studio, "python3")
    studio.run("Setup")
    studio.ticks(12)
    resource = studio.reaper.folder
    assert program.ran[0] == f'"{place}" reaper setup --resource "{resource}"'
    assert program.ran[-1] == f'python3 -m tsbs_daw reaper setup --resource "{resource}"'
    assert studio.reaper.window("Setup").says("to fix.")


def test_the_command_of_the_installation_comes_first(studio: Studio):
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "installed.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"setup": '"/venv/python" -m tsbs_daw reaper setup'}), encoding="utf-8")
    program = Program(studio, "/venv/python")
    studio.run("Setup")
    studio.ticks(12)
    assert len(program.ran) == 1 and studio.reaper.window("Setup").says("to fix.")


def test_without_a_program_it_says_what_to_install_and_takes_one_that_is_chosen(
    studio: Studio, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    program = Program(studio, "my own place")
    studio.run("Setup")
    studio.ticks(3)
    window = studio.reaper.window("Setup")
    assert window.says('run "pipx install tsbs-daw" in a terminal') and window.says("Python 3.10 or newer")
    chosen = tmp_path / "my own place" / "tsbs-daw"
    chosen.parent.mkdir()
    chosen.touch()
    studio.reaper.picked_file = str(chosen)
    window.click("Choose the program")
    studio.ticks(15)
    assert studio.reaper.window("Setup").says("to fix.") and f'"{chosen}"' in program.ran[-1]
    assert studio.reaper.saved_ext_state["TSBS-DAW", "program"] == str(chosen)


def test_a_program_that_says_nothing_gives_way_to_the_next_one(studio: Studio, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    program = Program(studio, "python3")
    monkeypatch.setattr(studio.reaper, "runs", lambda command: program.run(command) or "0")
    studio.run("Setup")
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("Looking for tsbs-daw: tsbs-daw reaper setup")
    studio.ticks(800)
    assert studio.reaper.window("Setup").says("to fix.")


@pytest.mark.parametrize("content", ["{", "[]", '{"findings": 3}'])
def test_an_answer_that_is_half_written_is_waited_for(content: str, studio: Studio):
    studio.run("Setup")
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "setup.json"
    path.write_text(content)
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("Looking for")
    reaper.write_answer(studio.reaper.folder, "done", FINDINGS)
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("to fix.")


def test_without_settings_the_actions_are_registered_all_the_same(studio: Studio):
    (studio.reaper.folder / "Data" / "TSBS-DAW" / "installed.json").unlink()
    Program(studio, "reaper setup")
    studio.run("Setup")
    studio.ticks(12)
    assert studio.reaper.window("Setup").says("to fix.")


def test_what_was_installed_while_reaper_ran_is_registered_at_its_next_start(studio: Studio):
    folder = studio.reaper.folder
    settings = json.loads((folder / "Data" / "TSBS-DAW" / "installed.json").read_text(encoding="utf-8"))
    reaper.install(folder, settings)
    (folder / "reaper-kb.ini").write_bytes(b"")  # REAPER writes its own list when it ends
    studio.reaper = studio.reaper.quit()
    studio.reaper.open(studio.project)
    studio.reaper.begin()
    studio.ticks(2)
    assert studio.reaper.registered() >= set(studio.scripts.glob("tsbs-daw_*.lua"))
    assert studio.project.undo_steps == []
