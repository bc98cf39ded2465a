"""`submit` and `jobs`, against a real spool and a real store."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from cli.program import environment, run
from rights import PYTHON, needs_rights

from tsbs_daw.contracts.job import Job, Progress, Result, Source, State
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.queue.records import NewJob
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "music" / "Night Drive.wav"
    path.parent.mkdir()
    path.write_bytes(b"RIFF")
    return path


def submitted(home: Path, song: Path, *options: str) -> Job:
    done = run(home, "submit", song, "--json", *options, cwd=song.parent)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return Job.from_json((Path(answer["folder"]) / "job.json").read_bytes(), "job.json")


class Daemon:
    """The daemon's part in these tests: claims what was submitted, and settles it."""

    def __init__(self, home: Path):
        self.spool = Spool(home / "spool")
        self.spool.create()
        self.store = JobStore.open(home / "jobs.sqlite3")

    def claim_all(self) -> None:
        for folder in self.spool.waiting():
            self.store.enqueue([NewJob(self.spool.read_request(folder))])
            self.spool.claim(folder)

    def start(self, job_id: str, fraction: float) -> int:
        row = self.store.lease(self.store.get(job_id), "test", 1e12)
        self.store.extend(job_id, row.fence, 1e12, fraction, "separating")
        self.spool.write_progress(Progress(id=job_id, state=State.RUNNING, fraction=fraction))
        return row.fence

    def settle(self, result: Result, fence: int) -> None:
        assert self.store.finish(result, fence)
        self.spool.settle(result.id, result)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_submit_writes_a_complete_request_with_every_option(home: Path, song: Path, tmp_path: Path):
    (song.parent / "mine.yaml").write_text("name: mine")
    options = ("--preset", "mine.yaml", "--stage", "mask", "--null", "--salvage", "--song", "Ночь", "--first")
    options += ("--format", "mp3", "--loudness", "-16.5", "--sessions", "rpp", "--loops", "none", "--no-stem-mp4")
    options += ("--two-stems", "vocals", "--residual", "separate", "--quality", "best")
    job = submitted(home, song, *options, "--names", "{bpm} {stem}", "--out", "stems")
    assert job == Job(
        id=job.id,
        source=Source(path=song),
        output=song.parent / "stems",
        song="Ночь",
        preset=str(song.parent / "mine.yaml"),
        model="default",
        stage="mask",
        null=True,
        salvage=True,
        delivery=DeliveryOptions(
            format="mp3",
            loudness_lufs=-16.5,
            sessions=("rpp",),
            loops=(),
            stem_mp4=False,
            names="{bpm} {stem}",
            stems=("vocals", "rest"),
            residual="separate",
            quality="best",
        ),
        origin="cli",
        priority="interactive",
    )


def test_submit_says_that_no_daemon_is_running_and_the_job_waits(home: Path, song: Path):
    done = run(home, "submit", song)
    assert done.returncode == 0
    assert re.match(r"\d{8}-\d{6}-[0-9a-f]{12}  Night Drive.wav\nNo daemon is running. The jobs wait", done.stdout)
    listed = run(home, "jobs", "list").stdout.splitlines()
    assert listed[0].split() == ["ID", "STATE", "SINCE", "SONG"]
    assert "submitted" in listed[1] and "Night Drive" in listed[1]


def test_one_bad_file_does_not_stop_the_others(home: Path, song: Path):
    done = run(home, "submit", song.parent / "gone.wav", song, song.parent, song.parent / ("long" * 100))
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert len(errors) == 3 and "does not exist" in errors[0] and "is a folder" in errors[1]
    assert "does not exist" in errors[2]
    assert len(Spool(home / "spool").waiting()) == 1


