"""Which stems are offered, asked for, written and inserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reaper.stage import STEMS, DaemonByHand, Studio, stem_items


@pytest.fixture
def shipped(tmp_path: Path, version: str) -> Studio:
    """With all presets of the program, and two models."""
    return Studio(tmp_path, tmp_path / "home", version, presets=True)


def installed(studio: Studio, **changes: object) -> None:
    path = studio.reaper.folder / "Data" / "TSBS-DAW" / "installed.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def dialog(studio: Studio, *keys: str, action: str = "Separate with preset", **picks: str):
    """Open the dialog, choose in its lists, press keys. Returns: its window"""
    if not studio.project.items:
        studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run(action)
    studio.ticks(2)
    window = studio.reaper.window(action)
    for name, entry in picks.items():
        window.pick(name, entry)
        studio.ticks(3)
    window.press(*keys)
    studio.ticks(3 + len(keys))
    return window


def delivered(studio: Studio, stems: list[str] = STEMS) -> tuple[dict, list[str]]:
    """Let the daemon work. Returns: the job, and the tracks below the folder"""
    (job,) = DaemonByHand(studio.home).work(studio, stems=stems)
    return job, studio.project.names()[2:]


def test_stems_that_are_not_checked_are_not_written(studio: Studio):
    dialog(studio, "2", "4", "Enter")
    job, tracks = delivered(studio)
    assert job["delivery"] == {"stems": ["vocals", "bass"]} and tracks == ["vocals", "bass"]
    assert sorted(path.stem for path in Path(job["output"]).rglob("*.wav")) == ["bass", "vocals"]


def test_with_every_stem_checked_nothing_is_said_about_them(studio: Studio):
    dialog(studio, "Enter")
    job, tracks = delivered(studio)
    assert "delivery" not in job and tracks == STEMS


def test_vocals_only_is_one_choice(shipped: Studio):
    dialog(shipped, "Enter", Stems="Only vocals")
    job, tracks = delivered(shipped)
    assert job["delivery"] == {"stems": ["vocals"]} and tracks == ["vocals"]


def test_vocals_and_the_rest_is_one_choice(shipped: Studio):
    dialog(shipped, "Enter", Stems="vocals and the rest")
    job, tracks = delivered(shipped)
    assert job["delivery"] == {"stems": ["vocals", "rest"]} and tracks == ["vocals", "no_vocals"]


def test_the_rest_is_a_check_box_too(studio: Studio):
    dialog(studio, "3", "4", "5", "Enter")
    job, tracks = delivered(studio)
    assert job["delivery"] == {"stems": ["vocals", "drums", "rest"]} and tracks == ["vocals", "drums", "rest"]


def test_the_choice_is_there_again_when_the_dialog_opens_and_for_the_action_without_one(studio: Studio):
    dialog(studio, "Enter", Stems="drums and the rest")
    delivered(studio)
    window = dialog(studio)
    assert window.says("[x] drums") and window.says("[x] rest") and window.says("[  ] vocals")
    window.press("Escape")
    studio.ticks(3)
    studio.run("Separate selected items")
    (job,) = DaemonByHand(studio.home).work(studio)
    assert job["delivery"] == {"stems": ["drums", "rest"]}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("1234", "Choose at least one stem."),
        ("5", "The rest is the sum of the stems that are not chosen"),
        ("12345", "The rest is the sum of the stems that are not chosen"),
    ],
)
def test_what_cannot_be_separated_is_a_sentence_and_the_dialog_stays(keys: str, said: str, studio: Studio):
    window = dialog(studio, *keys, "Enter")
    assert window.is_open and window.says(said) and studio.tickets() == []


def test_an_output_alone_leaves_all_stems_out(studio: Studio):
    dialog(studio, "Enter", Preset="instrumental", Stems="Only instrumental")
    job, tracks = delivered(studio, [*STEMS, "instrumental"])
    assert job["delivery"] == {"stems": []} and tracks == ["instrumental"]


def test_an_output_that_is_not_checked_is_made_and_left_out(studio: Studio):
    dialog(studio, "6", "Enter", Preset="instrumental")
    job, tracks = delivered(studio, [*STEMS, "instrumental"])
    assert job["delivery"] == {"stems": STEMS} and tracks == STEMS


def test_a_stem_beside_an_output_of_its_name_is_the_dry_one(studio: Studio):
    installed(studio, presets=[{"name": "none", "description": "", "outputs": ["Vocals"]}])
    window = dialog(studio, "2", "3", "4", "Enter")
    assert not window.is_open
    (job,) = DaemonByHand(studio.home).work(studio)
    assert job["delivery"] == {"stems": ["vocals"]}


def test_a_preset_with_stems_of_its_own_has_them_checked(studio: Studio):
    presets = [{"name": "none", "description": "", "outputs": [], "stems": ["vocals", "rest"]}]
    installed(studio, presets=presets)
    window = dialog(studio)
    assert window.says("[x] vocals") and window.says("[x] rest") and window.says("[  ] drums")
    window.press("Enter")
    studio.ticks(4)
    (job,) = DaemonByHand(studio.home).work(studio)
    assert "delivery" not in job, "the preset says it"


def test_a_model_shows_its_own_stems(shipped: Studio):
    window = dialog(shipped, "1", "7", "Enter", Model="six")
    assert not window.is_open
    job, tracks = delivered(shipped, [*STEMS, "guitar", "piano"])
    assert job["model"] == "six" and job["delivery"]["stems"] == ["drums", "bass", "other", "guitar", "piano", "rest"]
    assert tracks[:5] == ["drums", "bass", "other", "guitar", "piano"]


def test_a_model_of_two_stems_offers_no_rest(shipped: Studio):
    two = {"name": "two", "description": "", "stems": ["vocals", "music"]}
    installed(shipped, models=[{"name": "default", "description": "", "stems": STEMS}, two])
    window = dialog(shipped, Model="two")
    assert window.says("[x] vocals") and window.says("[x] music")
    assert not window.says("[  ] rest") and not window.says("drums")
    window.press("2", "Enter")
    shipped.ticks(5)
    job, tracks = delivered(shipped, ["vocals", "music"])
    assert job["delivery"] == {"stems": ["vocals"]} and tracks == ["vocals"]


def test_stems_of_a_model_that_was_removed_are_not_asked_for(shipped: Studio):
    shipped.choose(model="gone", stems="guitar/piano")
    dialog(shipped, "Enter", Stems="All")
    job, tracks = delivered(shipped)
    assert job["model"] == "default" and "delivery" not in job and tracks == STEMS


def test_an_old_choice_that_the_model_has_no_more_is_all_stems(studio: Studio):
    studio.choose(stems="guitar/piano")
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 0.0, 1.0)
    studio.run("Separate selected items")
    (job,) = DaemonByHand(studio.home).work(studio)
    assert "delivery" not in job and studio.project.names()[2:] == STEMS


@pytest.mark.parametrize(("entry", "asked"), [("On a track", "separate"), ("Left out", "drop")])
def test_what_becomes_of_the_residual_is_asked_for(entry: str, asked: str, studio: Studio):
    dialog(studio, "Enter", Residual=entry)
    residual = ["residual"] if asked == "separate" else []
    job, tracks = delivered(studio, [*STEMS, *residual])
    assert job["delivery"] == {"residual": asked} and tracks == [*STEMS, *residual]


@pytest.mark.parametrize(("entry", "asked"), [("Fast", "fast"), ("Best", "best")])
def test_a_quality_is_asked_for(entry: str, asked: str, studio: Studio):
    dialog(studio, "Enter", Quality=entry)
    job, tracks = delivered(studio)
    assert job["delivery"] == {"quality": asked} and tracks == STEMS


def test_a_quality_goes_with_chosen_stems_and_is_remembered(studio: Studio):
    dialog(studio, "Enter", Stems="Only vocals", Residual="Left out", Quality="Best")
    job, _ = delivered(studio)
    assert job["delivery"] == {"stems": ["vocals"], "residual": "drop", "quality": "best"}
    dialog(studio, "Enter")
    again, _ = delivered(studio)
    assert again["delivery"] == job["delivery"]


def test_a_residual_of_its_own_comes_with_chosen_stems(studio: Studio):
    dialog(studio, "Enter", Stems="Only vocals", Residual="On a track")
    studio.ticks(8)
    daemon = DaemonByHand(studio.home)
    (job,) = daemon.claim()
    assert job["delivery"] == {"stems": ["vocals"], "residual": "separate"}
    entries, rate, samples = daemon.stems(job, ["vocals", "residual"])
    daemon.end(
        job,
        {"schema": 1, "id": job["id"], "state": "done", "stems": entries, "samples": samples, "sample_rate": rate},
    )
    daemon.work(studio)
    assert studio.project.names()[2:] == ["vocals", "residual"]


def again(studio: Studio, *keys: str, **picks: str) -> dict:
    studio.project.track_named("mix - stems").values["I_SELECTED"] = 1.0
    dialog(studio, *keys, action="Re-separate in place", **picks)
    studio.ticks(8)
    (job,) = DaemonByHand(studio.home).claim()
    job["song"] = "again"
    DaemonByHand(studio.home).finish(job)
    DaemonByHand(studio.home).work(studio)
    return job


def test_separating_again_writes_what_is_there_and_what_is_chosen(studio: Studio):
    dialog(studio, "Enter", Stems="Only vocals")
    delivered(studio)
    job = again(studio, "Enter", Stems="Only bass")
    assert job["delivery"] == {"stems": ["vocals", "bass"]}
    assert studio.project.names()[2:] == ["bass", "vocals"] and studio.project.track_named("bass").values["B_MUTE"] == 1
    assert "again" in stem_items(studio.project, "vocals")[0].take.source.path


def test_separating_a_rest_again_makes_the_same_rest(studio: Studio):
    dialog(studio, "Enter", Stems="vocals and the rest")
    delivered(studio)
    job = again(studio, "Enter", Stems="All")
    assert job["delivery"] == {"stems": ["vocals", "rest"]}
    assert studio.project.names()[2:] == ["vocals", "no_vocals"]
    for name in ("vocals", "no_vocals"):
        assert "again" in stem_items(studio.project, name)[0].take.source.path


def test_an_analysis_writes_no_stems(studio: Studio):
    dialog(studio, "Enter", action="Insert analysis of selected item")
    studio.ticks(8)
    (job,) = DaemonByHand(studio.home).claim()
    assert job["delivery"] == {"analysis": True, "sessions": [], "stems": []}
