"""What is damaged, missing or hostile: a sentence in the window, and the project as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from reaper.stage import STEMS, DaemonByHand, Studio, stem_items

HOSTILE = [
    "quote \" and ' and `backtick`",
    "new\nline",
    "$(touch hacked); & | > %PATH%",
    "emoji 🎚️ ümläut 日本",
    "..",
    "back\\slash and tab\t",
]


def asked(studio: Studio, daemon: DaemonByHand) -> dict:
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(12)
    (job,) = daemon.claim()
    return job


def done(daemon: DaemonByHand, job: dict, **changes: object) -> dict:
    entries, rate, samples = daemon.stems(job, STEMS)
    result = {"schema": 1, "id": job["id"], "state": "done", "stems": entries, "samples": samples, "sample_rate": rate}
    return result | changes


def cut_file(daemon: DaemonByHand, job: dict) -> str:
    result = done(daemon, job)
    path = Path(result["stems"][2]["path"])
    path.write_bytes(path.read_bytes()[:2000])
    return json.dumps(result)


def noise_file(daemon: DaemonByHand, job: dict) -> str:
    result = done(daemon, job)
    Path(result["stems"][0]["path"]).write_bytes(b"no sound at all" * 100)
    return json.dumps(result)


def missing_file(daemon: DaemonByHand, job: dict) -> str:
    result = done(daemon, job)
    Path(result["stems"][3]["path"]).unlink()
    return json.dumps(result)


BAD_RESULTS: dict[str, tuple[Callable[[DaemonByHand, dict], str], str]] = {
    "no JSON": (lambda daemon, job: "{not json", "is damaged"),
    "half of it": (lambda daemon, job: json.dumps(done(daemon, job))[:-30], "is damaged"),
    "a list": (lambda daemon, job: "[1, 2]", "schema nil"),
    "another schema": (lambda daemon, job: json.dumps(done(daemon, job, schema=3)), "has schema 3"),
    "no stems": (lambda daemon, job: json.dumps(done(daemon, job, stems=[])), "does not say where its stems are"),
    "odd stems": (lambda daemon, job: json.dumps(done(daemon, job, stems=[{"path": 3}])), "does not say where"),
    "no length": (lambda daemon, job: json.dumps(done(daemon, job, samples=None)), "does not say where"),
    "another length": (lambda daemon, job: json.dumps(done(daemon, job, samples=99)), "is damaged; run the job"),
    "a cut stem": (cut_file, "bass.wav' is damaged; run the job again."),
    "no sound": (noise_file, "vocals.wav' is damaged; run the job again."),
    "a missing stem": (missing_file, "other.wav' is missing"),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_result_that_cannot_be_used_is_a_sentence_and_changes_nothing(
    name: str, studio: Studio, daemon: DaemonByHand
):
    job = asked(studio, daemon)
    make, said = BAD_RESULTS[name]
    daemon.settle(job, make(daemon, job))
    studio.run("Jobs")
    studio.ticks(40)
    assert studio.reaper.window("Jobs").says(said), studio.reaper.window("Jobs").lines
    assert studio.project.names() == ["Mix"] and studio.project.undo_steps == []
    assert len(studio.tickets()) == 1


def test_a_stem_that_came_back_can_be_delivered(studio: Studio, daemon: DaemonByHand):
    job = asked(studio, daemon)
    text = missing_file(daemon, job)
    daemon.settle(job, text)
    studio.run("Jobs")
    studio.ticks(40)
    path = Path(json.loads(text)["stems"][3]["path"])
    path.write_bytes(path.with_name("bass.wav").read_bytes())
    studio.reaper.window("Jobs").click("Retry")
    studio.ticks(40)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_an_error_in_the_middle_of_the_insertion_leaves_the_project_as_it_was(studio: Studio, daemon: DaemonByHand):
    job = asked(studio, daemon)
    studio.project.begin()
    studio.project.end("what the user did before")
    studio.reaper.fails_at["AddTakeToMediaItem"] = 3
    daemon.finish(job)
    daemon.work(studio)
    assert "could not be put into the project" in studio.troubled()[0]
    assert studio.project.names() == ["Mix"] and len(studio.project.items) == 1
    assert [step.label for step in studio.project.undo_steps] == ["what the user did before"]
    assert studio.reaper.ui_locks == 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_media_path_is_a_sentence(studio: Studio, daemon: DaemonByHand, tmp_path: Path):
    unwritable_media(studio, daemon, tmp_path, lambda media: media.chmod(0o500))


def test_a_media_path_that_cannot_be_made_is_a_sentence(studio: Studio, daemon: DaemonByHand, tmp_path: Path):
    unwritable_media(studio, daemon, tmp_path, lambda media: (media / "stems").write_text("a file in its place"))


def unwritable_media(studio: Studio, daemon: DaemonByHand, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    job = asked(studio, daemon)
    job["output"] = str(tmp_path / "elsewhere")
    daemon.finish(job)
    spoil(studio.project.folder / "Media")
    daemon.work(studio)
    assert "Cannot write to" in studio.troubled()[0]
    assert studio.project.names() == ["Mix"] and studio.project.undo_steps == []


def test_a_job_folder_without_its_request_is_left_alone(studio: Studio, daemon: DaemonByHand):
    (studio.home / "spool" / "inbox" / "half").mkdir(parents=True)
    (studio.home / "spool" / "done" / "half").mkdir(parents=True)
    job = asked(studio, daemon)
    daemon.finish(job)
    daemon.work(studio)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_a_job_that_vanished_from_the_spool_is_a_sentence(studio: Studio, daemon: DaemonByHand):
    job = asked(studio, daemon)
    folder = studio.home / "spool" / "jobs" / job["id"]
    (folder / "job.json").unlink()
    studio.run("Jobs")
    studio.ticks(20)
    assert studio.reaper.window("Jobs").says("Its folder is gone from the spool")


def test_damaged_tickets_are_left_and_do_no_harm(studio: Studio, daemon: DaemonByHand):
    folder = studio.home / "spool" / "reaper"
    folder.mkdir(parents=True)
    (folder / "damaged.1.json").write_text("{")
    (folder / "other.1.json").write_text('{"schema": 7}')
    (folder / "not a ticket.txt").write_text("hello")
    daemon.finish(asked(studio, daemon))
    studio.ticks(40)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]
    assert len([path for path in folder.iterdir() if path.is_file()]) == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_travel_unharmed(name: str, studio: Studio, daemon: DaemonByHand):
    project = studio.project
    folder = project.folder / "Media" / name.replace("/", "").replace("..", "dots..")
    folder.mkdir()
    song = studio.song()
    path = folder / f"{song.stem} {folder.name}.wav"
    song.rename(path)
    item = project.add_item(project.add_track(name), path, 1.0, 1.0)
    item.take.strings["P_NAME"] = name
    studio.run("Separate selected items")
    studio.ticks(12)
    (job,) = daemon.claim()
    assert job["source"]["path"] == str(path) and job["song"] == name
    job["song"] = "safe"
    daemon.finish(job)
    daemon.work(studio)
    assert project.track_named(f"{name} - stems") and len(stem_items(project, "drums")) == 1
    assert studio.reaper.started == [], "no shell has seen it"


def test_without_an_installation_the_window_says_what_to_do(studio: Studio):
    (studio.reaper.folder / "Data" / "TSBS-DAW" / "installed.json").unlink()
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(2)
    assert studio.reaper.window("Jobs").says("run `tsbs-daw reaper install` once")


def test_an_unwritable_spool_is_a_sentence(studio: Studio):
    studio.home.mkdir()
    (studio.home / "spool").write_text("a file in its place")
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(2)
    assert studio.reaper.window("Jobs").says("Cannot write to")
    assert studio.project.undo_steps == []


def test_a_project_is_to_be_saved_once_something_was_asked_for_in_it(studio: Studio, daemon: DaemonByHand):
    """Its id is in it; without one, the stems would wait for a project that nobody has."""
    studio.run("Separate selected items")
    studio.ticks(2)
    assert not studio.project.is_dirty and studio.project.undo_steps == []
    asked(studio, daemon)
    assert studio.project.is_dirty and studio.project.undo_steps == []


def test_media_that_reaper_has_set_offline_meanwhile_are_a_sentence_and_can_be_read_later(
    studio: Studio, daemon: DaemonByHand
):
    """A preference of REAPER's takes them offline while another program is in front."""
    path = studio.song()
    audio = path.read_bytes()
    item = studio.project.add_item(studio.project.add_track("Mix"), path, 1.0, 1.0, D_PLAYRATE=0.9)
    media = item.take.source
    sound, media.audio = media.audio, media.audio * 0
    studio.run("Separate selected items")
    studio.ticks(60)
    assert daemon.claim() == [] and "REAPER returns only silence" in studio.troubled()[0]
    assert studio.project.names() == ["Mix"] and studio.project.undo_steps == [] and path.read_bytes() == audio
    media.audio = sound
    studio.jobs_say("only silence")
    studio.reaper.window("Jobs").click("Retry")
    studio.ticks(3)
    daemon.work(studio)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_a_stale_heartbeat_is_no_daemon(studio: Studio, daemon: DaemonByHand):
    beat = {"schema": 1, "pid": 1, "version": "0", "updated_unix_s": 1e9}
    (studio.home / "spool" / "heartbeat.json").write_text(json.dumps(beat))
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(2)
    assert studio.reaper.window("Jobs").says("Starting the daemon")


