"""What every command owes its user: help with an example, at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.program import run

from tsbs_daw import cli
from tsbs_daw.core.errors import UsageError

# Words that a help text cannot begin with: what they refer to is missing.
DANGLING = {"of", "where", "else", "how", "which", "whether", "go", "what", "for", "with", "without"}
HEAVY = ("torch", "numpy", "pydantic", "scipy", "soundfile", "pedalboard", "yaml", "rich")


def all_commands() -> list[tuple[str, ...]]:
    """Every command with its subcommands, as words: ("jobs",), ("jobs", "list"), ..."""
    found: list[tuple[str, ...]] = []
    for entry in cli.commands():
        found.append((entry.name,))
        found += [(entry.name, name) for name in getattr(cli.load(entry), "commands", {})]
    return found


COMMANDS = all_commands()


def command_of(words: tuple[str, ...]):
    command = cli.load(cli.find(words[0]))
    for word in words[1:]:
        command = command.commands[word]
    return command


def help_of(words: tuple[str, ...]) -> str:
    command = command_of(words)
    with command.make_context(" ".join((cli.PROGRAM, *words)), ["--help"], resilient_parsing=True) as context:
        return command.get_help(context)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_that_can_be_copied(words: tuple[str, ...]):
    text = help_of(words)
    example = re.search(r"Examples?: *\n? *(tsbs-daw .+)", text)
    assert example, f"`tsbs-daw {' '.join(words)} --help` shows no line `Example: tsbs-daw ...`:\n{text}"
    called = example[1].split()
    assert tuple(called[1 : 1 + len(words)]) == words, f"the example of {words} calls something else: {example[1]}"


@pytest.mark.parametrize("words", [words for words in COMMANDS if len(words) == 1], ids=" ".join)
def test_every_line_of_the_table_says_what_the_command_does(words: tuple[str, ...]):
    entry = cli.find(words[0])
    assert entry.summary.endswith(".") and f"{entry.name} " in cli.help_text()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_a_help_text_that_names_what_it_does(words: tuple[str, ...]):
    """As docs/style.md asks: a sentence with a subject or a verb in front, and a full stop."""
    command = command_of(words)
    texts = {"the command": command.help.split("\n\n")[0]}
    texts |= {parameter.name: parameter.help for parameter in command.params if parameter.name != "help"}
    for name, text in texts.items():
        assert text, f"`tsbs-daw {' '.join(words)}`: {name} has no help"
        assert text[0].isupper() and text.rstrip()[-1] in ".)`", f"{words}, {name}: {text!r} is not a sentence"
        first = text.split()[0].strip(",.:;").lower()
        assert first not in DANGLING, f"{words}, {name}: {text!r} does not name its subject"
        assert len(text.split()) > 1, f"{words}, {name}: {text!r} says too little"


@pytest.mark.parametrize("words", [words for words in COMMANDS if len(words) == 1], ids=" ".join)
def test_no_summary_of_a_subcommand_is_cut_in_a_terminal_of_80_columns(words: tuple[str, ...]):
    command = command_of(words)
    for name, subcommand in getattr(command, "commands", {}).items():
        summary = subcommand.get_short_help_str(80 - len(max(command.commands, key=len)) - 6)
        assert not summary.endswith("..."), f"tsbs-daw {words[0]} {name}: {summary}"


def test_the_overview_fits_a_terminal_of_80_columns():
    assert max(map(len, cli.help_text().splitlines())) <= 80


def test_the_shell_completes_commands_options_and_choices(tmp_path: Path):
    def completed(line: str) -> str:
        asked = {"_TSBS_DAW_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        return run(tmp_path, **asked).stdout

    assert completed("tsbs-daw sep").split() == ["separate"]
    assert {"list", "show", "retry", "move", "cancel"} == set(completed("tsbs-daw jobs ").split())
    assert "--preset" in completed("tsbs-daw separate --pre")
    assert "flac24" in completed("tsbs-daw batch --format fl")


def test_the_completion_script_can_be_shown(tmp_path: Path):
    shown = run(tmp_path, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0 and "_TSBS_DAW_COMPLETE" in shown.stdout


def test_help_imports_nothing_heavy(tmp_path: Path):
    code = (
        "import sys\n"
        "from tsbs_daw import __main__\n"
        "sys.argv = ['tsbs-daw', '--help']\n"
        "try:\n    __main__.main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: tsbs-daw" in done.stdout


def test_help_of_no_command_loads_torch():
    code = (
        "import sys\n"
        "from tsbs_daw import cli\n"
        f"for words in {COMMANDS!r}:\n"
        "    assert cli.run(cli.find(words[0]), [*words[1:], '--help']) == 0\n"
        "    assert 'torch' not in sys.modules and 'pedalboard' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_command_without_a_module_is_not_listed():
    assert [entry.name for entry in cli.TABLE if not entry.exists and f"\n  {entry.name} " in cli.help_text()] == []
    assert not cli.Entry("no_such_command", "").exists


def test_the_program_answers_help_and_version(tmp_path: Path):
    assert run(tmp_path, "--help").stdout == cli.help_text()
    assert re.fullmatch(r"tsbs-daw \d+\.\d+\.\d+\S*\n", run(tmp_path, "--version").stdout)
    assert list(tmp_path.iterdir()) == [], "asking for help leaves nothing behind"


def test_without_a_command_it_shows_the_help_and_calls_that_wrong_use(tmp_path: Path):
    done = run(tmp_path)
    assert done.returncode == 2 and done.stdout == cli.help_text()


@pytest.mark.parametrize("name", ["watch", "batch"])
def test_the_number_of_songs_is_taken_under_both_names(name):
    (entry,) = (entry for entry in cli.commands() if entry.name == name)
    (option,) = (option for option in cli.load(entry).params if "--at-once" in option.opts)
    assert option.opts == ["--at-once", "--workers"] and option.name == "at_once"


def refusals(words: tuple[str, ...]) -> dict[str, UsageError]:
    """What is said of each option of a command that refuses `::`."""
    command, found = command_of(words), {}
    for option in command.params:
        name = max(option.opts, key=len)
        if not name.startswith("--") or option.is_flag:
            continue
        try:
            command.make_context(words[-1], [name, "::"])
        except Exception as error:
            refused = cli._invalid_value(error, [name, "::"])
            if refused:
                found[name] = refused
    return found


def test_no_option_answers_in_the_words_of_a_library():
    said = {(*words, name): str(refused) for words in COMMANDS for name, refused in refusals(words).items()}
    assert len(said) > 30
    for (*_, name), sentence in said.items():
        assert re.match(rf"Invalid {name}: (must be [^.]+, not '::'|'::' is not one of .+)\.$", sentence), sentence
    assert said["separate", "--loudness"] == "Invalid --loudness: must be a number, not '::'."
    assert said["watch", "--at-once"] == "Invalid --at-once: must be a whole number, not '::'."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["separate", "song.wav", "--quality", "bset"], "'bset' is not one of 'fast', 'normal', 'best'."),
        (["web", "--port", "70000"], "Invalid --port: must be at most 65535, not '70000'."),
        (["batch", "crate", "--workers=0"], "Invalid --workers: must be at least 1, not '0'."),
        (["batch", "crate", "--at-once", "0"], "Invalid --at-once: must be at least 1, not '0'."),
    ],
)
def test_a_wrong_value_is_one_sentence_and_status_2(tmp_path, words, sentence):
    done = run(tmp_path, *words)
    assert done.returncode == 2 and done.stderr.endswith(f"{sentence}\n") and done.stderr.count("\n") == 1
