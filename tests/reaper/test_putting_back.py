"""Where stems are put, and what they look like: one undo step, whatever happened to the project meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reaper.model import Item, Project, Track
from reaper.stage import STEMS, DaemonByHand, Studio, heard, stem_items

RATE = 44100


def ask(studio: Studio, daemon: DaemonByHand, track: Track, position: float = 2.0, length: float = 1.0) -> Item:
    """An item, asked for; its job is claimed and not finished."""
    for item in studio.project.items:
        item.values["B_UISEL"] = 0.0
    item = studio.project.add_item(track, studio.song(), position, length, D_STARTOFFS=0.5)
    studio.run("Separate selected items")
    studio.ticks(12)
    (studio.job,) = daemon.claim()
    return item


def finish(studio: Studio, daemon: DaemonByHand, **changes: object) -> None:
    daemon.finish(studio.job, **changes)
    daemon.work(studio)


def shape(project: Project) -> list[tuple[int, str]]:
    return list(zip(project.levels(), project.names(), strict=True))


FOLDER = [(0, "mix - stems"), *((1, name) for name in STEMS)]


def deeper(levels: list[tuple[int, str]], by: int) -> list[tuple[int, str]]:
    return [(level + by, name) for level, name in levels]


def test_the_folder_lies_right_below_its_track(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    project.add_track("Before")
    track = project.add_track("Mix")
    project.add_track("After")
    ask(studio, daemon, track)
    finish(studio, daemon)
    assert shape(project) == [(0, "Before"), (0, "Mix"), *FOLDER, (0, "After")]


def test_below_the_last_track_of_nested_folders_it_stays_inside_and_closes_them(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    project.add_track("Outer", depth=1)
    project.add_track("Inner", depth=1)
    track = project.add_track("Mix", depth=-2)
    project.add_track("After")
    ask(studio, daemon, track)
    finish(studio, daemon)
    expected = [(0, "Outer"), (1, "Inner"), (2, "Mix"), *deeper(FOLDER, 2), (0, "After")]
    assert shape(project) == expected
    project.undo()
    assert shape(project) == [(0, "Outer"), (1, "Inner"), (2, "Mix"), (0, "After")]


def test_below_a_folder_track_it_becomes_its_first_child(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    track = project.add_track("Mix", depth=1)
    project.add_track("Child", depth=-1)
    ask(studio, daemon, track)
    finish(studio, daemon)
    assert shape(project) == [(0, "Mix"), *deeper(FOLDER, 1), (1, "Child")]


def test_names_colours_order_and_mutes_come_from_the_result(studio: Studio, daemon: DaemonByHand):
    ask(studio, daemon, studio.project.add_track("Mix"))
    entries, rate, samples = daemon.stems(studio.job, ["karaoke", "vocals"])
    entries[0] |= {"color": "#112233", "kind": "output"}
    entries[1] |= {"color": "no colour", "muted": True}
    finish(studio, daemon, stems=["karaoke", "vocals"])
    # `finish` wrote its own entries; ask again with these
    ask(studio, daemon, studio.project.add_track("Second"), position=9.0)
    result = {"schema": 1, "id": studio.job["id"], "state": "done", "stems": entries, "samples": samples}
    daemon.end(studio.job, result | {"sample_rate": rate, "folder": str(Path(entries[0]["path"]).parent)})
    daemon.work(studio)
    folder, karaoke, vocals = studio.project.tracks[-3:]
    assert [folder.name, karaoke.name, vocals.name] == ["mix - stems", "karaoke", "vocals"]
    assert karaoke.values["I_CUSTOMCOLOR"] == 0x1000000 | 0x332211
    assert vocals.values["I_CUSTOMCOLOR"] == 0x1000000 | 0x808080
    assert (karaoke.values["B_MUTE"], vocals.values["B_MUTE"]) == (0, 1)


def test_volume_pan_fades_and_snap_offset_are_copied_once(studio: Studio, daemon: DaemonByHand):
    item = ask(studio, daemon, studio.project.add_track("Mix"))
    item.values |= {"D_VOL": 0.7, "D_FADEINLEN": 0.2, "C_FADEOUTSHAPE": 3.0, "D_FADEOUTLEN": 0.3, "D_SNAPOFFSET": 0.4}
    item.take.values |= {"D_VOL": 0.5, "D_PAN": -0.25}
    finish(studio, daemon)
    for name in STEMS:
        (stem,) = stem_items(studio.project, name)
        for value in ("D_VOL", "D_FADEINLEN", "C_FADEOUTSHAPE", "D_FADEOUTLEN", "D_SNAPOFFSET"):
            assert stem.values[value] == item.values[value], value
        assert (stem.take.values["D_VOL"], stem.take.values["D_PAN"]) == (0.5, -0.25)
        assert stem.values["B_LOOPSRC"] == 0 and stem.take.source.peaks_ready


@pytest.mark.parametrize(
    ("choice", "item_muted", "folder_muted"), [("mute", 1, 0), ("keep", 0, 1), ("untouched", 0, 0)]
)
def test_the_source_is_muted_kept_or_untouched(
    choice: str, item_muted: int, folder_muted: int, studio: Studio, daemon: DaemonByHand
):
    studio.reaper.ext_state["TSBS-DAW", "source"] = choice
    item = ask(studio, daemon, studio.project.add_track("Mix"))
    finish(studio, daemon)
    assert item.values["B_MUTE"] == item_muted
    assert studio.project.track_named("mix - stems").values["B_MUTE"] == folder_muted


def test_several_items_are_in_flight_together_and_share_the_folder_of_their_track(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    tracks = [project.add_track("One"), project.add_track("Two")]
    for number, track in enumerate([tracks[0], tracks[0], tracks[1]]):
        project.add_item(track, studio.song(f"{number}.wav", seed=number), 3.0 * number, 1.0)
    studio.run("Separate selected items")
    studio.ticks(12)
    jobs = daemon.claim()
    assert len(jobs) == 3
    for job in reversed(jobs):
        daemon.finish(job)
    daemon.work(studio)
    assert len(project.tracks) == 2 + 2 * 5 and set(project.levels()) == {0, 1}
    drums = stem_items(project, "drums")
    assert sorted(item.values["D_POSITION"] for item in drums) == [0.0, 3.0, 6.0]
    assert len(project.undo_steps) == 3


def test_an_item_that_was_moved_and_trimmed_is_followed(studio: Studio, daemon: DaemonByHand):
    track = studio.project.add_track("Mix")
    item = ask(studio, daemon, track)
    other = studio.project.add_track("Elsewhere")
    track.items.remove(item)
    other.items.append(item)
    item.track = other
    item.values |= {"D_POSITION": 10.25, "D_LENGTH": 0.5}
    item.take.values["D_STARTOFFS"] = 0.75
    finish(studio, daemon)
    assert studio.project.names()[:3] == ["Mix", "Elsewhere", "mix - stems"]
    (stem,) = stem_items(studio.project, "bass")
    assert (stem.values["D_POSITION"], stem.values["D_LENGTH"]) == pytest.approx((10.25, 0.5))
    count = RATE // 2 - 2
    assert np.abs(heard(stem, RATE, count) - heard(item, RATE, count)).max() < 1e-6


def test_an_item_that_vanished_is_offered_new_tracks(studio: Studio, daemon: DaemonByHand):
    track = studio.project.add_track("Mix")
    item = ask(studio, daemon, track, position=7.0)
    studio.project.remove_item(item)
    studio.project.tracks.remove(track)
    studio.project.add_track("Other")
    finish(studio, daemon)
    assert studio.project.names() == ["Other"] and "is gone" in studio.troubled()[0]
    studio.run("Jobs")
    studio.ticks(2)
    studio.reaper.window("Jobs").click("Put on new tracks")
    studio.ticks(4)
    daemon.work(studio)
    assert studio.project.names() == ["Other", "mix - stems", *STEMS]
    assert stem_items(studio.project, "other")[0].values["D_POSITION"] == 7.0


def test_another_tab_in_front_does_not_get_the_stems(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    ask(studio, daemon, project.add_track("Mix"))
    other = studio.new_project("other")
    finish(studio, daemon)
    assert studio.reaper.projects[0] is other and other.tracks == []
    assert project.names() == ["Mix", "mix - stems", *STEMS]


def test_a_closed_project_waits_and_gets_its_stems_when_it_is_open_again(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    ask(studio, daemon, project.add_track("Mix"))
    studio.reaper.close(project)
    studio.new_project("other")
    daemon.finish(studio.job)
    studio.run("Jobs")
    studio.ticks(40)
    assert len(studio.tickets()) == 1 and studio.jobs_say("open 'song.RPP' to receive it")
    studio.reaper.open(project)
    daemon.work(studio)
    assert project.names() == ["Mix", "mix - stems", *STEMS]


def test_reaper_closed_meanwhile_delivers_at_its_next_start(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    ask(studio, daemon, project.add_track("Mix"))
    studio.reaper.close(project)
    studio.reaper = studio.reaper.quit()
    daemon.finish(studio.job)
    studio.reaper.open(project)
    studio.run("Background")
    daemon.work(studio)
    assert project.names() == ["Mix", "mix - stems", *STEMS]
    studio.ticks(12)
    assert studio.reaper.scripts == [], "nothing is left to do"


def test_reaper_closed_while_it_read_an_item_begins_again(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    item = project.add_item(project.add_track("Mix"), studio.song(), 1.0, 60.0, D_PLAYRATE=0.5)
    studio.run("Separate selected items")
    studio.ticks(3)
    assert studio.reaper.accessors == 1
    studio.reaper.close(project)
    studio.reaper = studio.reaper.quit()
    studio.reaper.open(project)
    studio.run("Background")
    daemon.work(studio)
    assert stem_items(project, "bass")[0].values["D_LENGTH"] == item.values["D_LENGTH"]


def test_a_result_is_delivered_once(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    ask(studio, daemon, project.add_track("Mix"))
    (ticket,) = (studio.home / "spool" / "reaper").glob("*.json")
    kept = ticket.read_bytes()
    finish(studio, daemon)
    (tracks, steps) = project.names(), len(project.undo_steps)
    ticket.write_bytes(kept)  # as after a crash between insertion and note
    studio.run("Background")
    daemon.work(studio)
    assert project.names() == tracks and len(project.undo_steps) == steps
    assert studio.tickets() == []


def test_media_elsewhere_is_copied_below_the_projects_media_path(studio: Studio, daemon: DaemonByHand, tmp_path: Path):
    ask(studio, daemon, studio.project.add_track("Mix"))
    studio.job["output"] = str(tmp_path / "elsewhere")
    finish(studio, daemon)
    media = studio.project.folder / "Media"
    for name in STEMS:
        path = Path(stem_items(studio.project, name)[0].take.source.path)
        assert media in path.parents and path.read_bytes() == (tmp_path / "elsewhere/mix" / f"{name}.wav").read_bytes()


def test_reaper_6_puts_them_into_the_right_tab_too(studio: Studio, daemon: DaemonByHand):
    studio.reaper.lacks = {"InsertTrackInProject", "set_action_options"}
    project = studio.project
    ask(studio, daemon, project.add_track("Mix"))
    other = studio.new_project("other")
    finish(studio, daemon)
    assert studio.reaper.projects[0] is other and other.tracks == []
    assert project.names() == ["Mix", "mix - stems", *STEMS]


def test_a_hundred_jobs_stay_out_of_the_way(studio: Studio, daemon: DaemonByHand):
    """No tick is longer than 10 ms, whatever comes together."""
    project = studio.project
    song = studio.song()
    for number in range(5):
        track = project.add_track(f"Track {number}")
        track.values["I_SELECTED"] = 1.0
        project.add_item(track, song, 0.0, 2.0)
    project.regions = [(n / 20, n / 20 + 0.03, f"Region {n}") for n in range(20)]
    studio.run("Separate project regions on selected tracks")
    for _ in range(2000):
        studio.reaper.tick()
        for job in daemon.claim():
            daemon.finish(job)
        if studio.delivered():
            break
    assert len(stem_items(project, "bass")) == 100 and len(project.tracks) == 5 * 6
    assert sum(item.values["B_MUTE"] > 0 for track in project.tracks[::6] for item in track.items) == 100


def many_items(studio: Studio, count: int) -> list[Item]:
    track, song = studio.project.add_track("Mix"), studio.song()
    return [studio.project.add_item(track, song, float(n), 0.05, D_PLAYRATE=1.0 + n % 2) for n in range(count)]


def test_a_hundred_items_at_once_are_read_over_many_ticks(studio: Studio, daemon: DaemonByHand):
    """The action's own tick and all others are short: the stand-in counts what every call costs."""
    items = many_items(studio, 100)
    studio.run("Separate selected items")
    orders = studio.tickets()
    assert {order["stage"] for order in orders} == {"requested"} and studio.jobs_waiting() == []
    assert [len(order["items"]) for order in orders] == [50, 50], "writing one down, or reading it, is one step"
    studio.ticks(1)
    assert [script.path.name for script in studio.reaper.scripts] == ["tsbs-daw_Background.lua"], "one tick was enough"
    assert 2 < len(studio.tickets()) < 102, "the background script begins, and leaves the rest for later ticks"
    while any(ticket["stage"] == "requested" for ticket in studio.tickets()):
        studio.ticks(1)
    assert len(daemon.work(studio)) == 100 and all(item.values["B_MUTE"] for item in items)
    assert len(stem_items(studio.project, "bass")) == 100


