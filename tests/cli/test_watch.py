"""`tsbs-daw watch`: the real daemon, on real folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.program import environment, run, small_model, song_file
from timeouts import PATIENCE_S

from tsbs_daw.contracts.manifest import read_manifest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


def test_once_separates_what_is_there_and_says_what_failed(home: Path, model: Path, drop: Path, tmp_path: Path):
    song_file(drop / "good.wav")
    song_file(drop / "album" / "second.wav", seed=1)
    (drop / "bad.wav").write_bytes(b"RIFF but not really" * 50)
    done = run(home, "watch", drop, "--out", tmp_path / "out", "--model", model, "--preset", "karaoke", "--once")
    assert done.returncode == 1, done.stderr
    endings = sorted(line for line in done.stdout.splitlines() if not line.startswith(" "))
    assert len(endings) == 3
    assert endings[0].startswith("bad.wav: failed: ") and "bad.wav" in endings[0]
    assert endings[1] == f"good.wav: done -> {tmp_path / 'out' / 'good'}"
    assert endings[2] == f"second.wav: done -> {tmp_path / 'out' / 'album' / 'second'}"
    assert (tmp_path / "out" / "good" / "good.RPP").is_file()
    assert "Watching" in done.stderr and "\x1b" not in done.stderr


def test_json_tells_every_event_and_a_job_submitted_before_is_done_without_a_folder(
    home: Path, model: Path, tmp_path: Path
):
    song = song_file(tmp_path / "song.wav")
    sent = json.loads(run(home, "submit", song, "--out", tmp_path / "out", "--model", model, "--json").stdout)
    done = run(home, "watch", "--once", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["id"] for event in events if event["id"]} == {sent["id"]}
    kinds = [event["event"] for event in events]
    assert kinds.index("started") < kinds.index("done")
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert events[kinds.index("done")]["result"]["folder"] == str(tmp_path / "out" / "song")
    assert {event["file"] for event in events if event["id"]} == {str(song)}


def test_folders_of_a_file_have_presets_of_their_own(home: Path, model: Path, tmp_path: Path):
    for name in ("one", "two"):
        song_file(tmp_path / name / f"{name}.wav")
    config = tmp_path / "folders.yaml"
    config.write_text(
        f"folders:\n"
        f"  - {{path: one, output: out, model: '{model.as_posix()}'}}\n"
        f"  - {{path: two, output: out, model: '{model.as_posix()}', preset: instrumental}}\n"
    )
    done = run(home, "watch", "--config", config, "--once")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out" / "one" / "instrumental.wav").exists()
    assert (tmp_path / "out" / "two" / "instrumental.wav").exists()


def test_delivery_flags_and_salvage_count_for_every_song_of_the_folders(
    home: Path, model: Path, drop: Path, tmp_path: Path
):
    whole = song_file(drop / "cut.wav")
    whole.write_bytes(whole.read_bytes()[:-40_000])
    flags = ("--format", "FLAC", "--names", "{song} {stem}", "--sessions", "none", "--salvage", "--quality", "fast")
    done = run(home, "watch", drop, "--out", tmp_path / "out", "--model", model, "--once", *flags)
    assert done.returncode == 0, done.stderr + done.stdout
    manifest = read_manifest(tmp_path / "out" / "cut")
    assert manifest.format == "flac24" and manifest.sessions == () and manifest.salvage
    assert manifest.quality == "fast"
    assert sorted(entry.file for entry in manifest.stems)[0] == "cut bass.flac"
    assert done.stdout.splitlines()[1] == "  4 stems"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drop",), "--out"),
        (("drop", "--out", "out", "--config", "x.yaml"), "not both"),
        (("gone", "--out", "out"), "is not a folder"),
        (("drop", "--out", "out", "--preset", "karoke"), "karaoke"),
        (("drop", "drop", "--out", "out"), "twice"),
        (("--config", "gone.yaml"), "Cannot read"),
        (("--config", "x.yaml", "--salvage"), "Write them into the file"),
        (("--config", "x.yaml", "--format", "flac"), "Write them into the file"),
        (("--config", "x.yaml", "--quality", "best"), "Write them into the file"),
        (("--config", "x.yaml", "--out", "out"), "Write them into the file"),
        (("drop", "--out", "taken"), "is a file"),
        (("drop", "--out", "taken/below"), "is a file"),
        (("drop", "--out", "out", "--loops", "0"), "--loops: must be at least 1, not '0'"),
        (("drop", "--out", "out", "--format", "mp3", "--stem-mp4"), "compressed twice"),
    ],
)
def test_what_cannot_be_watched_is_wrong_use(
    home: Path, drop: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
):
    (tmp_path / "taken").write_text("")
    done = run(home, "watch", *arguments, "--once", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_daemon_refuses_and_the_first_ends_cleanly_when_asked(home: Path, drop: Path, tmp_path: Path):
    command = [sys.executable, "-m", "tsbs_daw", "watch", str(drop), "--out", str(tmp_path / "out")]
    first = subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True)
    try:
        while not (home / "spool" / "heartbeat.json").exists():
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.05)
        second = run(home, "watch", drop, "--out", tmp_path / "out", "--once")
        assert second.returncode == 1 and f"process {first.pid}" in second.stderr
        submitted = run(home, "submit", song_file(tmp_path / "song.wav"), "--preset", "none", cwd=tmp_path)
        assert f"A daemon is running (process {first.pid})" in submitted.stdout
    finally:
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 0 and "Traceback" not in said
    assert not (home / "spool" / "heartbeat.json").exists()


def test_what_a_dead_worker_left_in_the_output_folder_is_swept(home: Path, model: Path, drop: Path, tmp_path: Path):
    song_file(drop / "song.wav")
    arguments = ["watch", drop, "--out", tmp_path / "out", "--model", model, "--once"]
    done = run(home, *arguments, TSBS_DAW_FAILPOINT="before-rename")
    assert done.returncode == 1 and "dead" in done.stdout, done.stderr
    assert list((tmp_path / "out").iterdir()) == [], "three crashes, and nothing is left behind"


def test_the_daemons_process_never_loads_torch(home: Path, drop: Path, tmp_path: Path):
    code = (
        "import sys\n"
        "from tsbs_daw import cli\n"
        f"assert cli.run(cli.find('watch'), [{str(drop)!r}, '--out', {str(tmp_path / 'out')!r}, '--once']) == 0\n"
        "assert not {'torch', 'numpy', 'pedalboard', 'soundfile'} & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
