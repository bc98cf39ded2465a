"""The scripts, in real Lua, and the real daemon with the bundled model: from what is selected to tracks, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reaper.model import Item
from reaper.stage import STEMS, DaemonProcess, Studio, heard, stem_items

RATE = 44100


@pytest.fixture(scope="module")
def daemon_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    daemon = DaemonProcess(home)
    try:
        daemon.wait_until_alive()
        yield home
    finally:
        daemon.stop()


@pytest.fixture
def studio(tmp_path: Path, daemon_home: Path, version: str) -> Studio:
    return Studio(tmp_path, daemon_home, version)


def sum_of_stems(studio: Studio, count: int, at: float) -> np.ndarray:
    """What all stem items play that begin at this position."""
    found = [item for name in STEMS for item in stem_items(studio.project, name) if item.values["D_POSITION"] == at]
    assert len(found) == len(STEMS)
    return sum(heard(item, RATE, count) for item in found)


def lag(one: np.ndarray, other: np.ndarray) -> int:
    """By how many samples `other` comes later, from their cross-correlation."""
    length = 2 * len(one)
    spectrum = np.fft.rfft(other[:, 0], length) * np.conj(np.fft.rfft(one[:, 0], length))
    found = int(np.argmax(np.fft.irfft(spectrum, length)))
    return found - length if found > length // 2 else found


@pytest.mark.parametrize("playrate", [0.5, 1.0, 2.0])
def test_an_item_at_an_odd_place_comes_back_as_stems_to_the_sample(playrate: float, studio: Studio):
    project = studio.project
    project.add_track("Outer", depth=1)
    track = project.add_track("Mix", depth=-1)
    project.add_track("After")
    item = project.add_item(track, studio.song(duration_s=3.0), 12.345678, 1.1, D_STARTOFFS=0.73, D_PLAYRATE=playrate)
    studio.run("Separate selected items")
    studio.until(studio.delivered)
    assert project.names()[:3] == ["Outer", "Mix", "mix - stems"] and project.names()[-1] == "After"
    assert sorted(project.names()[3:-1]) == sorted(STEMS)
    assert project.levels() == [0, 1, 1, 2, 2, 2, 2, 0]
    count = round(1.1 * RATE) - 2
    source, total = heard(item, RATE, count), sum_of_stems(studio, count, 12.345678)
    assert lag(source, total) == 0 and np.std(total - source) < 0.7 * np.std(source)
    for name in STEMS:
        (stem,) = stem_items(project, name)
        assert stem.values["D_LENGTH"] == 1.1 and stem.take.values["D_PLAYRATE"] == 1.0
        assert project.folder / "Media" in Path(stem.take.source.path).parents
    assert len(project.undo_steps) == 1 and item.values["B_MUTE"] == 1
    project.undo()
    assert project.names() == ["Outer", "Mix", "After"] and project.items[0].values["B_MUTE"] == 0


def test_regions_items_tabs_a_failure_and_a_cancel_are_in_flight_together(studio: Studio):
    """One run through everything at once: the jobs of two projects, of which one is closed before its stems come."""
    first = studio.project
    track = first.add_track("One")
    track.values["I_SELECTED"] = 1.0
    first.add_item(track, studio.song("one.wav", seed=1), 0.0, 2.0)
    first.regions = [(0.0, 0.4, "Verse"), (1.0, 1.5, "Chorus")]
    studio.run("Separate project regions on selected tracks")
    studio.ticks(2)
    second = studio.new_project("second")
    studio.project = second
    items = [broken_item(studio), second.add_item(second.add_track("Fine"), studio.song("fine.wav", seed=2), 5.0, 0.5)]
    studio.run("Separate selected items")
    studio.reaper.close(first)
    studio.until(lambda: len(stem_items(second, "bass")) == 1)
    studio.until(lambda: any(results(studio, "failed")))
    studio.until(lambda: len(results(studio, "done")) == 2)
    assert stem_items(second, "bass")[0].values["D_POSITION"] == 5.0 and items[0].alive
    assert first.names() == ["One"], "it is closed"
    studio.reaper.open(first)
    studio.until(lambda: len(stem_items(first, "drums")) == 2)
    assert sorted(item.values["D_POSITION"] for item in stem_items(first, "drums")) == [0.0, 1.0]
    window = studio.run("Jobs").gfx
    studio.ticks(20)
    assert window.says("has nan at sample 5000"), window.lines
    window.click("Dismiss")
    studio.until(studio.delivered)


def broken_item(studio: Studio) -> Item:
    """Of a file that REAPER plays, and the daemon refuses: NaN in it."""
    import soundfile

    path = studio.song("broken.wav", seed=3)
    audio, rate = soundfile.read(path, dtype="float32")
    audio[5000] = np.nan
    soundfile.write(path, audio, rate, subtype="FLOAT")
    return studio.project.add_item(studio.project.add_track("Broken"), path, 1.0, 1.0)


def results(studio: Studio, state: str) -> list[dict]:
    """Of the jobs that are finished in this state and not delivered."""
    wanted = {ticket["id"] for ticket in studio.tickets()}
    found = []
    for path in (studio.home / "spool" / "done").glob("*/result.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["id"] in wanted and document["state"] == state:
            found.append(document)
    return found


def test_a_cancelled_job_leaves_nothing(studio: Studio):
    item = studio.project.add_item(studio.project.add_track("Long"), studio.song(duration_s=60.0), 0.0, 60.0)
    studio.run("Separate selected items")
    studio.run("Jobs")
    studio.until(lambda: "Cancel" in studio.reaper.window("Jobs").lines)
    studio.reaper.window("Jobs").click("Cancel")
    studio.until(studio.delivered)
    assert studio.project.names() == ["Long"] and studio.project.undo_steps == [] and item.values["B_MUTE"] == 0


def test_reaper_closed_while_the_daemon_works_delivers_at_its_next_start(studio: Studio):
    project = studio.project
    project.add_item(project.add_track("Mix"), studio.song(seed=4), 3.0, 1.0)
    studio.run("Separate with preset")
    studio.ticks(2)
    studio.reaper.window("preset").pick("Preset", "instrumental")
    studio.ticks(3)
    studio.reaper.window("preset").click("Separate")
    studio.until(lambda: any(ticket["stage"] == "submitted" for ticket in studio.tickets()))
    studio.reaper.close(project)
    studio.reaper = studio.reaper.quit()
    studio.until(lambda: len(results(studio, "done")) == 1)
    studio.reaper.open(project)
    studio.run("Background")
    studio.until(studio.delivered)
    assert project.names()[:2] == ["Mix", "mix - stems"] and "instrumental" in project.names()
    assert project.track_named("vocals").values["B_MUTE"] == 1, "dry stems beside processed ones are muted"


@pytest.mark.parametrize("version", ["54"])
def test_one_stem_and_the_rest_are_all_that_is_written_and_sum_to_the_item(studio: Studio):
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(duration_s=2.0), 3.0, 1.5)
    studio.choose(stems="vocals/rest")
    studio.run("Separate selected items")
    studio.until(studio.delivered)
    names = studio.project.names()[2:]
    assert names == ["vocals", "no_vocals"]
    (folder,) = {Path(stem.take.source.path).parent for name in names for stem in stem_items(studio.project, name)}
    assert {path.stem for path in folder.glob("*.wav")} == set(names)
    total = sum(heard(stem, RATE) for name in names for stem in stem_items(studio.project, name))
    assert np.abs(total - heard(item, RATE)).max() < 1e-4


@pytest.mark.parametrize("version", ["54"])
def test_the_analysis_of_an_item_comes_into_the_project(studio: Studio):
    """The request has schema 2, and the daemon answers in it."""
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(duration_s=8.0), 3.0, 8.0)
    studio.run("Insert analysis of selected item")
    studio.ticks(2)
    studio.reaper.window("Insert analysis").click("Insert")
    studio.ticks(3)
    studio.until(studio.delivered)
    answers = [json.loads(path.read_bytes()) for path in studio.home.glob("spool/done/*/result.json")]
    (result,) = [answer for answer in answers if answer["schema"] == 2]
    assert Path(result["analysis"]).is_file()
    assert [step.label for step in studio.project.undo_steps] == ["tsbs-daw: analysis of mix"]
    assert "BPM" in item.strings["P_NOTES"] or not studio.project.regions, "tempo, or nothing that beats"