@needs_rights
def test_a_file_without_rights_does_not_stop_the_others(home: Path, song: Path):
    """Neither one that may not be read, nor one in a folder that may not be entered."""
    other = song.parent / "locked" / "song.wav"
    other.parent.mkdir()
    other.write_bytes(song.read_bytes())
    other.parent.chmod(0)
    try:
        done = subprocess.run(
            [*PYTHON, "-m", "tsbs_daw", "submit", other, song],
            env=environment(home), capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        other.parent.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"Cannot read '{other}' (Permission denied). Check its permissions."]
    assert len(Spool(home / "spool").waiting()) == 1


@pytest.mark.skipif(os.name == "nt", reason="names are always text there")
def test_a_name_that_is_not_utf8_is_refused_with_a_sentence(home: Path, song: Path):
    other = Path(os.fsdecode(os.fsencode(song.parent) + b"/caf\xe9.wav"))
    other.write_bytes(b"RIFF")
    done = run(home, "submit", other)
    assert done.returncode == 1 and "not valid UTF-8" in done.stderr and "caf" in done.stderr
    assert not (home / "spool" / "inbox").exists() or Spool(home / "spool").waiting() == []


def test_list_and_show_follow_a_job_from_the_inbox_to_its_end(home: Path, song: Path, tmp_path: Path):
    job = submitted(home, song)
    daemon = Daemon(home)
    daemon.claim_all()
    assert json.loads(run(home, "jobs", "list", "--json").stdout)[0]["state"] == "queued"
    fence = daemon.start(job.id, 0.42)
    assert "running 42%" in run(home, "jobs", "list").stdout
    folder = tmp_path / "stems" / "Night Drive"
    daemon.settle(Result(id=job.id, state=State.DONE, folder=folder, warnings=("it was cut",)), fence)
    (found,) = json.loads(run(home, "jobs", "list", "--json").stdout)
    assert (found["id"], found["state"], found["fraction"]) == (job.id, "done", 1.0)
    assert found["result"]["folder"] == str(folder) and found["request"]["source"]["path"] == str(song)
    shown = run(home, "jobs", "show", job.id[-6:]).stdout
    for expected in (job.id, "done", str(folder), str(song), "it was cut", "none, default"):
        assert expected in shown
    assert json.loads(run(home, "jobs", "show", job.id, "--json").stdout)["result"]["state"] == "done"


def test_list_filters_by_state_and_limits(home: Path, song: Path):
    jobs = [submitted(home, song) for _ in range(3)]
    daemon = Daemon(home)
    daemon.claim_all()
    daemon.settle(Result(id=jobs[0].id, state=State.FAILED, error="It is cut."), daemon.start(jobs[0].id, 0.1))
    failed = json.loads(run(home, "jobs", "list", "--state", "failed", "--json").stdout)
    assert [job["id"] for job in failed] == [jobs[0].id] and failed[0]["error"] == "It is cut."
    assert len(json.loads(run(home, "jobs", "list", "--limit", "2", "--json").stdout)) == 2
    assert len(json.loads(run(home, "jobs", "list", "--limit", "0", "--json").stdout)) == 3
    assert run(home, "jobs", "list", "--state", "dead").stdout == "There are no dead jobs.\n"
    wrong = run(home, "jobs", "list", "--state", "lost")
    assert wrong.returncode == 2 and "The states are" in wrong.stderr


def test_cancel_leaves_the_word_for_the_daemon(home: Path, song: Path):
    waiting = submitted(home, song)
    done = run(home, "jobs", "cancel", waiting.id)
    assert done.returncode == 0 and f"Cancelling {waiting.id}." in done.stdout and "No daemon is running" in done.stdout
    daemon = Daemon(home)
    assert (daemon.spool.inbox / waiting.id / "cancel").exists()
    daemon.claim_all()
    assert daemon.spool.cancel_wanted(waiting.id)


def test_move_leaves_the_word_for_the_daemon(home: Path, song: Path):
    first, second = submitted(home, song), submitted(home, song)
    assert run(home, "jobs", "move", first.id, second.id, "--first").returncode == 0
    assert [(home / "spool" / "inbox" / job.id / "move").read_text() for job in (first, second)] == ["first"] * 2
    assert "--first or --last" in run(home, "jobs", "move", first.id).stderr


