"""docs/reliability.md and the README say what is tested and what was measured."""

from __future__ import annotations

import importlib.util
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


def row(case: str, **values: object) -> dict[str, object]:
    counts = {"faults": 20, "lost": 0, "twice": 0, "partial": 0, "orphans": 0, "cached": 0}
    return {"case": case, "passed": True, "took_s": 60.0, "cpu_s": 5.0, **counts, "commit": "1", "code": "c", **values}


@pytest.fixture
def kept(long_form: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, with files of its own."""
    pages = tuple(tmp_path / name for name in ("README.md", "reliability.md"))
    for page in pages:
        page.write_text("before <!-- long form -->old<!-- end of long form --> after", encoding="utf-8")
    monkeypatch.setattr(long_form, "FAULTS", tmp_path / "faults.json")
    monkeypatch.setattr(long_form, "PAGES", pages)
    monkeypatch.setattr(long_form, "commit_of_head", lambda: "1")
    return long_form


def test_the_pages_say_what_was_measured(long_form: ModuleType):
    rows = long_form.read_rows()
    readme, page = (path.read_text(encoding="utf-8") for path in long_form.PAGES)
    assert f"<!-- long form -->{long_form.readme_row(rows)}<!-- end of long form -->" in readme
    assert f"<!-- long form -->\n{long_form.table(rows)}\n<!-- end of long form -->" in page
    for found in rows:
        assert found.keys() == row("").keys()
        path, _, name = found["case"].partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(encoding="utf-8")


def test_a_case_counts_as_often_as_its_id_says(long_form: ModuleType):
    counts = {"a::b[200]": 200, "a::b[False-50]": 50, "a::b[20-hang]": 20, "a::b[own daemon-20]": 20, "a::b": 1}
    assert {case: long_form.count_of(case) for case in counts} == counts


def test_what_passed_is_run_again_only_where_the_code_is_another(kept: ModuleType, monkeypatch):
    ran = []

    def run(case: str) -> dict[str, object]:
        ran.append(case)
        return row(case, passed=case != "a::bad[5]")

    monkeypatch.setattr(kept, "state_of_code", lambda: "one")
    assert kept.run_all(["a::b[20]", "a::c[5]"], 2, 60, run)
    assert not kept.run_all(["a::b[20]", "a::c[5]", "a::bad[5]"], 1, 60, run)
    assert not kept.run_all(["a::bad[5]"], 1, 60, run), "what failed is not done"
    assert sorted(ran[:2]) == ["a::b[20]", "a::c[5]"] and ran[2:] == ["a::bad[5]"] * 2
    monkeypatch.setattr(kept, "state_of_code", lambda: "two")
    monkeypatch.setattr(kept, "commit_of_head", lambda: "2")
    assert kept.run_all(["a::b[20]"], 1, 60, run) and len(ran) == 5
    assert {found["case"]: found["commit"] for found in kept.read_rows()} == {
        "a::b[20]": "2",
        "a::bad[5]": "1",
        "a::c[5]": "1",
    }, "a row of an earlier commit is kept until its case has run again"


def test_no_row_is_written_of_a_case_during_which_the_code_changed(kept: ModuleType, monkeypatch):
    states = iter(["one", "two"])
    monkeypatch.setattr(kept, "state_of_code", lambda: next(states))
    assert not kept.run_all(["a::b[20]"], 1, 60, row)
    assert kept.read_rows() == []


def test_no_case_begins_after_the_time_is_over(kept: ModuleType):
    assert not kept.run_all(["a::b[20]"], 1, -1.0, row)
    assert kept.read_rows() == []


def test_the_pages_follow_each_row(kept: ModuleType):
    kept.write_row(row("a::b[20]"))
    kept.write_row(row("a::c[5]", passed=False, faults=5, lost=2))
    kept.write_row(row("a::d", faults=1, **dict.fromkeys(kept.COUNTS)))
    readme, page = (path.read_text(encoding="utf-8") for path in kept.PAGES)
    assert (
        "25 faults in 2 cases of the long form: 2 lost, 0 twice" in readme
        and "2 of the 3 cases that have run pass" in readme
    )
    kept.write_rows(kept.read_rows(), 7)
    assert kept.PAGES[0].read_text(encoding="utf-8").endswith("have run pass, 4 wait<!-- end of long form --> after")
    assert "| `b[20]` | 20 | 0 | 0 | 0 | 0 | 0 | 1.0 | `1` |" in page
    assert "| `c[5]` **failed** | 5 | 2 |" in page and "| `d` | 1 | – |" in page
    assert readme.startswith("before ") and readme.endswith(" after")


def test_what_a_test_counted_is_read_from_its_report(long_form: ModuleType, tmp_path: Path):
    report = tmp_path / "report.xml"
    counted = '<properties><property name="faults" value="200"/><property name="lost" value="1"/>'
    counted += '<property name="hypothesis-statistics" value="dGVzdHM="/></properties>'
    report.write_text(f"<testsuites><testsuite><testcase>{counted}</testcase></testsuite></testsuites>")
    assert long_form.properties(report) == {"faults": 200, "lost": 1}
    assert long_form.properties(tmp_path / "missing.xml") == {}


@pytest.mark.parametrize("passes", [True, False])
def test_a_case_is_run_and_its_counts_come_back(long_form: ModuleType, tmp_path: Path, monkeypatch, passes: bool):
    monkeypatch.setattr(long_form, "ROOT", tmp_path)
    monkeypatch.setattr(long_form, "BUILD", tmp_path / "build")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers = long")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.fixture\ndef counting(record_property):\n    yield\n"
        "    record_property('faults', 7)\n    record_property('lost', 2)\n"
        f"@pytest.mark.long\ndef test_it(counting):\n    assert {passes}\n"
    )
    found = long_form.run_case("test_it.py::test_it")
    assert (found["passed"], found["faults"], found["lost"], found["twice"]) == (passes, 7, 2, None)


def test_every_case_is_in_one_part_and_the_parts_take_about_as_long(long_form: ModuleType):
    cases = [f"a::test_{number}[5]" for number in range(31)]
    rows = [row(case, took_s=60.0 * number) for number, case in enumerate(cases[:-1])]
    parts = long_form.split(cases, rows)
    assert sorted(case for part in parts for case in part) == sorted(cases)
    took_s = {found["case"]: found["took_s"] for found in rows} | {cases[-1]: long_form.GUESS_S}
    sums_s = [sum(took_s[case] for case in part) for part in parts]
    assert max(sums_s) - min(sums_s) < 600.0
    assert parts == long_form.split(cases, rows), "a part stays the same"
