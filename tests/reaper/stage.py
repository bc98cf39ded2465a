"""What the tests of the REAPER scripts are played on: an installation, a project with a mix, the real daemon."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import signals
import soundfile
from cli.program import environment
from reaper.model import Item, Project
from reaper.stand_in import Reaper
from timeouts import PATIENCE_S

from tsbs_daw.core.config import resource_folder
from tsbs_daw.presets.preset import read_preset

STEMS = ["vocals", "drums", "bass", "other"]
SCRIPTS = "TSBS-DAW"
OUTPUTS = ("instrumental", "karaoke")
PRESETS = [
    {"name": "none", "description": "Stems only.", "outputs": []},
    {"name": "instrumental", "description": "Without the voice.", "outputs": ["instrumental"]},
]
MODELS = [
    {"name": "default", "description": "The small one.", "stems": STEMS},
    {"name": "six", "description": "A large one.", "stems": [*STEMS, "guitar", "piano"]},
]


def shipped_presets() -> list[dict]:
    read = [read_preset(path) for path in sorted(resource_folder("presets").glob("*.yaml"))]
    return [
        {"name": one.name, "description": one.description, "outputs": [output.name for output in one.outputs]}
        for one in read
    ]


def install(reaper: Reaper, home: Path, **more: object) -> Path:
    """The scripts as an installation has them. Returns: their folder"""
    folder = reaper.folder / "Scripts" / SCRIPTS
    shutil.copytree(resource_folder("reaper_scripts") / SCRIPTS, folder)
    installed = {"schema": 1, "spool": str(home / "spool"), "start": "tsbs-daw watch", "stems": STEMS}
    installed["presets"] = PRESETS
    settings = reaper.folder / "Data" / "TSBS-DAW" / "installed.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(installed | more), encoding="utf-8")
    return folder


def song_file(path: Path, duration_s: float = 2.0, sample_rate: int = 44100, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mixture = signals.mixture(signals.song(duration_s, sample_rate, seed=seed))
    return signals.write_file(path, mixture, sample_rate)


class Studio:
    """A REAPER with the scripts in it, and a project in front.

    Args:
        home: the daemon's
        folder: for everything else
        presets: with all presets that are shipped, and two models
    """

    def __init__(self, folder: Path, home: Path, version: str = "54", *, presets: bool = False):
        self.home, self.folder = home, folder
        self.reaper = Reaper(folder / "resources", version)
        self.presets = shipped_presets() if presets else PRESETS
        self.scripts = install(self.reaper, home, presets=self.presets, **({"models": MODELS} if presets else {}))
        self.choose(layout="folder")  # the default, children of the source's track, is what test_layouts.py is about
        self.project = self.new_project("song")

    def choose(self, **choices: str) -> None:
        """As a user did in the dialog at another time."""
        for name, value in choices.items():
            key = ("TSBS-DAW", name)
            self.reaper.ext_state[key] = self.reaper.saved_ext_state[key] = value

    def new_project(self, name: str) -> Project:
        place = self.folder / name
        (place / "Media").mkdir(parents=True)
        return self.reaper.open(Project(place, f"{name}.RPP"))

    def song(self, name: str = "mix.wav", **how: float) -> Path:
        return song_file(self.project.folder / "Media" / name, **how)

    def run(self, action: str):
        return self.reaper.run(self.scripts / f"tsbs-daw_{action}.lua")

    def until(self, condition: Callable[[], object]) -> None:
        """Let REAPER tick until something is true."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {self.tickets()}"
            self.reaper.tick()
            time.sleep(0.005)

    def jobs_say(self, text: str) -> bool:
        """Whether the window of jobs says so; it is opened as by a user who saw its lit button."""
        if not any("Jobs" in script.path.name for script in self.reaper.scripts):
            assert self.reaper.lit == {"tsbs-daw_Jobs.lua"}
            self.run("Jobs")
            self.ticks(2)
        return self.reaper.window("Jobs").says(text)

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.reaper.tick()

    def tickets(self) -> list[dict]:
        folder = self.home / "spool" / "reaper"
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def delivered(self) -> bool:
        return not self.tickets()

    def troubled(self) -> list[str]:
        return [ticket["trouble"] for ticket in self.tickets() if ticket.get("trouble")]

    def jobs_waiting(self) -> list[Path]:
        inbox = self.home / "spool" / "inbox"
        return sorted(inbox.iterdir()) if inbox.is_dir() else []


