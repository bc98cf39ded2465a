"""Every line of a written REAPER project, compared token by token with those of genuine ones."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from sessions.session_samples import random_session

from tsbs_daw.sessions.rpp import project_text

FACTS = json.loads((Path(__file__).parent / "data" / "reaper_lines.json").read_text(encoding="utf-8"))["lines"]
# Lines that the two projects do not have, and what else vouches for them.
ELSEWHERE = {
    "EGUID",  # 6.52, 6.80, 7.07, 7.40: of every envelope
    "REAPER_PROJECT",  # the header itself
}
# Lines that have more tokens in later versions (6.52 to 7.40), or where they are used for more.
LONGER = {"PT", "MARKER", "FADEIN", "FADEOUT", "TEMPO", "MUTE"}


def kind(token: str) -> str:
    if token.startswith("{"):
        return "guid"
    return "number" if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", token) else "text"


def lines_of(text: str) -> list[list[str]]:
    quoted = r'"[^"]*"|\'[^\']*\'|`[^`]*`|\S+'
    lines = (line.strip().lstrip("<") for line in text.splitlines())
    return [re.findall(quoted, line) for line in lines if line and line != ">"]


@pytest.mark.parametrize("seed", range(6))
def test_every_line_is_one_that_reaper_writes(seed: int):
    for name, *tokens in lines_of(project_text(random_session(random.Random(seed)))):
        if name in ELSEWHERE:
            continue
        assert name in FACTS, f"REAPER writes no {name}"
        kinds = [kind(token) for token in tokens]
        forms = [form.split() for form in FACTS[name]]
        if name == "NAME":
            assert len(kinds) == 1
        elif name != "MARKER":  # its name may look like a number
            common = [(kinds[: len(form)], form[: len(kinds)]) for form in forms]
            assert any(ours == theirs for ours, theirs in common), (name, tokens)
            assert name in LONGER or len(kinds) <= max(len(form) for form in forms), (name, tokens)


def test_nothing_is_switched_off_that_reaper_has_on():
    names = {line[0] for line in lines_of(project_text(random_session(random.Random(1))))}
    assert "AUTOXFADE" not in names
