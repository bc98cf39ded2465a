"""What a second run of the real program does of a song that is there already, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile
from batch.test_end_to_end import arguments, catalogue_of
from cli.program import run, small_model, song_file

from tsbs_daw.contracts.manifest import Manifest, read_manifest

BROKEN = "raise ImportError('broken on purpose')\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    song_file(tmp_path / "crate" / "Kay - Song.wav", 2.0)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


def deaf(place: Path) -> dict[str, str]:
    """An environment in which no analysis comes to anything: its libraries break when they are imported."""
    broken = place / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "librosa.py").write_text(BROKEN)
    return {"PYTHONPATH": os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])}


def folders(place: Path) -> dict[str, Manifest]:
    return {
        path.name: read_manifest(path)
        for path in sorted((place / "out").iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


def separated(manifest: Manifest) -> bool:
    return "separate" in manifest.timings_s


def test_an_analysis_that_failed_is_tried_again_and_nothing_is_separated_again(place: Path, model: Path):
    words = arguments(place, model, preset="crate")
    for said in ("", "its analysis had failed and is retried"):  # the second fails like the first
        done = run(place / "home", *words, **deaf(place))
        assert done.returncode == 0 and said in done.stderr, done.stderr
        assert "1 song without an analysis, because it failed" in done.stdout
        ((name, manifest),) = folders(place).items()
        assert separated(manifest) and "analysis could not be made" in manifest.warnings[0]
    done = run(place / "home", *words)
    assert done.returncode == 0 and "Kay - Song.wav: its analysis had failed and is retried." in done.stderr
    assert "without an analysis" not in done.stdout
    ((again, manifest),) = folders(place).items()
    assert again == name and manifest.analysis and not separated(manifest)
    assert catalogue_of(place).songs[0].analysis is not None
    assert "1 song already done." in run(place / "home", *words).stderr
    assert folders(place) == {name: manifest}


def test_another_flag_makes_anew_what_it_changes_and_nothing_else(place: Path, model: Path):
    words = arguments(place, model, preset="crate")
    assert run(place / "home", *words).returncode == 0
    ((name, first),) = folders(place).items()
    flags = ("--format", "flac16", "--loudness", "-20", "--sessions", "rpp", "--names", "{stem} of {title}", "--loops")
    # Deaf, and yet with an analysis: what was heard before is not listened to again.
    changed = run(place / "home", *words, *flags, "none", "--no-stem-mp4", **deaf(place))
    assert changed.returncode == 0 and "without an analysis" not in changed.stdout, changed.stderr
    assert folders(place)[name] == first, "what was there is left alone"
    (other,) = set(folders(place)) - {name}
    manifest = folders(place)[other]
    assert (manifest.format, manifest.sessions, separated(manifest)) == ("flac16", ("Kay - Song.RPP",), False)
    assert soundfile.info(place / "out" / other / "bass of Song.flac").subtype == "PCM_16"
    assert manifest.gain_db == pytest.approx(first.gain_db - 6, abs=0.2)
    assert [song.folder for song in catalogue_of(place).songs] == [other]
    there = folders(place)
    for more in ((*flags, "none", "--no-stem-mp4"), ()):
        assert "1 song already done." in run(place / "home", *words, *more).stderr
        assert folders(place) == there