def test_a_thousand_items_take_the_action_more_than_one_tick(studio: Studio, daemon: DaemonByHand):
    many_items(studio, 1000)
    action = studio.run("Separate selected items")
    assert action.running
    for _ in range(20):
        studio.ticks(1)
    assert not action.running
    found = {entry["item"] for ticket in studio.tickets() for entry in ticket.get("items", [])}
    found |= {ticket["item"] for ticket in studio.tickets() if "item" in ticket}
    assert found == {item.guid for item in studio.project.items}


def test_the_project_may_change_while_an_order_is_worked_off(studio: Studio, daemon: DaemonByHand):
    items = many_items(studio, 60)
    studio.run("Separate selected items")
    studio.ticks(1)
    left = {item.guid for item in items} - {ticket.get("item") for ticket in studio.tickets()}
    late = [item for item in items if item.guid in left]
    studio.project.remove_item(late[0])
    late[1].values["D_POSITION"] = 1234.5
    late[2].values["B_UISEL"] = 0.0
    daemon.work(studio)
    assert len(stem_items(studio.project, "bass")) == 59
    assert [i.values["D_POSITION"] for i in stem_items(studio.project, "bass")].count(1234.5) == 1
    assert studio.jobs_say("An item was removed before it could be read.")


def test_a_project_closed_while_an_order_is_worked_off_gets_the_rest_when_it_is_open_again(
    studio: Studio, daemon: DaemonByHand
):
    many_items(studio, 60)
    studio.run("Separate selected items")
    studio.ticks(1)
    studio.reaper.close(studio.project)
    studio.new_project("other")
    for _ in range(40):
        studio.ticks(1)
        for job in daemon.claim():
            daemon.finish(job)
    assert any(ticket["stage"] == "requested" for ticket in studio.tickets())
    studio.reaper.open(studio.project)
    daemon.work(studio)
    assert len(stem_items(studio.project, "bass")) == 60, "each once"


