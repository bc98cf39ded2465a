"""The other actions, the chooser, and the window of jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reaper.imgui import ImGui
from reaper.model import Item, Source, Track
from reaper.stage import STEMS, DaemonByHand, Studio, heard, stem_items

RATE = 44100


def muted_pieces(track: Track) -> list[tuple[float, float]]:
    """Where they begin and end."""
    found = sorted((i.values["D_POSITION"], i.values["D_LENGTH"]) for i in track.items if i.values["B_MUTE"])
    return [(start, round(start + length, 9)) for start, length in found]


def test_a_time_selection_takes_a_portion_of_the_only_item_of_each_selected_track(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    tracks = [project.add_track(name) for name in ("One", "Two", "Not selected")]
    for number, track in enumerate(tracks):
        project.add_item(track, studio.song(f"{number}.wav", seed=number), 1.0, 2.0)
        track.values["I_SELECTED"] = float(number < 2)
    project.time_selection = (1.5, 2.25)
    studio.run("Separate time selection on selected tracks")
    jobs = daemon.work(studio)
    portions = [(job["source"]["start_samples"], job["source"]["length_samples"]) for job in jobs]
    assert portions == [(22050, 33075)] * 2
    assert {item.values["D_POSITION"] for item in stem_items(project, "bass")} == {1.5}
    assert [muted_pieces(track) for track in tracks] == [[(1.5, 2.25)], [(1.5, 2.25)], []]


def test_several_items_of_a_track_are_read_as_they_sound_together(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    track = project.add_track("One")
    track.values["I_SELECTED"] = 1.0
    items = [project.add_item(track, studio.song(f"{n}.wav", seed=n), 1.0 + n, 1.0) for n in range(2)]
    items.append(project.add_item(track, studio.song("muted.wav", seed=9), 1.0, 2.0))
    items[1].values["D_VOL"], items[2].values["B_MUTE"] = 0.5, 1.0
    first = items[0].audio_at(np.arange(24000 - 1) / 48000 + 0.5, 2)
    second = items[1].audio_at(np.arange(24000 - 1) / 48000, 2)
    project.time_selection = (1.5, 2.5)
    studio.run("Separate time selection on selected tracks")
    (job,) = daemon.work(studio)
    assert "take.wav" in job["source"]["path"]
    (stem,) = stem_items(project, "vocals")
    assert (stem.values["D_POSITION"], stem.values["D_LENGTH"]) == (1.5, 1.0)
    sound = stem.take.source.audio  # at the project's rate, the higher one
    assert stem.take.source.rate == 48000 and len(sound) == 48000
    assert np.abs(sound[:23999] - first).max() < 1e-6
    assert np.abs(sound[24000:-1] - 0.5 * second).max() < 1e-6


def test_every_region_of_every_selected_track_is_a_job(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    for number in range(2):
        track = project.add_track(f"Track {number}")
        track.values["I_SELECTED"] = 1.0
        project.add_item(track, studio.song(f"{number}.wav", seed=number), 0.0, 2.0)
    project.regions = [(0.0, 0.5, "Verse"), (0.75, 0.75, "a marker"), (1.0, 1.75, "Chorus"), (50.0, 51.0, "Nothing")]
    studio.run("Separate project regions on selected tracks")
    jobs = daemon.work(studio)
    assert sorted(job["song"] for job in jobs) == ["0 Chorus", "0 Verse", "1 Chorus", "1 Verse"]
    assert sorted(item.values["D_POSITION"] for item in stem_items(project, "drums")) == [0.0, 0.0, 1.0, 1.0]
    assert len(project.tracks) == 2 * (1 + 5), "one folder for each track"


def test_razor_edits_are_read_on_their_own_tracks(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    for number in range(3):
        project.add_item(project.add_track(f"Track {number}"), studio.song(f"{number}.wav", seed=number), 0.0, 2.0)
    project.tracks[0].strings["P_RAZOREDITS"] = '0.25 0.5 "" 1.0 1.5 "" 0.0 2.0 "{9D3A1F0E-0000}"'
    project.tracks[2].strings["P_RAZOREDITS"] = '0.5 1.0 ""'
    studio.run("Separate razor edits")
    jobs = daemon.work(studio)
    found = sorted((Path(job["source"]["path"]).stem, job["source"]["start_samples"]) for job in jobs)
    assert found == [("0", 11025), ("0", 44100), ("2", 22050)]


def test_the_region_at_the_edit_cursor_is_one_job(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    track = project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    project.add_item(track, studio.song(), 0.0, 2.0)
    project.regions, project.cursor = [(0.0, 0.5, "Verse"), (0.75, 0.75, "a marker"), (1.0, 1.75, "Chorus")], 1.2
    studio.run("Separate region at edit cursor on selected tracks")
    (job,) = daemon.work(studio)
    assert job["song"] == "mix Chorus"


def test_the_dialog_takes_razor_edits_and_the_region_at_the_cursor(studio: Studio, daemon: DaemonByHand):
    for what, said in [("Razor edits", "There is no razor edit"), ("Region at the edit", "put the edit cursor into")]:
        studio.run("Separate with preset")
        choose(studio, "Separate", What=what)
        assert studio.jobs_say(said)


def test_nothing_selected_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    for action, said in [
        ("Separate selected items", "No item is selected"),
        ("Separate time selection on selected tracks", "make a time selection"),
        ("Separate project regions on selected tracks", "make regions"),
    ]:
        studio.run(action)
        studio.ticks(2)
        assert studio.reaper.window("Jobs").says(said)
    assert studio.tickets() == [] and studio.project.undo_steps == []


def test_a_presets_own_action_uses_it_and_gives_all_its_tracks(studio: Studio, daemon: DaemonByHand):
    studio.reaper.ext_state["TSBS-DAW", "stems"] = "bass"
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate selected items (karaoke)")
    (job,) = daemon.work(studio)
    assert job["preset"] == "karaoke" and len(studio.project.tracks) == 2 + len(STEMS)


def choose(studio: Studio, *labels: str, window: str = "preset", **lists: str) -> None:
    """In the dialog: entries of its lists, then what is clicked."""
    studio.ticks(2)
    for name, entry in lists.items():
        studio.reaper.window(window).pick(name.replace("_", " "), entry)
        studio.ticks(3)
    for label in labels:
        studio.reaper.window(window).click(label)
        studio.ticks(3)


def test_the_chooser_remembers_what_was_chosen(studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate with preset")
    studio.ticks(2)
    choose(studio, "bass", Preset="instrumental", Source="Leave both")
    assert studio.reaper.window("preset").says("Without the voice.")
    choose(studio, "bass")
    choose(studio, "bass")
    gfx = studio.reaper.window("preset")
    choose(studio, "Separate")
    (job,) = daemon.work(studio, stems=[*STEMS, "instrumental"])
    assert not gfx.is_open and job["preset"] == "instrumental"
    assert studio.project.names() == ["Mix", "mix - stems", "vocals", "drums", "other", "instrumental"]
    assert studio.project.items[0].values["B_MUTE"] == 0
    again = studio.reaper.quit()
    assert again.ext_state["TSBS-DAW", "preset"] == "instrumental"
    assert again.ext_state["TSBS-DAW", "stems"] == "vocals/drums/other/instrumental"


def test_the_chooser_separates_a_time_selection_too(studio: Studio, daemon: DaemonByHand):
    track = studio.project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    studio.project.add_item(track, studio.song(), 0.0, 1.0)
    studio.project.time_selection = (0.25, 0.75)
    studio.run("Separate with preset")
    choose(studio, "Separate", Preset="instrumental", What="Time selection", Source="Mute what was")
    (job,) = daemon.work(studio)
    assert job["preset"] == "instrumental" and muted_pieces(track) == [(0.25, 0.75)]


def test_re_separating_says_what_becomes_of_new_outputs(studio: Studio, daemon: DaemonByHand):
    studio.run("Re-separate in place")
    studio.ticks(2)
    window = studio.reaper.window("Re-separate")
    assert window.says("An output without a track gets one, muted.") and not window.says("Mute what was")


def test_a_chooser_that_is_closed_asks_for_nothing(studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate with preset")
    studio.ticks(2)
    studio.reaper.window("preset").shut()
    studio.ticks(2)
    assert studio.reaper.scripts == [] and studio.tickets() == []


def test_the_chooser_and_the_jobs_are_drawn_by_reaimgui_where_it_is_there(studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    imgui = studio.reaper.imgui = ImGui()
    studio.run("Separate with preset")
    for label in ("Preset", "bass", "Separate"):
        studio.ticks(2)
        imgui.clicked, imgui.picks = label, "instrumental"
        studio.ticks(2)
    (job,) = daemon.work(studio, stems=[*STEMS, "instrumental"])
    assert job["preset"] == "instrumental" and "bass" not in studio.project.names()
    studio.run("Jobs")
    studio.ticks(2)
    assert imgui.says("Nothing is in progress.")
    imgui.open = False
    studio.ticks(14)
    assert studio.reaper.scripts == []


def test_re_separating_in_place_keeps_every_edit(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    item = project.add_item(project.add_track("Mix"), studio.song(), 2.0, 1.0, D_STARTOFFS=0.5)
    studio.run("Separate selected items")
    daemon.work(studio)
    (bass,) = stem_items(project, "bass")
    bass.values |= {"D_POSITION": 30.0, "D_LENGTH": 0.25, "D_FADEINLEN": 0.1}
    bass.take.values["D_STARTOFFS"] = 0.4
    project.track_named("bass").values["D_VOL"] = 0.3
    project.track_named("bass").values["I_SELECTED"] = 1.0
    old = bass.take.source.path
    studio.run("Re-separate in place")
    studio.ticks(2)
    choose(studio, "Separate", window="Re-separate", Preset="instrumental")
    studio.ticks(20)
    (job,) = daemon.claim()
    assert job["preset"] == "instrumental" and job["source"]["start_samples"] == 22050
    job["song"] = "again"
    daemon.finish(job)
    daemon.work(studio)
    assert len(project.tracks) == 2 + len(STEMS) and len(project.items) == 1 + len(STEMS)
    assert bass.take.source.path != old and "again" in bass.take.source.path
    assert (bass.values["D_POSITION"], bass.values["D_LENGTH"]) == (30.0, 0.25)
    assert bass.take.values["D_STARTOFFS"] == 0.4
    assert project.undo_steps[-1].label == "tsbs-daw: stems of mix, again"
    assert item.alive


def separated(studio: Studio, daemon: DaemonByHand, stems: list[str]) -> Item:
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 2.0, 1.0)
    studio.run("Separate selected items")
    daemon.work(studio, stems=stems)
    return item


def separate_again(studio: Studio, daemon: DaemonByHand, stems: list[str], number: int, *without: str) -> None:
    """Choose a preset whose outputs are these, for the folder of stems."""
    studio.project.track_named("mix - stems").values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    choose(studio, *without, "Separate", window="Re-separate", Preset="instrumental")
    studio.ticks(12)
    (job,) = daemon.claim()
    job["song"] = f"again {number}"
    daemon.finish(job, stems=stems)
    daemon.work(studio)


def test_re_separating_gives_an_output_without_a_track_one_that_is_muted(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    item = separated(studio, daemon, STEMS)
    item.values["D_POSITION"] = 5.0
    stem_items(project, "bass")[0].values["D_POSITION"] = 30.0
    separate_again(studio, daemon, [*STEMS, "instrumental"], 1)
    (made,) = stem_items(project, "instrumental")
    assert (made.values["D_POSITION"], made.values["D_LENGTH"]) == (5.0, 1.0), "where its source is"
    assert project.track_named("instrumental").values["B_MUTE"] == 1
    assert all(project.track_named(name).values["B_MUTE"] == 0 for name in STEMS)
    assert project.levels() == [0, 0, 1, 1, 1, 1, 1] and stem_items(project, "bass")[0].values["D_POSITION"] == 30.0
    assert len(project.undo_steps) == 2
    project.undo()
    assert "instrumental" not in project.names()


def test_an_output_that_comes_back_after_another_preset_goes_into_its_old_item(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    separated(studio, daemon, [*STEMS, "instrumental"])
    (first,) = stem_items(project, "instrumental")
    old = first.take.source.path
    separate_again(studio, daemon, STEMS, 1)
    assert stem_items(project, "instrumental") == [first] and first.take.source.path == old
    first.values["D_POSITION"] = 40.0
    separate_again(studio, daemon, [*STEMS, "instrumental"], 2)
    assert stem_items(project, "instrumental") == [first] and "again 2" in first.take.source.path
    assert first.values["D_POSITION"] == 40.0


def test_an_output_that_is_not_wanted_gets_no_track_and_what_was_removed_does_not_return(
    studio: Studio, daemon: DaemonByHand
):
    project = studio.project
    separated(studio, daemon, STEMS)
    project.tracks.remove(project.track_named("drums"))
    separate_again(studio, daemon, [*STEMS, "instrumental"], 1, "[x] instrumental")
    assert project.names() == ["Mix", "mix - stems", "vocals", "bass", "other"]
    assert all("again 1" in stem_items(project, name)[0].take.source.path for name in ("vocals", "bass", "other"))


def test_re_separating_other_tracks_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    studio.project.add_track("Mix").values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(4)
    assert studio.reaper.window("Jobs").says("No selected track was made by tsbs-daw")


def under_way(studio: Studio, daemon: DaemonByHand) -> dict:
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate selected items")
    studio.run("Jobs")
    studio.ticks(12)
    (job,) = daemon.claim()
    return job


def test_the_window_shows_progress_and_the_time_left(studio: Studio, daemon: DaemonByHand):
    job = under_way(studio, daemon)
    daemon.progress(job, 0.1)
    studio.ticks(12)
    daemon.progress(job, 0.6)
    studio.ticks(40)
    assert studio.reaper.window("Jobs").says("separating, ") and studio.reaper.window("Jobs").says(" s left")


def test_a_job_can_be_cancelled(studio: Studio, daemon: DaemonByHand):
    job = under_way(studio, daemon)
    daemon.progress(job, 0.1)
    studio.ticks(12)
    studio.reaper.window("Jobs").click("Cancel")
    studio.ticks(3)
    assert (studio.home / "spool" / "jobs" / job["id"] / "cancel").exists()
    daemon.end(job, {"schema": 1, "id": job["id"], "state": "cancelled"})
    studio.ticks(20)
    assert studio.tickets() == [] and studio.project.undo_steps == []


def test_a_failure_says_why_and_can_be_tried_again(studio: Studio, daemon: DaemonByHand):
    job = under_way(studio, daemon)
    daemon.fail(job, "The song is silent; choose another.")
    studio.ticks(20)
    window = studio.reaper.window("Jobs")
    assert window.says("The song is silent; choose another.") and studio.project.undo_steps == []
    window.click("Retry")
    studio.ticks(3)
    assert [folder.name for folder in studio.jobs_waiting()] == [job["id"]]
    (studio.jobs_waiting()[0] / "result.json").unlink()  # as the daemon does when it claims it
    daemon.work(studio)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_what_is_dismissed_is_forgotten(studio: Studio, daemon: DaemonByHand):
    job = under_way(studio, daemon)
    studio.reaper.window("Jobs").click("Dismiss")
    studio.ticks(12)
    daemon.finish(job)
    studio.ticks(20)
    assert studio.tickets() == [] and studio.project.names() == ["Mix"]


def test_a_missing_daemon_is_started_and_can_be_started_again(studio: Studio):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(12)
    window = studio.reaper.window("Jobs")
    assert studio.reaper.started == [("tsbs-daw watch", -2)] and window.says("Starting the daemon")
    assert len(studio.jobs_waiting()) == 1, "it is asked for meanwhile"
    studio.run("Separate selected items")
    studio.ticks(12)
    assert len(studio.reaper.started) == 1, "it is on its way"
    studio.ticks(3200)
    assert len(studio.reaper.started) == 3, "twice more, for what waits"
    assert window.says("No daemon is running. Your jobs wait")
    window.click("Start it")
    studio.ticks(2)
    assert len(studio.reaper.started) == 4
    DaemonByHand(studio.home).work(studio)
    assert studio.project.names() == ["Mix", *["mix - stems", *STEMS] * 2]
    studio.ticks(12)
    assert not studio.reaper.window("Jobs").says("No daemon")


def test_an_action_ends_at_once_and_may_be_run_again_meanwhile(studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    for _ in range(3):
        script = studio.run("Separate selected items")
        studio.ticks(1)
        assert not script.running
    assert studio.project.undo_steps == [], "an action that only asks leaves no undo point"
    assert len(daemon.work(studio)) == 3
    assert [script.path.name for script in studio.reaper.scripts] in ([], ["tsbs-daw_Background.lua"])


@pytest.mark.parametrize("position", [12.345])
def test_the_same_item_twice_lines_up_twice(position: float, studio: Studio, daemon: DaemonByHand):
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(), position, 1.0)
    for _ in range(2):
        studio.run("Separate selected items")
        daemon.work(studio)
    for stem in stem_items(studio.project, "vocals"):
        assert np.array_equal(heard(stem, RATE), heard(item, RATE)) and stem.values["D_POSITION"] == position


def test_setup_registers_every_action_without_an_undo_point(studio: Studio):
    studio.run("Setup")
    studio.ticks(2)
    count = len(list(studio.scripts.glob("tsbs-daw_*.lua")))
    assert studio.reaper.window("Setup").says(f"{count} actions are registered in the action list.")
    assert studio.project.undo_steps == []


def test_a_reversed_stem_keeps_its_sound_when_it_is_separated_again_and_that_is_said(
    studio: Studio, daemon: DaemonByHand
):
    separated(studio, daemon, STEMS)
    (bass,) = stem_items(studio.project, "bass")
    reversed_ = Source(bass.take.source.path, "SECTION", bass.take.source)
    reversed_.path, reversed_.section, reversed_.owned = "", (0.0, 1.0, True), True
    bass.take.source = reversed_
    separate_again(studio, daemon, STEMS, 1)
    assert bass.take.source is reversed_ and "again 1" in stem_items(studio.project, "drums")[0].take.source.path
    assert "plays it reversed, so its audio was kept" in studio.reaper.help_line
    assert studio.reaper.lit == {"tsbs-daw_Jobs.lua"}, "its button is lit, and nothing takes the keys from the user"
    studio.run("Jobs")
    studio.ticks(2)
    assert studio.reaper.window("Jobs").says("plays it reversed, so its audio was kept")
    studio.reaper.window("Jobs").press("Escape")
    studio.ticks(20)
    assert studio.reaper.lit == set()
    separate_again(studio, daemon, STEMS, 2)
    assert bass.take.source is reversed_ and "again 2" in stem_items(studio.project, "drums")[0].take.source.path
    assert studio.jobs_say("plays it reversed, so its audio was kept"), "and once more"
