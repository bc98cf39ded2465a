"""Options that are written once, as a dataclass, and taken by several commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tsbs_daw.cli.options import grouped


@dataclass(frozen=True)
class Treatment:
    preset: Annotated[str, typer.Option("--preset", "-p")] = "none"
    null: Annotated[bool, typer.Option("--null")] = False


@dataclass(frozen=True)
class Place:
    out: Annotated[str, typer.Option()]


@grouped
def plain(file: Annotated[str, typer.Argument()], *, treatment: Treatment, place: Place, first: bool = False) -> None:
    """What it does."""
    typer.echo(f"{file} {treatment} {place} {first}")


@grouped
def crate(treatment: Treatment = Treatment(preset="crate")) -> Treatment:
    typer.echo(treatment)
    return treatment


def answer(command, *words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, words).output.strip()


@pytest.mark.parametrize(
    ("words", "treatment", "first"),
    [
        ((), Treatment(), False),
        (("-p", "karaoke", "--null"), Treatment("karaoke", True), False),
        (("--first", "--preset", "drums"), Treatment("drums"), True),
    ],
)
def test_a_command_gets_its_groups_filled(words: tuple[str, ...], treatment: Treatment, first: bool):
    assert answer(plain, "song.wav", "--out", "here", *words) == f"song.wav {treatment} {Place('here')} {first}"


def test_a_field_without_a_default_must_be_given():
    assert "--out" in answer(plain, "song.wav")


def test_a_command_may_have_its_own_defaults_for_a_group():
    assert answer(crate) == str(Treatment("crate"))
    assert answer(crate, "--null") == str(Treatment("crate", null=True))


def test_the_help_is_the_commands_own_and_has_the_fields_in_their_place():
    text = answer(plain, "--help")
    found = [text.index(what) for what in ("What it does.", "--preset", "--null", "--out", "--first")]
    assert found == sorted(found) and "treatment" not in text.lower()


def test_it_can_be_called_without_a_command_line():
    assert crate() == Treatment("crate") and crate(null=True) == Treatment("crate", null=True)
