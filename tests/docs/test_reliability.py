"""docs/reliability.md and the README say what is tested and what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def long_form() -> ModuleType:
    spec = importlib.util.spec_from_file_location("long_form", ROOT / "tools" / "long_form.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("test", sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE))))
def test_every_promise_names_a_test_that_exists(test: str):
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file()
    assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8")


def test_the_row_of_faults_in_the_readme_is_made_from_what_was_measured(long_form: ModuleType):
    document = json.loads((ROOT / "docs" / "results" / "faults.json").read_text(encoding="utf-8"))
    assert long_form.readme_row(document) in (ROOT / "README.md").read_text(encoding="utf-8")
    for row in document["cases"]:
        assert row.keys() == {"case", "count", "passed", "took_s", "lost", "twice", "partial"}
        path, _, name = row["case"].partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(encoding="utf-8")


def test_a_case_counts_as_often_as_its_id_says(long_form: ModuleType):
    counts = {"a::b[200]": 200, "a::b[False-50]": 50, "a::b[20-hang]": 20, "a::b": 1}
    assert {case: long_form.count_of(case) for case in counts} == counts


def test_what_passed_is_not_run_again_and_another_commit_begins_anew(long_form: ModuleType, tmp_path, monkeypatch):
    ran = []

    class Done:
        returncode = 0

    monkeypatch.setattr(long_form, "STATE", tmp_path)
    monkeypatch.setattr(long_form, "FAULTS", tmp_path / "faults.json")
    monkeypatch.setattr(long_form, "_commit", lambda: "one")
    monkeypatch.setattr(long_form.subprocess, "run", lambda command, **_: (ran.append(command[-1]), Done())[1])
    assert long_form.run_part(1, ["a::b[20]", "a::c[5]"], 60)
    assert long_form.run_part(1, ["a::b[20]", "a::c[5]"], 60) and ran == ["a::b[20]", "a::c[5]"]
    assert not long_form.run_part(2, ["a::d[5]"], -1), "no time is left"
    document = long_form.summarise()
    assert [(row["case"], row["count"], row["lost"]) for row in document["cases"]] == [
        ("a::b[20]", 20, 0),
        ("a::c[5]", 5, 0),
    ]
    assert long_form.readme_row(document).startswith("25 faults in 2 of 2 cases")
    monkeypatch.setattr(long_form, "_commit", lambda: "two")
    assert long_form.run_part(1, ["a::b[20]"], 60) and ran[-1] == "a::b[20]" and len(ran) == 3


def test_every_case_is_in_one_part(long_form: ModuleType):
    found = [f"a::test_{number}[5]" for number in range(31)]
    parts = [case for number in range(1, long_form.PARTS + 1) for case in long_form.part_of(found, number)]
    assert sorted(parts) == sorted(found)