def test_a_daemon_that_dies_between_request_and_result_is_started_again(studio: Studio, daemon: DaemonByHand):
    job = asked(studio, daemon)
    heartbeat = studio.home / "spool" / "heartbeat.json"
    heartbeat.write_text(json.dumps({"schema": 1, "pid": 1, "version": "0", "updated_unix_s": 1e9}))
    studio.ticks(3000)
    assert studio.reaper.started == [("tsbs-daw watch", -2)] * 2, "not again and again for ever"
    daemon.finish(job)
    daemon.work(studio)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]


def test_a_reaper_that_is_too_old_is_a_sentence(studio: Studio):
    studio.reaper.app_version = "5.99/x64"
    studio.project.add_item(studio.project.add_track("Mix"), studio.song(), 1.0, 1.0)
    studio.run("Separate selected items")
    studio.ticks(2)
    assert studio.reaper.window("Jobs").says("needs REAPER 6 or newer, and this is 5.99/x64")
    assert studio.tickets() == [] and studio.project.undo_steps == []


def test_an_unsaved_project_gets_its_stems_and_keeps_them_when_it_is_saved(studio: Studio, daemon: DaemonByHand):
    studio.project.name = ""
    job = asked(studio, daemon)
    studio.project.name = "saved at last.RPP"
    daemon.finish(job)
    daemon.work(studio)
    assert studio.project.names() == ["Mix", "mix - stems", *STEMS]
    for item in studio.project.items:
        item.values["B_UISEL"] = 0.0
    asked(studio, daemon)
    assert len(studio.project.ext_state["TSBS-DAW", "project"].split()) == 1, "it is the same project"
