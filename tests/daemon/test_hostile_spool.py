"""Requests, rows and folders that are not what they should be: each is answered by itself, and nothing stops for it."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from harness.stage import QUICK, DaemonThread, job_for, python_path, result_of, rows, settings_in

from tsbs_daw.contracts.job import Job, State
from tsbs_daw.core.config import Settings
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.queue.spool import Spool, read_result, submit

HALF = "Mix \ud83d"  # half an emoji, as a bridge leaves it that counts in UTF-16


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return settings_in(tmp_path)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def request_text(**changes: object) -> str:
    """A request's JSON. ASCII, so that any text can be said."""
    whole = {"schema": 1, "id": "odd", "source": {"path": "/music/x.wav"}, "output": "/music/o"}
    return json.dumps(whole | changes)


REFUSED = {
    "half a character in deliver": request_text(deliver={"track": HALF}),
    "half a character in a key": request_text(deliver={HALF: 1}),
    "half a character deep in a list": request_text(deliver={"a": [[{"b": HALF}]]}),
    "half a character in an unknown key": request_text(**{HALF: 1}),
    "half a character in the preset": request_text(preset=HALF),
    "half a character in the model": request_text(model=HALF),
    "half a character in the song": request_text(song=HALF),
    "half a character in the source": request_text(source={"path": f"/music/{HALF}.wav"}),
    "half a character in the output": request_text(output=f"/music/{HALF}"),
    "half a character in the id": request_text(id=HALF),
    "half a character in a choice": request_text(origin=HALF),
    "half a character in the delivery": request_text(delivery={"names": HALF + "{stem}"}),
    "half a character for a schema": request_text(schema=HALF),
    "a NUL in the output": request_text(output="/music/\0"),
    "a NUL in the source": request_text(source={"path": "/music/\0.wav"}),
    "a NUL in the preset": request_text(preset="none\0"),
    "a NUL in the model": request_text(model="/m\0.safetensors"),
    "a path without an end": request_text(output="/" + "o" * 200_000),
    "a preset without an end": request_text(preset="p" * 200_000),
    "depth": request_text(deliver=nested(300)),
    "more depth": '{"schema": 1, "deliver": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a schema with depth": '{"schema": ' + "[" * 900 + "]" * 900 + "}",
    "not a number": request_text(deliver={"x": float("nan")}),
    "infinity": request_text(deliver={"x": 1}).replace('"x": 1', '"x": 1e999'),
    "a number without an end": request_text(deliver={"x": 1}).replace('"x": 1', '"x": ' + "9" * 5000),
    "a large number": request_text(source={"path": "/music/x.wav", "start_samples": 10**30}),
    "a schema that is true": request_text(schema=True),
    "a list": "[]",
    "a text": '"job"',
    "nothing": "",
    "bytes": b"\xff\xfe\x00\x01",
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "deliver is a list": request_text(deliver=[1]),
    "source is a text": request_text(source="/music/x.wav"),
    "too large": request_text(deliver={"x": "x" * 300_000}),
}


def write_request(settings: Settings, content: str | bytes, name: str = "odd") -> Path:
    folder = settings.spool / "inbox" / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def answer(settings: Settings, name: str = "odd") -> dict:
    found = json.loads((settings.spool / "done" / name / "result.json").read_text(encoding="utf-8"))
    assert found["state"] == "failed"
    assert found["error"].isprintable()
    assert len(found["error"]) < 2000
    return found


def ticked(settings: Settings, times: int = 3) -> None:
    """A daemon that starts, ticks and ends, twice: what a first one met, a second one meets as well."""
    for _ in range(2):
        with Daemon(settings, options=QUICK) as daemon:
            for number in range(times):
                daemon._ingest.tick()
                daemon._dispatcher.apply_user_requests(10.0 * number)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_a_request_is_refused_with_a_sentence(settings, kind):
    write_request(settings, REFUSED[kind])
    ticked(settings)
    answer(settings)
    assert not list((settings.spool / "inbox").iterdir())
    assert not list((settings.spool / "jobs").iterdir())


def test_all_of_them_at_once_do_not_hold_up_a_good_one(tmp_path, settings):
    for number, content in enumerate(REFUSED.values()):
        write_request(settings, content, f"odd{number}")
    good = job_for(tmp_path, "Good", deliver={"emoji": "\U0001f3b5", "nul": "\0"})
    submit(settings.spool, good)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    result = result_of(settings, good)
    assert (result.state, result.deliver) == (State.DONE, good.deliver)
    assert len(rows(settings, State.FAILED)) == len(REFUSED)


@pytest.mark.parametrize("where", ["inbox", "jobs"])
def test_a_folder_name_that_is_no_text_is_refused(settings, where):
    folder = os.fsencode(settings.spool / where) + b"/caf\xe9"
    os.makedirs(folder)  # noqa: PTH103
    with open(folder + b"/job.json", "w") as file:  # noqa: PTH123
        file.write(request_text())
    ticked(settings)
    assert [row.state for row in rows(settings)] == [State.FAILED]


INTAKE = {
    "schema": 1,
    "file": {
        **{"root": "/drop", "relative": "a.wav", "state": "1:2:3:4:5", "settings_hash": "s", "input_hash": "h"},
        **{"job_id": "odd", "reason": None},
    },
    "model_hash": "m",
    "source_bytes": 5,
}


@pytest.mark.parametrize(
    "change",
    [
        {"file": {"state": [1]}},
        {"file": {"state": {"a": 1}}},
        {"file": {"state": None}},
        {"file": {"state": HALF}},
        {"file": {"settings_hash": HALF}},
        {"file": {"input_hash": 5}},
        {"file": {"input_hash": True}},
        {"file": {"root": HALF}},
        {"file": {"root": 1}},
        {"file": {"relative": "a\0.wav"}},
        {"file": {"relative": None}},
        {"file": {"job_id": [1]}},
        {"file": {"reason": {"x": 1}}},
        {"file": {"surprise": 1}},
        {"file": []},
        {"file": None},
        {"model_hash": [1]},
        {"model_hash": HALF},
        {"source_bytes": 1 << 80},
        {"source_bytes": -1},
        {"source_bytes": "many"},
        {"source_bytes": None},
        {"source_bytes": 1.5},
    ],
)
def test_an_odd_note_of_a_watched_file_is_refused(settings, change):
    folder = write_request(settings, request_text())
    note = INTAKE | {name: value for name, value in change.items() if name != "file" or not isinstance(value, dict)}
    if isinstance(change.get("file"), dict):
        note["file"] = INTAKE["file"] | change["file"]
    (folder / "intake.json").write_text(json.dumps(note))
    ticked(settings)
    answer(settings)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "5", "null", '{"file": ' + "9" * 5000 + "}"])
