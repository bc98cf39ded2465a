"""A part of the source: it is cut out and muted where the stems lie, and what is heard is what was heard before."""

from __future__ import annotations

import numpy as np
import pytest
from reaper.model import Item, Track
from reaper.stage import STEMS, DaemonByHand, Studio, stem_items

RATE = 44100
FADES = ("D_FADEINLEN", "D_FADEOUTLEN")


def pieces(track: Track) -> list[tuple[float, float, bool]]:
    """Of a track, from left to right: begin, end, whether it is muted."""
    found = [(i.values["D_POSITION"], i.values["D_LENGTH"], bool(i.values["B_MUTE"])) for i in track.items]
    return [(round(start, 9), round(start + length, 9), muted) for start, length, muted in sorted(found)]


def track_with(studio: Studio, *places: tuple[float, float], **take: float) -> Track:
    """A selected track with an item at each (position, length)."""
    track = studio.project.add_track(f"Track {len(studio.project.tracks)}")
    track.values["I_SELECTED"] = 1.0
    for number, (position, length) in enumerate(places):
        name = f"{track.name} {number}.wav"
        studio.project.add_item(track, studio.song(name, seed=number), position, length, **take)
    return track


def select(studio: Studio, start: float, end: float, choice: str = "mute") -> None:
    studio.reaper.ext_state["TSBS-DAW", "source"] = choice
    studio.project.time_selection = (start, end)
    studio.run("Separate time selection on selected tracks")


def played(items: list[Item], start: float, end: float) -> np.ndarray:
    """What these play together, (samples, channels), with mutes, and no fade allowed inside."""
    at = start + np.arange(round((end - start) * RATE)) / RATE
    total = np.zeros((len(at), 2))
    for item in items:
        if item.values["B_MUTE"]:
            continue
        total += item.audio_at(at - item.values["D_POSITION"], 2)
    return total


def test_only_the_selected_part_is_muted_and_what_is_heard_stays_the_same(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (1.0, 2.0), D_STARTOFFS=0.1)
    (item,) = track.items
    item.values |= {"D_FADEINLEN": 0.2, "D_FADEOUTLEN": 0.3, "C_FADEINSHAPE": 2.0, "C_FADEOUTSHAPE": 4.0}
    before, guid = played([item], 1.0, 3.0), item.guid
    select(studio, 1.5, 2.25)
    daemon.work(studio)
    assert pieces(track) == [(1.0, 1.5, False), (1.5, 2.25, True), (2.25, 3.0, False)]
    left, middle, right = sorted(track.items, key=lambda one: one.values["D_POSITION"])
    assert left.guid == guid
    assert [left.values[name] for name in FADES] == [0.2, 0.0] and left.values["C_FADEINSHAPE"] == 2
    assert [right.values[name] for name in FADES] == [0.0, 0.3] and right.values["C_FADEOUTSHAPE"] == 4
    assert [middle.values[name] for name in FADES] == [0.0, 0.0]
    (stem,) = stem_items(studio.project, "bass")  # the daemon by hand gives back the whole portion as every stem
    assert [stem.values[name] for name in FADES] == [0.0, 0.0]
    assert np.abs(played([left, middle, right, stem], 1.0, 3.0) - before).max() < 1e-6
    assert len(studio.project.undo_steps) == 1
    studio.project.undo()
    assert pieces(studio.project.tracks[0]) == [(1.0, 3.0, False)] and len(studio.project.tracks) == 1


@pytest.mark.parametrize("choice", ["keep", "untouched"])
def test_another_choice_cuts_nothing(choice: str, studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (1.0, 2.0))
    select(studio, 1.5, 2.25, choice)
    daemon.work(studio)
    assert pieces(track) == [(1.0, 3.0, False)]
    assert studio.project.tracks[1].values["B_MUTE"] == (choice == "keep")


def test_items_that_are_partly_covered_are_cut_on_one_side(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (5.0, 1.0))
    select(studio, 0.5, 2.25)
    daemon.work(studio)
    assert pieces(track) == [
        (0.0, 0.5, False), (0.5, 1.0, True), (1.0, 2.0, True), (2.0, 2.25, True), (2.25, 3.0, False), (5.0, 6.0, False),
    ]  # fmt: skip
    assert len(studio.project.undo_steps) == 1


