"""`tsbs-daw batch` as a process, with real songs and a real model: good and bad ones, interrupted, killed, resumed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from batch.page_crates import data_of
from cli.program import environment, run, small_model, song_file
from harness.repeats import repeated
from harness.stage import state_of, until
from harness.tally import Tally
from timeouts import PATIENCE_S

from tsbs_daw.contracts.catalogue import Catalogue
from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.queue.spool import living_daemon

LONG_S = 30.0  # of a song that is not done before a test has looked twice

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def arguments(place: Path, model: Path, *more: str, preset: str = "none") -> list[str | Path]:
    return ["batch", place / "crate", "--out", place / "out", "--model", model, "--preset", preset, *more]


def catalogue_of(place: Path) -> Catalogue:
    return Catalogue.from_json((place / "out" / "catalogue.json").read_bytes(), "catalogue.json")


@contextmanager
def started(home: Path, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The program, in the background, in a session of its own so that a signal to it reaches nobody else."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tsbs_daw", *map(str, words)],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def workers_of(pid: int) -> list[int]:
    """Among the children of all threads of a process, those that separate."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread may have ended meanwhile
            found += children.read_text().split()
    return [int(child) for child in found if "tsbs_daw.daemon.worker" in command_of(child)]


def command_of(pid: str) -> str:
    with suppress(OSError):  # it may have ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def check_folder(place: Path, folder: str) -> None:
    """It is complete, every stem as long as the manifest says."""
    manifest = read_manifest(place / "out" / folder)
    assert {entry.name for entry in manifest.stems} >= {"vocals", "drums", "bass", "other"}
    for entry in manifest.stems:
        info = soundfile.info(place / "out" / folder / entry.file)
        assert (info.frames, info.samplerate) == (manifest.source.samples, manifest.source.sample_rate)


