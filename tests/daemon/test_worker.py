"""The worker process, spoken to as the daemon does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness.stage import job_for, settings_in, worker_environment
from timeouts import PATIENCE_S

from tsbs_daw.contracts.job import Job, State
from tsbs_daw.core import machine
from tsbs_daw.core.config import PIPELINE
from tsbs_daw.daemon.worker import load_runner, songs_for
from tsbs_daw.daemon.worker_handle import worker_environment as environment_of_worker


class Conversation:
    """Orders in, events out. `alive` events are left out: they come when they want."""

    def __init__(self, home: Path, runner: str = "runners:run", *arguments: str):
        self.home, self.settings = home, settings_in(home)
        self.settings.home.mkdir(parents=True, exist_ok=True)
        self.log = (home / "worker.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tsbs_daw.daemon.worker", "--runner", runner, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=worker_environment(),
        )

    def order(self, song: str, *, fence: int = 1, attempt: int = 1) -> Job:
        job = job_for(self.home, song)
        folder = self.home / "jobs" / job.id
        folder.mkdir(parents=True)
        (folder / "fence").write_text(str(fence))
        settings = {name: str(path) for name, path in vars(self.settings).items()}
        job_json = json.loads(job.to_json())
        self.say({"job": job_json, "folder": str(folder), "fence": fence, "attempt": attempt, "settings": settings})
        return job

    def say(self, order: dict) -> None:
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, *kinds: str) -> dict:
        """The next event of one of these kinds; progress is skipped unless asked for."""
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] in kinds:
                return event
            assert event["event"] in ("alive", "progress"), event
        raise AssertionError(f"the worker ended: {self.said()}")

    def said(self) -> str:
        self.log.flush()
        return (self.home / "worker.log").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            stream.close()


@pytest.fixture
def worker(tmp_path: Path):
    conversation = Conversation(tmp_path)
    assert conversation.hear("ready") == {"event": "ready", "songs": 1}
    yield conversation
    conversation.close()


def test_a_job_is_run_and_its_result_sent(worker):
    job = worker.order("Night Drive")
    assert worker.hear("progress") == {
        "event": "progress",
        "id": job.id,
        "fence": 1,
        "fraction": 0.1,
        "message": "separating",
    }
    event = worker.hear("done")
    assert (event["id"], event["result"]["state"]) == (job.id, State.DONE.value)
    assert Path(event["result"]["folder"], "vocals.wav").exists()


def test_what_libraries_print_does_not_reach_the_events(worker):
    worker.order("print")
    worker.hear("done")
    assert "this comes from C" in worker.said()
    assert "a library might print" in worker.said()


def test_an_error_of_the_program_travels_as_its_sentence(worker):
    job = worker.order("refuse")
    event = worker.hear("failed")
    assert event["error"] == f"{job.source.path} is not audio; give a sound file."
    assert event["retryable"] is False


def test_a_full_disk_may_pass(worker):
    worker.order("full")
    event = worker.hear("failed")
    assert "became full" in event["error"]
    assert event["retryable"] is True


def test_the_unexpected_becomes_one_sentence_and_a_traceback_in_the_log(worker):
    worker.order("break")
    event = worker.hear("failed")
    assert "ZeroDivisionError: nobody expects this" in event["error"]
    assert "\n" not in event["error"]
    assert 'raise ZeroDivisionError("nobody expects this")' in worker.said()


def test_it_goes_on_with_the_next_job_after_all_of_that(worker):
    for song in ("refuse", "break", "full"):
        worker.order(song)
        worker.hear("failed")
    worker.order("Night Drive")
    worker.hear("done")


def test_a_dropped_job_ends(worker):
    job = worker.order("hang", fence=4)
    worker.hear("progress")
    worker.say({"drop": job.id, "fence": 3})  # an older run of it: not this one
    worker.say({"drop": job.id, "fence": 4})
    assert worker.hear("cancelled")["id"] == job.id


def test_a_job_can_be_dropped_before_it_has_begun(worker):
    worker.order("slow")
    job = worker.order("hang")
    worker.say({"drop": job.id, "fence": 1})
    worker.hear("done")
    assert worker.hear("cancelled")["id"] == job.id


def test_the_cancel_file_is_seen_without_the_daemon(worker):
    job = worker.order("hang")
    worker.hear("progress")
    (worker.home / "jobs" / job.id / "cancel").touch()
    assert worker.hear("cancelled")["id"] == job.id


def test_a_run_whose_job_was_given_away_publishes_nothing(worker):
    job = worker.order("held")
    worker.hear("progress")
    (worker.home / "jobs" / job.id / "fence").write_text("2")
    assert worker.hear("lost")["fence"] == 1
    assert not job.output.exists()


def test_the_end_of_stdin_ends_an_idle_worker(worker):
    worker.process.stdin.close()
    assert worker.process.wait(PATIENCE_S) == 0


def test_the_end_of_stdin_ends_a_worker_in_the_middle_of_a_job(worker):
    worker.order("deaf")
    worker.hear("progress")
    worker.process.stdin.close()
    assert worker.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("runner", ["no_such_module:run", "runners:no_such_function"])
def test_a_worker_that_cannot_start_says_why(tmp_path, runner):
    conversation = Conversation(tmp_path, runner)
    event = conversation.hear("unusable")
    assert "no_such" in event["error"]
    assert "doctor" in event["error"]
    assert conversation.process.wait(PATIENCE_S) == 1
    conversation.close()


def test_a_worker_leaves_a_core_to_everybody_else_unless_it_is_told_otherwise(monkeypatch):
    for cores, threads in ((1, "1"), (2, "1"), (8, "7")):
        monkeypatch.setattr(machine, "usable_cores", lambda cores=cores: cores)
        assert environment_of_worker({"PATH": "/bin"}) == {"PATH": "/bin", "OMP_NUM_THREADS": threads}
    assert environment_of_worker({"OMP_NUM_THREADS": "5"}) == {"OMP_NUM_THREADS": "5"}


def test_several_jobs_run_at_once_and_the_next_waits_for_a_place(tmp_path):
    worker = Conversation(tmp_path, "runners:run", "--songs", "2")
    assert worker.hear("ready") == {"event": "ready", "songs": 2}
    first, second = worker.order("hang"), worker.order("hang 2")
    begun = {worker.hear("progress")["id"] for _ in range(2)}
    assert begun == {first.id, second.id}
    third = worker.order("Night Drive")
    worker.say({"drop": second.id, "fence": 1})
    assert worker.hear("cancelled")["id"] == second.id
    assert worker.hear("done")["id"] == third.id
    worker.process.stdin.close()
    assert worker.process.wait(PATIENCE_S) == 0, "with a job running in a thread"
    worker.close()


def test_how_many_jobs_at_once_is_asked_for_or_suits_the_device():
    pipeline, stand_in = load_runner(PIPELINE), load_runner("harness.runners:run")
    assert [songs_for(pipeline, 0, device) for device in ("cpu", "cuda", "cuda:1")] == [1, 4, 4]
    assert [songs_for(pipeline, 3, "cpu"), songs_for(stand_in, 0, "cuda"), songs_for(stand_in, 2, "cpu")] == [3, 1, 2]
