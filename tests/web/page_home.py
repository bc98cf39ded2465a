"""A home with something of everything for the page to show, and a daemon's part that a test plays itself."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from batch.page_crates import mixed_crate, sounding
from harness.stage import job_for, settings_in, write_song
from signals import song as sounds
from signals import write_file

from tsbs_daw.contracts.job import Heartbeat, Job, Progress, Result, Source, State
from tsbs_daw.contracts.manifest import FILE_NAME, AudioFile, Manifest, NamedHash, SourceEntry
from tsbs_daw.queue.records import NewJob, SeenFile
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore

RATE = 22050
SECONDS = 8.0
SENTENCE = "'cut.mp3' is cut short: 12.0 s of 180.0 s are there; copy it again, or use --salvage."


class Home:
    """What a daemon would have done by now; `finish`, `progress` and the like go on."""

    def __init__(self, root: Path):
        self.root, self.settings = root, settings_in(root)
        self.spool = Spool(self.settings.spool)
        self.spool.create()
        self.store = JobStore.open(self.settings.store)
        self.jobs: dict[str, Job] = {}

    def close(self) -> None:
        self.store.close()

    def beat(self) -> None:
        """Be alive for a while: the age of a heartbeat counts in both directions."""
        beat = Heartbeat(pid=os.getpid(), version="test", updated_unix_s=time.time() + 9)
        self.spool.write_heartbeat(beat)

    def add(self, name: str, **values: object) -> Job:
        """A job that waits."""
        job = self.jobs[name] = job_for(self.root, name, **values)
        return self.claim(job)

    def claim(self, job: Job, arrival: NewJob | None = None) -> Job:
        folder = self.spool.folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(job.to_json())
        self.store.enqueue([arrival or NewJob(job)])
        return job

    def run(self, name: str, fraction: float, message: str = "separating") -> int:
        """Let a job run, or go on. Returns: its fence"""
        job = self.jobs[name]
        row = self.store.get(job.id)
        if row.state is State.QUEUED:
            row = self.store.lease(row, "test", 1e12)
            self.spool.write_fence(job.id, row.fence)
        self.store.extend(job.id, row.fence, 1e12, fraction, message)
        self.spool.write_progress(
            Progress(id=job.id, state=State.RUNNING, fraction=fraction, message=message, attempt=row.attempts)
        )
        return row.fence

    def end(self, name: str, state: State = State.DONE, **values: object) -> None:
        """End a job that ran or waits."""
        job = self.jobs[name]
        row = self.store.get(job.id)
        result = Result(id=job.id, state=state, finished_unix_s=time.time(), **values)
        assert self.store.finish(result, row.fence if row.state is State.RUNNING else None)
        self.spool.settle(job.id, result)

    def deliver(self, name: str, seconds: float = SECONDS, *, copied: bool = True) -> Path:
        """A song that is done: its stems sound, and with `copied` it lies beside them. Returns: its folder"""
        job = self.add(name)
        self.run(name, 0.5)
        entry = sounding(self.root / "out", name, name, duration_s=seconds)
        folder = self.root / "out" / name
        write_file(folder / "song.wav", sum(sounds(seconds, RATE, channels=1).values()), RATE, "WAV", "FLOAT")
        (folder / f"{name}.RPP").write_text("<REAPER_PROJECT\n>\n")
        stems = [
            AudioFile(
                name=file.name, kind=file.kind, file=Path(file.file).name, color=file.color,
                size_bytes=(self.root / "out" / file.file).stat().st_size, loudness_lufs=-14.2,
            )
            for file in entry.files
        ]  # fmt: skip
        if copied:
            stems.append(AudioFile(name="song", kind="source", file="song.wav", muted=True, size_bytes=1))
        manifest = Manifest(
            job=job.id, song=name, artist="Somebody", title=name, identity="a" * 64,
            source=SourceEntry(
                path=job.source.path, sha256="b" * 64, container="WAV", subtype="FLOAT",
                sample_rate=RATE, channels=1, samples=int(RATE * seconds),
            ),
            model=NamedHash(name="default", sha256="c" * 64), preset=NamedHash(name="none", sha256="d" * 64),
            stage="full", null=False, salvage=False, stems=tuple(stems), sessions=(f"{name}.RPP",), residual_db=-101.5,
        )  # fmt: skip
        (folder / FILE_NAME).write_text(manifest.to_json())
        self.end(name, folder=folder, manifest=folder / FILE_NAME)
        return folder

    def watched(self, name: str, **values: object) -> Path:
        """A file of a watch folder: a job, or with `reason` ignored. Returns: the folder"""
        drop = self.root / "drop"
        path = write_song(drop / f"{name}.wav", len(self.jobs))
        file = SeenFile(str(drop), path.name, "1", "p", **values)
        if "reason" in values:
            self.store.remember_files([file])
            return drop
        job = Job(source=Source(path=path), output=self.root / "out", origin="watch")
        self.jobs[name] = job
        file = replace(file, input_hash=f"hash of {name}", job_id=job.id)
        self.claim(job, NewJob(job, str(path), file, "m", 0))
        return drop

    def batch(self) -> Path:
        """A batch with a catalogue. Returns: its folder"""
        out = self.root / "My Crate"
        (out / "catalogue.json").parent.mkdir()
        (out / "catalogue.json").write_text(mixed_crate(out).to_json())
        job = Job(source=Source(path=self.root / "x.wav"), output=out, song="From a batch", origin="batch")
        self.jobs["From a batch"] = job
        self.claim(job)
        self.end("From a batch", State.CANCELLED, error="Cancelled.")
        return out


def full_home(root: Path, seconds: float = SECONDS) -> Home:
    """Something of everything."""
    home = Home(root)
    home.beat()
    home.batch()
    home.deliver("Night Drive", seconds)
    home.add("cut")
    home.run("cut", 0.1)
    home.end("cut", State.FAILED, error=SENTENCE)
    home.watched("Sunday")
    home.end("Sunday", State.FAILED, error="'Sunday.wav' holds no sound; check the recording.")
    home.watched("notes", reason="It is no audio file.")
    for name in ("Glass Houses", "Long Way Home", "Paper Boats <b>", "Última Vez"):
        home.add(name)
    home.run("Glass Houses", 0.42)
    return home
