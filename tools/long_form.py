#!/usr/bin/env python3
"""The long form of the fault cases, in parts that can be stopped and resumed. `make test-long PART=2` calls it.

Every case runs in a pytest of its own, several at a time, and its row goes into docs/results/faults.json as soon as it
ends: the commit that it ran on, how long it took, and what the test counted (see tests/harness/tally.py). A row holds
as long as nothing in tsbs_daw/ and tests/ has changed; the row of an earlier state is kept, with its commit, until the
case has run again. The row of README.md and the table of docs/reliability.md are written from the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "long"
FAULTS = ROOT / "docs" / "results" / "faults.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "reliability.md")
DECIDES = ("tsbs_daw", "tests")  # what a result depends on
PARTS = 6
PART_S = 3600.0
GUESS_S = 300.0  # of a case that has never run
COUNTS = ("lost", "twice", "partial", "orphans", "cached")
COUNTED = ("faults", *COUNTS)

_HAS_LONG = re.compile(r"@repeated\(|mark\.long\b")
_CASE = re.compile(r"^(tests/.+?::.+)$", re.MULTILINE)
_TIMES = re.compile(r"\[(?:.*-)?(\d+)(?:-.*)?\]$")

Row = dict[str, Any]


# What there is to run


def collect() -> list[str]:
    """The ids of all long tests, in the order of the suite. Only files that have one are imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    long = [str(file) for file in files if _HAS_LONG.search(file.read_text(encoding="utf-8"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "--collect-only", "-p", "no:randomly", *long]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = _CASE.findall(collected.stdout)
    if not found:
        raise SystemExit(f"pytest collects no long tests:\n{collected.stdout}{collected.stderr}")
    return found


def split(cases: list[str], rows: list[Row], parts: int = PARTS) -> list[list[str]]:
    """Parts of about the same length, by how long each case took last time; the longest cases of a part come first.

    Args:
        cases: The ids.
        rows: Of the last commit, so that a part stays the same while it runs.
    """
    took_s = {row["case"]: row["took_s"] for row in rows}
    split: list[list[str]] = [[] for _ in range(parts)]
    sums_s = [0.0] * parts
    for case in sorted(cases, key=lambda case: (-took_s.get(case, GUESS_S), case)):
        shortest = sums_s.index(min(sums_s))
        split[shortest].append(case)
        sums_s[shortest] += took_s.get(case, GUESS_S)
    return split


def count_of(case: str) -> int:
    """How often a case does its deed: the number in the id of its test, or once."""
    match = _TIMES.search(case)
    return int(match[1]) if match else 1


# Running


def run_case(case: str) -> Row:
    """Run one case, and return what it counted and took."""
    name = re.sub(r"\W+", "-", case.partition("::")[2])[:60] + "-" + hashlib.sha256(case.encode()).hexdigest()[:8]
    BUILD.mkdir(parents=True, exist_ok=True)
    report, log = BUILD / f"{name}.xml", BUILD / f"{name}.log"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "--timeout", "0", "-p", "no:randomly"]
    command += ["--basetemp", str(BUILD / name[-8:]), "-o", "tmp_path_retention_policy=failed"]
    command += ["-o", "junit_family=xunit1"]  # the one with properties
    report.unlink(missing_ok=True)
    # Hundreds of processes are started; without this, each compiles all modules anew.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    begin_s = time.monotonic()
    with log.open("wb") as out:
        command += ["--junit-xml", str(report), case]
        child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)
        passed, cpu_s = _wait(child)
    row: Row = {"case": case, "passed": passed, "took_s": round(time.monotonic() - begin_s, 1), "cpu_s": cpu_s}
    counted = properties(report)
    row["faults"] = counted.get("faults", count_of(case))
    return row | {count: counted.get(count) for count in COUNTS}


def _wait(child: subprocess.Popen[bytes]) -> tuple[bool, float | None]:
    """Whether it ended well, and the processor time that it and all its children took, where the system tells."""
    if not hasattr(os, "wait4"):
        return child.wait() == 0, None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode == 0, round(usage.ru_utime + usage.ru_stime, 1)


def properties(report: Path) -> dict[str, int]:
    """What a test counted, from pytest's report in JUnit's format; empty when it counts nothing or never ended."""
    try:
        found = xml.parse(report).iter("property")
    except (OSError, xml.ParseError):
        return {}
    # Other plug-ins put their own in: Hypothesis, for one, its statistics.
    return {entry.attrib["name"]: int(entry.attrib["value"]) for entry in found if entry.attrib["name"] in COUNTED}


def run_all(cases: list[str], jobs: int, limit_s: float, run: Callable[[str], Row] = run_case) -> bool:
    """Run what has not passed yet in this state of the code.

    Args:
        cases: The ids, in the order in which they begin.
        jobs: How many run at a time; they wait more than they compute.
        limit_s: No case begins later than this.
        run: Runs one.

    Returns:
        Whether all of them have passed.
    """
    code, commit = state_of_code(), commit_of_head()
    current = {row["case"] for row in read_rows() if row["code"] == code and row["passed"]}
    end_s, lock = time.monotonic() + limit_s, threading.Lock()

    def one(case: str) -> bool:
        if time.monotonic() > end_s:
            print(f"no time is left for {case}; the same command resumes there", flush=True)
            return False
        row = {**run(case), "commit": commit, "code": code}
        if state_of_code() != code:  # what ran was neither the one state nor the other
            print(f"{case}: the code changed while it ran; run it again", flush=True)
            return False
        with lock:
            write_row(row)
        print(f"{'passed' if row['passed'] else 'FAILED'} {case} in {row['took_s']:.0f} s", flush=True)
        return row["passed"]

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(one, [case for case in cases if case not in current])))


