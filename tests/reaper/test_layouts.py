"""The mix stays as it was: what stems sound like together is what their source sounded like, through the same mixer."""

from __future__ import annotations

import numpy as np
import pytest
from reaper import mix
from reaper.model import Item, Project, Track
from reaper.stage import STEMS, DaemonByHand, Studio, stem_items

RATE = 44100
LAYOUTS = ["children", "folder"]
ENVELOPE = [(0.0, 1.0), (0.2, 0.25), (0.4, 0.25), (0.5, 0.9)]


@pytest.fixture
def track(studio: Studio) -> Track:
    """A track that is mixed: nothing of it is at its default."""
    studio.project.add_track("Reverb")
    track = studio.project.add_track("Mix")
    studio.project.add_track("After")
    track.values |= {"D_VOL": 0.4, "D_PAN": -0.3, "D_WIDTH": 0.5, "B_PHASE": 1.0, "D_PLAY_OFFSET": 0.05}
    track.effects = [1.5]
    track.sends = [{"to": studio.project.tracks[0].guid, "D_VOL": 0.3}]
    return track


def add(studio: Studio, track: Track, **take: float) -> Item:
    item = studio.project.add_item(track, studio.song(), 3.0, 0.5, **take)
    item.values["D_VOL"] = 0.8
    item.take.envelopes = {"VOLENV": ENVELOPE}
    return item


def heard(project: Project) -> np.ndarray:
    """Without the ends of the items, which may lie between two samples."""
    return mix.of_project(project, 2.9, RATE)[:, :]


def separate(studio: Studio, daemon: DaemonByHand) -> list[dict]:
    """Stems whose sum is their source: the first is all of it, the others are silent."""
    studio.run("Separate selected items")
    for _ in range(40):
        studio.reaper.tick()
        jobs = daemon.claim()
        for job in jobs:
            entries, rate, samples = daemon.stems(job, STEMS)
            daemon.silence(entries[1:])
            result = {"schema": 1, "id": job["id"], "state": "done", "stems": entries, "samples": samples}
            daemon.end(job, result | {"sample_rate": rate, "folder": job["output"]})
        if jobs:
            break
    daemon.work(studio)
    return jobs


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rate", [1.0, 1.25])
def test_the_mix_stays_as_it_was(layout: str, rate: float, track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout=layout)
    item = add(studio, track, D_PLAYRATE=rate, D_STARTOFFS=0.3)
    before = heard(studio.project)
    separate(studio, daemon)
    assert np.abs(before).max() > 0.01 and item.values["B_MUTE"] == 1
    assert np.abs(heard(studio.project) - before).max() < 1e-6
    assert len(studio.project.undo_steps) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stems_of_a_muted_track_stay_silent(layout: str, track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout=layout)
    add(studio, track)
    track.values["B_MUTE"] = 1.0
    separate(studio, daemon)
    assert not heard(studio.project).any()


def test_a_folder_of_its_own_is_solo_and_has_hardware_outputs_as_its_source_has(
    track: Track, studio: Studio, daemon: DaemonByHand
):
    track.values["I_SOLO"] = 2.0
    track.outputs = [{"D_VOL": 0.5, "I_DSTCHAN": 2.0}]
    add(studio, track)
    separate(studio, daemon)
    folder = studio.project.track_named("mix - stems")
    assert folder.values["I_SOLO"] == 2
    assert [(output["D_VOL"], output["I_DSTCHAN"]) for output in folder.outputs] == [(0.5, 2.0)]
    assert len(folder.sends) == len(track.sends) == 1


def test_stems_are_children_of_their_source_by_default(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="")
    add(studio, track)
    separate(studio, daemon)
    project = studio.project
    assert project.names() == ["Reverb", "Mix", *STEMS, "After"]
    assert project.levels() == [0, 0, 1, 1, 1, 1, 0]
    project.undo()
    assert project.names() == ["Reverb", "Mix", "After"] and project.levels() == [0, 0, 0]


@pytest.mark.parametrize(("depth", "levels"), [(-2, [0, 1, 2, 3, 3, 3, 3, 0]), (0, [0, 1, 2, 3, 3, 3, 3, 2])])
def test_children_of_a_track_in_nested_folders_keep_their_shape(
    depth: int, levels: list[int], studio: Studio, daemon: DaemonByHand
):
    studio.choose(layout="children")
    project = studio.project
    project.add_track("Outer", depth=1)
    project.add_track("Inner", depth=1)
    track = project.add_track("Mix", depth=depth)
    project.add_track("After", depth=0 if depth else -2)
    add(studio, track)
    separate(studio, daemon)
    assert project.levels() == levels


