"""Every line of a written REAPER project, compared token by token with genuine projects of REAPER 5.5 to 7.5."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sessions.session_samples import random_session

from tsbs_daw.sessions.rpp import HEADER, project_text

FACTS = json.loads((Path(__file__).parent / "data" / "reaper_lines.json").read_text(encoding="utf-8"))
LINES: dict[str, dict[str, str]] = FACTS["lines"]
# Rare in projects: what has its own timebase, and a tempo map in a project of REAPER 5.
RARE = {"ITEM/BEAT": {6}, "TEMPOENVEX/PT": {6, 7}, "TEMPOENVEX/EGUID": {6, 7}}
TOKEN = r'"[^"]*"|\'[^\']*\'|`[^`]*`|\S+'


def kind(token: str) -> str:
    if token.startswith("{"):
        return "guid"
    return "number" if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", token) else "text"


def lines_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every line: its name with that of the block that it is in, and its tokens."""
    blocks: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line == ">":
            blocks.pop()
            continue
        name, *tokens = re.findall(TOKEN, line.removeprefix("<"))
        yield "/".join([*blocks[-1:], name]), tokens
        if line.startswith("<"):
            blocks.append(name)
    assert not blocks


def number_of(version: str) -> float:
    """REAPER counts in decimals: 5.971 is older than 5.99."""
    return float(re.match(r"\d+\.\d+", version)[0])


def kinds_by_version(name: str) -> dict[str, list[list[str]]]:
    """The forms that each version writes a line in."""
    found: dict[str, list[list[str]]] = {}
    for form, versions in LINES[name].items():
        for version in versions.split():
            found.setdefault(version, []).append(form.split())
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_token_is_of_the_kind_that_every_version_writes_there(seed: int):
    for name, tokens in lines_of(project_text(random_session(random.Random(seed)))):
        assert name in LINES, f"REAPER writes no {name}"
        kinds = [kind(token) for token in tokens]
        for version, forms in kinds_by_version(name).items():
            common = [(kinds[: len(form)], form[: len(kinds)]) for form in forms]
            assert any(ours == theirs for ours, theirs in common), (name, tokens, version)


@pytest.mark.parametrize("seed", range(6))
def test_no_line_has_more_tokens_than_the_version_in_the_header_and_later_ones_write(seed: int):
    claimed = number_of(re.search(r'"([^"/]+)', HEADER)[1])
    for name, tokens in lines_of(project_text(random_session(random.Random(seed)))):
        later = [forms for version, forms in kinds_by_version(name).items() if number_of(version) >= claimed]
        known = later or list(kinds_by_version(name).values())  # ITEM/BEAT: 6.69 alone
        assert len(tokens) <= max(len(form) for forms in known for form in forms), (name, tokens)


def test_every_line_is_known_from_projects_of_reaper_5_6_and_7():
    for name in LINES:
        majors = {int(number_of(version)) for version in kinds_by_version(name)}
        assert majors == RARE.get(name, {5, 6, 7}), name


def test_the_facts_name_the_projects_that_they_come_from():
    versions = {project["version"].partition("/")[0].partition("-")[0] for project in FACTS["projects"]}
    assert versions >= {version for name in LINES for version in kinds_by_version(name)}
    assert min(map(number_of, versions)) < 5.9 and max(map(number_of, versions)) >= 7.4
    for project in FACTS["projects"]:
        assert re.fullmatch(r"[0-9a-f]{40}", project["commit"]) and project["repository"] and project["path"]


def test_nothing_is_switched_off_that_reaper_has_on():
    names = {name for name, _ in lines_of(project_text(random_session(random.Random(1))))}
    assert "REAPER_PROJECT/AUTOXFADE" not in names
