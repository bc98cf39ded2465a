"""What the page answers to its own requests: events, files by id, uploads; and who may start it where."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.program import run
from harness.stage import DaemonThread, python_path, until, wav_bytes
from timeouts import PATIENCE_S
from web.page_home import SENTENCE, Home, full_home
from web.serving import Served, served

from tsbs_daw.contracts.job import Job, State
from tsbs_daw.core.errors import UsageError
from tsbs_daw.queue.spool import read_result
from tsbs_daw.web.access import Access, new_token, read_access, write_access
from tsbs_daw.web.server import Address


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = full_home(tmp_path_factory.mktemp("page"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(home: Home) -> Iterator[Served]:
    with served(home.settings.home, "--out", str(home.root / "stems")) as found:
        yield found.sign_in()


@pytest.fixture(scope="module")
def files(page: Served, home: Home) -> dict[str, str]:
    """Names of a song's files, and where they are on the page."""
    job = home.jobs["Night Drive"].id
    found = page.request("GET", f"/api/jobs/{job}").json["files"]
    return {file["name"]: f"/api/jobs/{job}/files/{file['id']}" for file in found}


@contextlib.contextmanager
def events(page: Served, last_id: str = "") -> Iterator[Iterator[tuple[str, str, dict]]]:
    """(id, kind, data) of each event."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=PATIENCE_S)
    headers = {"Host": page.host, "Cookie": page.cookie, "Last-Event-ID": last_id}
    connection.request("GET", "/api/events", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200

    def parsed() -> Iterator[tuple[str, str, dict]]:
        found: dict[str, str] = {}
        while line := answer.readline().decode():
            name, _, value = line.strip().partition(": ")
            if name:
                found[name] = value
            elif "data" in found:
                yield found["id"], found["event"], json.loads(found["data"])
                found = {}

    try:
        yield parsed()
    finally:
        answer.close()
        connection.close()


def test_the_queue_comes_whole_and_then_what_changes(page: Served, home: Home):
    with events(page) as stream:
        _, kind, data = next(stream)
        jobs = {job["song"]: job for job in data["jobs"]}
        assert kind == "all" and [job["state"] for job in data["jobs"]][:4] == ["running"] + ["queued"] * 3
        assert jobs["cut"]["error"] == SENTENCE and jobs["Night Drive"]["playable"]
        home.run("Glass Houses", 0.5, "writing")
        job = next(changed(stream))
        assert (job["song"], job["fraction"], job["message"]) == ("Glass Houses", 0.5, "writing")


def changed(stream: Iterator[tuple[str, str, dict]]) -> Iterator[dict]:
    """The jobs that changed; a heartbeat that is too old by now is a change, too, and none of a job."""
    for _, kind, data in stream:
        assert kind == "change" and data["order"] is None
        yield from data["jobs"]


def test_who_comes_back_is_told_only_what_he_has_missed(page: Served, home: Home):
    home.beat()
    with events(page) as stream:
        event_id, _, _ = next(stream)
    with events(page, last_id=event_id) as stream:
        home.run("Glass Houses", 0.6)
        _, kind, data = next(stream)
    assert kind == "all" and next(job for job in data["jobs"] if job["song"] == "Glass Houses")["fraction"] == 0.6


def test_cancel_retry_and_move_are_the_spools_own(page: Served, home: Home):
    waiting, failed = home.jobs["Long Way Home"].id, home.jobs["Sunday"].id
    assert page.request("POST", f"/api/jobs/{waiting}/move", {"to": "last"}).status == 200
    assert (home.spool.folder(waiting) / "move").read_text() == "last"
    assert page.request("POST", f"/api/jobs/{waiting}/cancel").status == 200
    assert home.spool.cancel_wanted(waiting)
    assert page.request("POST", f"/api/jobs/{failed}/retry").status == 200
    assert (home.spool.inbox / failed / "job.json").is_file()
    answer = page.request("POST", "/api/jobs/nobody/cancel")
    assert answer.status == 409 and "is not known here" in answer.json["error"] and "nobody" in page.log


RANGES = {
    "bytes=0-0": (0, 1), "bytes=0-": (0, None), "bytes=5-9": (5, 10), "bytes=-4": (-4, None),
    "bytes=0-99999999999": (0, None), "bytes=-99999999999": (0, None),
}  # fmt: skip
BAD_RANGES = (
    "bytes=", "bytes=-", "bytes=-0", "bytes=9-5", "bytes=99999999999-", "bytes=0-1,3-4", "bytes=" + "0-," * 900 + "0-",
    "bits=0-1", "bytes=a-b", "bytes=0x0-0x9", "bytes=--1", "bytes=1e3-", "bytes=" + "9" * 400 + "-", "0-1", "bytes 0-1",
)  # fmt: skip


@pytest.mark.parametrize("asked", RANGES)
def test_a_player_gets_the_part_that_it_asks_for(page: Served, home: Home, files: dict[str, str], asked: str):
    content = (home.root / "out" / "Night Drive" / "vocals.wav").read_bytes()
    answer = page.request("GET", files["vocals.wav"], Range=asked)
    start, end = RANGES[asked]
    assert answer.status == 206 and answer.body == content[start:end] and answer.headers["content-type"] == "audio/wav"


@pytest.mark.parametrize("asked", BAD_RANGES, ids=range(len(BAD_RANGES)))
def test_a_part_that_is_none_is_refused(page: Served, files: dict[str, str], asked: str):
    answer = page.request("GET", files["vocals.wav"], Range=asked)
    assert answer.status == 416 and answer.headers["content-range"].startswith("bytes */")


def test_files_are_saved_under_their_names_and_all_in_one_archive(page: Served, home: Home, files: dict[str, str]):
    folder = home.root / "out" / "Night Drive"
    saved = page.request("GET", f"{files['Night Drive.RPP']}/save")
    assert saved.body == (folder / "Night Drive.RPP").read_bytes()
    assert "filename*=UTF-8''Night%20Drive.RPP" in saved.headers["content-disposition"]
    packed = page.request("GET", f"/api/jobs/{home.jobs['Night Drive'].id}/archive")
    with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {f"Night Drive/{name}" for name in files}
        assert archive.read("Night Drive/bass.wav") == (folder / "bass.wav").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_file_that_leads_out_of_its_folder_is_not_there(page: Served, home: Home, files: dict[str, str]):
    other = home.root / "out" / "Night Drive" / "other.wav"
    content = other.read_bytes()
    other.unlink()
    other.symlink_to("/etc/passwd")
    try:
        assert page.request("GET", files["other.wav"]).status == 404
        assert page.request("GET", f"{files['other.wav']}/save").status == 404
    finally:
        other.unlink()
        other.write_bytes(content)


def test_an_id_is_of_one_job_and_nothing_else_has_one(page: Served, home: Home, files: dict[str, str]):
    other = home.jobs["cut"].id
    stolen = files["vocals.wav"].replace(home.jobs["Night Drive"].id, other)
    assert page.request("GET", stolen).status == 404
    assert page.request("GET", f"/api/jobs/{home.jobs['Night Drive'].id}/files/vocals.wav").status == 404


def test_the_song_itself_is_there_to_compare_with_as_long_as_it_has_not_changed(page: Served, home: Home):
    home.deliver("Compared", copied=False)
    job = home.jobs["Compared"]

    def original() -> list[dict]:
        files = page.request("GET", f"/api/jobs/{job.id}/song").json["files"]
        return [file for file in files if file["kind"] == "source"]

    (found,) = original()
    assert found["levels"] and found["problem"] is None
    assert page.request("GET", found["url"]).body == job.source.path.read_bytes()
    os.utime(job.source.path, (2**31, 2**31))
    assert original() == [] and page.request("GET", found["url"]).status == 404


def test_folders_models_and_catalogues_are_shown(page: Served, home: Home):
    (folder,) = page.request("GET", "/api/folders").json
    assert folder["folder"] == str(home.root / "drop") and not folder["watched"]
    assert {file["file"]: file["state"] for file in folder["files"]} == {"Sunday.wav": "failed", "notes.wav": "ignored"}
    assert {model["name"] for model in page.request("GET", "/api/models").json} >= {"default", "musdb18"}
    (found,) = page.request("GET", "/api/catalogues").json
    text = page.request("GET", f"/catalogues/{found['id']}").body.decode()
    assert found["name"] == "My Crate" and "First Song" in text and "vocals.wav" not in text.replace('"vocals', "")


def test_a_file_that_is_dropped_becomes_a_job_and_its_refusal_is_said_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", python_path())
    home = Home(tmp_path)
    home.close()
    with served(home.settings.home, "--out", str(tmp_path / "stems")) as page:
        page.sign_in()
        sound, name = wav_bytes(5), "..%2F..%2Fn%C3%BCll%20%22x%22.wav"
        good = page.request("PUT", f"/api/songs?name={name}", sound)
        bad = page.request("PUT", "/api/songs?name=refuse%20this.wav&preset=karaoke", b"no sound")
        assert (good.status, bad.status) == (201, 201)
        folder = home.spool.inbox / good.json["id"]
        (source,) = (folder / "source").iterdir()
        assert source.read_bytes() == sound and source.name == "nüll _x_.wav"
        with DaemonThread(home.settings):
            until(lambda: read_result(home.settings.spool, bad.json["id"]))
            until(lambda: read_result(home.settings.spool, good.json["id"]))
        result = read_result(home.settings.spool, good.json["id"])
        assert result.state is State.DONE and result.folder.parent == tmp_path / "stems"
        sentence = read_result(home.settings.spool, bad.json["id"]).error
        with events(page) as stream:
            _, _, data = next(stream)
        (failed,) = (job for job in data["jobs"] if job["id"] == bad.json["id"])
        assert failed["state"] == "failed" and failed["error"] == sentence and failed["preset"] == "karaoke"
        assert sentence in run(home.settings.home, "jobs", "show", bad.json["id"], COLUMNS="400").stdout
        assert page.request("GET", f"/api/jobs/{good.json['id']}").json["origin"] == "web"


def test_a_file_comes_in_parts_and_a_sender_that_breaks_off_leaves_nothing(page: Served, home: Home):
    before = {path.name for path in home.spool.inbox.iterdir()}
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.putrequest("PUT", "/api/songs?name=a.wav", skip_host=True)
    for name, value in (
        ("Host", page.host),
        ("Cookie", page.cookie),
        ("X-Tsbs-Daw", "upload"),
        ("Content-Length", "9000"),
    ):
        connection.putheader(name, value)
    connection.endheaders(b"x" * 4000)
    until(lambda: {path.name for path in home.spool.inbox.iterdir()} != before)
    connection.close()
    until(lambda: {path.name for path in home.spool.inbox.iterdir()} == before)


def test_a_second_page_says_where_the_first_is_and_link_leads_to_it(page: Served, home: Home):
    again = run(home.settings.home, "web", "--port", "0")
    assert again.returncode == 1 and f"already (process {page.process.pid}) at {page.url}" in again.stderr
    link = run(home.settings.home, "web", "--link").stdout.strip()
    assert link.startswith(f"{page.url}/open?code=")
    assert page.request("GET", link.partition(page.host)[2], cookie="").status == 303
    assert page.request("GET", link.partition(page.host)[2], cookie="").status == 403


def test_a_page_that_nobody_serves_has_no_link(tmp_path: Path):
    done = run(tmp_path, "web", "--link")
    assert done.returncode == 1 and "No page is served now" in done.stderr


def test_a_taken_port_is_said(tmp_path: Path, page: Served):
    done = run(tmp_path, "web", "--port", str(page.port))
    assert done.returncode == 1 and "choose another with --port" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.20", "::", "example.com", "", "127.0.0.1.evil"])
def test_it_listens_beyond_loopback_only_under_a_name(host: str):
    with pytest.raises(UsageError):
        Address(host).checked()
    assert Address("0.0.0.0", names=("studio.local",)).checked().hosts(80) >= {"studio.local", "studio.local:80"}


def test_without_a_token_that_is_secret_nothing_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_access(tmp_path, Access(new_token()))
    path = tmp_path / "web" / "access.json"
    assert read_access(tmp_path) is not None
    path.chmod(0o640)
    assert os.name == "nt" or read_access(tmp_path) is None, "others could have read it"
    (tmp_path / "web2").mkdir()
    path.unlink()
    path.symlink_to(tmp_path / "web2")
    assert read_access(tmp_path) is None


def test_signing_out_everybody_makes_a_new_token(tmp_path: Path):
    with served(tmp_path) as page:
        cookie = page.sign_in().cookie
        port = page.port
    with served(tmp_path, port=port) as page:
        assert page.request("GET", "/api/choices", cookie=cookie).status == 200, "a restart signs nobody out"
    with served(tmp_path, "--new-token", port=port) as page:
        assert page.request("GET", "/api/choices", cookie=cookie).status == 401


def test_the_page_beside_a_daemon_ends_with_it(tmp_path: Path):
    words = [sys.executable, "-m", "tsbs_daw", "web", "--port", "0", "--lifeline"]
    environment = os.environ | {"TSBS_DAW_HOME": str(tmp_path)}
    child = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert child.stdout.readline().startswith(b"Open http://127.0.0.1:")
    child.stdin.close()
    assert child.wait(600) == 0
    child.stdout.close()


def test_a_request_for_the_spool_is_one_that_the_contract_knows(page: Served, home: Home):
    answer = page.request("PUT", "/api/songs?name=song.flac", b"fLaC")
    folder = home.spool.inbox / answer.json["id"]
    job = Job.from_json((folder / "job.json").read_bytes(), "job.json")
    assert job.origin == "web" and job.delivery.source == "copy" and job.song == "song"