def test_a_note_that_is_none_is_refused(settings, content):
    folder = write_request(settings, request_text())
    (folder / "intake.json").write_text(content)
    ticked(settings)
    answer(settings)


def put(path: Path, kind: str) -> None:
    """Put something under a name where a plain file is expected."""
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(3 << 30)


KINDS = ["folder", "pipe", "link", "loop", "dangling", "huge"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["job.json", "intake.json"])
def test_a_document_that_is_no_plain_file_is_refused(settings, name, kind):
    folder = write_request(settings, request_text())
    (folder / name).unlink(missing_ok=True)
    put(folder / name, kind)
    ticked(settings)
    answer(settings)


NAMES = ["again", "cancel", "move", "result.json", "result.json.tmp", "fence", "progress.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_lies_under_a_name_of_ours_the_request_comes_to_its_end(tmp_path, settings, kind):
    jobs = {name: job_for(tmp_path, "Song", seed=number) for number, name in enumerate(NAMES)}
    for name, job in jobs.items():
        put(submit(settings.spool, job) / name, kind)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    for name, job in jobs.items():
        assert result_of(settings, job).state is (State.CANCELLED if name == "cancel" else State.DONE), name
    assert not list((settings.spool / "inbox").iterdir())
    assert not list((settings.spool / "jobs").iterdir())


@pytest.mark.parametrize("kind", ["pipe", "link", "loop", "dangling", "huge"])
def test_what_is_no_folder_in_the_inbox_is_moved_aside_with_a_sentence(settings, kind):
    (settings.spool / "inbox").mkdir(parents=True)
    put(settings.spool / "inbox" / "odd", kind)
    ticked(settings)
    assert "is not a folder" in answer(settings)["error"]
    assert os.path.lexists(settings.spool / "done" / "odd" / "request"), "what was there is kept"
    assert not list((settings.spool / "inbox").iterdir())


def test_a_link_to_a_request_is_refused_and_what_it_leads_to_stays(tmp_path, settings):
    elsewhere = write_request(settings, request_text()).rename(tmp_path / "elsewhere")
    (settings.spool / "inbox" / "odd").symlink_to(elsewhere)
    ticked(settings)
    answer(settings)
    assert (elsewhere / "job.json").is_file()


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".nfs0001"])
def test_what_systems_leave_in_any_folder_is_left_alone(settings, name):
    (settings.spool / "inbox").mkdir(parents=True)
    (settings.spool / "inbox" / name).write_bytes(b"x")
    ticked(settings)
    assert [entry.name for entry in (settings.spool / "inbox").iterdir()] == [name]
    assert not list((settings.spool / "done").iterdir())


