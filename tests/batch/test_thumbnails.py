"""The page grows while the batch runs."""

from __future__ import annotations

import os

import pytest
from batch.page_crates import data_of
from batch.stage import ListenerLog, batch_in, run_batch
from harness.stage import let_go, python_path, settings_in

from tsbs_daw.batch import page
from tsbs_daw.batch.page import NAME

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins use POSIX signals")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setattr(page, "_PAGE_EVERY_S", 0.0)
    monkeypatch.setattr(page, "_PAGE_SHARE", 0)


def test_the_page_grows_with_every_song(tmp_path):
    request = batch_in(tmp_path, "1/A.wav", "2/refuse B.wav", "3/held C.wav", "3/held D.wav")
    # What the page has to show before a song goes on.
    shown_before = {"held C": ["done", "failed", "waiting", "waiting"], "held D": ["done", "failed", "done", "waiting"]}

    def update(progress):
        if (request.out / NAME).is_file():
            songs = data_of((request.out / NAME).read_text(encoding="utf-8"))["songs"]
            states = [song["state"] for song in songs]
            let_go(settings_in(tmp_path), *(held for held, shown in shown_before.items() if states == shown))

    catalogue = run_batch(request, ListenerLog(update))
    assert [song.state for song in catalogue.songs] == ["done", "failed", "done", "done"]
    assert not (request.out / f"{NAME}.tmp").exists()


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path):
    request = batch_in(tmp_path, "A.wav", "slow B.wav")
    (request.out / NAME).mkdir(parents=True)
    assert [song.state for song in run_batch(request).songs] == ["done", "done"]
