"""What is read of an item: a stem that is the source itself must sound like it, sample by sample, where it is put."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from reaper.model import Item, Source, Take
from reaper.stage import DaemonByHand, Studio, heard, stem_items

RATE = 44100


def item_of(studio: Studio, position: float = 3.21, length: float = 0.5, **take: float) -> Item:
    return studio.project.add_item(studio.project.add_track("Mix"), studio.song(), position, length, **take)


def stem_of(studio: Studio, name: str = "drums") -> Item:
    (item,) = stem_items(studio.project, name)
    return item


def difference(one: Item, other: Item) -> float:
    """The largest, over the length of the shorter, but for the last samples: an end between two samples."""
    count = round(min(one.values["D_LENGTH"], other.values["D_LENGTH"]) * RATE) - 2
    return float(np.abs(heard(one, RATE, count) - heard(other, RATE, count)).max())


def test_a_plain_item_is_handed_over_as_a_portion_of_its_file(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, D_STARTOFFS=0.25)
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert job["source"] == {"path": item.take.source.path, "start_samples": 11025, "length_samples": 22050}
    assert job["origin"] == "reaper" and job["priority"] == "interactive"
    assert job["output"] == str(studio.project.folder / "Media" / "stems")
    assert difference(stem_of(studio), item) == 0


def test_an_offset_between_two_samples_is_kept(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, D_STARTOFFS=0.1 + 0.4 / RATE)
    studio.run("Separate selected items")
    daemon.work(studio)
    assert stem_of(studio).take.values["D_STARTOFFS"] == pytest.approx(0.4 / RATE, abs=1e-9)
    assert difference(stem_of(studio), item) < 1e-6


@pytest.mark.parametrize("playrate", [0.5, 2.0])
def test_another_playrate_is_read_as_it_sounds_and_not_applied_again(
    playrate: float, studio: Studio, daemon: DaemonByHand
):
    item = item_of(studio, D_STARTOFFS=0.3, D_PLAYRATE=playrate)
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert "length_samples" not in job["source"] and "take.wav" in job["source"]["path"]
    stem = stem_of(studio)
    assert stem.take.values["D_PLAYRATE"] == 1.0
    assert stem.values["D_LENGTH"] == item.values["D_LENGTH"]
    assert difference(stem, item) < 1e-6
    assert studio.reaper.accessors == 0


def change(item: Item, what: str) -> None:
    if what == "pitch":
        item.take.values["D_PITCH"] = 2.0
    elif what == "stretch markers":
        item.take.stretch_markers = 2
    elif what == "envelope":
        item.take.envelopes = {"VOLENV": [(0.0, 1.0), (0.2, 0.25), (0.5, 0.8)]}
    elif what == "before the start":
        item.take.values["D_STARTOFFS"] = -0.1
    elif what == "loop":
        item.take.values["D_STARTOFFS"] = 1.8
    elif what in ("section", "reverse"):
        section = Source(item.take.source.path, "SECTION", item.take.source)
        section.section = (0.2, 1.0, what == "reverse")
        item.take.source = section
    elif what == "left channel":
        item.take.values["I_CHANMODE"] = 3.0


@pytest.mark.parametrize(
    "what", ["pitch", "stretch markers", "envelope", "before the start", "loop", "section", "reverse", "left channel"]
)
def test_what_is_not_plain_is_read_through_reaper(what: str, studio: Studio, daemon: DaemonByHand):
    item = item_of(studio)
    change(item, what)
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert "take.wav" in job["source"]["path"]
    assert difference(stem_of(studio), item) < 1e-6


def test_silence_in_the_middle_stays_silent(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, length=1.0, D_STARTOFFS=-0.5)
    item.values["B_LOOPSRC"] = 0.0
    studio.run("Separate selected items")
    daemon.work(studio)
    assert not heard(stem_of(studio), RATE)[: RATE // 2 - 1].any()
    assert difference(stem_of(studio), item) < 1e-6


def test_an_item_longer_than_its_file_keeps_its_length(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, length=5.0)
    item.values["B_LOOPSRC"] = 0.0
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert job["source"]["length_samples"] == 2 * RATE
    assert stem_of(studio).values["D_LENGTH"] == 5.0
    assert difference(stem_of(studio), item) == 0


def test_take_effects_are_rendered_when_asked_for_and_every_setting_is_put_back(studio: Studio, daemon: DaemonByHand):
    item, other = item_of(studio), item_of(studio, position=9.0)
    other.values["B_UISEL"] = 0.0
    item.take.effects, item.values["D_VOL"] = 1, 0.5
    studio.project.info |= {"RENDER_SETTINGS": 0.0, "RENDER_BOUNDSFLAG": 1.0, "RENDER_TAILFLAG": 3.0}
    studio.project.info_strings["RENDER_PATTERN"] = "$project"
    before = dict(studio.project.info), dict(studio.project.info_strings)
    studio.reaper.ext_state["TSBS-DAW", "fx"] = "yes"
    studio.run("Separate selected items")
    daemon.work(studio)
    stem = stem_of(studio)
    assert stem.values["D_VOL"] == 1.0, "the item's volume is in the render"
    count = round(0.5 * RATE) - 2
    assert np.abs(heard(stem, RATE, count) - 0.25 * heard(item, RATE, count)).max() < 0.02
    numbers, strings = studio.project.info, studio.project.info_strings
    assert {name: numbers[name] for name in before[0]} == before[0]
    assert {name: strings[name] for name in before[1]} == before[1]
    assert [item_ for item_ in studio.project.items if item_.values["B_UISEL"]] == [item]


def test_settings_are_put_back_after_a_render_that_failed(studio: Studio, daemon: DaemonByHand):
    item_of(studio).take.effects = 1
    studio.project.info["RENDER_SETTINGS"] = 64.0
    studio.reaper.ext_state["TSBS-DAW", "fx"] = "yes"
    studio.reaper.render_does = "nothing"
    studio.run("Separate selected items")
    daemon.work(studio)
    assert studio.project.info["RENDER_SETTINGS"] == 64.0
    (sentence,) = studio.troubled()
    assert sentence == "The render of 'mix' did not make a file; try again."


def test_settings_are_put_back_after_an_error_in_the_middle_of_a_render(studio: Studio, daemon: DaemonByHand):
    item_of(studio).take.effects = 1
    studio.project.info |= {"RENDER_SETTINGS": 64.0, "RENDER_TAILFLAG": 3.0}
    studio.reaper.ext_state["TSBS-DAW", "fx"] = "yes"
    studio.reaper.fails_at["Main_OnCommandEx"] = 1
    studio.run("Separate selected items")
    daemon.work(studio)
    assert (studio.project.info["RENDER_SETTINGS"], studio.project.info["RENDER_TAILFLAG"]) == (64.0, 3.0)
    assert "cannot be rendered" in studio.troubled()[0] and studio.reaper.ui_locks == 0


@pytest.mark.parametrize(
    ("type_", "why"),
    [("MIDI", "is MIDI"), ("EMPTY", "is empty"), ("CLICK", "click source")],
)
def test_what_cannot_be_read_faithfully_is_refused_with_a_sentence(
    type_: str, why: str, studio: Studio, daemon: DaemonByHand
):
    item_of(studio).take.source.type = type_
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.tickets() == []
    assert studio.jobs_say(why)


def test_the_sound_of_a_video_is_read_through_reaper(studio: Studio, daemon: DaemonByHand):
    """M4A, AAC and MP4 files are sources of type VIDEO."""
    item = item_of(studio)
    item.take.source.type = "VIDEO"
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert "take.wav" in job["source"]["path"] and difference(stem_of(studio), item) < 1e-6


def test_a_video_without_sound_is_refused(studio: Studio, daemon: DaemonByHand):
    source = item_of(studio).take.source
    source.type, source.audio = "VIDEO", np.zeros((0, 0), np.float32)
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.tickets() == [] and studio.jobs_say("has no audio; choose an item with audio")


def test_a_file_that_was_offline_and_came_back_is_taken(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, D_STARTOFFS=0.25)
    item.take.source.was_offline = True
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert job["source"] == {"path": item.take.source.path, "start_samples": 11025, "length_samples": 22050}


@pytest.mark.parametrize(("playrate", "effects"), [(0.5, 0), (1.0, 1)])
def test_what_was_offline_and_is_not_plain_asks_for_the_project_to_be_opened_again(
    playrate: float, effects: int, studio: Studio, daemon: DaemonByHand
):
    studio.choose(fx="yes")
    take = item_of(studio, D_PLAYRATE=playrate).take
    take.source.was_offline, take.effects = True, effects
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.tickets() == [] and studio.jobs_say("open the project again")


def several_items(studio: Studio) -> list[Item]:
    """Two items on one selected track, and a time selection over both."""
    track = studio.project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    studio.project.time_selection = (0.5, 1.5)
    return [
        studio.project.add_item(track, studio.song(f"{number}.wav", seed=number), float(number), 1.0)
        for number in range(2)
    ]


def separate_time(studio: Studio, daemon: DaemonByHand) -> list[dict]:
    studio.run("Separate time selection on selected tracks")
    return daemon.work(studio)


def test_what_was_offline_is_not_read_as_silence_among_others(studio: Studio, daemon: DaemonByHand):
    first, second = several_items(studio)
    second.take.source.was_offline = True
    assert separate_time(studio, daemon) == []
    assert studio.jobs_say("'1' was offline when the project was opened; open the project again.")
    assert first.values["B_MUTE"] == 0 and studio.project.undo_steps == []


def test_several_items_that_are_muted_by_now_cannot_be_separated_again_and_that_is_said(
    studio: Studio, daemon: DaemonByHand
):
    several_items(studio)
    separate_time(studio, daemon)
    studio.project.track_named("bass").values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(20)
    assert studio.tickets() == [] and studio.jobs_say("none of them is audible now; unmute them and try again.")


def test_items_of_lanes_that_do_not_play_are_not_in_what_a_track_plays(studio: Studio, daemon: DaemonByHand):
    first, *_ = several_items(studio)
    hidden = studio.project.add_item(first.track, studio.song("hidden.wav", seed=7), 0.0, 2.0)
    first.track.values["I_FREEMODE"], hidden.values["C_LANEPLAYS"] = 2.0, 0.0
    count = round(0.4 * 48000)
    expected = first.audio_at(0.5 + np.arange(count) / 48000, 2)
    separate_time(studio, daemon)
    assert np.abs(heard(stem_of(studio), 48000, count) - expected).max() < 1e-6


def many_channels(item: Item) -> None:
    source = item.take.source
    source.audio = np.repeat(source.audio[:, :1], 6, axis=1) * np.arange(1, 7) / 6
    soundfile.write(source.path, source.audio, RATE, subtype="FLOAT")


def test_a_track_is_read_with_as_many_channels_as_its_items_have_and_it_carries(studio: Studio, daemon: DaemonByHand):
    for item in several_items(studio):
        many_channels(item)
    item.track.values["I_NCHAN"] = 6.0
    separate_time(studio, daemon)
    assert stem_of(studio).take.source.channels == 6
    assert studio.project.track_named("drums").values["I_NCHAN"] == 6


def test_take_effects_of_many_channels_are_rendered_with_all_of_them(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio)
    many_channels(item)
    item.take.effects = 1
    studio.choose(fx="yes")
    studio.run("Separate selected items")
    daemon.work(studio)
    assert stem_of(studio).take.source.channels == 6


def test_take_effects_that_stems_are_without_are_said(studio: Studio, daemon: DaemonByHand):
    item_of(studio).take.effects = 1
    studio.run("Separate selected items")
    assert len(daemon.work(studio)) == 1
    assert studio.jobs_say("'mix' has take effects, which are not in its stems; check *Include take effects*")


def test_take_effects_among_several_items_are_said(studio: Studio, daemon: DaemonByHand):
    several_items(studio)[1].take.effects = 1
    assert len(separate_time(studio, daemon)) == 1
    assert studio.jobs_say("'1' has take effects and is read together with other items")


def test_a_second_render_format_makes_no_second_file_and_is_put_back(studio: Studio, daemon: DaemonByHand):
    item_of(studio).take.effects = 1
    studio.project.info_strings["RENDER_FORMAT2"] = "bDNwbQ=="
    studio.choose(fx="yes")
    studio.run("Separate selected items")
    studio.ticks(12)
    (folder,) = studio.jobs_waiting()
    assert [path.name for path in (folder / "source").iterdir()] == ["take.wav"]
    assert studio.project.info_strings["RENDER_FORMAT2"] == "bDNwbQ=="


def test_offline_media_is_refused(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio)
    studio.project.folder.joinpath("Media", "mix.wav").unlink()
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.tickets() == [] and studio.jobs_say("is offline")
    assert item.alive and len(studio.project.tracks) == 1


def test_an_item_that_changes_while_it_is_read_is_read_anew(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, length=1.9, D_PLAYRATE=0.5)
    item.take.source.audio = np.tile(item.take.source.audio, (40, 1))
    item.values["D_LENGTH"] = 60.0
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.reaper.accessors == 1, "it is under way"
    item.take.values["D_STARTOFFS"] = 1.0
    daemon.work(studio)
    assert difference(stem_of(studio), item) < 1e-6


def test_an_item_that_vanishes_while_it_is_read_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio, D_PLAYRATE=0.5)
    item.take.source.audio = np.tile(item.take.source.audio, (40, 1))
    item.values["D_LENGTH"] = 60.0
    studio.run("Separate selected items")
    studio.ticks(3)
    studio.project.remove_item(item)
    daemon.work(studio)
    assert "it is gone" in studio.troubled()[0]
    assert studio.reaper.accessors == 0 and studio.jobs_waiting() != [], "its folder waits, without a request"


def test_an_item_without_a_take_is_refused(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio)
    item.takes.clear()
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.jobs_say("is empty")


def test_an_inactive_take_is_not_what_is_read(studio: Studio, daemon: DaemonByHand):
    item = item_of(studio)
    item.takes.append(Take(item, Source(str(studio.song("second.wav", seed=5)))))
    item.active = 1
    studio.run("Separate selected items")
    (job,) = daemon.work(studio)
    assert job["source"]["path"].endswith("second.wav")
    assert difference(stem_of(studio), item) == 0
