"""Stems that are heard before they are inserted."""

from __future__ import annotations

import pytest
from reaper.stage import STEMS, DaemonByHand, Studio


@pytest.fixture
def ready(studio: Studio, daemon: DaemonByHand) -> Studio:
    """A job whose stems are there, and wait for the user."""
    studio.choose(listen="yes")
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    daemon.work(studio)
    return studio


def jobs(studio: Studio):
    if not any("Jobs" in script.path.name for script in studio.reaper.scripts):
        studio.run("Jobs")
    studio.ticks(12)
    return studio.reaper.window("Jobs")


def press(studio: Studio, label: str) -> None:
    jobs(studio).click(label)
    studio.ticks(3)


def test_nothing_is_inserted_before_the_user_says_so(ready: Studio, daemon: DaemonByHand):
    assert ready.project.names() == ["Mix"] and ready.project.undo_steps == []
    assert jobs(ready).says("The stems of 'mix' are ready; listen to them, then insert them.")
    press(ready, "Insert")
    daemon.work(ready)
    assert ready.project.names() == ["Mix", "mix - stems", *STEMS] and ready.tickets() == []
    assert len(ready.project.undo_steps) == 1


def test_with_sws_a_stem_plays_alone_and_ends_at_a_second_click(ready: Studio):
    ready.reaper.has_sws = True
    press(ready, "Play vocals")
    press(ready, "Play bass")
    first, second = ready.reaper.previews
    assert first.source.path.endswith("vocals.wav") and not first.plays and not first.source.alive
    assert second.source.path.endswith("bass.wav") and second.plays and second.source.alive
    press(ready, "Play bass")
    assert not second.plays and not second.source.alive and len(ready.reaper.previews) == 2
    assert not jobs(ready).says("Media Explorer")


@pytest.mark.parametrize("end", ["Insert", "Close"])
def test_it_is_silent_once_the_window_is_closed_or_the_stems_are_inserted(end: str, ready: Studio):
    ready.reaper.has_sws = True
    press(ready, "Play drums")
    press(ready, end)
    (preview,) = ready.reaper.previews
    assert not preview.plays and not preview.source.alive


def test_without_sws_the_media_explorer_plays_and_the_window_says_so(ready: Studio):
    press(ready, "Play drums")
    assert [path.rsplit("/", 1)[-1] for path in ready.reaper.explored] == ["drums.wav"]
    assert jobs(ready).says("They play in the Media Explorer; with the SWS extension installed, they play here.")
    assert ready.project.undo_steps == []


def test_only_the_chosen_stems_can_be_heard(studio: Studio, daemon: DaemonByHand):
    studio.choose(listen="yes", stems="vocals/bass")
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    daemon.work(studio)
    window = jobs(studio)
    assert window.says("Play vocals") and window.says("Play bass") and not window.says("Play drums")


def test_a_stem_that_cannot_be_played_is_a_sentence(ready: Studio):
    ready.reaper.has_sws = True
    next(ready.folder.rglob("drums.wav")).write_bytes(b"no sound")
    press(ready, "Play drums")
    assert jobs(ready).says("drums.wav' cannot be played; run the job again.")


def test_what_is_dismissed_is_not_inserted(ready: Studio, daemon: DaemonByHand):
    press(ready, "Dismiss")
    daemon.work(ready)
    assert ready.project.names() == ["Mix"] and ready.tickets() == []


def test_the_dialog_remembers_to_listen(studio: Studio, daemon: DaemonByHand):
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate with preset")
    studio.ticks(2)
    window = studio.reaper.window("Separate with preset")
    window.click("Listen to the stems before they are inserted")
    studio.ticks(3)
    window.click("Separate")
    studio.ticks(3)
    assert studio.reaper.saved_ext_state["TSBS-DAW", "listen"] == "yes"
