"""A hundred and more requests that must not get through, over real sockets, to a real process that has to live on.

What each wants is the answer to `/api/choices`, a file, a cancelled job or a file of its own in the spool.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.stage import job_for
from web.serving import Served, served, status_of

from tsbs_daw.core.config import Settings
from tsbs_daw.queue.spool import submit

GET = "/api/choices"


@dataclass
class Prey:
    """A page with a job that waits: nothing may happen to it."""

    page: Served
    job: str
    folder: Path


@pytest.fixture(scope="module")
def prey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prey]:
    root = tmp_path_factory.mktemp("hostile")
    home = root / "home"
    settings = Settings(home, home / "cache", home / "models")
    job = job_for(root, "Victim")
    folder = submit(settings.spool, job)
    (home / "secret.txt").write_text("SECRET")
    with served(home, "--out", str(root / "stems"), "--most-gb", "0.001") as page:
        page.sign_in()
        yield Prey(page, job.id, folder)
        assert page.process.poll() is None, "the server has died"


@pytest.fixture(autouse=True)
def unharmed(prey: Prey) -> Iterator[None]:
    yield
    assert sorted(path.name for path in prey.folder.iterdir()) == ["job.json"], "something was asked for"
    assert [path.name for path in (prey.page.home / "spool" / "inbox").iterdir()] == [prey.job]
    assert prey.page.request("GET", GET).status == 200, "the page does not answer any more"


def request_of(page: Served, method: str, path: str, *headers: str, body: str = "", cookie: bool = True) -> bytes:
    own = [f"Cookie: {page.cookie}"] if cookie else []
    lines = [f"{method} {path} HTTP/1.1", *headers, *own]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


HOSTS = (
    "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "localhost:80", "0.0.0.0:{port}",
    "127.0.0.2:{port}", "127.1:{port}", "2130706433:{port}", "0x7f.0.0.1:{port}", "[::ffff:127.0.0.1]:{port}",
    "127.0.0.1.evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1:{port}.evil.example",
    "evil.example#127.0.0.1:{port}", "127.0.0.1:{port}@evil.example", "127.0.0.1:{port},evil.example", "", "[::1",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_is_not_ours_leads_nowhere(prey: Prey, host: str):
    data = request_of(prey.page, "GET", GET, f"Host: {host.format(port=prey.page.port)}")
    assert prey.page.raw(data) in (400, 421)


ORIGINS = (
    "http://evil.example", "https://evil.example", "null", "file://", "http://127.0.0.1", "http://127.0.0.1:1",
    "http://localhost", "http://127.0.0.1:{port}.evil.example", "http://evil.example/http://127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}", "chrome-extension://abcdef", "",
)  # fmt: skip


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_origin_may_neither_read_nor_act(prey: Prey, origin: str):
    origin = origin.format(port=prey.page.port)
    for method, path in (("GET", GET), ("POST", f"/api/jobs/{prey.job}/cancel"), ("PUT", "/api/songs?name=a.wav")):
        assert prey.page.request(method, path, {}, Origin=origin).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "", "same-origin, cross-site", "SAME-ORIGIN"])
def test_another_site_may_neither_read_nor_act(prey: Prey, site: str):
    answer = prey.page.request("POST", f"/api/jobs/{prey.job}/cancel", Sec_Fetch_Site=site)
    assert answer.status == 403
    if site != "none":
        assert prey.page.request("GET", GET, Sec_Fetch_Site=site).status == 403


KINDS = (
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
    "text/plain; application/json", "application/json; charset=utf-16", "application/jsonp", "text/json",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_cannot_act(prey: Prey, kind: str):
    assert prey.page.request("POST", f"/api/jobs/{prey.job}/cancel", Content_Type=kind).status == 415


@pytest.mark.parametrize("value", ["", "1", "upload, upload", "UPLOAD "])
def test_a_file_comes_only_with_the_header_of_the_page(prey: Prey, value: str):
    assert prey.page.request("PUT", "/api/songs?name=a.wav", b"RIFF", X_Tsbs_Daw=value).status == 415


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 300])
def test_other_methods_are_not_known(prey: Prey, method: str):
    data = request_of(prey.page, method, GET, f"Host: {prey.page.host}", "Origin: http://evil.example")
    assert prey.page.raw(data) in (400, 403, 405)


PATHS = (
    "/../secret.txt", "/static/../../secret.txt", "/static/%2e%2e/secret.txt", "/static/..%2fsecret.txt",
    "/static/%252e%252e%252fsecret.txt", "/static/..\\..\\secret.txt", "/static//etc/passwd", "/etc/passwd",
    "//etc/passwd", "/static/app.js%00.txt", "/static/.hidden", "/.git/config", "/api/jobs/../../secret.txt",
    "/api/jobs/%2e%2e/cancel", "/api/jobs/{job}/files/../../../secret.txt", "/api/jobs/{job}/files/..%2fsecret.txt",
    "/api/jobs/{job}/files/%2fetc%2fpasswd", "/api/jobs/{job}/files/", "/api/jobs/", "/catalogues/../files/x",
    "/catalogues/%2fetc/files/passwd", "/static/", "/static/\xe9", "http://evil.example/api/choices", "*",
    "/api/jobs/" + "a" * 9000, "/api/jobs/.../song", "/open/../api/choices", "/api//choices", "/API/choices",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(prey: Prey, path: str):
    data = request_of(prey.page, "GET", path.format(job=prey.job), f"Host: {prey.page.host}")
    assert prey.page.raw(data) in (400, 404)


COOKIES = (
    "", "{name}=", "{name}=0", "{name}=" + "0" * 64, "{name}=" + "f" * 63, "{name}={value}0", "{name}= {short}",
    "{name}={upper}", "other={value}", "{name}=\x00{value}", "{name}=" + "é" * 32, "{name}=x; {name}=y",
    "{name}={link}", "$Version=1; {name}=",
)  # fmt: skip


@pytest.mark.parametrize("cookie", COOKIES)
def test_a_guess_is_no_cookie(prey: Prey, cookie: str):
    name, _, value = prey.page.cookie.partition("=")
    link = prey.page.link.rpartition("-")[2]
    said = cookie.format(name=name, value=value, short=value[:-1], upper=value.upper(), link=link)
    head = request_of(prey.page, "GET", GET, f"Host: {prey.page.host}", f"Cookie: {said}", cookie=False)
    assert prey.page.raw(head) in (400, 401)


@pytest.mark.parametrize("code", ["", "x", "-", "1-2-3", "{used}", "{later}", "99999999999-a-" + "0" * 64, "0" * 5000])
def test_a_link_is_good_once_and_cannot_be_made(prey: Prey, code: str):
    used = prey.page.link.partition("code=")[2]
    until, nonce, signature = used.split("-")
    said = code.format(used=used, later=f"{int(until) + 1}-{nonce}-{signature}")
    answer = prey.page.request("GET", f"/open?code={said}", cookie="")
    assert answer.status == 403 and "set-cookie" not in answer.headers


SMUGGLED = (
    "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: -1",
    "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 0x5", "Content-Length: 99999999999999999999",
    "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding : chunked", " Transfer-Encoding: chunked", "Transfer-Encoding: \x0bchunked",
    "Host: evil.example", "X: a\x00b", "X: a\rHost: evil.example", "X\x7f: a", ": empty", "X: " + "a" * 70000,
    "Origin: http://evil.example\r\nOrigin: http://127.0.0.1", "Content-Type: text/plain",
)  # fmt: skip


@pytest.mark.parametrize("header", SMUGGLED)
def test_a_request_with_two_meanings_has_none(prey: Prey, header: str):
    data = request_of(
        prey.page,
        "POST",
        f"/api/jobs/{prey.job}/cancel",
        f"Host: {prey.page.host}",
        "Content-Type: application/json",
        header,
        body="0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    assert prey.page.raw(data) in (0, 400, 403, 408, 413, 415, 431, 501)


BODIES = ("", "[]", "null", "1", '"x"', "{", '{"to": "/etc"}', "[" * 60000, '{"a":' * 9000, "\xff\xfe", "x" * 70000)


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_small_json_object_moves_nothing(prey: Prey, body: str):
    sent = body.encode("latin-1")
    head = request_of(
        prey.page,
        "POST",
        f"/api/jobs/{prey.job}/move",
        f"Host: {prey.page.host}",
        "Content-Type: application/json",
        f"Content-Length: {len(sent)}",
    )
    assert prey.page.raw(head + sent) in (400, 404, 413)


UPLOADS = (
    ("name=a.wav&preset=/etc/passwd", b"RIFF"), ("name=a.wav&preset=../none", b"RIFF"),
    ("name=a.wav&model=/etc/passwd", b"RIFF"), ("name=a.wav&model=nobody", b"RIFF"), ("name=a.wav", b""),
    ("name=a.wav", b"x" * 1_100_000),
)  # fmt: skip


@pytest.mark.parametrize(("query", "body"), UPLOADS, ids=range(len(UPLOADS)))
def test_a_file_that_may_not_come_leaves_nothing(prey: Prey, query: str, body: bytes):
    head = request_of(
        prey.page, "PUT", f"/api/songs?{query}", f"Host: {prey.page.host}", "X-Tsbs-Daw: upload",
        f"Content-Length: {len(body)}",
    )  # fmt: skip
    assert prey.page.raw(head + body) in (0, 400, 413)  # 0: closed while the sender was still sending


def test_an_endless_body_is_cut_off_at_the_limit(prey: Prey):
    head = request_of(
        prey.page, "PUT", "/api/songs?name=a.wav", f"Host: {prey.page.host}", "X-Tsbs-Daw: upload",
        "Transfer-Encoding: chunked",
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", prey.page.port), timeout=60) as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert status_of(connection) in (0, 413)


def test_an_announced_body_that_is_too_large_is_refused_before_it_comes(prey: Prey):
    head = request_of(
        prey.page, "PUT", "/api/songs?name=a.wav", f"Host: {prey.page.host}", "X-Tsbs-Daw: upload",
        "Content-Length: 99999999999",
    )  # fmt: skip
    assert prey.page.raw(head) == 413


def test_slow_heads_and_bodies_hold_nobody_up_and_are_closed(prey: Prey):
    """Thirty at a time: heads that never end, and bodies that never come."""
    slow = [b"GET / HT", request_of(prey.page, "GET", "/", f"Host: {prey.page.host}")[:-2]]
    posted = request_of(
        prey.page, "POST", f"/api/jobs/{prey.job}/cancel", f"Host: {prey.page.host}",
        "Content-Type: application/json", "Content-Length: 2",
    )  # fmt: skip
    slow.append(posted + b"{")
    with contextlib.ExitStack() as stack:
        held = []
        for number in range(30):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", prey.page.port), timeout=120))
            connection.sendall(slow[number % 3])
            held.append(connection)
        assert prey.page.request("GET", GET).status == 200
        assert {status_of(connection) for connection in held} <= {0, 400, 408}


def test_a_stranger_without_a_cookie_gets_one_sentence_and_no_file(prey: Prey):
    for path in ("/", "/static/app.js", GET, "/api/events", f"/api/jobs/{prey.job}", "/catalogues/x"):
        answer = prey.page.request("GET", path, cookie="")
        assert answer.status == 401 and b"tsbs-daw web --link" in answer.body


def test_neither_the_log_nor_the_output_holds_what_admits(prey: Prey):
    code, value = prey.page.link.partition("code=")[2], prey.page.cookie.partition("=")[2]
    prey.page.request("GET", f"/open?code={code}", cookie="")
    assert "refused GET" in prey.page.log and code not in prey.page.log and value not in prey.page.log
    token = (prey.page.home / "web" / "access.json").read_text()
    assert value not in token and value not in prey.page.output.read_text()
    assert (prey.page.home / "web" / "access.json").stat().st_mode & 0o077 == 0