def test_a_bound_at_an_items_end_does_not_cut_it_there(studio: Studio, daemon: DaemonByHand):
    tracks = [track_with(studio, (1.0, 1.0)), track_with(studio, (0.5, 1.5))]
    select(studio, 1.0, 1.5)
    daemon.work(studio)
    assert pieces(tracks[0]) == [(1.0, 1.5, True), (1.5, 2.0, False)]
    assert pieces(tracks[1]) == [(0.5, 1.0, False), (1.0, 1.5, True), (1.5, 2.0, False)]
    (stem, other) = stem_items(studio.project, "bass")
    assert stem.values["D_FADEINLEN"] == 0.01, "where the item begins, its stems have its fade"
    assert other.values["D_FADEINLEN"] == 0.0


def test_all_regions_of_an_item_are_muted_whatever_comes_first(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (0.0, 2.0), D_PLAYRATE=0.5)
    studio.project.regions = [(0.1, 0.4, "A"), (1.0, 1.5, "B"), (1.5, 1.75, "C"), (0.3, 1.1, "over two others")]
    studio.run("Separate project regions on selected tracks")
    studio.ticks(30)
    jobs = daemon.claim()
    assert len(jobs) == 4
    for job in reversed(jobs):
        daemon.finish(job)
    daemon.work(studio)
    muted = [(start, end) for start, end, is_muted in pieces(track) if is_muted]
    assert muted[0][0] == 0.1 and muted[-1][1] == 1.75
    assert [end for _, end in muted[:-1]] == [start for start, _ in muted[1:]], "nothing between them plays"
    places = {(i.values["D_POSITION"], round(i.values["D_LENGTH"], 9)) for i in stem_items(studio.project, "bass")}
    assert places == {(0.1, 0.3), (1.0, 0.5), (1.5, 0.25), (0.3, 0.8)}


def test_what_is_still_to_be_read_is_read_before_its_item_is_cut(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (0.0, 60.0), D_PLAYRATE=0.5)
    (item,) = track.items
    item.take.source.audio = np.tile(item.take.source.audio, (40, 1))
    studio.project.regions = [(0.0, 0.1, "short"), (1.0, 40.0, "long")]
    studio.run("Separate project regions on selected tracks")
    short = None
    while short is None:
        studio.ticks(1)
        short = next(iter(daemon.claim()), None)
    daemon.finish(short)
    studio.ticks(30)
    assert pieces(track) == [(0.0, 60.0, False)] and studio.reaper.accessors == 1, "it waits for the long one"
    daemon.work(studio)
    assert [piece for piece in pieces(track) if piece[2]] == [(0.0, 0.1, True), (1.0, 40.0, True)]
    assert "cut in the meantime" not in str(studio.troubled())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"C_LOCK": 1.0}, "locked"),
        ({"I_GROUPID": 3.0}, "in a group"),
        ({"D_FADEINLEN": 0.9}, "in the middle of a fade"),
    ],
)
def test_what_must_not_be_cut_is_left_whole_with_a_sentence(
    values: dict[str, float], why: str, studio: Studio, daemon: DaemonByHand
):
    track = track_with(studio, (1.0, 2.0))
    track.items[0].values |= values
    select(studio, 1.5, 2.25)
    daemon.work(studio)
    studio.ticks(2)
    assert pieces(track) == [(1.0, 3.0, False)] and len(stem_items(studio.project, "bass")) == 1
    assert studio.jobs_say(f"'Track 0 0' is {why}") and studio.jobs_say("mute it by hand")


def test_a_grouped_item_that_needs_no_cut_is_muted(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (0.0, 0.5), (1.0, 0.5))
    track.items[0].values["I_GROUPID"] = 3.0
    select(studio, 0.0, 2.0)
    daemon.work(studio)
    assert [muted for _, _, muted in pieces(track)] == [True, True]