def test_children_of_a_folder_come_before_those_that_it_has(studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children")
    project = studio.project
    track = project.add_track("Mix", depth=1)
    project.add_track("Child", depth=-1)
    add(studio, track)
    separate(studio, daemon)
    assert project.names() == ["Mix", *STEMS, "Child"] and project.levels() == [0, 1, 1, 1, 1, 1]


def test_another_separation_of_the_same_track_has_tracks_of_its_own(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children")
    add(studio, track)
    for _ in range(2):
        separate(studio, daemon)
    assert studio.project.names() == ["Reverb", "Mix", *STEMS, *STEMS, "After"]
    assert studio.project.levels() == [0, 0, *[1] * 8, 0]


def test_where_the_source_goes_on_playing_its_children_are_muted(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children", source="keep")
    item = add(studio, track)
    before = heard(studio.project)
    separate(studio, daemon)
    assert item.values["B_MUTE"] == 0 and np.array_equal(heard(studio.project), before)
    assert all(studio.project.track_named(name).values["B_MUTE"] for name in STEMS)


def test_stems_become_takes_of_the_item(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="takes")
    item = add(studio, track, D_PLAYRATE=1.25)
    item.take.values["D_VOL"] = 0.5
    before = heard(studio.project)
    separate(studio, daemon)
    assert len(studio.project.tracks) == 3 and studio.project.items == [item]
    names = [take.strings["P_NAME"] for take in item.takes]
    assert names == ["mix", *(f"mix - {name}" for name in STEMS)] and item.active == 1
    assert np.abs(heard(studio.project) - before).max() < 1e-6
    item.active = 0
    assert np.abs(heard(studio.project) - before).max() < 1e-6, "the source is still there"


def test_the_takes_of_a_portion_are_those_of_the_piece_it_was_read_from(studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="takes")
    track = studio.project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    studio.project.add_item(track, studio.song(), 0.0, 2.0)
    studio.project.time_selection = (0.5, 1.0)
    studio.run("Separate time selection on selected tracks")
    daemon.work(studio)
    assert [len(item.takes) for item in track.items] == [1, 5, 1]
    assert [item.values["D_POSITION"] for item in track.items] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("places", [[(0.0, 2.0)], [(0.0, 1.0), (1.0, 1.0)]], ids=["locked", "several items"])
def test_what_cannot_become_takes_gets_tracks_and_can_be_separated_again(
    places: list[tuple[float, float]], studio: Studio, daemon: DaemonByHand
):
    studio.choose(layout="takes", source="mute" if len(places) == 1 else "untouched")
    track = studio.project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    for number, (position, length) in enumerate(places):
        item = studio.project.add_item(track, studio.song(f"{number}.wav"), position, length)
    item.values["C_LOCK"] = float(len(places) == 1)
    studio.project.time_selection = (0.5, 1.5)
    studio.run("Separate time selection on selected tracks")
    daemon.work(studio)
    assert [len(item.takes) for item in track.items] == [1] * len(track.items)
    assert len(stem_items(studio.project, "bass")) == 1
    assert len(places) > 1 or studio.jobs_say("is locked, so it was not cut and keeps playing")
    track.values["I_SELECTED"] = 0.0
    studio.project.track_named("bass").values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(20)
    (job,) = daemon.claim()
    job["song"] = "again"
    daemon.finish(job)
    daemon.work(studio)
    assert "again" in stem_items(studio.project, "bass")[0].take.source.path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_new_output_plays_as_late_as_its_source(layout: str, track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout=layout)
    add(studio, track)
    separate(studio, daemon)
    studio.project.track_named("bass").values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").pick("Preset", "instrumental")
    studio.ticks(3)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(20)
    (job,) = daemon.claim()
    job["song"] = "again"
    daemon.finish(job, [*STEMS, "instrumental"])
    daemon.work(studio)
    assert studio.project.track_named("instrumental").values["D_PLAY_OFFSET"] == track.values["D_PLAY_OFFSET"] == 0.05


def test_takes_can_be_separated_again(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="takes")
    item = add(studio, track)
    separate(studio, daemon)
    track.values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(20)
    (job,) = daemon.claim()
    job["song"] = "again"
    daemon.finish(job)
    daemon.work(studio)
    assert [("again" in take.source.path) for take in item.takes] == [False, True, True, True, True]


def test_a_new_output_becomes_a_take_and_the_source_keeps_its_own(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="takes")
    item = add(studio, track, D_STARTOFFS=0.3)
    separate(studio, daemon)
    source = item.takes[0].source
    track.values["I_SELECTED"] = 1.0
    studio.run("Re-separate in place")
    studio.ticks(2)
    studio.reaper.window("Re-separate").pick("Preset", "instrumental")
    studio.ticks(3)
    studio.reaper.window("Re-separate").click("Separate")
    studio.ticks(20)
    (job,) = daemon.claim()
    job["song"] = "again"
    daemon.finish(job, [*STEMS, "instrumental"])
    daemon.work(studio)
    assert item.takes[0].source is source and studio.project.items == [item] and len(item.takes) == 6
    made = item.takes[-1]
    assert made.strings["P_NAME"] == "mix - instrumental" and "again" in made.source.path
    assert made.values["D_STARTOFFS"] == item.takes[1].values["D_STARTOFFS"] and item.active == 1
    assert made.envelopes == item.takes[1].envelopes != {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_time_base_of_item_and_track_is_copied(layout: str, track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout=layout)
    item = add(studio, track)
    track.values["C_BEATATTACHMODE"] = 0.0
    item.values |= {"C_BEATATTACHMODE": 1.0, "C_AUTOSTRETCH": 1.0}
    separate(studio, daemon)
    for name in STEMS:
        (stem,) = stem_items(studio.project, name)
        assert (stem.values["C_BEATATTACHMODE"], stem.values["C_AUTOSTRETCH"]) == (1, 1)
        assert studio.project.track_named(name).values["C_BEATATTACHMODE"] == 0


def test_envelopes_follow_what_was_trimmed_off_the_front(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children")
    item = add(studio, track, D_STARTOFFS=0.5)
    item.take.envelopes |= {"PANENV": [(0.0, 0.5)], "MUTEENV": [(0.0, 1.0)], "PITCHENV": [(0.0, 2.0)]}
    track.values |= {"D_PLAY_OFFSET": 0.0}
    studio.run("Separate selected items")
    studio.ticks(12)
    (job,) = daemon.claim()
    item.values |= {"D_POSITION": 3.1, "D_LENGTH": 0.4}
    item.take.values["D_STARTOFFS"] = 0.6
    item.take.envelopes["VOLENV"] = [(at - 0.1, value) for at, value in ENVELOPE]
    before = heard(studio.project)
    entries, rate, samples = daemon.stems(job, STEMS)
    daemon.silence(entries[1:])
    result = {"schema": 1, "id": job["id"], "state": "done", "stems": entries, "samples": samples}
    daemon.end(job, result | {"sample_rate": rate, "folder": job["output"]})
    daemon.work(studio)
    assert np.abs(heard(studio.project) - before).max() < 1e-5
    (stem,) = stem_items(studio.project, "bass")
    assert set(stem.take.envelopes) == {"VOLENV", "PANENV", "MUTEENV"}, "the pitch is in the audio already"


def test_a_portions_stems_have_the_envelope_of_their_portion(studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children")
    track = studio.project.add_track("Mix")
    track.values["I_SELECTED"] = 1.0
    add(studio, track)
    studio.project.time_selection = (3.1, 3.45)
    studio.run("Separate time selection on selected tracks")
    daemon.work(studio)
    (stem,) = stem_items(studio.project, "bass")
    points = np.array(stem.take.envelopes["VOLENV"])
    assert points == pytest.approx(np.array([(0.0, 0.625), (0.1, 0.25), (0.3, 0.25), (0.4, 0.9)]))


def test_stems_of_many_channels_have_tracks_that_carry_them(track: Track, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout="children")
    item = add(studio, track)
    item.take.source.audio = np.tile(item.take.source.audio, (1, 3))[:, :5]
    import soundfile

    soundfile.write(item.take.source.path, item.take.source.audio, RATE, subtype="FLOAT")
    separate(studio, daemon)
    assert {studio.project.track_named(name).values["I_NCHAN"] for name in ["Mix", *STEMS]} == {6}
    assert studio.project.track_named("After").values["I_NCHAN"] == 2
