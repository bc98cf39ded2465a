"""Whose a job is: of several REAPERs on one spool, and of a project and what was made from it, one gets the stems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reaper.model import Project, kill
from reaper.stage import STEMS, DaemonByHand, Studio, install
from reaper.stand_in import Reaper

DELIVERED = ["Mix", "mix - stems", *STEMS]


def ask(studio: Studio) -> None:
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(12)


def copy_of(project: Project, path: Path) -> Project:
    path.parent.mkdir(parents=True, exist_ok=True)
    return project.as_saved(path)


# Two REAPERs


@pytest.fixture
def second(studio: Studio, version: str) -> Reaper:
    """Another REAPER of the same user, a portable one say, with the same spool."""
    other = Reaper(studio.folder / "portable", version)
    folder = install(other, studio.home)
    other.ext_state = dict(studio.reaper.ext_state)
    other.background = lambda: other.run(folder / "tsbs-daw_Background.lua")
    return other


def both_work(studio: Studio, second: Reaper, daemon: DaemonByHand, rounds: int = 80) -> list[dict]:
    jobs = []
    for _ in range(rounds):
        second.tick()
        studio.reaper.tick()
        for job in daemon.claim():
            daemon.finish(job)
            jobs.append(job)
    return jobs


def test_of_two_reapers_with_the_same_project_the_one_that_asked_gets_the_stems(
    studio: Studio, second: Reaper, daemon: DaemonByHand
):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    other = second.open(copy_of(studio.project, studio.project.folder / studio.project.name))
    second.background()
    jobs = both_work(studio, second, daemon)
    assert len(jobs) == 1 and studio.project.names() == DELIVERED and other.names() == ["Mix"]
    assert studio.tickets() == [] and len(other.undo_steps) == 0


def test_a_project_that_was_closed_in_one_and_opened_in_another_gets_its_stems_there(
    studio: Studio, second: Reaper, daemon: DaemonByHand
):
    ask(studio)
    moved = copy_of(studio.project, studio.project.folder / studio.project.name)
    studio.reaper.close(studio.project)
    studio.new_project("something else")
    second.open(moved)
    second.background()
    assert len(both_work(studio, second, daemon)) == 1
    assert moved.names() == DELIVERED and studio.project.names() == ["Mix"] and studio.tickets() == []


@pytest.mark.parametrize("end", ["closed", "crashed"])
def test_what_a_reaper_that_is_gone_had_asked_for_comes_in_the_other(
    end: str, studio: Studio, second: Reaper, daemon: DaemonByHand
):
    ask(studio)
    running = next((studio.home / "spool" / "reaper" / "running").iterdir())
    if end == "closed":
        studio.reaper.quit()
        assert not running.exists()
    else:
        running.write_text("1000000000")
    other = second.open(copy_of(studio.project, studio.project.folder / studio.project.name))
    second.background()
    for _ in range(80):
        second.tick()
        for job in daemon.claim():
            daemon.finish(job)
    assert other.names() == DELIVERED and studio.tickets() == []


def test_the_jobs_window_leaves_the_jobs_of_another_reaper_alone(studio: Studio, second: Reaper, daemon: DaemonByHand):
    ask(studio)
    second.open(Project(studio.folder / "second", "second.RPP"))
    second.run(studio.folder / "portable" / "Scripts" / "TSBS-DAW" / "tsbs-daw_Jobs.lua")
    for _ in range(20):
        second.tick()
    window = second.window("Jobs")
    assert window.says("It belongs to another running REAPER.")
    assert not window.says("Cancel") and not window.says("Dismiss")


# A project, its copies, and what was made from it as a template


def test_a_copy_that_is_open_alone_does_not_get_the_stems_of_its_original(studio: Studio, daemon: DaemonByHand):
    original = studio.project
    (original.folder / original.name).write_text("<REAPER_PROJECT")
    ask(studio)
    copy = copy_of(original, studio.folder / "copy" / "copy.RPP")
    studio.reaper.close(original)
    studio.reaper.open(copy)
    daemon.finish(daemon.claim()[0])
    studio.run("Jobs")
    studio.ticks(40)
    window = studio.reaper.window("Jobs")
    assert window.says("open 'song.RPP' to receive it") and copy.names() == ["Mix"] and not copy.undo_steps
    studio.reaper.open(original, in_front=False)
    studio.ticks(40)
    assert original.names() == DELIVERED and copy.names() == ["Mix"]


def test_a_copy_gets_them_when_the_user_says_so(studio: Studio, daemon: DaemonByHand):
    original = studio.project
    (original.folder / original.name).write_text("<REAPER_PROJECT")
    ask(studio)
    copy = copy_of(original, studio.folder / "copy" / "copy.RPP")
    studio.reaper.close(original)
    studio.reaper.open(copy)
    daemon.finish(daemon.claim()[0])
    studio.run("Jobs")
    studio.ticks(20)
    studio.reaper.window("Jobs").click("Put into this project")
    studio.ticks(40)
    assert copy.names() == DELIVERED and copy.undo_steps[-1].label == "tsbs-daw: stems of mix"
    assert studio.tickets() == []


def test_another_project_that_is_opened_in_the_same_tab_is_not_taken_for_a_save_as(
    studio: Studio, daemon: DaemonByHand
):
    """A tab may keep its handle when another project is opened in it; the tracks are others."""
    project = studio.project
    (project.folder / project.name).write_text("<REAPER_PROJECT")
    ask(studio)
    copy = copy_of(project, studio.folder / "copy" / "copy.RPP")
    for track in project.tracks:
        kill(track)
    project.tracks[:], project.folder, project.name = copy.tracks, copy.folder, copy.name
    daemon.finish(daemon.claim()[0])
    studio.ticks(60)
    assert project.names() == ["Mix"] and project.undo_steps == [] and len(studio.tickets()) == 1


def save_as(project: Project) -> None:
    project.name = "renamed.RPP"


def rename_the_file(project: Project) -> None:
    path = project.folder / project.name
    path.unlink()
    project.name = "renamed.RPP"
    for track in project.tracks:
        kill(track)
    project.tracks[:] = project.as_saved(path).tracks  # it was opened anew


@pytest.mark.parametrize("change", [save_as, rename_the_file], ids=["save as", "renamed"])
def test_the_same_project_under_another_name_gets_its_stems(
    change: Callable[[Project], None], studio: Studio, daemon: DaemonByHand
):
    (studio.project.folder / studio.project.name).write_text("<REAPER_PROJECT")
    ask(studio)
    change(studio.project)
    daemon.finish(daemon.claim()[0])
    studio.ticks(60)
    assert studio.project.names() == DELIVERED and studio.tickets() == []


@pytest.mark.parametrize("name", ["", "song.RPP"], ids=["never saved", "saved"])
def test_a_project_from_a_template_does_not_get_the_stems_of_what_it_was_made_from(
    name: str, studio: Studio, daemon: DaemonByHand
):
    original = studio.project
    original.name = name
    if name:
        (original.folder / name).write_text("<REAPER_PROJECT")
    ask(studio)
    studio.reaper.close(original)
    made = copy_of(original, studio.folder / "unsaved" / "made")
    made.name = ""
    studio.reaper.open(made)
    studio.reaper.ext_state = {
        key: value for key, value in studio.reaper.ext_state.items() if not key[1].startswith("unsaved_")
    }  # a template is used at another time
    daemon.finish(daemon.claim()[0])
    studio.ticks(60)
    assert made.names() == ["Mix"] and made.undo_steps == [] and len(studio.tickets()) == 1


def test_two_new_projects_from_one_template_have_ids_of_their_own(studio: Studio, daemon: DaemonByHand):
    studio.project.name = ""
    ask(studio)
    template = studio.project.as_saved(studio.folder / "template.RPP")
    studio.reaper.close(studio.project)
    studio.reaper.ext_state = dict(studio.reaper.saved_ext_state)
    ids = []
    for number in range(2):
        studio.project = copy_of(template, studio.folder / f"new {number}" / "x")
        studio.project.name = ""
        studio.reaper.open(studio.project)
        ask(studio)
        ids.append(studio.project.ext_state["TSBS-DAW", "project"].split()[0])
    assert len({*ids, studio.project.ext_state["TSBS-DAW", "project"].split()[-1]}) == 3


# Scripts that are run twice


@pytest.mark.parametrize("action", ["Jobs", "Background", "Separate with preset", "Setup", "Separate selected items"])
def test_a_script_that_is_run_twice_changes_nothing_twice(action: str, studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run(action)
    studio.run(action)
    studio.ticks(3)
    studio.run(action)
    jobs = daemon.work(studio)
    assert len(jobs) == (3 if action == "Separate selected items" else 0)
    assert len(studio.project.undo_steps) == len(jobs), "and no junk undo point"


def test_a_take_without_a_source_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    item = studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    item.take.source = None
    studio.run("Separate selected items")
    studio.ticks(12)
    assert studio.jobs_say("is empty; choose an item with audio")
    assert studio.project.undo_steps == [] and daemon.claim() == []
