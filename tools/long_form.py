#!/usr/bin/env python3
"""The long form of the fault cases, in parts that can be stopped and resumed. `make test-long PART=2` calls it.

Every case runs by itself, in a pytest of its own. What has passed is remembered in build/long/ with the commit, and not
run again until the commit changes. At the end, all that was measured is summed up in docs/results/faults.json, and the
row of README.md and the table of docs/reliability.md are made from it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "build" / "long"
FAULTS = ROOT / "docs" / "results" / "faults.json"
PARTS = 12
PART_S = 3600.0  # no case begins later than this

_HAS_LONG = re.compile(r"@repeated\(|mark\.long\b")
_CASE = re.compile(r"^(tests/\S+::\S+)$", re.MULTILINE)
_TIMES = re.compile(r"\[(?:.*-)?(\d+)(?:-.*)?\]$")


def cases() -> list[str]:
    """The ids of all long tests, in the order of the suite. Only files that have one are imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    long = [str(file) for file in files if _HAS_LONG.search(file.read_text(encoding="utf-8"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "--collect-only", "-p", "no:randomly", *long]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = _CASE.findall(collected.stdout)
    if not found:
        raise SystemExit(f"pytest collects no long tests:\n{collected.stdout}{collected.stderr}")
    return found


def part_of(found: list[str], number: int) -> list[str]:
    """Every PARTS-th case, so that each part has some of every file."""
    return found[number - 1 :: PARTS]


def run_part(number: int, wanted: list[str], limit_s: float) -> bool:
    """Run what is left of a part. Returns: whether all of it has passed"""
    path, commit = STATE / f"part-{number}.json", _commit()
    state = _read(path, commit)
    begin_s = time.monotonic()
    for case in wanted:
        if state["cases"].get(case, {}).get("passed"):
            continue
        if time.monotonic() - begin_s > limit_s:
            print(f"The time is over; `make test-long PART={number}` resumes here.")
            break
        started_s = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "long", "--timeout", "0", "-p", "no:randomly", case]
        passed = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        state["cases"][case] = {"passed": passed, "took_s": round(time.monotonic() - started_s, 1)}
        STATE.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(state, indent=1), encoding="utf-8")
    return all(state["cases"].get(case, {}).get("passed") for case in wanted)


def summarise() -> dict[str, Any]:
    """docs/results/faults.json: one row for each case that was run, from the state of all parts.

    A case that passes has lost nothing, published nothing twice and shown nothing partial: it asserts that. What one
    that failed did is in its log, not here.
    """
    commit, rows = _commit(), []
    for number in range(PARTS + 1):
        for case, ran in _read(STATE / f"part-{number}.json", commit)["cases"].items():
            none = 0 if ran["passed"] else None
            row = {"case": case, "count": count_of(case), "passed": ran["passed"], "took_s": ran["took_s"]}
            rows.append({**row, "lost": none, "twice": none, "partial": none})
    document = {
        "schema": 1,
        "commit": commit,
        "command": "make test-long",
        "cases": sorted(rows, key=lambda row: row["case"]),
    }
    FAULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def count_of(case: str) -> int:
    """How often a case does its deed: the number in the id of its test, or once."""
    match = _TIMES.search(case)
    return int(match[1]) if match else 1


def readme_row(document: dict[str, Any]) -> str:
    """What the README says of the long form."""
    rows = document["cases"]
    passed = [row for row in rows if row["passed"]]
    deeds = sum(row["count"] for row in passed)
    return f"{deeds:,} faults in {len(passed)} of {len(rows)} cases run: 0 lost, 0 twice, 0 partial"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _read(path: Path, commit: str) -> dict[str, Any]:
    """The state of a part; an empty one where there is none of this commit."""
    if path.exists():
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["commit"] == commit:
            return state
    return {"commit": commit, "cases": {}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=range(1, PARTS + 1), help=f"one of {PARTS} parts; without it, all")
    parser.add_argument("--minutes", type=float, default=PART_S / 60, help="start no case later than this")
    parser.add_argument("--case", action="append", metavar="ID", help="run these tests only, by their ids")
    parser.add_argument("--list", action="store_true", help="list the cases of the part and run nothing")
    options = parser.parse_args()
    parts = [options.part] if options.part else list(range(1, PARTS + 1))
    if options.list:
        for number in parts:
            print("\n".join(f"{number}  {case}" for case in part_of(cases(), number)))
        return 0
    wanted = {0: options.case} if options.case else {number: part_of(cases(), number) for number in parts}
    complete = [run_part(number, part, options.minutes * 60) for number, part in wanted.items()]
    print(readme_row(summarise()))
    return 0 if all(complete) else 1


if __name__ == "__main__":
    sys.exit(main())