def change_row(settings: Settings, job: Job, **columns: object) -> None:
    with sqlite3.connect(settings.store) as connection:
        changes = ", ".join(f"{name} = ?" for name in columns)
        connection.execute(f"UPDATE jobs SET {changes} WHERE id = ?", (*columns.values(), job.id))
    connection.close()


def newer(job: Job, **changes: object) -> str:
    return json.dumps(json.loads(job.to_json()) | changes)


OTHERS = [{"surprise": 1}, {"schema": 3}, {"origin": "moon"}, {"preset": HALF}, {"deliver": {"x": HALF}}]


@pytest.mark.parametrize("state", ["queued", "running", "failed", "done", "cancelled"])
def test_rows_of_another_version_end_with_their_sentence_and_hold_up_no_other(tmp_path, settings, state):
    odd, good = [job_for(tmp_path, "Odd", seed=number) for number in range(len(OTHERS))], job_for(tmp_path, "Good")
    for job in odd:
        submit(settings.spool, job)
    with Daemon(settings, options=QUICK) as daemon:
        daemon._ingest.tick()
    for job, changes in zip(odd, OTHERS, strict=True):
        change_row(settings, job, job_json=newer(job, **changes), state=state, fence=1)
    submit(settings.spool, good)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    assert result_of(settings, good).state is State.DONE
    for row in rows(settings)[:-1]:
        assert row.state is (State.FAILED if state in ("queued", "running") else State(state))
        if state in ("queued", "running"):
            assert read_result(settings.spool, row.id).error == row.error
            assert row.error.endswith(".")


def test_a_row_in_a_state_of_another_version_holds_up_no_other(tmp_path, settings):
    odd, good = job_for(tmp_path, "Odd"), job_for(tmp_path, "Good")
    submit(settings.spool, odd)
    with Daemon(settings, options=QUICK) as daemon:
        daemon._ingest.tick()
    change_row(settings, odd, state="dreaming")
    submit(settings.spool, good)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    assert result_of(settings, good).state is State.DONE


def test_a_result_of_another_version_is_left_as_it_is(tmp_path, settings):
    odd = job_for(tmp_path, "Odd")
    submit(settings.spool, odd)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    change_row(settings, odd, result_json='{"schema": 2}')
    (settings.spool / "done" / odd.id).rename(settings.spool / "jobs" / odd.id)
    ticked(settings)
    assert [row.state for row in rows(settings)] == [State.DONE]


def test_an_error_that_nobody_expects_ends_that_job_alone(tmp_path, settings, monkeypatch):
    odd, good = job_for(tmp_path, "Odd"), job_for(tmp_path, "Good")
    real = Spool.write_fence

    def write_fence(self: Spool, job_id: str, fence: int) -> None:
        if job_id == odd.id:
            raise ZeroDivisionError("nobody expects this")
        real(self, job_id, fence)

    monkeypatch.setattr(Spool, "write_fence", write_fence)
    for job in (odd, good):
        submit(settings.spool, job)
    with DaemonThread(settings, once=True) as daemon:
        daemon.wait()
    assert result_of(settings, good).state is State.DONE
    result = result_of(settings, odd)
    assert result.state is State.FAILED
    assert "ZeroDivisionError" in result.error
