"""`tsbs-daw models`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden_weights import CASE_B
from typer.testing import CliRunner

from tsbs_daw.cli.models import app
from tsbs_daw.core.errors import UnknownModel
from tsbs_daw.models.registry import BUNDLED, record_speed


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if done.exception:
            raise done.exception
        return done.output

    return run


def test_the_known_models_are_listed_with_their_state(run):
    lines = [line.split() for line in run("list").splitlines()]
    assert ["musdb18", "not", "pulled", "TS-BSMamba2", "drums,bass,other,vocals", "143", "MB"] in [
        line[:7] for line in lines
    ]
    listed = {model["name"]: model for model in json.loads(run("list", "--json"))}
    assert {"default", "musdb18", "htdemucs", "htdemucs_6s", "bs_roformer", "melband_vocals"} == set(listed)
    for model in listed.values():
        assert model["licence"] and model["licence_source"] and model["stems"] and model["memory_bytes"]


def test_the_quality_of_the_bundled_model_is_the_measured_one(run):
    results = Path(__file__).parents[2] / "docs" / "results" / "default-real.json"
    measured = json.loads(results.read_text(encoding="utf-8"))["summary"]["stems"]
    told = json.loads(run("show", "default", "--json"))["sdr_db"]
    wanted = {stem: figures["shared"]["sdr_db"] for stem, figures in measured.items()}
    wanted["mean"] = sum(wanted.values()) / len(wanted)
    assert told == pytest.approx(wanted, abs=0.0051)


def test_a_speed_is_measured_or_expected_from_that_of_the_bundled_model(run, tmp_path):
    def speeds() -> list[str]:
        (head, *rows) = run("list").split("\n\n")[0].splitlines()
        at = head.index("speed")
        return [row[at:].split()[0] for row in rows if row[at] != " "]

    assert speeds() == []
    record_speed(BUNDLED, 18.8, tmp_path / "home" / "cache")
    assert speeds() == ["18.8x", "~0.1x", "~2x", "~2x", "~0.2x", "~0.3x"]


def test_a_model_is_shown_with_licence_and_measured_quality(run):
    told = run("show", "musdb18")
    assert "vocals 8.36" in told and "licence" in told
    assert json.loads(run("show", "musdb18", "--json"))["sdr_db"]["mean"] == 6.87


def test_a_converted_checkpoint_is_a_model_by_name(run, tmp_path):
    torch.save(CASE_B.state_dict(), tmp_path / "published.ckpt")
    facts = json.loads(run("convert", tmp_path / "published.ckpt", "mine", "--stems", "one, two", "--json"))
    assert facts["stems"] == ["one", "two"] and facts["converted_from"] == "published.ckpt"
    assert run("path", "mine").strip() == facts["file"]
    assert json.loads(run("show", "mine", "--json"))["network"].startswith("16 features, 1 + 1 blocks")


def test_a_misspelt_name_reaches_the_caller_as_an_error_of_ours(run):
    with pytest.raises(UnknownModel, match="musdb18"):
        run("path", "musdb81")


@pytest.mark.parametrize("command", ["list", "show", "pull", "convert", "teach", "path"])
def test_every_command_shows_an_example(run, command):
    assert f"tsbs-daw models {command}" in run(command, "--help")
