"""The shortest songs and the longest, through the real program: all that is made of them, and the memory it takes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from batch.test_end_to_end import arguments, catalogue_of, check_folder, needs_proc, started
from cli.program import small_model

RATE = 8000
LOOP_S = 16  # at 120 beats a minute, eight bars
LOOK_EVERY_S = 0.1
GROWTH_MB = 96.0  # of a worker, whatever the length; two hours of one stem are four times as much


def write_long_song(path: Path, duration_s: int) -> Path:
    """Mono, at a telephone's rate, of one loop: hours of it are a small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    loop = signals.mixture(signals.song(float(LOOP_S), RATE)).mean(0)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for begin in range(0, duration_s, LOOP_S):
            file.write(np.clip(loop[: (duration_s - begin) * RATE], -1, 1))
    return path


NAMES = {"tsbs_daw.daemon.worker": "worker", "tsbs_daw.analysis.analyse": "analysis"}


class Peaks(threading.Thread):
    """The most memory that processes below one ever had, by what they run. Use it in a `with`."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.mb, self._over = pid, {}, threading.Event()

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self._look(self.pid)

    def _look(self, pid: int) -> None:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            status = Path(f"/proc/{pid}/status").read_text(errors="replace")
            children = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children")]
        except OSError:  # it has ended meanwhile
            return
        name = next((name for part, name in NAMES.items() if part in command), "batch" if pid == self.pid else "")
        peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
        if name and peak:
            self.mb[name] = max(self.mb.get(name, 0.0), peak[0])
        for child in " ".join(children).split():
            self._look(int(child))


@needs_proc
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("lengths_s", [(2, 60), pytest.param((600, 7200), marks=pytest.mark.long)], ids=str)
def test_a_longer_song_is_done_alike_and_takes_the_worker_no_more_memory(tmp_path: Path, lengths_s: tuple[int, int]):
    model, peaks = small_model(tmp_path / "small.safetensors"), {}
    for length_s in lengths_s:
        place = tmp_path / str(length_s)
        write_long_song(place / "crate" / "Song.flac", length_s)
        with started(tmp_path / "home", *arguments(place, model, "--json", preset="crate")) as process:
            with Peaks(process.pid) as found:
                said, complaints = process.communicate()
            assert process.returncode == 0, said + complaints
        check_song(place, length_s)
        peaks[length_s] = found.mb
        print(f"{length_s} s:", {name: f"{mb:.0f} MB" for name, mb in found.mb.items()})
    short, long = (peaks[length_s]["worker"] for length_s in lengths_s)
    assert long - short < GROWTH_MB


def check_song(place: Path, length_s: int) -> None:
    (song,) = catalogue_of(place).songs
    assert (song.state, song.duration_s, song.channels) == ("done", length_s, 1), song.reason
    assert song.analysis is not None and "could not be made" not in " ".join(song.warnings), song.warnings
    check_folder(place, song.folder)
    assert song.analysis.duration_s == pytest.approx(length_s)
    if length_s > LOOP_S:
        assert song.analysis.tempo.bpm and song.analysis.beats.times_s[-1] > length_s - 2
    assert {Path(name).suffix for name in song.sessions} == {".RPP", ".dawproject"}
    assert "Song" in (place / "out" / "catalogue.html").read_text(encoding="utf-8")
    assert (place / "out" / "crate.RPP").read_text(encoding="utf-8").count("MARKER ") >= 2
