"""The self-test that a user runs in a real REAPER: here, in the stand-in, everything is as assumed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from reaper.signatures import functions
from reaper.stage import Studio

from tsbs_daw.config import resource_folder

FOLDER = resource_folder("reaper_scripts") / "TSBS-DAW"


def report(studio: Studio) -> list[str]:
    studio.reaper.patient = True  # it says itself what it does, and blocks for a moment
    studio.run("Self-test")
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "self-test" / "report.json"
    studio.until(path.exists, 30)
    return json.loads(path.read_text(encoding="utf-8"))["lines"]


def test_everything_is_as_assumed(studio: Studio):
    lines = report(studio)
    assert lines[-1] == "Everything is as assumed.", "\n".join(lines)
    assert "tsbs-daw self-test, REAPER" in studio.reaper.console
    assert studio.project.tracks == [] and studio.reaper.accessors == 0


def test_a_difference_is_found(studio: Studio, monkeypatch):
    from reaper import functions_media

    read = functions_media.Accessor.read
    monkeypatch.setattr(
        functions_media.Accessor, "read", lambda self, *how: read(self, *how) * self.of.values.get("D_VOL", 1.0)
    )
    assert [line for line in report(studio) if line.startswith("DIFFERENT")] == [
        "DIFFERENT:  an accessor does not have the take's volume in it: 0.13750 instead of 0.27500"
    ]


def test_it_knows_every_function_that_the_scripts_call():
    called = set()
    for path in FOLDER.rglob("*.lua"):
        called |= set(re.findall(r"reaper\.(\w+)", Path(path).read_text(encoding="utf-8"))) & functions().keys()
    called -= {"InsertTrackInProject"}  # asked for before each use: REAPER 6 does not have it
    listed = re.findall(r'"(\w+)"', (FOLDER / "lib" / "calls.lua").read_text(encoding="utf-8"))
    assert set(listed) == called and len(listed) == len(called)