def write_bad_songs(crate: Path) -> set[str]:
    good = song_file(crate / "cut.wav", 2.0, seed=9).read_bytes()
    (crate / "cut.wav").write_bytes(good[: len(good) // 2])
    (crate / "page.mp3").write_bytes(b"<html><body>404</body></html>" * 30)
    (crate / "empty.flac").write_bytes(b"")
    huge = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 44100, 176400, 4, 16)
    (crate / "two hours.wav").write_bytes(huge + b"data" + struct.pack("<I", 0x7FFFFF00) + bytes(4000))
    noisy = signals.noise(44100)
    noisy[0, 12345] = np.nan
    soundfile.write(crate / "not a number.wav", noisy.T, 44100, subtype="FLOAT")
    return {"cut.wav", "page.mp3", "empty.flac", "two hours.wav", "not a number.wav"}


def write_odd_songs(crate: Path) -> set[str]:
    soundfile.write(crate / "mono.wav", signals.mixture(signals.song(2.0)).mean(0), 44100, subtype="PCM_16")
    soundfile.write(crate / "silence.flac", signals.silence(48000).T, 48000)
    song_file(crate / "=2+5 さくら 🌸.wav", seed=3)
    tagged = song_file(crate / "AC:DC" / "What?.wav", seed=6)
    odd = b"INFOIART" + struct.pack("<I", 6) + b"\x83\x41\xff\xfe\xe9\x00"  # neither UTF-8 nor anything else
    tagged.write_bytes(tagged.read_bytes() + b"LIST" + struct.pack("<I", len(odd)) + odd)
    return {"mono.wav", "silence.flac", "=2+5 さくら 🌸.wav", "AC:DC/What?.wav"}


@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not have")
def test_a_crate_of_good_odd_and_bad_songs(home: Path, model: Path, tmp_path: Path):
    song_file(tmp_path / "crate" / "Kay - Good.wav", 2.0)
    shutil.copy(tmp_path / "crate" / "Kay - Good.wav", tmp_path / "crate" / "z copy.wav")
    bad, odd = write_bad_songs(tmp_path / "crate"), write_odd_songs(tmp_path / "crate")
    done = run(home, *arguments(tmp_path, model, preset="crate"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stdout + done.stderr
    catalogue = catalogue_of(tmp_path)
    states = {state: {s.source for s in catalogue.songs if s.state == state} for state in ("done", "failed")}
    assert states == {"done": odd | {"Kay - Good.wav"}, "failed": bad}
    for song in catalogue.songs:
        if song.state == "failed":
            assert song.reason.endswith(".") and "Unexpected error" not in song.reason and song.folder is None
        elif song.state == "done":
            check_folder(tmp_path, song.folder)
            assert song.sample_rate and song.channels and song.duration_s and len(song.sessions) == 2
            assert song.analysis is not None, song.warnings
            assert song.analysis.duration_s == pytest.approx(song.duration_s, abs=0.001)
            assert {file.kind for file in song.files} == {"stem", "source"}
            for file in (*(file.file for file in song.files), *song.sessions):
                assert (tmp_path / "out" / file).is_file()
    (copy,) = (song for song in catalogue.songs if song.state == "duplicate")
    assert (copy.source, copy.duplicate_of) == ("z copy.wav", "Kay - Good.wav")
    summary = f"{len(catalogue.songs)} songs in "
    assert summary in done.stdout and f": {len(odd) + 1} done, {len(bad)} failed, 1 duplicate." in done.stdout
    with (tmp_path / "out" / "catalogue.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(catalogue.songs) and "'=2+5 さくら 🌸.wav" in {row["source"] for row in rows}
    assert "<html" in (tmp_path / "out" / "catalogue.html").read_text(encoding="utf-8")
    session = (tmp_path / "out" / "crate.RPP").read_text(encoding="utf-8")
    assert session.count("MARKER ") == 2 * (len(odd) + 1), "a region, with its two ends, for each song that is done"
    check_a_second_run_mends(home, model, tmp_path, bad)


def check_a_second_run_mends(home: Path, model: Path, place: Path, bad: set[str]) -> None:
    """One bad song is replaced, the others are taken away."""
    for name in bad:
        (place / "crate" / name).unlink()
    song_file(place / "crate" / "cut.wav", seed=20)
    before = {song.folder: read_manifest(place / "out" / song.folder).created for song in done_songs(place)}
    done = run(home, *arguments(place, model, "--json", preset="crate"))
    assert done.returncode == 0, done.stderr
    *songs, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert (summary["failed"], summary["done"], summary["duplicate"]) == (0, len(before) + 1, 1)
    assert [song["source"] for song in songs if song["fresh"]] == ["cut.wav"]
    after = {song.folder: read_manifest(place / "out" / song.folder).created for song in done_songs(place)}
    assert {folder: after[folder] for folder in before} == before, "what was done was left alone"


def done_songs(place: Path) -> Iterator:
    return (song for song in catalogue_of(place).songs if song.state == "done")


@needs_proc
@repeated(20)
@pytest.mark.parametrize("with_daemon", [False, True], ids=["own daemon", "another daemon"])
def test_a_killed_crate_is_finished_by_the_next_run_and_nothing_is_done_twice(
    home: Path, model: Path, tmp_path: Path, tally: Tally, with_daemon: bool, times: int
):
    for number in range(times):
        place = tmp_path / f"round {number}"
        for song, duration_s in enumerate((2.0, 2.0, LONG_S, LONG_S)):
            song_file(place / "crate" / f"{song}.wav", duration_s, seed=song + 10 * number)
        with ExitStack() as stack:
            processes = [stack.enter_context(started(home, "watch"))] if with_daemon else []
            if with_daemon:
                until(lambda: living_daemon(home / "spool"))
            processes.append(stack.enter_context(started(home, *arguments(place, model))))
            until(lambda place=place: len(list((place / "out").glob("[!.]*/manifest.json"))) >= 2)
            workers = [pid for process in processes for pid in workers_of(process.pid)]
            for process in processes:
                process.kill()
        until(lambda workers=workers: all(state_of(pid) in ("", "Z") for pid in workers))
        there = {
            folder.parent.name: folder.stat().st_mtime_ns for folder in (place / "out").glob("[!.]*/manifest.json")
        }
        assert len(there) < 4, "killed too late to show anything"
        done = run(home, *arguments(place, model))
        assert done.returncode == 0, done.stderr
        assert [song.state for song in catalogue_of(place).songs] == ["done"] * 4
        tally.faults += len(processes) + len(workers)
        tally.count(Settings(home, home / "cache", home / "models"), place / "out", ["0", "1", "2", "3"])
        for song in catalogue_of(place).songs:
            check_folder(place, song.folder)
        for name, when in there.items():
            assert (place / "out" / name / "manifest.json").stat().st_mtime_ns == when


def states_in(place: Path) -> list[list[str]]:
    """Of all songs, as the page, the table and the catalogue have them."""
    songs = data_of((place / "out" / "catalogue.html").read_text(encoding="utf-8"))["songs"]
    with (place / "out" / "catalogue.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        [song["state"] for song in songs],
        [row["state"] for row in rows],
        [song.state for song in catalogue_of(place).songs],
    ]


@pytest.mark.skipif(os.name == "nt", reason="a session of its own")
def test_the_catalogue_of_a_killed_crate_is_whole_and_knows_what_was_done(home: Path, model: Path, tmp_path: Path):
    count, out = 40, tmp_path / "out"
    for song in range(count):
        song_file(tmp_path / "crate" / f"{song:02}.wav", seed=song)
    with started(home, *arguments(tmp_path, model)) as process:
        until((out / "catalogue.html").is_file)
        until(lambda: all("done" in states for states in states_in(tmp_path)))
        process.kill()
    for states in states_in(tmp_path):
        assert len(states) == count and states.count("waiting") >= 1
        assert states.count("done") >= 1 and states.count("done") + states.count("waiting") == count


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_crate_says_how_to_go_on(home: Path, model: Path, tmp_path: Path, number: int):
    for song, duration_s in enumerate((4.0, 4.0, LONG_S)):
        song_file(tmp_path / "crate" / f"{song}.wav", duration_s, seed=song)
    with started(home, *arguments(tmp_path, model)) as process:
        until(lambda: list((tmp_path / "out").glob("[!.]*/manifest.json")))
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert "rerun the command to resume" in said and "Traceback" not in said
    assert not (home / "spool" / "heartbeat.json").exists()
    states = [song.state for song in catalogue_of(tmp_path).songs]
    assert states[0] == "done" and "waiting" in states
    assert run(home, *arguments(tmp_path, model)).returncode == 0


def resident_mb(pid: int) -> float:
    """Raises: OSError: the process has ended"""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


SETTLED_AFTER = 5  # songs: by then, everything that is kept from song to song has been loaded
LATE = 4  # songs: so many may have ended, and their worker with them, before anybody has looked at it
GROWTH_MB = 48.0  # what a memory allocator may keep aside; a song's own arrays of 2 s are several times as much


@needs_proc
@pytest.mark.timeout(3600)
@repeated(100, short=12)
def test_songs_through_one_daemon_leave_its_memory_flat(home: Path, model: Path, tmp_path: Path, times: int):
    for song in range(times + LATE):
        song_file(tmp_path / "crate" / f"{song:03}.wav", 1.0 + 0.5 * (song % 3), seed=song)
    worker_mb, own_mb, workers = [], [], set()
    preset = "crate" if times == 100 else "none"
    with started(home, *arguments(tmp_path, model, "--json", preset=preset)) as process:
        for line in process.stdout:
            if "source" not in json.loads(line):
                continue
            with suppress(OSError):  # after the last song, all of them end
                workers |= set(pids := workers_of(process.pid))
                worker_mb += [resident_mb(pid) for pid in pids]
                own_mb.append(resident_mb(process.pid))
        assert process.wait() == 0, process.stderr.read()
    assert len(worker_mb) >= times - 1 and len(workers) == 1, "one worker for all songs"
    for name, sizes in {"worker": worker_mb, "batch": own_mb}.items():
        print(
            f"{name}: {max(sizes[:SETTLED_AFTER]):.0f} MB at first, {max(sizes[SETTLED_AFTER:]):.0f} MB at most after"
        )
        grown = max(sizes[SETTLED_AFTER:]) - max(sizes[:SETTLED_AFTER])
        assert grown < GROWTH_MB, f"grew by {grown:.0f} MB: {[round(size) for size in sizes]}"
