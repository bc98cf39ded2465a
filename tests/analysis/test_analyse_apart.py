"""The analysis in its own process: whatever becomes of that, the job goes on, or ends at once when it is cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tsbs_daw.analysis import analyse
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.core import child
from tsbs_daw.core.errors import AnalysisError, JobCancelled

HEAD = "import json, os, sys, time; plan = json.loads(sys.stdin.readline()); "
ANSWER = """open(plan["answer"], "w").write(json.dumps({}))"""


def run(monkeypatch, code: str, **changes):
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", HEAD + code))
    told: list[float] = []
    options = {"report": told.append, "cancelled": lambda: False, **changes}
    return analyse.analyse_apart(Path("mixture.wav"), {"bass": Path("bass.wav")}, 10.0, **options), told


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.abort()", "unexpectedly"),
        ("sys.exit(3)", "unexpectedly"),
        ("raise MemoryError", "unexpectedly"),
        (ANSWER.format('{"error": "There is no sound."}'), "There is no sound."),
        (ANSWER.format('{"result": {"tempo": 7}}'), "unexpectedly"),
        ('open(plan["answer"], "w").write("half a docu")', "unexpectedly"),
    ],
)
def test_whatever_goes_wrong_is_one_error(monkeypatch, code: str, says: str):
    with pytest.raises(AnalysisError, match=says):
        run(monkeypatch, code)


def test_a_child_that_never_reads_its_plan_is_an_error(monkeypatch):
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", ""))
    stems = {f"stem {number}": Path("x" * 200) for number in range(5000)}  # more than a pipe holds
    with pytest.raises(AnalysisError):
        analyse.analyse_apart(Path("m.wav"), stems, 1.0, report=lambda share: None, cancelled=lambda: False)


def test_what_is_kept_is_found_and_what_is_broken_is_not(tmp_path, monkeypatch):
    level = {"integrated_lufs": None, "range_lu": None, "true_peak_db": None}
    tempo = {"bpm": None, "confidence": 0, "doubtful": True}
    found = Analysis(duration_s=1, tempo=tempo, beats={}, key=None, loudness=level, intro_s=0)
    monkeypatch.setattr(analyse, "MOST_KEPT", 3)
    cache = analyse.AnalysisCache(tmp_path)
    assert cache.find("a") is None
    for number, key in enumerate("abcd"):
        cache.keep(key, found)
        os.utime(cache.folder / f"{key}.json", (number, number))
    cache.keep("e", found)
    assert cache.find("e") == found and {path.stem for path in cache.folder.iterdir()} == {"c", "d", "e"}
    (cache.folder / "d.json").write_text("{")
    assert cache.find("d") is None
    full = tmp_path / "full"
    full.write_text("no folder")
    analyse.AnalysisCache(full).keep("a", found)


def test_one_that_hangs_is_ended(monkeypatch):
    with pytest.raises(AnalysisError, match="did not finish"):
        run(monkeypatch, "time.sleep(600)", limit_s=1.0)


@pytest.mark.parametrize("duration_s", [2, 240, 7200])
def test_a_twentieth_of_a_core_is_enough_time(monkeypatch, duration_s: float):
    given: list[float] = []
    monkeypatch.setattr(analyse, "COMMAND", (sys.executable, "-c", ""))
    monkeypatch.setattr(child, "_wait", lambda process, limit_s, waiting: given.append(limit_s))
    with pytest.raises(AnalysisError):
        analyse.analyse_apart(Path("m.wav"), {}, duration_s, report=lambda share: None, cancelled=lambda: False)
    assert given[0] > 20 * (25 + duration_s / 20)


def test_cancelling_ends_it(monkeypatch):
    began = time.monotonic()
    with pytest.raises(JobCancelled):
        run(monkeypatch, "time.sleep(600)", cancelled=lambda: time.monotonic() > began + 0.5)


def test_progress_grows_and_does_not_arrive(monkeypatch):
    monkeypatch.setattr(analyse, "REPORT_EVERY_S", 0.1)
    told: list[float] = []
    with pytest.raises(JobCancelled):
        run(monkeypatch, "time.sleep(600)", report=told.append, cancelled=lambda: len(told) == 8)
    assert told == sorted(told) and told[0] > 0 and told[-1] < 1


def test_it_goes_when_its_parent_is_gone(tmp_path):
    """The real child: its stdin ends while it is at work."""
    process = subprocess.Popen(
        analyse.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    missing = b'{"mixture": "/nowhere/x.wav", "stems": {}, "answer": "%s"}\n' % str(tmp_path / "a").encode()
    _, words = process.communicate(missing)
    assert process.returncode in (0, 1) and b"Fatal" not in words
