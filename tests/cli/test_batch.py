"""`tsbs-daw batch`: what is wrong use, and how it looks. What it does: tests/crate/."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from cli.program import run, song_file

from tsbs_daw.batch.plan import FoundSong
from tsbs_daw.batch.run import BatchProgress, Song
from tsbs_daw.cli import options
from tsbs_daw.cli.batch import _ending, _request, _standing, _table
from tsbs_daw.contracts.catalogue import SongEntry
from tsbs_daw.presets.delivery import DeliveryOptions


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("crate",), "--out"),
        (("gone", "--out", "out"), "is not a folder"),
        (("crate/one.wav", "--out", "out"), "is not a folder"),
        (("empty", "--out", "out"), "contains no songs"),
        (("crate", "--out", "out", "--preset", "crat"), "crate"),
        (("crate", "--out", "out", "--model", "no such"), "model"),
        (("crate", "--out", "out", "--preset", "guitar-piano"), "models pull htdemucs_6s"),
        (("crate", "--out", "out", "--stage", "half"), "--stage"),
        (("crate", "--out", "out", "--workers", "0"), "--workers"),
        (("crate", "--out", "out", "--format", "aac"), "--format"),
        (("crate", "--out", "out", "--loudness", "3"), "--loudness"),
        (("crate", "--out", "out", "--loops", "4,x"), "--loops: must be a whole number, not 'x'"),
        (("crate", "--out", "out", "--sessions", "live"), "--sessions: must be 'rpp' or 'dawproject', not 'live'"),
        (("crate", "--out", "out", "--names", "{title}"), "has no {stem}"),
        (("crate", "--out", "out", "--format", "mp3", "--loops", "8"), "MP3 cannot be cut"),
    ],
)
def test_what_cannot_be_a_crate_is_wrong_use(tmp_path: Path, words: tuple[str, ...], said: str):
    song_file(tmp_path / "crate" / "one.wav", 0.1)
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / "home", "batch", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_an_out_folder_that_cannot_be_made_is_said(tmp_path: Path):
    song_file(tmp_path / "crate" / "one.wav", 0.1)
    (tmp_path / "file").write_bytes(b"")
    done = run(tmp_path / "home", "batch", tmp_path / "crate", "--out", tmp_path / "file" / "out")
    assert done.returncode == 2 and "file' is a file; choose a folder." in done.stderr, done.stderr


def test_the_quality_and_several_models_reach_every_song(tmp_path: Path):
    treatment = options.Treatment(model="default, own/mine.safetensors")
    asked = _request(tmp_path, tmp_path / "out", treatment, False, options.Changes(quality=options.QualityName.best))
    assert asked.treatment.delivery == DeliveryOptions(quality="best")
    assert asked.treatment.model == f"default,{Path('own/mine.safetensors').absolute()}"


def test_a_song_that_ended_is_one_line_whatever_its_name_is():
    entry = SongEntry(source="a\x1b[2J\nb.wav", state="failed", reason="It\nis broken.")
    assert _ending(entry) == "a [2J b.wav: failed: It is broken."
    done = SongEntry(source="a.wav", state="done", folder="a", warnings=("One.", "Two."))
    assert _ending(done) == "a.wav: done -> a\n  note: One.\n  note: Two."


def shown(view: BatchProgress, failures: list[SongEntry], width: int = 100) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(_table(view, failures, wide=width >= 80))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_shows_the_crate_its_songs_at_work_and_the_latest_failures():
    running = Song(FoundSong("Kay [bold].wav", None, "", 1), SongEntry(source="x"), "job", True, 0.5, "separating")
    counts = {"done": 2, "failed": 7, "duplicate": 1, "waiting": 10}
    failures = [SongEntry(source=f"{number}.wav", state="failed", reason="No.") for number in range(7)]
    lines = shown(BatchProgress(counts, (running,), 300.0, "The disk is full."), failures)
    assert lines[0].startswith("total") and lines[0].endswith("10 of 20 songs, 7 failed, about 5 min left")
    assert "Kay [bold].wav" in lines[1] and lines[1].endswith("separating")
    assert lines[2:] == ["7 failed:", *(f"  {number}.wav: No." for number in range(2, 7)), "The disk is full."]


def test_a_narrow_terminal_shows_names_too():
    running = Song(FoundSong("Kay [bold].wav", None, "", 1), SongEntry(source="x"), "job", True, 0.5, "separating")
    lines = shown(
        BatchProgress({"done": 2, "failed": 0, "duplicate": 0, "waiting": 18}, (running,), 300.0, ""), [], width=42
    )
    assert "Kay [bold].wav" in lines[1] and lines[1].endswith("separating")
    assert lines[2] == "2 of 20 songs, about 5 min left"


def test_how_it_stands_is_plain():
    counts = {"done": 1, "failed": 0, "duplicate": 0, "waiting": 0}
    assert _standing(BatchProgress(counts, (), None)) == "1 of 1 song"
