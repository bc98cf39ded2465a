"""PROTOCOL.md says what is so: its example is read by the program's own contract."""

from __future__ import annotations

import json
import re

from tsbs_daw.contracts.job import Job, Progress, Result, Source, State
from tsbs_daw.core.config import resource_folder

PAGE = (resource_folder("reaper_scripts") / "PROTOCOL.md").read_text(encoding="utf-8")


def documents() -> list[str]:
    """The JSON of the worked example, in its order: request, progress, result."""
    blocks = re.findall(r"(?m)(?:^ {4}.*\n|^\n(?= {4}))+", PAGE)
    found = [block.strip() for text in blocks for block in re.split(r"(?m)^ {4}\w+/\S+\.json\n", text)]
    return [block for block in found if block.startswith("{")]


def test_the_worked_example_follows_the_contract():
    request, progress, result = documents()
    assert Job.from_json(request, "request").deliver == Result.from_json(result, "result").deliver
    assert Progress.from_json(progress, "progress").fraction == 0.41
    assert set(json.loads(result)) == {field.alias or name for name, field in Result.model_fields.items()}
    assert set(json.loads(progress)) == {field.alias or name for name, field in Progress.model_fields.items()}


def test_every_key_of_a_request_and_its_default_is_in_the_table():
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \| (.*?) \|", PAGE))
    fields = {field.alias or name: field for name, field in Job.model_fields.items()}
    assert set(rows) == set(fields)
    for name in ("preset", "model", "stage", "null", "salvage", "origin", "priority"):
        assert rows[name] == f"`{json.dumps(fields[name].default)}`", name
    assert all(f"`{name}`" in PAGE for name in Source.model_fields)


def test_every_state_is_named():
    assert all(f"`{state.value}`" in PAGE for state in State)
    first, second = Job.SCHEMAS
    assert f"| `schema` | required | {first} or {second}; the result has the same |" in PAGE
