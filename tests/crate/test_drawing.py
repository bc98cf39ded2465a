"""The page grows while the crate runs."""

from __future__ import annotations

import os

import pytest
from crate.page_crates import data_of
from crate.stage import Ears, crate_in, run_crate
from jobs.stage import python_path

from tsbs_daw.crate import drawing
from tsbs_daw.crate.page import NAME

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins use POSIX signals")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setattr(drawing, "_PAGE_EVERY_S", 0.0)
    monkeypatch.setattr(drawing, "_PAGE_SHARE", 0)


def test_the_page_grows_with_every_song(tmp_path):
    request = crate_in(tmp_path, "A.wav", "refuse B.wav", "slow C.wav", "slow D.wav")
    seen = set()

    def look(view):
        if (request.out / NAME).is_file():
            songs = data_of((request.out / NAME).read_text(encoding="utf-8"))["songs"]
            seen.add(tuple(song["state"] for song in songs))

    run_crate(request, Ears(look))
    assert ("done", "failed", "waiting", "waiting") in seen
    assert ("done", "failed", "done", "waiting") in seen
    assert not (request.out / f"{NAME}.tmp").exists()


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path):
    request = crate_in(tmp_path, "A.wav", "slow B.wav")
    (request.out / NAME).mkdir(parents=True)
    assert [song.state for song in run_crate(request).songs] == ["done", "done"]
