"""What watch folders ask for: each rule's small language, and where mistakes in it are named."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.errors import SettingsError
from tsbs_daw.watch.folders import WatchFolder, check_folders, load_folders
from tsbs_daw.watch.rules import After, Hours, Patterns
from tsbs_daw.watch.scan import Scanner


def load(folder: Path, text: str) -> WatchFolder:
    path = folder / "folders.yaml"
    path.write_text(f"folders:\n  - path: drop\n    output: stems\n{text}", encoding="utf-8")
    return load_folders(path)[0]


@pytest.fixture
def in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    """Seconds since 1970 of a time in UTC."""
    return datetime.fromisoformat(f"2026-{text}+00:00").timestamp()


def test_every_rule_is_read_and_relative_paths_start_at_the_file(tmp_path):
    folder = load(
        tmp_path,
        "    after: move done songs\n    include: ['*.wav']\n    exclude: [demos]\n    hours: 22:00-06:00\n"
        "    songs_at_once: 2\n    subfolders: {karaoke: {preset: karaoke}}\n",
    )
    assert folder.after == After("move", tmp_path / "done songs")
    assert folder.patterns == Patterns(("*.wav",), ("demos",))
    assert folder.hours == Hours(((22 * 60, 6 * 60),))
    assert folder.songs_at_once == 2
    assert folder.rule_for("karaoke/a.wav").treatment.preset == "karaoke"


def test_the_nearest_rule_wins_and_takes_over_what_it_does_not_say(tmp_path):
    folder = load(
        tmp_path,
        "    model: musdb18\n    after: delete\n    subfolders:\n"
        "      a/b/c: {after: keep}\n      a: {preset: karaoke}\n      a/b: {preset: none, stage: mask}\n",
    )
    asked = {
        name: folder.rule_for(name)
        for name in ("s.wav", "a/s.wav", "a/x/s.wav", "a/b/s.wav", "a/b/c/d/s.wav", "ab/s.wav")
    }
    assert asked["s.wav"].treatment == asked["ab/s.wav"].treatment == Treatment(model="musdb18")
    assert asked["a/s.wav"] == asked["a/x/s.wav"]
    assert asked["a/s.wav"].treatment == Treatment(model="musdb18", preset="karaoke")
    assert asked["a/b/s.wav"].treatment == asked["a/b/c/d/s.wav"].treatment
    assert asked["a/b/s.wav"].treatment == Treatment(model="musdb18", preset="none", stage="mask")
    assert [rule.after.kind for rule in asked.values()] == ["delete"] * 4 + ["keep", "delete"]


def test_a_subfolder_is_found_however_its_name_is_composed(tmp_path):
    folder = load(tmp_path, "    subfolders: {Proben für mich/: {preset: karaoke}}\n")
    assert folder.rule_for("Proben fu\u0308r mich/a.wav").treatment.preset == "karaoke"


@pytest.mark.parametrize(
    ("text", "sentence"),
    {
        "    after: trash": r":4:12: .*'trash' is not `keep`, `move PATH` or `delete`",
        "    after: move": r":4:12: .*`move` needs the folder",
        "    after: delete all": r":4:12: .*'delete all' is not",
        "    after: ''": r":4:12: .*'' is not",
        "    hours: 22-6": r":4:12: .*'22-6' is not a span",
        "    hours: 25:00-06:00": r":4:12: .*invalid time; use 00:00",
        "    hours: 22:00-06:60": r":4:12: .*invalid time; use 00:00",
        "    hours: 08:00-08:00": r":4:12: .*the whole day",
        "    hours: 00:00-24:00": r":4:12: .*the whole day",
        "    hours: ''": r":4:12: .*is not a span",
        "    hours: 22:00-23:00,": r":4:12: .*is not a span",
        "    songs_at_once: 0": r":4:20: .*at least 1",
        "    exclude: ['/etc/*']": r":4:15: .*leads out of the folder",
        "    exclude: [a/../b]": r":4:15: .*leads out of the folder",
        "    include: ['']": r":4:15: .*1 to 200 characters",
        "    include: a": r":4:14: .*must be a list",
        "    subfolders: {../x: {preset: none}}": r"'\.\./x' is not a subfolder",
        "    subfolders: {/x: {preset: none}}": r"'/x' is not a subfolder",
        "    subfolders: {x: {pressed: none}}": r":4:22: .*'pressed'.* mean 'preset'",
        "    subfolders: {x: {hours: 1:00-2:00}}": r":4:22: .*'hours'",
        "    subfolders: {x: {}, x/: {}}": "two rules",
        "    subfolders: {x: {after: burn}}": r":4:29: .*'burn' is not",
        "    afterwards: keep": r":4:5: .*'afterwards'.* mean 'after'",
    }.items(),
)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path, text, sentence):
    with pytest.raises(SettingsError, match=sentence) as raised:
        load(tmp_path, text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("target", ["drop", "drop/done", "elsewhere/../drop/x", "link/x"])
def test_songs_cannot_be_moved_back_into_a_watched_folder(tmp_path, target):
    (tmp_path / "drop").mkdir()
    (tmp_path / "link").symlink_to("drop")
    with pytest.raises(SettingsError, match="because it lies in the watched folder"):
        load(tmp_path, f"    subfolders: {{a: {{after: move {target}}}}}\n")


def test_nor_into_the_folder_of_another_entry(tmp_path):
    after = After("move", tmp_path / "b" / "done")
    folders = [
        WatchFolder(tmp_path / "a", tmp_path / "out", after=after),
        WatchFolder(tmp_path / "b", tmp_path / "out"),
    ]
    with pytest.raises(SettingsError, match="watched folder"):
        check_folders(folders)


def test_a_target_that_is_a_file_is_reported_before_the_work(tmp_path):
    (tmp_path / "done").touch()
    with pytest.raises(SettingsError, match=r"`after: move`: .*is a file"):
        load(tmp_path, "    after: move done\n")


def test_hours_reach_over_midnight(in_berlin):
    hours = Hours.parse("22:00-06:00")
    shown = {
        clock: hours.open_at(at(f"01-15 {clock}")) for clock in ("20:59", "21:00", "23:30", "04:59", "05:00", "12:00")
    }
    assert list(shown.values()) == [False, True, True, True, False, False]
    assert hours.next_start(at("01-15 12:00")) == "22:00"


def test_several_spans_and_the_end_of_the_day(in_berlin):
    hours = Hours.parse("12:00-13:00, 20:00-24:00")
    shown = [hours.open_at(at(f"01-15 {clock}")) for clock in ("10:59", "11:00", "12:00", "19:00", "22:59", "23:00")]
    assert shown == [False, True, False, True, True, False]
    assert [hours.next_start(at(f"01-15 {clock}")) for clock in ("09:00", "12:30", "23:30")] == [
        "12:00",
        "20:00",
        "12:00",
    ]


def test_hours_follow_the_clock_when_it_is_put_forward_and_back(in_berlin):
    hours = Hours.parse("22:00-02:30")
    forward = [hours.open_at(at(f"03-29 {clock}")) for clock in ("00:59", "01:00")]  # 01:59, then 03:00
    assert forward == [True, False]
    back = [hours.open_at(at(f"10-25 {clock}")) for clock in ("00:29", "00:31", "01:29", "01:31")]  # 02:29 twice
    assert back == [True, False, True, False]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.wav", ["a.wav", "x/B.WAV"], ["a.wave", "a.mp3"]),
        ("demos", ["demos/a.wav", "x/Demos/y/a.wav"], ["demos.wav", "my demos/a.wav"]),
        ("demos/", ["demos/a.wav"], ["demo/a.wav"]),
        ("mixes/*/old", ["mixes/2024/old/a.wav"], ["mixes/old/a.wav", "x/mixes/2024/old/a.wav"]),
        ("**/raw/*.wav", ["raw/a.wav", "x/y/raw/a.wav"], ["raw.wav", "raw/a.mp3"]),
        ("mixes/**", ["mixes/a.wav", "mixes/x/y.wav"], ["x/mixes/a.wav"]),
        ("take ?.wav", ["take 1.wav"], ["take 10.wav", "take .wav"]),
        ("caf\u00e9*", ["cafe\u0301 noir.wav"], ["cafe.wav"]),
    ],
)
def test_patterns(pattern, matching, others):
    left_out = Patterns(exclude=(pattern,))
    assert all(left_out.reason(name) for name in matching)
    assert not any(left_out.reason(name) for name in others)
    wanted = Patterns(include=(pattern,))
    assert not any(wanted.reason(name) for name in matching)
    assert all(wanted.reason(name) for name in others)


def test_a_pattern_of_many_stars_is_compared_quickly():
    assert Patterns(exclude=("*a" * 90 + "b", "**/" * 60 + "x")).reason("a" * 250 + "/" + "a" * 250) is None


def test_the_scanner_leaves_out_with_a_reason_and_looks_into_no_excluded_folder(tmp_path):
    for name in ("a.wav", "b.mp3", "demos/c.wav", "x/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scanner = Scanner(tmp_path, recursive=True, patterns=Patterns(("*.wav",), ("demos", "x/*")))
    found = {one.relative: one.reason for one in scanner.scan()}
    assert found == {
        "a.wav": None,
        "b.mp3": "It is left out, because no pattern of `include` matches it.",
        "x/d.wav": "It is left out by `exclude: x/*`.",
    }