def test_another_tab_in_front_while_a_thousand_items_are_noted_is_not_taken_for_theirs(
    studio: Studio, daemon: DaemonByHand
):
    many_items(studio, 1000)
    studio.run("Separate selected items")
    other = studio.new_project("other")
    studio.ticks(8)
    asked = {ticket["project"]["name"] for ticket in studio.tickets() if ticket["stage"] == "requested"}
    assert asked == {"song.RPP"} and not other.is_dirty and not other.ext_state


def test_an_order_that_is_worked_off_again_after_a_crash_asks_for_nothing_twice(studio: Studio, daemon: DaemonByHand):
    many_items(studio, 10)
    studio.run("Separate selected items")
    (path,) = (studio.home / "spool" / "reaper").glob("*.json")
    order = path.read_bytes()
    daemon.work(studio)
    path.write_bytes(order)
    studio.run("Background")
    assert daemon.work(studio) == [] and len(stem_items(studio.project, "bass")) == 10


def test_the_chosen_stems_alone_are_put_back(studio: Studio, daemon: DaemonByHand):
    studio.reaper.ext_state["TSBS-DAW", "stems"] = "bass/vocals"
    ask(studio, daemon, studio.project.add_track("Mix"))
    finish(studio, daemon)
    assert studio.project.names() == ["Mix", "mix - stems", "vocals", "bass"]
    assert studio.project.levels() == [0, 0, 1, 1]


