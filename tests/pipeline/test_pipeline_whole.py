"""The real thing: a daemon with a watch folder, the bundled model, the real analysis of a song whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rpp
import soundfile
from harness.stage import DaemonProcess, rows, settings_in
from harness.studio import STEMS, Studio, sound_of

from tsbs_daw.audio.tags import read_tags
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.job import State, Treatment
from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import DaemonOptions
from tsbs_daw.lab.songs.casting import cast
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.render import render
from tsbs_daw.lab.songs.score import truth_of
from tsbs_daw.models.registry import BUNDLED
from tsbs_daw.watch.folders import WatchFolder

pytestmark = pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled model is not in this checkout")

SEED, SECONDS = 9005, 20.0  # 64 BPM, E flat major


def test_a_song_becomes_a_session_that_agrees_with_what_it_is(tmp_path):
    score = cast(compose(SEED, SECONDS), "builtin")
    truth, studio = truth_of(score), Studio(tmp_path)
    path = tmp_path / "Nina Vale - Night Drive.wav"
    soundfile.write(path, sum(render(score).values()).T, 44100, subtype="FLOAT")
    result = studio.run(path, preset="crate", delivery={"loops": [2]})

    analysis = Analysis.model_validate_json((result.folder / "analysis.json").read_bytes())
    assert analysis.tempo.bpm == pytest.approx(truth["tempo_bpm"], rel=0.02) and not analysis.tempo.doubtful
    assert analysis.key.name == truth["key"] and set(analysis.stems) == STEMS
    unsure = "~" if analysis.key.doubtful else ""
    head = f"Nina Vale - Night Drive [64.0 BPM {unsure}5B] "
    assert {stem.name: stem.path.name for stem in result.stems} == {stem: f"{head}{stem}.wav" for stem in STEMS}

    manifest = studio.manifest(result)
    assert manifest["analysis"] == "analysis.json" and manifest["sessions"] == [
        "Nina Vale - Night Drive.RPP",
        "Nina Vale - Night Drive.dawproject",
    ]
    source = sound_of(result.folder / f"{head}source.wav")
    left_out = sound_of(path) * 10 ** (manifest["gain_db"] / 20) - source
    assert np.abs(left_out).max() < 1e-5
    assert read_tags(result.folder / f"{head}bass.wav").title == "Night Drive (bass)"

    project = rpp.loads(result.session.read_text(encoding="utf-8"))
    assert float(project.find("TEMPO")[1]) == pytest.approx(truth["tempo_bpm"], rel=0.02)
    files = [Path(file.find("SOURCE").find("FILE")[1]) for track in project.findall("TRACK")
             for file in track.findall("ITEM")]  # fmt: skip
    assert {str(file) for file in files} == {entry["file"] for entry in manifest["stems"]}
    loops = [other["file"] for other in manifest["others"]]
    assert loops or any("loops" in warning for warning in manifest["warnings"])
    assert all((result.folder / file).is_file() for file in loops)
    assert studio.phrases == ["reading", "separating", "writing", "analysing"]


def test_a_watch_folder_delivers_as_its_preset_says(tmp_path):
    studio, settings = Studio(tmp_path), settings_in(tmp_path)
    preset = studio.preset('outputs: []\ndelivery: {format: flac24, names: "{title} {stem}", source: reference}\n')
    folder = WatchFolder(tmp_path / "in", tmp_path / "stems", Treatment(preset=preset))
    (tmp_path / "in").mkdir()
    dropped = studio.song("in/Rain.wav")
    options = replace(DaemonOptions(), restart_first_s=0.05)
    with DaemonProcess(settings, (folder,), once=True, options=options) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    assert [row.state for row in rows(settings)] == [State.DONE]
    made = tmp_path / "stems" / "Rain"
    assert {path.name for path in made.iterdir()} == {f"Rain {stem}.flac" for stem in STEMS} | {
        "manifest.json", "Rain.RPP",
    }  # fmt: skip
    assert read_manifest(made).format == "flac24"
    assert f'FILE "{dropped}"' in (made / "Rain.RPP").read_text(encoding="utf-8"), "the dropped file, not its copy"
