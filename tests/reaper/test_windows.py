"""The windows as a user sees them: everything can be reached on a small screen, by mouse and by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from reaper.gfx import Gfx
from reaper.imgui import CONSTANTS, ImGui
from reaper.stage import STEMS, DaemonByHand, Studio

SCREENS = [(1366, 728), (1024, 560), (3840, 2100)]


@pytest.fixture
def shipped(tmp_path: Path, version: str) -> Studio:
    """With all presets of the program, and two models."""
    return Studio(tmp_path, tmp_path / "home", version, presets=True)


def dialog(studio: Studio, action: str = "Separate with preset"):
    studio.run(action)
    studio.ticks(2)
    return studio.reaper.window(action)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("preset", ["remix-prep", "practice", "none"])
def test_the_button_is_within_reach_with_every_preset(screen: tuple[int, int], preset: str, shipped: Studio):
    shipped.reaper.screen = screen
    shipped.choose(preset=preset)
    window = dialog(shipped)
    assert window.w <= screen[0] and window.h <= screen[1]
    window.place_of("Separate")
    window.place_of("Cancel")


def test_the_button_stays_where_it_is_while_presets_are_tried(shipped: Studio):
    window = dialog(shipped)
    places = set()
    for preset in ("remix-prep", "karaoke", "none"):
        window.pick("Preset", preset)
        shipped.ticks(3)
        places.add(window.place_of("Separate"))
    assert len(places) == 1


def test_a_small_window_scrolls_to_all_that_is_in_it(shipped: Studio):
    shipped.reaper.screen = (800, 320)
    window = dialog(shipped)
    assert not window.says("Listen to the stems")
    window.scroll(20)
    shipped.ticks(2)
    assert window.says("Listen to the stems") and window.place_of("Separate")


def test_large_screens_get_larger_letters_and_retina_displays_sharp_ones(shipped: Studio):
    small = dialog(shipped)
    shipped.reaper.scripts.clear()
    shipped.reaper.screen = (3840, 2100)
    large = dialog(shipped)
    shipped.reaper.scripts.clear()
    shipped.reaper.screen, shipped.reaper.retina = (1440, 900), 2.0
    retina = dialog(shipped)
    assert large.w == int(1.5 * small.w) and retina.w == 2 * small.w


def test_the_dialog_works_by_keyboard_alone(shipped: Studio):
    shipped.project.add_item(shipped.project.add_track("Mix"), shipped.song(), 0.0, 1.0)
    daemon = DaemonByHand(shipped.home)
    window = dialog(shipped)
    window.press("Tab", "Right", "Right", "2", "Enter")
    shipped.ticks(8)
    assert not window.is_open
    (job,) = daemon.work(shipped)
    presets = [preset["name"] for preset in shipped.presets]
    assert job["preset"] == presets[presets.index("none") + 2] if "none" in presets[:-2] else True
    assert "drums" not in shipped.project.names()


def test_escape_closes_a_window_and_nothing_is_asked_for(shipped: Studio):
    shipped.project.add_item(shipped.project.add_track("Mix"), shipped.song(), 0.0, 1.0)
    window = dialog(shipped)
    window.press("Escape")
    shipped.ticks(2)
    assert not window.is_open and shipped.tickets() == []


@pytest.mark.parametrize(
    "action",
    ["Separate with preset", "Re-separate in place", "Insert analysis of selected item", "Setup", "Jobs", "Self-test"],
)
def test_an_action_whose_window_cannot_be_opened_leaves_no_undo_point(action: str, studio: Studio, monkeypatch):
    monkeypatch.setattr(Gfx, "getchar", lambda self, char=0: -1)
    studio.reaper.patient = action == "Self-test"
    studio.run(action)
    studio.ticks(3)
    assert studio.project.undo_steps == [] and studio.tickets() == []


def test_many_jobs_scroll_and_every_tick_is_short(studio: Studio, daemon: DaemonByHand):
    track, song = studio.project.add_track("Mix"), studio.song()
    for number in range(100):
        studio.project.add_item(track, song, float(number), 0.05)
    studio.run("Separate selected items")
    studio.run("Jobs")
    studio.ticks(200)
    for job in daemon.claim():
        daemon.progress(job, 0.5)
    studio.ticks(100)
    window = studio.reaper.window("Jobs")
    assert window.says("separating") and window.place_of("Close")
    window.scroll(1000)
    studio.ticks(2)
    window.place_of("Dismiss")


@pytest.mark.parametrize("extension", [False, True])
def test_the_button_of_jobs_opens_and_closes_its_window(extension: bool, studio: Studio, daemon: DaemonByHand):
    if extension:
        studio.reaper.imgui = ImGui()
    for is_open in (True, False, True, False):
        studio.run("Jobs")
        studio.ticks(2)
        assert len(studio.reaper.scripts) == is_open
        assert (studio.reaper.ext_state["TSBS-DAW", "jobs_window"] != "") == is_open, "or an action does not show it"


def test_space_plays_while_the_jobs_window_has_the_keys(studio: Studio, daemon: DaemonByHand):
    window = dialog(studio, "Jobs")
    window.press("Space")
    studio.ticks(2)
    assert studio.reaper.played == 1 and window.is_open


def test_reaimgui_takes_return_and_escape(studio: Studio, daemon: DaemonByHand):
    imgui = studio.reaper.imgui = ImGui()
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate with preset")
    studio.ticks(2)
    imgui.key = CONSTANTS["Key_Enter"]
    assert len(daemon.work(studio)) == 1
    studio.run("Separate with preset")
    studio.ticks(2)
    imgui.key = CONSTANTS["Key_Escape"]
    studio.ticks(3)
    assert not any("preset" in script.path.name for script in studio.reaper.scripts)


@pytest.mark.parametrize("screen", ["1366x768", "4k"])
def test_every_window_can_be_drawn(screen: str, shipped: Studio, tmp_path: Path):
    pytest.importorskip("matplotlib")
    from reaper import pictures

    shipped.reaper.screen = pictures.SCREENS[screen]
    windows = pictures.dialogs(shipped, DaemonByHand(shipped.home))
    for name, window in windows.items():
        pictures.draw(window, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert windows["jobs"].says("The song is silent from beginning to end")
    assert windows["jobs"].says("Play vocals") and windows["setup"].says("Only 1 GB of disk is free")
    assert set(windows) == set(pictures.ACTIONS.values()) and len(STEMS) == 4


def test_progress_is_shown_by_the_toolbar_button_and_in_the_help_line(studio: Studio, daemon: DaemonByHand):
    for position in (1.0, 5.0):
        studio.project.add_item(studio.project.add_track("Mix"), studio.song(), position, 1.0)
    studio.run("Separate selected items")
    studio.ticks(40)
    assert studio.reaper.lit == {"tsbs-daw_Jobs.lua"}, "and no window"
    first, second = daemon.claim()
    daemon.progress(first, 0.41)
    studio.ticks(40)
    assert studio.reaper.help_line == "tsbs-daw: mix: 41 %, separating, and 1 more"
    daemon.finish(first)
    daemon.progress(second, 0.5, "rendering")
    studio.ticks(80)
    assert studio.reaper.help_line == "tsbs-daw: mix: 50 %, rendering"
    daemon.finish(second)
    daemon.work(studio)
    studio.ticks(20)
    assert studio.reaper.lit == set() and studio.reaper.help_line == ""
    assert [script.path.name for script in studio.reaper.scripts] == []


def test_what_a_delivery_has_to_say_stays_in_the_help_line_while_others_go_on(studio: Studio, daemon: DaemonByHand):
    for position in (1.0, 5.0):
        studio.project.add_item(studio.project.add_track("Mix"), studio.song(), position, 1.0)
    studio.run("Separate selected items")
    studio.ticks(40)
    first, second = daemon.claim()
    daemon.finish(first, samples=7)
    daemon.progress(second, 0.5)
    studio.ticks(80)
    assert "is damaged; run the job again" in studio.reaper.help_line and studio.reaper.lit
    studio.run("Jobs")
    studio.ticks(2)
    studio.reaper.window("Jobs").shut()
    daemon.progress(second, 0.6)
    studio.ticks(80)
    assert studio.reaper.help_line == "tsbs-daw: mix: 60 %, separating" and studio.reaper.lit