def test_an_item_that_was_moved_is_cut_where_it_lies_and_its_neighbour_is_left_alone(
    studio: Studio, daemon: DaemonByHand
):
    track = track_with(studio, (1.0, 2.0))
    (item,) = track.items
    select(studio, 1.5, 2.25)
    studio.ticks(12)
    (job,) = daemon.claim()
    item.values["D_POSITION"] = 11.0
    other = studio.project.add_item(track, studio.song("neighbour.wav", seed=9), 11.5, 0.5)
    daemon.finish(job)
    daemon.work(studio)
    assert pieces(track) == [(11.0, 11.5, False), (11.5, 12.0, False), (11.5, 12.25, True), (12.25, 13.0, False)]
    assert other.values["B_MUTE"] == 0
    assert stem_items(studio.project, "drums")[0].values["D_POSITION"] == 11.5


def test_an_item_with_other_media_by_now_is_not_muted(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (1.0, 2.0), (0.0, 0.9))
    select(studio, 0.5, 2.25)
    studio.ticks(12)
    (job,) = daemon.claim()
    for item in track.items:
        item.take.values["D_STARTOFFS"] = 0.77
    daemon.finish(job)
    daemon.work(studio)
    studio.ticks(2)
    assert not any(muted for _, _, muted in pieces(track))
    assert studio.jobs_say("no part of it was muted")


def test_a_loop_is_found_again_after_a_cut(studio: Studio, daemon: DaemonByHand):
    track = track_with(studio, (0.0, 7.0), D_STARTOFFS=0.3)
    studio.project.regions = [(1.0, 1.5, "A"), (5.0, 5.5, "B")]
    studio.run("Separate project regions on selected tracks")
    daemon.work(studio)
    assert [piece[:2] for piece in pieces(track) if piece[2]] == [(1.0, 1.5), (5.0, 5.5)]


def test_an_error_at_the_second_cut_leaves_everything_as_it_was(studio: Studio, daemon: DaemonByHand):
    track_with(studio, (1.0, 2.0))
    studio.reaper.fails_at["SplitMediaItem"] = 2
    select(studio, 1.5, 2.25)
    daemon.work(studio)
    assert "could not be put into the project" in studio.troubled()[0]
    assert pieces(studio.project.tracks[0]) == [(1.0, 3.0, False)] and len(studio.project.tracks) == 1


def test_a_project_at_another_rate_is_told(studio: Studio, daemon: DaemonByHand):
    track_with(studio, (1.0, 2.0))
    studio.project.playrate = 0.9
    studio.run("Separate selected items")
    daemon.work(studio)
    assert studio.jobs_say("The project plays at rate 0.9")
    assert len(studio.project.tracks) == 2 + len(STEMS)


def test_take_effects_are_not_rendered_at_another_rate_of_the_project(studio: Studio, daemon: DaemonByHand):
    track_with(studio, (1.0, 2.0)).items[0].take.effects = 1
    studio.project.playrate = 1.1
    studio.reaper.ext_state["TSBS-DAW", "fx"] = "yes"
    studio.run("Separate selected items")
    studio.ticks(4)
    assert studio.tickets() == [] and studio.jobs_say("set it to 1 first")


def test_lanes_that_do_not_play_are_neither_read_nor_cut(studio: Studio, daemon: DaemonByHand):
    """REAPER 7, fixed lanes: a comped track holds items that nobody hears."""
    track = studio.project.add_track("Comp")
    track.values |= {"I_SELECTED": 1.0, "I_FREEMODE": 2.0}
    heard_item = studio.project.add_item(track, studio.song(), 0.0, 2.0)
    hidden = studio.project.add_item(track, studio.song("other.wav", seed=3), 0.0, 2.0)
    hidden.values["C_LANEPLAYS"] = 0.0
    midi = studio.project.add_item(track, studio.song("midi.wav", seed=4), 0.0, 2.0)
    midi.take.source.type, midi.values["C_LANEPLAYS"] = "MIDI", 0.0
    studio.project.time_selection = (0.5, 1.0)
    studio.run("Separate time selection on selected tracks")
    (job,) = daemon.work(studio)
    assert job["source"]["path"] == heard_item.take.source.path
    assert (hidden.values["D_LENGTH"], hidden.values["B_MUTE"], midi.values["B_MUTE"]) == (2.0, 0, 0)