class DaemonByHand:
    """Finishes jobs as the daemon does, without separating anything: each stem is the portion of the source."""

    def __init__(self, home: Path):
        self.spool = home / "spool"
        self.beat()

    def beat(self) -> None:
        self.spool.mkdir(parents=True, exist_ok=True)
        beat = {"schema": 1, "pid": 1, "version": "0", "updated_unix_s": time.time()}
        (self.spool / "heartbeat.json").write_text(json.dumps(beat))

    def claim(self) -> list[dict]:
        """Take every request, and be alive. Returns: the jobs"""
        self.beat()
        (self.spool / "jobs").mkdir(exist_ok=True)
        found = []
        for folder in sorted((self.spool / "inbox").glob("*")):
            if (folder / "job.json").exists():
                folder.rename(self.spool / "jobs" / folder.name)
                found.append(json.loads((self.spool / "jobs" / folder.name / "job.json").read_text(encoding="utf-8")))
        return found

    def progress(self, job: dict, fraction: float, message: str = "separating") -> None:
        document = {"schema": 1, "id": job["id"], "state": "running", "fraction": fraction, "message": message}
        (self.spool / "jobs" / job["id"] / "progress.json").write_text(json.dumps(document))

    def stems(self, job: dict, stems: list[str]) -> tuple[list[dict], int, int]:
        """Write the files of a job. Returns: their entries, the sample rate, and how long they are"""
        source = job["source"]
        start, length = source.get("start_samples", 0), source.get("length_samples")
        audio, rate = soundfile.read(source["path"], dtype="float32", always_2d=True)
        audio = audio[start:][:length]
        folder = Path(job["output"], job["song"])
        if folder.exists():
            folder = folder.with_name(f"{folder.name} {job['id']}")
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for number, name in enumerate(stems):
            soundfile.write(folder / f"{name}.wav", audio, rate, subtype="FLOAT")
            entry = {"name": name, "path": str(folder / f"{name}.wav"), "color": f"#0{number}80ff"}
            entries.append(entry | {"kind": "output" if name in OUTPUTS else "stem"})
        return entries, rate, len(audio)

    def asked_for(self, job: dict, stems: list[str]) -> list[str]:
        """What the daemon writes of these: of the dry stems those that the job names, and the sum of the others."""
        chosen = (job.get("delivery") or {}).get("stems")
        if chosen is None:
            return stems
        dry = [name for name in stems if name in chosen]
        rest = [f"no_{dry[0]}" if len(dry) == 1 else "rest"] if "rest" in chosen else []
        return dry + rest + [name for name in stems if name in OUTPUTS]

    def silence(self, entries: list[dict]) -> None:
        """Make the files of these stems silent."""
        for entry in entries:
            audio, rate = soundfile.read(entry["path"], dtype="float32", always_2d=True)
            soundfile.write(entry["path"], audio * 0, rate, subtype="FLOAT")

    def finish(self, job: dict, stems: list[str] = STEMS, **changes: object) -> None:
        entries, rate, samples = self.stems(job, self.asked_for(job, stems))
        result = {"schema": 1, "id": job["id"], "state": "done", "stems": entries, "samples": samples}
        result |= {"sample_rate": rate, "folder": job["output"], "deliver": job["deliver"]}
        self.end(job, result | changes)

    def fail(self, job: dict, error: str) -> None:
        self.end(job, {"schema": 1, "id": job["id"], "state": "failed", "error": error})

    def end(self, job: dict, result: dict) -> None:
        self.settle(job, json.dumps(result))

    def settle(self, job: dict, result: str) -> None:
        (self.spool / "done").mkdir(exist_ok=True)
        folder = self.spool / "jobs" / job["id"]
        (folder / "result.json").write_text(result, encoding="utf-8")
        folder.rename(self.spool / "done" / job["id"])

    def work(self, studio: Studio, **changes: object) -> list[dict]:
        """Do all that was asked for, until every ticket is gone or in trouble. Returns: the jobs"""
        done = []
        for _ in range(600):
            studio.reaper.tick()
            for job in self.claim():
                self.finish(job, **changes)
                done.append(job)
            tickets = studio.tickets()
            if all(ticket.get("trouble") for ticket in tickets):
                return done
        raise AssertionError(f"still under way: {studio.tickets()}")


class DaemonProcess:
    """The real daemon, as a user starts it."""

    def __init__(self, home: Path, env: dict[str, str] | None = None):
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        with (home / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tsbs_daw", "watch"], env=env or environment(home), stdout=log, stderr=log
            )

    def wait_until_alive(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while not (self.home / "spool" / "heartbeat.json").exists():
            assert self.process.poll() is None and time.monotonic() < end, (self.home / "daemon.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def stem_items(project: Project, stem: str) -> list[Item]:
    return [item for track in project.tracks if track.name == stem for item in track.items]


def heard(item: Item, rate: int, count: int | None = None) -> np.ndarray:
    """What an item plays, (samples, channels), at its own length or `count` samples."""
    count = round(item.values["D_LENGTH"] * rate) if count is None else count
    return item.audio_at(np.arange(count) / rate, 2)
