"""`tsbs-daw presets` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.program import run


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "presets" / "broken.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("outputs:\n  - nane: x\n", encoding="utf-8")
    return path


def test_list_shows_all_and_a_broken_one_hides_none(tmp_path: Path, broken: Path):
    done = run(tmp_path / "home", "presets", "list")
    assert done.returncode == 0 and not done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {"none", "karaoke", "vocal-cleanup", "broken"} <= set(lines)
    assert "shipped" in lines["karaoke"] and "yours" in lines["broken"]
    assert "broken.yaml:2:5: an output has no 'nane'; did you mean 'name'?" in lines["broken"]


def test_list_for_a_script(tmp_path: Path, broken: Path):
    found = {one["name"]: one for one in json.loads(run(tmp_path / "home", "presets", "list", "--json").stdout)}
    assert found["karaoke"]["outputs"][1]["from"] == {"drums": 0.0, "bass": 0.0, "other": 0.0, "vocals": -12.0}
    assert found["broken"]["error"] and found["karaoke"]["origin"] == "shipped"


def test_show_names_every_effect_in_order(tmp_path: Path):
    text = run(tmp_path, "presets", "show", "drum-punch").stdout
    order = [
        text.index(word) for word in ("drums punch  (drums)", "Mix", "Chain", "Compressor: threshold_db -32", "Limiter")
    ]
    assert order == sorted(order)
    shown = json.loads(run(tmp_path, "presets", "show", "drum-punch", "--json").stdout)
    assert shown["outputs"][0]["chain"][1]["children"][1]["children"][0]["effect"] == "Compressor"


def test_show_says_how_the_files_are_delivered_where_a_preset_does(tmp_path: Path):
    text = run(tmp_path, "presets", "show", "crate").stdout
    assert "  format: wav24\n" in text and "  loudness_lufs: -14\n" in text and "  loops: none\n" in text
    assert "delivery" not in run(tmp_path, "presets", "show", "drum-punch").stdout
    assert json.loads(run(tmp_path, "presets", "show", "crate", "--json").stdout)["delivery"]["sessions"][0] == "rpp"


def test_show_of_an_unknown_name_ends_with_2_and_the_closest(tmp_path: Path):
    done = run(tmp_path, "presets", "show", "karoke")
    assert done.returncode == 2 and "did you mean 'karaoke'?" in done.stderr


def test_effects_can_be_looked_up(tmp_path: Path):
    text = run(tmp_path, "presets", "effects", "LadderFilter").stdout
    assert "  mode: LPF12, HPF12, " in text and "  resonance: 0 to 1; default 0\n" in text
    found = json.loads(run(tmp_path, "presets", "effects", "--json").stdout)
    assert found["Compressor"]["ratio"] == {"kind": "number", "default": 1.0, "low": 1.0, "high": 1000.0}
    done = run(tmp_path, "presets", "effects", "Compresor")
    assert done.returncode == 2 and "did you mean 'Compressor'?" in done.stderr


def test_check_says_what_is_wrong_in_every_file(tmp_path: Path, broken: Path):
    other = broken.with_name("other.yaml")
    other.write_text("outputs: [{name: a, from: vocals, chain: [Reverp]}]", encoding="utf-8")
    done = run(tmp_path / "home", "presets", "check", "karaoke", broken, other)
    assert done.returncode == 2
    assert done.stdout == "karaoke: valid, 2 outputs\n"
    assert f"{broken}:2:5: " in done.stderr
    assert f"{other}:1:43: there is no effect 'Reverp'; did you mean 'Reverb'?" in done.stderr
    answers = json.loads(run(tmp_path / "home", "presets", "check", "karaoke", broken, "--json").stdout)
    assert [bool(answer["error"]) for answer in answers] == [False, True]


def test_check_can_try_the_chains(tmp_path: Path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("outputs: [{name: a, from: vocals, chain: [Gain: {gain_db: -6}]}]", encoding="utf-8")
    bad.write_text("outputs: [{name: a, from: vocals, chain: [VST3: {path: Gone.vst3}]}]", encoding="utf-8")
    done = run(tmp_path / "home", "presets", "check", good, bad, "--run")
    assert "  a: -6.0 LU on noise, true peak -" in done.stdout
    assert done.returncode == 2 and "'Gone.vst3' is in none of" in done.stderr
    assert run(tmp_path / "home", "presets", "check", bad).returncode == 0


def test_show_and_check_name_the_passes_and_what_a_pass_lacks(tmp_path: Path):
    text = run(tmp_path, "presets", "show", "guitar-piano").stdout
    assert "\npasses\n  other through 'htdemucs_6s', keeps guitar, piano\n" in text
    (step,) = json.loads(run(tmp_path, "presets", "show", "guitar-piano", "--json").stdout)["passes"]
    assert step == {"stem": "other", "model": "htdemucs_6s", "keep": {"guitar": "guitar", "piano": "piano"}}
    mine = tmp_path / "mine.yaml"
    mine.write_text("passes: [{stem: vocals, model: default}, {stem: other, model: htdemucs_6s}]", encoding="utf-8")
    done = run(tmp_path, "presets", "check", mine)
    assert done.returncode == 0
    assert "  sends vocals through 'default': gives drums, bass, other, vocals\n" in done.stdout
    assert "get it with `tsbs-daw models pull htdemucs_6s`" in done.stdout
