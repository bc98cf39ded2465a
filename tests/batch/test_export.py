"""What is made of a batch at its end: the session of all songs, and what becomes of a problem with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import rpp
from batch.songs import analysis
from batch.stage import batch_in, run_batch
from harness.stage import python_path

from tsbs_daw.batch.catalogue import write_exports, write_session
from tsbs_daw.contracts.catalogue import Catalogue
from tsbs_daw.core.errors import OutputError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins use POSIX signals")


@pytest.fixture
def crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return run_batch(batch_in(tmp_path, "Kay - One.wav", "refuse.wav", "sub/Two.wav"))


def test_the_session_has_a_region_for_every_song_that_is_done(crate: Catalogue, tmp_path: Path):
    known = [song.model_copy(update={"analysis": analysis(128.0)}) for song in crate.songs]
    path = write_session(crate.model_copy(update={"songs": tuple(known)}), tmp_path / "out", None)
    project = rpp.loads(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "out" / "crate.RPP"
    names = [marker[3] for marker in project.findall("MARKER") if marker[3]]
    assert names == ["Kay - One [128.0 BPM Am (8A)]", "Two [128.0 BPM Am (8A)]"]
    files = [source.find("FILE")[1] for source in project.iterfind(".//SOURCE")]
    assert files == ["Kay - One/vocals.wav", "sub/Two/vocals.wav"]


def test_a_song_whose_files_went_away_is_left_out(crate: Catalogue, tmp_path: Path):
    shutil.rmtree(tmp_path / "out" / "Kay - One")
    text = write_session(crate, tmp_path / "out", None).read_text(encoding="utf-8")
    assert "Two/vocals.wav" in text and "Kay" not in text


def test_without_a_song_there_is_no_session(crate: Catalogue, tmp_path: Path):
    failed = tuple(song for song in crate.songs if song.state == "failed")
    assert write_session(crate.model_copy(update={"songs": failed}), tmp_path / "out", None) is None
    assert not (tmp_path / "out" / "crate.RPP").exists()


def test_a_problem_with_one_of_them_is_said_and_stops_nothing(crate: Catalogue, tmp_path: Path):
    (tmp_path / "out" / "crate.RPP").mkdir()
    exports = write_exports(crate, tmp_path / "out", None)
    assert set(exports.files) == {"catalogue", "page"}
    (problem,) = exports.problems
    assert "crate.RPP" in problem and problem.endswith(".")
    assert not (tmp_path / "out" / "crate.RPP.tmp").exists()
    with pytest.raises(OutputError):
        write_session(crate, tmp_path / "out", None)