def test_retry_puts_failed_jobs_back_into_the_inbox(home: Path, song: Path):
    jobs = [submitted(home, song) for _ in range(3)]
    daemon = Daemon(home)
    daemon.claim_all()
    for job, state in zip(jobs, (State.FAILED, State.DEAD, State.DONE), strict=True):
        daemon.settle(Result(id=job.id, state=state), daemon.start(job.id, 0.0))
    done = run(home, "jobs", "retry", "--failed")
    assert done.returncode == 0, done.stderr
    assert {folder.name for folder in daemon.spool.waiting()} == {jobs[0].id, jobs[1].id}
    listed = json.loads(run(home, "jobs", "list", "--json").stdout)
    assert sorted(job["id"] for job in listed) == sorted(job.id for job in jobs), "a job waiting again is listed once"
    assert run(home, "jobs", "retry", jobs[2].id).returncode == 0
    assert len(daemon.spool.waiting()) == 3


def test_jobs_that_do_not_exist_are_wrong_use(home: Path, song: Path):
    submitted(home, song), submitted(home, song)
    for command in ("show", "cancel", "retry"):
        done = run(home, "jobs", command, "nothing-like-it")
        assert done.returncode == 2 and "There is no job" in done.stderr
    assert run(home, "jobs", "retry").returncode == 2


def test_a_request_that_cannot_be_read_is_listed_with_the_reason(home: Path):
    folder = home / "spool" / "inbox" / "broken"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"schema": 1, "volume": 11}')
    (found,) = json.loads(run(home, "jobs", "list", "--json").stdout)
    assert found["state"] == "submitted" and "job.json" in found["error"]


def test_looking_at_an_empty_home_creates_nothing(home: Path):
    assert run(home, "jobs", "list").stdout == "There are no jobs.\n"
    assert run(home, "jobs", "list", "--json").stdout == "[]\n"
    assert not home.exists()


def test_an_id_can_be_shortened_to_any_beginning_or_end_that_only_one_job_has(home: Path, song: Path):
    ids = ("20260101-120000-aaaa1111aaaa", "20260101-120000-bbbb2222bbbb", "20260102-120000-cccc3333cccc")
    daemon = Daemon(home)
    for job_id in ids:
        job = Job(id=job_id, source=Source(path=song), output=song.parent / "stems")
        daemon.store.enqueue([NewJob(job)])
        (daemon.spool.jobs / job_id).mkdir()
    for short in ("20260102", "20260102-120000-c", "cc", ids[2]):
        assert json.loads(run(home, "jobs", "show", short, "--json").stdout)["id"] == ids[2]
    several = run(home, "jobs", "show", "20260101")
    assert several.returncode == 2
    assert "'20260101' stands for 2 jobs: " in several.stderr and ids[0] in several.stderr and ids[1] in several.stderr
    assert run(home, "jobs", "cancel", "").returncode == 2
    assert run(home, "jobs", "cancel", "cc", "20260102").stdout.count("Cancelling") == 1


def test_the_list_tells_songs_of_one_name_apart_by_their_files(home: Path, song: Path):
    daemon = Daemon(home)
    for name, called in (("a.wav", None), ("a.mp3", None), ("take.wav", "Verse")):
        source = Source(path=song.with_name(name))
        daemon.store.enqueue([NewJob(Job(source=source, output=song.parent / "stems", song=called))])
    listed = run(home, "jobs", "list").stdout
    assert "a.wav" in listed and "a.mp3" in listed and "Verse (take.wav)" in listed


def test_submit_has_one_schema_of_lines_whatever_became_of_the_file(home: Path, song: Path):
    lines = [json.loads(line) for line in run(home, "submit", song, "gone.wav", "--json").stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(song), "gone.wav"]
    assert lines[0].keys() == lines[1].keys() == {"file", "id", "folder", "daemon", "error"}