def state_of_code() -> str:
    """A hash of everything in the working tree that decides a result: equal after a commit that only writes pages."""
    digest = hashlib.sha256()
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *DECIDES)
    for name in sorted(filter(None, listed.split("\0"))):
        path = ROOT / name
        if path.is_file():
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def commit_of_head() -> str:
    """The commit, with `+` where tsbs_daw/ or tests/ differ from it."""
    changed = _git("status", "--porcelain", "--", *DECIDES).strip()
    return (_git("rev-parse", "--short=7", "HEAD").strip() or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout


# What is written down


def read_rows(text: str | None = None) -> list[Row]:
    """The rows of faults.json, or of another state of it."""
    text = text if text is not None else FAULTS.read_text(encoding="utf-8") if FAULTS.exists() else ""
    return json.loads(text)["cases"] if text else []


def read_collected() -> int:
    """How many cases there were when they were last collected; 0 if that is not known."""
    return json.loads(FAULTS.read_text(encoding="utf-8")).get("collected", 0) if FAULTS.exists() else 0


def write_row(row: Row) -> None:
    """Put a row into faults.json, in place of what the same case did before, and bring the pages up to date."""
    write_rows([other for other in read_rows() if other["case"] != row["case"]] + [row], read_collected())


def write_rows(rows: list[Row], collected: int) -> None:
    """Write faults.json, and bring the pages up to date. Args: collected: how many cases there are, run or not"""
    ordered = sorted(rows, key=lambda row: row["case"])
    document = {"schema": 2, "command": "make test-long", "collected": collected, "cases": ordered}
    FAULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_pages()


def write_pages() -> None:
    """Write the sentence of the README and the table of docs/reliability.md between their marks."""
    for page, text in zip(PAGES, (readme_row(read_rows()), "\n" + table(read_rows()) + "\n"), strict=True):
        page.write_text(put_between_marks(page.read_text(encoding="utf-8"), text), encoding="utf-8")


def put_between_marks(page: str, text: str) -> str:
    """A page with a new text between `<!-- long form -->` and `<!-- end of long form -->`."""
    marks = re.compile(r"(<!-- long form -->).*?(<!-- end of long form -->)", re.DOTALL)
    return marks.sub(lambda found: found[1] + text + found[2], page)


def readme_row(rows: list[Row]) -> str:
    """What the README says of the long form."""
    counted = [row for row in rows if row["lost"] is not None]
    faults = sum(row["faults"] for row in counted)
    sums = ", ".join(f"{sum(row[name] for row in counted)} {_WORDS[name]}" for name in COUNTS)
    passed = sum(row["passed"] for row in rows)
    ran = f"; {passed} of the {len(rows)} cases that have run pass"
    left = max(read_collected() - len(rows), 0)
    return f"{faults:,} faults in {len(counted)} cases of the long form: {sums}{ran}" + (
        f", {left} wait" if left else ""
    )


_WORDS = {
    "lost": "lost",
    "twice": "twice",
    "partial": "partial",
    "orphans": "orphans",
    "cached": "left in the cache",
}


def table(rows: list[Row]) -> str:
    """What docs/reliability.md says of each case."""
    head = "| case | faults | lost | twice | partial | orphans | in the cache | minutes | commit |"
    lines = [head, "|---|" + "--:|" * 7 + "---|"]
    for row in rows:
        name = row["case"].partition("::")[2] + ("" if row["passed"] else " **failed**")
        counts = ["–" if row[count] is None else str(row[count]) for count in COUNTS]
        cells = [f"{row['faults']:,}", *counts, f"{row['took_s'] / 60:.1f}", f"`{row['commit']}`"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |".replace(" **failed**`", "` **failed**"))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=range(1, PARTS + 1), help=f"one of {PARTS} parts; without it, all")
    parser.add_argument("--jobs", type=int, default=3, help="how many cases run at a time")
    parser.add_argument("--minutes", type=float, help="start no case later than this")
    parser.add_argument("--match", metavar="REGEX", help="run only the cases whose id this is found in")
    parser.add_argument("--list", action="store_true", help="list the cases, and run nothing")
    options = parser.parse_args()
    committed = read_rows(_git("show", f"HEAD:{FAULTS.relative_to(ROOT).as_posix()}"))
    cases = collect()
    parts = split(cases, committed)
    wanted = parts[options.part - 1] if options.part else [case for part in parts for case in part]
    wanted = [case for case in wanted if re.search(options.match or "", case)]
    if options.list:
        print("\n".join(f"{number}  {case}" for number, part in enumerate(parts, 1) for case in part if case in wanted))
        return 0
    write_rows([row for row in read_rows() if row["case"] in cases], len(cases))
    limit_s = options.minutes * 60 if options.minutes else PART_S if options.part else float("inf")
    complete = run_all(wanted, options.jobs, limit_s)
    print(readme_row(read_rows()))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
