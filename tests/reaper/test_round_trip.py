"""The scripts, in real Lua, and the real daemon with the bundled model: from the selected item to tracks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reaper.stage import STEMS, DaemonProcess, Studio, heard, stem_items


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    daemon = DaemonProcess(home)
    try:
        daemon.wait_until_alive()
        yield home
    finally:
        daemon.stop()


@pytest.mark.parametrize("version", ["54"])
def test_a_selected_item_becomes_a_folder_of_stems_below_its_track(version: str, tmp_path: Path, home: Path):
    studio = Studio(tmp_path, home, version)
    project = studio.project
    track = project.add_track("Mix")
    project.add_track("After")
    project.add_item(track, studio.song(duration_s=3.0), 12.345, 1.5, D_STARTOFFS=0.73)
    studio.run("Separate selected items")
    studio.until(studio.delivered)
    assert project.names()[0] == "Mix" and project.names()[-1] == "After"
    assert sorted(project.names()[2:-1]) == sorted(STEMS)
    assert project.levels() == [0, 0, 1, 1, 1, 1, 0]
    total = 0
    for name in STEMS:
        (item,) = stem_items(project, name)
        assert (item.values["D_POSITION"], item.values["D_LENGTH"]) == (12.345, 1.5)
        assert item.take.source.peaks_ready
        total = total + heard(item, 44100)
    assert len(project.undo_steps) == 1
    source = heard(track.items[0], 44100)
    assert np.std(total - source) < 0.5 * np.std(source), "aligned, or it would not come out"
    project.undo()
    assert project.names() == ["Mix", "After"]
