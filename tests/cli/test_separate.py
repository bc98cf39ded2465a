"""`tsbs-daw separate`: files in, folders out, by the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rpp
import soundfile
from cli.program import environment, run, shown_on, small_model, song_file
from rights import PYTHON, needs_rights
from timeouts import PATIENCE_S

from tsbs_daw.contracts.manifest import read_manifest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_song_becomes_a_folder_of_stems_that_line_up_with_a_session_and_a_manifest(
    home: Path, model: Path, tmp_path: Path
):
    song = song_file(tmp_path / "Ночь 🎧.wav", 1.0, sample_rate=48000)
    done = run(home, "separate", song, "--out", tmp_path / "out", "--model", model, "--null")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "Ночь 🎧"
    first, second = done.stdout.splitlines()[:2]
    assert first == f"{song.name} -> {folder}"
    assert second.startswith("  4 stems, Ночь 🎧.RPP; in ") and "null-test residual" in second
    source, _ = soundfile.read(song, dtype="float64")
    stems = []
    for name in ("vocals", "drums", "bass", "other"):
        stem, rate = soundfile.read(folder / f"{name}.wav", dtype="float64")
        assert rate == 48000 and stem.shape == source.shape
        stems.append(stem)
    residual = 20 * np.log10(np.std(source - sum(stems)) / np.std(source))
    assert residual < -100
    manifest = read_manifest(folder)
    assert manifest.residual_db is not None and manifest.residual_db < -100 and manifest.null
    project = rpp.loads((folder / "Ночь 🎧.RPP").read_text(encoding="utf-8"))
    for track in project.findall("TRACK")[1:]:
        assert (folder / track.find("ITEM").find("SOURCE").find("FILE")[1]).is_file()
    again = run(home, "separate", song, "--out", tmp_path / "out", "--model", model, "--null")
    assert again.returncode == 0 and "already there from an identical run" in again.stdout
    assert list((tmp_path / "out").iterdir()) == [folder]


def test_two_stems_are_written_where_two_are_asked_for_and_sum_to_the_song(home: Path, model: Path, tmp_path: Path):
    song, out = song_file(tmp_path / "song.wav", 1.0), tmp_path / "out"
    done = run(home, "separate", song, "--out", out, "--model", model, "--two-stems", "vocals")
    assert done.returncode == 0, done.stderr
    folder = out / "song"
    assert {path.name for path in folder.iterdir()} == {"vocals.wav", "no_vocals.wav", "song.RPP", "manifest.json"}
    source, vocals, rest = (soundfile.read(path)[0] for path in (song, folder / "vocals.wav", folder / "no_vocals.wav"))
    np.testing.assert_allclose(vocals + rest, source, atol=1e-6)
    for options, words in (
        (("--stems", "vocal"), "did you mean 'vocals'"),
        (("--stems", "drums", "--two-stems", "vocals"), "exclude each other"),
    ):
        refused = run(home, "separate", song, "--out", out, "--model", model, *options)
        assert refused.returncode == 2 and words in refused.stderr.splitlines()[-1]
    assert list(out.iterdir()) == [folder]


def test_the_precision_is_chosen_by_option_or_environment(home: Path, model: Path, tmp_path: Path):
    song = song_file(tmp_path / "song.wav")
    call = ("separate", song, "--out", tmp_path / "out", "--model", model, "--json")
    chosen = run(home, *call, "--precision", "bfloat16", TSBS_DAW_PRECISION="float32")
    assert chosen.returncode == 0, chosen.stderr
    found = run(home, *call, TSBS_DAW_PRECISION="bfloat16")
    assert json.loads(chosen.stdout)["folder"] == json.loads(found.stdout)["folder"]
    assert read_manifest(tmp_path / "out" / "song").precision == "bfloat16"
    assert run(home, *call, "--precision", "float16").returncode == 2


def test_one_bad_file_does_not_stop_the_others_and_the_exit_code_says_so(home: Path, model: Path, tmp_path: Path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"<html>not audio</html>" * 100)
    good = song_file(tmp_path / "good.wav")
    arguments = ["separate", tmp_path / "gone.wav", bad, good, "--out", tmp_path / "out", "--model", model]
    done = run(home, *arguments)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "%" not in line]
    assert len(errors) == 3 and errors[-1] == "2 of 3 files failed."
    assert "gone.wav" in errors[0] and "bad.wav" in errors[1]
    assert done.stdout.splitlines()[0] == f"good.wav -> {tmp_path / 'out' / 'good'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


def test_in_a_pipe_progress_is_plain_lines_on_stderr(home: Path, model: Path, tmp_path: Path):
    done = run(home, "separate", song_file(tmp_path / "song.wav"), "--out", tmp_path / "out", "--model", model)
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith("song.wav: ") and line.endswith("%") for line in lines)
    assert "\x1b" not in done.stderr + done.stdout


def test_json_is_one_line_for_every_file_and_a_portion_is_cut_to_the_sample(home: Path, model: Path, tmp_path: Path):
    song = song_file(tmp_path / "song.wav", 2.0)
    portion = ("--start", "0:00.5", "--length", "0.25", "--song", "Part", "--stage", "mask")
    done = run(home, "separate", song, tmp_path / "gone.wav", "--json", *portion, "--model", model, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    result, error = map(json.loads, done.stdout.splitlines())
    assert result["state"] == "done" and result["folder"] == str(tmp_path / "stems" / "Part")
    assert (result["samples"], result["time_reference_samples"]) == (11025, 22050)
    assert soundfile.info(result["stems"][0]["path"]).frames == 11025
    assert error["file"].endswith("gone.wav") and "does not exist" in error["error"]
    assert result["file"] == str(song) and result["error"] is None and error["state"] == "failed"
    assert result.keys() == error.keys(), "one schema, whatever became of the file"


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--preset", "karoke"), "karaoke"), (("--model", "no-such-model"), "no-such-model"), (("--stage", "x"), "mask")],
)
def test_a_choice_that_does_not_exist_is_wrong_use(home: Path, tmp_path: Path, option: tuple[str, str], said: str):
    song = song_file(tmp_path / "song.wav")
    done = run(home, "separate", song, "--out", tmp_path / "out", *option)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_start_behind_the_end_is_explained(home: Path, tmp_path: Path):
    done = run(home, "separate", song_file(tmp_path / "song.wav"), "--start", "1:00", cwd=tmp_path)
    assert done.returncode == 1 and "--start is past the end of" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_progress_is_a_bar(home: Path, model: Path, tmp_path: Path):
    import pty

    song = song_file(tmp_path / "[red]song.wav")
    controller, terminal = pty.openpty()
    arguments = ["separate", song, "--out", tmp_path / "out", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-m", "tsbs_daw", *map(str, arguments)],
        env=environment(home, TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = shown_on(controller)
    told, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, shown.decode()
    assert "━" in shown.decode() and "[red]song.wav" in shown.decode(), "names are not markup"
    assert told.splitlines()[0] == f"[red]song.wav -> {tmp_path / 'out' / '[red]song'}"


def test_flags_say_how_the_files_are_delivered(home: Path, model: Path, tmp_path: Path):
    song = song_file(tmp_path / "Kay - Song.wav", 1.0)
    flags = ("--format", "flac24", "--names", "{artist} {stem}", "--sessions", "dawproject,rpp")
    done = run(home, "separate", song, "--out", tmp_path / "out", "--model", model, *flags)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out" / "Kay - Song")
    assert manifest.format == "flac24" and manifest.sessions == ("Kay - Song.dawproject", "Kay - Song.RPP")
    assert sorted(entry.file for entry in manifest.stems)[0] == "Kay bass.flac"


def test_a_song_goes_on_with_the_cpu_when_the_device_is_lost(tmp_path: Path, monkeypatch, capsys):
    from tsbs_daw.cli import separate
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import DeviceLost

    devices = []

    def fake(job, settings, *, quiet):
        devices.append(settings.device)
        if settings.device != "cpu":
            raise DeviceLost("The GPU failed (CUDA error: unspecified launch failure).")
        return "result", 1.0

    monkeypatch.setattr(separate, "_separate", fake)
    settings = Settings(tmp_path, tmp_path, tmp_path, device="cuda")
    assert separate._separate_somehow(None, settings, quiet=True) == ("result", 1.0, replace(settings, device="cpu"))
    assert devices == ["cuda", "cpu"]
    assert "Continuing on the CPU" in capsys.readouterr().err


def test_an_out_folder_that_cannot_be_is_told_before_any_work(home: Path, tmp_path: Path):
    """A file, a place below one, and a link to nowhere; for `submit` as well, whose daemon would find out too late."""
    song, taken = song_file(tmp_path / "song.wav"), tmp_path / "taken"
    taken.write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for command in ("separate", "submit"):
        for out, said in ((taken, "is a file"), (taken / "a" / "b", "is a file"), (tmp_path / "link", "is a link")):
            done = run(home, command, song, "--out", out)
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert "Invalid --out: " in done.stderr and said in done.stderr and "%" not in done.stderr
    assert not home.exists() or not (home / "spool" / "inbox").exists()


@needs_rights
def test_an_out_folder_without_permissions_is_told_before_any_work(home: Path, tmp_path: Path):
    song, locked = song_file(tmp_path / "song.wav"), tmp_path / "locked"
    locked.mkdir(mode=0o555)
    done = subprocess.run(
        [*PYTHON, "-m", "tsbs_daw", "separate", song, "--out", locked / "stems"],
        env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"tsbs-daw: Invalid --out: '{locked}' cannot be written to; check its permissions, or choose another folder.\n"
    )


def test_the_short_names_of_formats_are_taken_and_the_summary_names_all_that_was_written(
    home: Path, model: Path, tmp_path: Path
):
    song = song_file(tmp_path / "song.wav", 12.0)
    flags = ("--format", "flac", "--loops", "1", "--stem-mp4", "--sessions", "rpp,dawproject")
    done = run(home, "separate", song, "--out", tmp_path / "out", "--model", model, "--stage", "mask", *flags)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out" / "song")
    assert manifest.format == "flac24"
    second = done.stdout.splitlines()[1]
    for entry in manifest.others:
        assert entry.kind == "loop" or entry.file in second
    assert second.startswith("  4 stems, ") and "song.RPP, song.dawproject, song.stem.mp4" in second
    loops = sum(entry.kind == "loop" for entry in manifest.others)
    assert (f"{loops} loop" in second) == (loops > 0)
