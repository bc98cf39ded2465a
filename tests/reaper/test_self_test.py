"""The self-test that a user runs in a real REAPER: here, in the stand-in, everything is as assumed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from reaper.signatures import functions
from reaper.stage import DaemonByHand, Studio

from tsbs_daw.core.config import resource_folder
from tsbs_daw.integrations import reaper

FOLDER = resource_folder("reaper_scripts") / "TSBS-DAW"


@pytest.fixture(autouse=True)
def _installed(studio: Studio) -> None:
    """As `tsbs-daw reaper install` does it; then REAPER begins."""
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "installed.json"
    reaper.install(studio.reaper.folder, json.loads(path.read_text(encoding="utf-8")))
    studio.reaper = studio.reaper.quit()
    studio.reaper.open(studio.project)
    studio.reaper.begin()
    studio.ticks(1)


def report(studio: Studio) -> list[str]:
    studio.reaper.patient = True  # it says itself what it does, and blocks for a moment
    studio.run("Self-test")
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "self-test" / "report.txt"
    studio.until(path.exists)
    return path.read_text(encoding="utf-8").splitlines()


def test_everything_is_as_assumed(studio: Studio):
    lines = report(studio)
    assert lines[-1] == "Everything is as assumed.", "\n".join(lines)
    assert "tsbs-daw self-test, REAPER" in studio.reaper.console
    assert studio.project.tracks == [] and studio.reaper.accessors == 0


def test_a_difference_is_found(studio: Studio, monkeypatch):
    from reaper import functions_media

    read = functions_media.Accessor.read
    monkeypatch.setattr(
        functions_media.Accessor, "read", lambda self, *how: read(self, *how) * self.of.values.get("D_VOL", 1.0)
    )
    assert [line for line in report(studio) if line.startswith("DIFFERENT")] == [
        "DIFFERENT:  an accessor does not have the take's volume in it: 0.13750 instead of 0.27500"
    ]


def test_an_installation_that_reaper_does_not_know_of_is_found(studio: Studio):
    keys = studio.reaper.folder / reaper.KEYS
    keys.write_bytes(keys.read_bytes().replace(b"tsbs-daw_Jobs.lua", b"gone.lua"))
    studio.reaper = studio.reaper.quit()
    studio.reaper.open(studio.project)
    found = [line for line in report(studio) if line.startswith("DIFFERENT")]
    assert len(found) == 2 and "tsbs-daw_Jobs.lua; close REAPER" in found[0] and "__startup.lua" in found[1]


def test_a_note_that_a_project_file_cannot_hold_is_found(studio: Studio, monkeypatch):
    from reaper import model

    monkeypatch.setattr(model, "in_a_file", lambda text: text[:1000])
    (found,) = [line for line in report(studio) if line.startswith("DIFFERENT")]
    assert "lost: the track's, of" in found


def test_what_was_finished_while_reaper_was_closed_comes_by_its_startup_script(studio: Studio):
    daemon, project = DaemonByHand(studio.home), studio.project
    project.add_item(project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(12)
    (job,) = daemon.claim()
    studio.reaper.close(project)
    studio.reaper = studio.reaper.quit()
    daemon.finish(job)
    studio.reaper.open(project)
    studio.reaper.begin()
    daemon.work(studio)
    assert project.names()[:2] == ["Mix", "mix - stems"]


def test_it_knows_every_function_that_the_scripts_call():
    called = set()
    for path in FOLDER.rglob("*.lua"):
        called |= set(re.findall(r"reaper\.(\w+)", Path(path).read_text(encoding="utf-8"))) & functions().keys()
    called -= {"InsertTrackInProject"}  # asked for before each use: REAPER 6 does not have it
    listed = re.findall(r'"(\w+)"', (FOLDER / "lib" / "api_list.lua").read_text(encoding="utf-8"))
    assert set(listed) == called and len(listed) == len(called)


def test_it_begins_without_the_users_project_template_and_writes_one_text(studio: Studio):
    studio.reaper.has_template = True
    report(studio)
    folder = studio.reaper.folder / "Data" / "TSBS-DAW" / "self-test"
    assert [path.name for path in folder.glob("report*")] == ["report.txt"]
    assert "report.txt; attach it to an issue" in studio.reaper.console


def test_where_it_cannot_begin_it_says_so_and_leaves_no_undo_point(studio: Studio):
    folder = studio.reaper.folder / "Data" / "TSBS-DAW" / "self-test"
    folder.write_text("a file in its place")
    studio.reaper.patient = True
    studio.run("Self-test")
    studio.ticks(3)
    assert "The self-test cannot start" in studio.reaper.console and "Cannot write" in studio.reaper.console
    assert studio.project.undo_steps == []


def test_an_envelope_that_is_in_an_accessors_samples_is_found(studio: Studio, monkeypatch):
    from reaper import functions_media

    read = functions_media.Accessor.read

    def read_with_envelope(self, rate, channels, start_s, count):
        gain = (
            self.of.volume_at(start_s + np.arange(count) / rate) if self.of.kind == "MediaItem_Take" else np.ones(count)
        )
        return read(self, rate, channels, start_s, count) * gain[:, None]

    monkeypatch.setattr(functions_media.Accessor, "read", read_with_envelope)
    found = [line for line in report(studio) if line.startswith("DIFFERENT")]
    assert any("the take's volume envelope in it: 0.13750 instead of 0.27500" in line for line in found)


def undo_with_new_guids(monkeypatch, reaper) -> None:
    from reaper import model

    thaw = model.thaw

    def thaw_anew(frozen):
        track = thaw(frozen)
        for item in track.items:
            for take in item.takes:
                take.strings["GUID"] = model.new_guid()
        return track

    monkeypatch.setattr(model, "thaw", thaw_anew)


def video_without_sound(monkeypatch, reaper) -> None:
    from reaper import model

    begin = model.Source.__init__

    def begin_silent(self, path="", type_="WAVE", parent=None):
        begin(self, "" if type_ == "VIDEO" else path, type_, parent)
        self.path = path

    monkeypatch.setattr(model.Source, "__init__", begin_silent)


def playrate_is_ignored(monkeypatch, reaper) -> None:
    from reaper import functions_media

    read = functions_media.Accessor.read

    def read_at_rate_1(self, *how):
        values = getattr(self.of, "values", {})
        rate = values.get("D_PLAYRATE", 1.0)
        values["D_PLAYRATE"] = 1.0 if not values.get("B_PPITCH", 1.0) else rate
        try:
            return read(self, *how)
        finally:
            values["D_PLAYRATE"] = rate

    monkeypatch.setattr(functions_media.Accessor, "read", read_at_rate_1)


def ids_from_the_path_as_it_is(monkeypatch, reaper) -> None:
    monkeypatch.setattr(type(reaper), "id_of", lambda self, file: f"RS{file.name}")


def second_format_always(monkeypatch, reaper) -> None:
    render = type(reaper)._render

    def render_two(self, project):
        project.info_strings.setdefault("RENDER_FORMAT2", "")
        second, project.info_strings["RENDER_FORMAT2"] = project.info_strings["RENDER_FORMAT2"], "l3pm"
        render(self, project)
        project.info_strings["RENDER_FORMAT2"] = second

    monkeypatch.setattr(type(reaper), "_render", render_two)


def track_accessor_without_volumes(monkeypatch, reaper) -> None:
    from reaper import model

    monkeypatch.setattr(model.Take, "volume_at", lambda self, seconds: np.ones(len(seconds)))


def tempo_marker_that_snaps(monkeypatch, reaper) -> None:
    monkeypatch.setattr(type(reaper), "GetSetTempoTimeSigMarkerFlag", lambda self, *arguments: 0)


def envelopes_at_plain_seconds(monkeypatch, reaper) -> None:
    from reaper import model

    volume_at = model.Take.volume_at
    monkeypatch.setattr(
        model.Take, "volume_at", lambda self, seconds: volume_at(self, seconds / self.values["D_PLAYRATE"])
    )


def a_cut_that_leaves_envelopes_where_they_were(monkeypatch, reaper) -> None:
    split = type(reaper).SplitMediaItem

    def split_without_shift(self, item, position):
        before = dict(item.take.envelopes)
        right = split(self, item, position)
        right.take.envelopes = before
        return right

    monkeypatch.setattr(type(reaper), "SplitMediaItem", split_without_shift)


def pitch_is_not_read(monkeypatch, reaper) -> None:
    from reaper import model

    monkeypatch.setattr(model.Take, "pitch_at", lambda self, seconds: np.zeros(len(seconds)))


def track_accessor_without_effects(monkeypatch, reaper) -> None:
    from reaper import functions_media

    monkeypatch.setattr(functions_media, "_effects", lambda item: 1.0)


def panels_that_are_late(monkeypatch, reaper) -> None:
    def adjust(self, minor):
        self.folders_changed = False

    monkeypatch.setattr(type(reaper), "TrackList_AdjustWindows", adjust)


def a_value_that_is_not_kept(monkeypatch, reaper) -> None:
    get = type(reaper).GetMediaTrackInfo_Value
    monkeypatch.setattr(
        type(reaper),
        "GetMediaTrackInfo_Value",
        lambda self, track, name: 0.0 if name == "D_PLAY_OFFSET" else get(self, track, name),
    )


DIFFERENCES = {
    "points of a take's envelopes are at seconds from the item's start, times the playrate": envelopes_at_plain_seconds,
    "what is cut off an item's front moves the points of its envelopes": a_cut_that_leaves_envelopes_where_they_were,
    "an accessor has the take's pitch in it already": pitch_is_not_read,
    "an accessor has the take's pitch envelope in it already": pitch_is_not_read,
    "a track's accessor has its items' take effects in it": track_accessor_without_effects,
    "stems become children of their track, and the panel shows them below it": panels_that_are_late,
    "every value that stems get from their source is there once it was set": a_value_that_is_not_kept,
    "a tempo marker between two bar lines stays where it is put, and begins a bar": tempo_marker_that_snaps,
    "a take is found again by its GUID after an undo": undo_with_new_guids,
    "the sound of a VIDEO source is read by an accessor": video_without_sound,
    "an accessor has the playrate in it already where the pitch is not preserved": playrate_is_ignored,
    "REAPER makes a script's id from its path in upper case": ids_from_the_path_as_it_is,
    "a render with a second format makes one file, and keeps the setting": second_format_always,
    "a track's accessor has its items' volume envelopes in it": track_accessor_without_volumes,
}


@pytest.mark.parametrize("check", DIFFERENCES)
def test_each_of_these_differences_is_found(check: str, studio: Studio, monkeypatch):
    DIFFERENCES[check](monkeypatch, studio.reaper)
    found = [line for line in report(studio) if line.startswith("DIFFERENT")]
    assert any(line.startswith(f"DIFFERENT:  {check}: ") for line in found), "\n".join(found)