def test_a_project_with_a_thousand_tracks_is_looked_through_over_many_ticks(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    for number in range(1000):
        project.add_track(f"Track {number}")
    track = project.tracks[700]
    item = ask(studio, daemon, track)
    finish(studio, daemon)
    assert project.names()[700:703] == ["Track 700", "mix - stems", STEMS[0]] and item.values["B_MUTE"] == 1


def test_tracks_that_come_while_the_project_is_looked_through_are_seen(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    for number in range(1000):
        project.add_track(f"Track {number}")
    ask(studio, daemon, project.tracks[999])
    daemon.finish(studio.job)
    for _ in range(20):
        studio.ticks(1)
        if project.undo_steps == []:
            project.tracks.insert(0, Track("new"))
            project.changes += 1
    daemon.work(studio)
    assert project.names().count("mix - stems") == 1
    assert project.names().index("mix - stems") == project.names().index("Track 999") + 1


def copy_of(studio: Studio, name: str, folder: str = "song") -> Project:
    """The project once more, as a file of another name, open in another tab."""
    path = studio.folder / folder / name
    path.parent.mkdir(exist_ok=True)
    return studio.reaper.open(studio.project.as_saved(path))


def test_of_a_project_and_its_copy_the_one_with_the_item_gets_the_stems(studio: Studio, daemon: DaemonByHand):
    project = studio.project
    project.add_track("Mix")
    studio.run("Separate selected items")  # the project has its name now, and so has the copy
    studio.ticks(2)
    other = copy_of(studio, "copy.RPP")
    studio.reaper.bring_to_front(project)
    ask(studio, daemon, project.tracks[0])
    studio.reaper.bring_to_front(other)
    finish(studio, daemon)
    assert project.names() == ["Mix", "mix - stems", *STEMS] and other.names() == ["Mix"]


def test_a_copy_has_a_name_of_its_own_from_its_first_job_on(studio: Studio, daemon: DaemonByHand):
    ask(studio, daemon, studio.project.add_track("Mix"))
    finish(studio, daemon)
    first = studio.project.ext_state["TSBS-DAW", "project"]
    original, studio.project = studio.project, copy_of(studio, "copy.RPP")
    ask(studio, daemon, studio.project.tracks[0], position=20.0)
    finish(studio, daemon)
    own, earlier = studio.project.ext_state["TSBS-DAW", "project"].split()
    assert earlier == first and own != first and original.ext_state["TSBS-DAW", "project"] == first


def test_stems_come_after_the_project_was_saved_under_another_name(studio: Studio, daemon: DaemonByHand):
    ask(studio, daemon, studio.project.add_track("Mix"))
    studio.project.name = "renamed.RPP"
    finish(studio, daemon)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_the_take_that_was_read_is_what_stems_sound_like(studio: Studio, daemon: DaemonByHand):
    """Also when the user has chosen another take meanwhile, or removed it."""
    from reaper.model import Source, Take

    item = ask(studio, daemon, studio.project.add_track("Mix"))
    item.take.values["D_VOL"] = 0.5
    item.takes.append(Take(item, Source(item.take.source.path)))
    item.active = 1
    finish(studio, daemon)
    assert stem_items(studio.project, "bass")[0].take.values["D_VOL"] == 0.5


@pytest.mark.parametrize("layout", ["children", "folder", "takes"])
def test_an_item_that_lost_all_its_takes_gets_its_stems_as_they_are(layout: str, studio: Studio, daemon: DaemonByHand):
    studio.choose(layout=layout)
    item = ask(studio, daemon, studio.project.add_track("Mix"))
    item.takes.clear()
    finish(studio, daemon)
    assert len(stem_items(studio.project, "bass")) == 1
