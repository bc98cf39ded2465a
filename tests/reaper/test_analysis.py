"""The analysis of an item in the open project: tempo map, markers, regions and a note, in one undo step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reaper.model import Item
from reaper.stage import DaemonByHand, Studio

from tsbs_daw.contracts.analysis import Analysis, Beats, Key, Loudness, Section, Tempo, TempoChange
from tsbs_daw.contracts.job import Job

FOUND = Analysis(
    schema=1,
    duration_s=1.5,
    tempo=Tempo(bpm=128.0, confidence=0.9, doubtful=False, changes=(TempoChange(at_s=0.25, bpm=128.0),)),
    beats=Beats(
        times_s=(0.25, 0.71875, 1.1875),
        downbeats_s=(0.25, 1.1875),
        beats_per_bar=3,
        meter_doubtful=False,
        confidence=0.9,
    ),
    key=Key(tonic="C#", mode="minor", camelot="12A", confidence=0.4, doubtful=True),
    loudness=Loudness(integrated_lufs=-14.0, range_lu=3.0, true_peak_db=-1.0),
    intro_s=0.0,
    sections=(
        Section(start_s=0.0, end_s=0.5, label="A", confidence=1.0),
        Section(start_s=0.5, end_s=1.5, label="B", confidence=1.0),
    ),
)


def ask(studio: Studio, *checks: str, markers: str | None = None, position: float = 10.0, **take: float) -> Item:
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(), position, 1.5, **take)
    studio.run("Insert analysis of selected item")
    studio.ticks(2)
    window = studio.reaper.window("Insert analysis")
    for label in checks:
        window.click(label)
        studio.ticks(3)
    if markers:
        window.pick("Markers", markers)
        studio.ticks(3)
    window.click("Insert")
    studio.ticks(20)
    return item


def answer(studio: Studio, daemon: DaemonByHand, found: Analysis | dict | None = FOUND) -> dict:
    (job,) = daemon.claim()
    Job.from_json(json.dumps(job), "what the scripts ask for")
    path = None
    if found is not None:
        path = studio.folder / "analysis.json"
        path.write_text(found.model_dump_json(by_alias=True) if isinstance(found, Analysis) else json.dumps(found))
    daemon.finish(job, schema=2, analysis=path and str(path))
    daemon.work(studio)
    return job


def test_markers_sections_and_a_note_come_in_one_undo_step(studio: Studio, daemon: DaemonByHand):
    item = ask(studio)
    job = answer(studio, daemon)
    assert job["delivery"] == {"analysis": True, "sessions": [], "stems": []}
    assert job["schema"] == 2 and job["preset"] == "none"
    assert studio.project.regions == [
        (10.25, 10.25, "1"), (11.1875, 11.1875, "2"), (10.0, 10.5, "A"), (10.5, 11.5, "B")
    ]  # fmt: skip
    assert item.strings["P_NOTES"] == "128.0 BPM; C# minor, 12A (doubtful)"
    assert [step.label for step in studio.project.undo_steps] == ["tsbs-daw: analysis of mix"]
    assert studio.project.names() == ["Mix"] and studio.project.tempo == [] and studio.tickets() == []


def test_the_tempo_map_begins_with_a_bar_on_the_first_beat_and_the_item_stays(studio: Studio, daemon: DaemonByHand):
    item = ask(studio, "Tempo map")
    answer(studio, daemon)
    assert studio.project.tempo == [{"time": 10.25, "bpm": 128.0, "signature": (3, 4), "flags": 5}]
    assert (item.values["D_POSITION"], item.values["D_LENGTH"]) == (10.0, 1.5)
    assert len(studio.project.undo_steps) == 1


def test_a_tempo_map_that_is_there_is_left_alone_and_that_is_said(studio: Studio, daemon: DaemonByHand):
    studio.project.tempo.append({"time": 10.5, "bpm": 90.0, "signature": None, "flags": 0})
    ask(studio, "Tempo map")
    answer(studio, daemon)
    assert [marker["bpm"] for marker in studio.project.tempo] == [90.0]
    assert studio.jobs_say("The project has tempo markers there") and len(studio.project.regions) == 4


def test_every_beat_can_get_a_marker_and_what_is_not_wanted_does_not_come(studio: Studio, daemon: DaemonByHand):
    item = ask(studio, "Sections as regions", "Tempo and key as a note", markers="At every beat")
    answer(studio, daemon)
    assert [start for start, _, _ in studio.project.regions] == [10.25, 10.71875, 11.1875]
    assert "P_NOTES" not in item.strings
    studio.run("Insert analysis of selected item")
    studio.ticks(2)
    assert studio.reaper.window("Insert analysis").says("At every beat"), "the choice is remembered"


def test_what_lies_outside_of_a_trimmed_and_moved_item_is_left_out(studio: Studio, daemon: DaemonByHand):
    item = ask(studio)
    item.values |= {"D_POSITION": 20.5, "D_LENGTH": 0.5}
    item.take.values["D_STARTOFFS"] = 0.5
    answer(studio, daemon)
    assert studio.project.regions == [(20.5, 21.0, "B")]


def test_times_are_what_is_heard_at_another_playrate(studio: Studio, daemon: DaemonByHand):
    ask(studio, D_PLAYRATE=1.25)
    answer(studio, daemon)
    assert studio.project.regions[0][0] == pytest.approx(10.25)


def test_a_note_of_the_users_stays(studio: Studio, daemon: DaemonByHand):
    item = ask(studio)
    item.strings["P_NOTES"] = "mine"
    answer(studio, daemon)
    assert item.strings["P_NOTES"] == "mine\n128.0 BPM; C# minor, 12A (doubtful)"


def without_pulse() -> Analysis:
    return FOUND.model_copy(
        update={"tempo": Tempo(bpm=None, confidence=0.0, doubtful=True), "beats": Beats(), "key": None, "sections": ()}
    )


def test_a_song_without_a_pulse_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    item = ask(studio, "Tempo map")
    answer(studio, daemon, without_pulse())
    assert studio.project.tempo == [] and studio.project.regions == [] and "P_NOTES" not in item.strings
    assert studio.jobs_say("No steady pulse was found") and studio.jobs_say("No bars were found.")


@pytest.mark.parametrize("found", [None, {}, {"tempo": 3}, {"tempo": {}, "beats": {}, "sections": []}])
def test_an_analysis_that_failed_is_a_sentence_and_changes_nothing(
    found: dict | None, studio: Studio, daemon: DaemonByHand
):
    ask(studio)
    answer(studio, daemon, found)
    assert "failed or is damaged; insert it again" in studio.troubled()[0]
    assert studio.project.undo_steps == [] and studio.project.regions == []


def test_an_item_that_is_gone_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    studio.project.remove_item(ask(studio))
    answer(studio, daemon)
    assert "is gone from its project, so its analysis cannot be inserted" in studio.troubled()[0]


def test_an_analysis_comes_once(studio: Studio, daemon: DaemonByHand):
    """Also when REAPER crashed between the insertion and the end of the ticket."""
    ask(studio)
    (ticket,) = (studio.home / "spool" / "reaper").glob("*.json")
    kept = ticket.read_bytes()
    answer(studio, daemon)
    ticket.write_bytes(kept)
    studio.run("Background")
    daemon.work(studio)
    assert len(studio.project.regions) == 4 and len(studio.project.undo_steps) == 1 and studio.tickets() == []


def test_the_beats_of_a_long_mix_keep_the_tick_short(studio: Studio, daemon: DaemonByHand):
    times = tuple(index / 1000 for index in range(1500))
    beats = Beats(times_s=times, downbeats_s=times[::4], beats_per_bar=4, meter_doubtful=False)
    ask(studio, markers="At every beat")
    answer(studio, daemon, FOUND.model_copy(update={"beats": beats}))
    assert len(studio.project.regions) == 375 + 2
    assert studio.jobs_say("There are 1500 beats, so only the bars got markers.")


def test_a_window_that_is_closed_asks_for_nothing(studio: Studio, daemon: DaemonByHand, tmp_path: Path):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Insert analysis of selected item")
    studio.ticks(2)
    studio.reaper.window("Insert analysis").press("Escape")
    studio.ticks(12)
    assert daemon.claim() == [] and studio.project.undo_steps == []
