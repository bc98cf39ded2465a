"""The boundary: exit codes, one sentence for an error, a file for the traceback of a bug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli.program import environment, run
from timeouts import PATIENCE_S


def sentences(done) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.strip()]


def test_a_misspelt_command_is_wrong_use_and_the_closest_is_named(tmp_path: Path):
    done = run(tmp_path, "seperate", "x.wav")
    assert done.returncode == 2 and done.stdout == ""
    assert sentences(done) == ["tsbs-daw: Unknown command 'seperate'. Did you mean `separate`?"]


@pytest.mark.parametrize(
    "arguments",
    [("separate",), ("separate", "--no-such-option", "x"), ("jobs", "no-such")],
)
def test_wrong_arguments_are_wrong_use(tmp_path: Path, arguments: tuple[str, ...]):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "--help" in done.stderr


def test_a_wrong_value_is_wrong_use_in_one_sentence_that_says_what_is_right(tmp_path: Path):
    done = run(tmp_path, "jobs", "list", "--limit", "x")
    assert done.returncode == 2
    assert sentences(done) == ["tsbs-daw: Invalid --limit: must be a whole number, not 'x'."]


def test_wrong_settings_are_wrong_use_in_one_sentence(tmp_path: Path):
    for option in (("--stage", "third"), ("--start", "soon"), ("--length", "0")):
        done = run(tmp_path, "submit", "x.wav", *option)
        assert done.returncode == 2
        assert len(sentences(done)) == 1 and sentences(done)[0].startswith("tsbs-daw: ")


def test_a_bug_gives_one_sentence_and_its_traceback_goes_to_a_file(tmp_path: Path):
    code = (
        "import sys\nfrom tsbs_daw import __main__, cli\n"
        "def broken(entry, arguments): raise ZeroDivisionError('division\\nby zero')\n"
        "cli.run = broken\nsys.argv = ['tsbs-daw', 'jobs', 'list']\n__main__.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    kept = tmp_path / "logs" / "errors.log"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"tsbs-daw: This is a bug (ZeroDivisionError: division by zero). Please report it with the end of {kept}."
    ]
    assert "Traceback" in kept.read_text() and "in broken" in kept.read_text()


def test_a_bug_is_shown_when_no_file_can_be_written(tmp_path: Path):
    (tmp_path / "home").write_text("a file where the home should be")
    code = (
        "import sys\nfrom tsbs_daw import __main__, cli\n"
        "def broken(entry, arguments): raise ZeroDivisionError\n"
        "cli.run = broken\nsys.argv = ['tsbs-daw', 'jobs', 'list']\n__main__.main()\n"
    )
    home = environment(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and "Please report it." in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_ends_with_130_and_no_traceback(tmp_path: Path):
    code = (
        "import sys, time\nfrom tsbs_daw import __main__, cli\nimport typer\n"
        "def waiting():\n    '''Example: x'''\n    print('ready', flush=True)\n    time.sleep(3600)\n"
        "import tsbs_daw.cli.separate\ntsbs_daw.cli.separate.submit = waiting\n"
        "sys.argv = ['tsbs-daw', 'submit']\n__main__.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "tsbs-daw: Interrupted."
    assert "Traceback" not in said


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path):
    command = f"'{sys.executable}' -m tsbs_daw --help | true; test ${{PIPESTATUS[0]}} -eq 0"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == ""


def test_a_name_that_the_terminal_cannot_show_is_escaped_and_not_a_crash(tmp_path: Path):
    done = run(tmp_path, "submit", tmp_path / "Дорога.wav", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr
