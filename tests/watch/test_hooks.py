"""Hooks: what may be one, and how a command or a webhook that misbehaves is reported, without a word of its URL."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from tsbs_daw.core.errors import SettingsError
from tsbs_daw.watch.folders import load_folders
from tsbs_daw.watch.hooks import Hook, HookFailed, HookStopped, check_shape, parse_hook

NEVER = threading.Event()
SECRET = "s3cret-token"


def python(code: str) -> Hook:
    return Hook((sys.executable, "-c", code))


class Server:
    """A server on this computer that answers as it is told, and keeps what it was sent."""

    def __init__(self, answer):
        self.got: list[bytes] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.got.append(self.rfile.read(int(self.headers["Content-Length"])))
                outer.path = self.path
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/done?token={SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def answers(status: int, **headers: str):
    def answer(handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("hook", "sentence"),
    {
        "[no-such-program-here]": "on_done: the command 'no-such-program-here' is not in PATH",
        "[./missing]": "on_done: the command '.*missing' does not exist",
        "[./plain]": "on_done: the command '.*plain' cannot be run; make it executable",
        "[in]": r"is not in PATH",
        "[./in]": "does not exist",
        "[]": "a hook is a list",
        "notify me": "a hook is a list",
        "[a, {b: c}]": "a hook is a list",
        "[a, 5]": "a list of strings",
        f'["https://example.org/{SECRET}"]': "written without brackets",
        f'"http://example.org/{SECRET}"': "needs https",
        f'"https://example.org/{SECRET}"': "webhooks to 'example.org' are not allowed",
        f'"https://evil.example.org.attacker.net/{SECRET}"': "are not allowed",
        f'"https://me:{SECRET}@hooks.example.org/"': "a user name or a password",
        f'"https://hooks.example.org:port/{SECRET}"': "URL is invalid",
        f'"https://[hooks/{SECRET}"': "URL is invalid",
        f'"https:///{SECRET}"': "URL is invalid",
        f'"https://hooks.example.org/a b{SECRET}"': "URL is invalid",
        f'"ftp://hooks.example.org/{SECRET}"': "a hook is a list",
    }.items(),
)
def test_a_hook_that_cannot_work_is_refused_before_the_work_and_its_url_is_not_quoted(tmp_path, hook, sentence):
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "in").mkdir()
    path = tmp_path / "folders.yaml"
    path.write_text(f"webhook_hosts: [hooks.example.org]\nfolders:\n  - {{path: in, output: out, on_done: {hook}}}\n")
    with pytest.raises(SettingsError, match=sentence) as raised:
        load_folders(path)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value) + repr(raised.value.__cause__) + repr(raised.value.__context__)


def test_hooks_that_can_work(tmp_path):
    script = tmp_path / "tell me"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert parse_hook(["./tell me", "a b"], tmp_path, ()).command == (str(script), "a b")
    assert parse_hook(["sh", "-c", "x"], tmp_path, ()).command[0].endswith("/sh")
    for url in (
        f"https://Hooks.example.org:8443/{SECRET}",
        "http://localhost:80/x",
        "http://[::1]/x",
        "http://127.1.2.3/",
    ):
        hook = parse_hook(check_shape(url), tmp_path, ["hooks.EXAMPLE.org"])
        assert hook.url == url
        assert SECRET not in repr(hook) + hook.name


def test_a_command_reads_the_document_and_sees_no_shell(tmp_path):
    out = tmp_path / "out"
    hook = Hook(
        (
            sys.executable,
            "-c",
            "import sys; open(sys.argv[1], 'w').write(sys.argv[2] + sys.stdin.read())",
            str(out),
            "$HOME; *",
        )
    )
    hook.tell('{"event": "done"}', 30.0, NEVER)
    assert out.read_text() == '$HOME; *{"event": "done"}'


@pytest.mark.parametrize(
    ("code", "clause"),
    {
        "raise SystemExit(3)": "ended with exit code 3",
        "import sys; print('first', flush=1); sys.exit('no room\\x1b[0m')": r"ended with exit code 1: no room\\x1b\[0m",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "signal SIGKILL",
        "print('x' * 10**7); raise SystemExit(2)": "ended with exit code 2: x{200}$",
        "import os; os.close(0); raise SystemExit(4)": "ended with exit code 4",
    }.items(),
)
def test_a_command_that_fails_is_a_clause(code, clause):
    with pytest.raises(HookFailed, match=clause):
        python(code).tell("{}" * 100_000, 60.0, NEVER)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(mark)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    stopping = threading.Event()
    threading.Thread(target=lambda: (_wait_for(mark), stopping.set())).start()
    with pytest.raises(HookStopped):
        python(code).tell("{}", 600.0, stopping)
    state = Path(f"/proc/{mark.read_text()}/stat")
    end = time.monotonic() + 20
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(HookFailed, match=r"did not end within 0\.2 s and was stopped"):
        python("import time; time.sleep(600)").tell("{}", 0.2, NEVER)


def _wait_for(path: Path) -> None:
    while not path.exists() or not path.read_text():
        time.sleep(0.01)


def test_a_command_that_went_away_or_is_no_program_is_a_clause(tmp_path):
    with pytest.raises(HookFailed, match="cannot be run"):
        Hook((str(tmp_path / "gone"),)).tell("{}", 5.0, NEVER)
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(HookFailed, match="cannot be run"):
        Hook((str(tmp_path / "text"),)).tell("{}", 5.0, NEVER)


def test_what_a_command_leaves_running_is_not_waited_for():
    python("import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(8)'])").tell(
        "{}", 5.0, NEVER
    )


def test_a_webhook_is_one_post_of_the_document():
    with Server(answers(204)) as server:
        Hook(url=server.url).tell('{"event": "done"}', 30.0, NEVER)
    assert [json.loads(body) for body in server.got] == [{"event": "done"}]
    assert server.path == f"/done?token={SECRET}"


def _hang(handler) -> None:
    time.sleep(1.5)


def _drip(handler) -> None:
    with contextlib.suppress(OSError):  # the other side hangs up
        for _ in range(30):
            handler.wfile.write(b"H")
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "clause"),
    [
        (answers(500), "answered 500"),
        (answers(404), "answered 404"),
        (answers(302, Location="http://127.0.0.1:1/elsewhere"), "answered with a redirect"),
        (answers(308, Location="https://example.org/"), "answered with a redirect"),
        (_hang, "did not answer within"),
        (_drip, "did not answer within"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "cannot be reached"),
        (lambda handler: handler.connection.close(), "cannot be reached"),
    ],
)
def test_a_webhook_that_fails_is_a_clause_without_its_url(answer, clause):
    with Server(answer) as server:
        hook = Hook(url=server.url)
        with pytest.raises(HookFailed, match=clause) as raised:
            hook.tell("{}", 0.6, NEVER)
    assert len(server.got) == 1
    shown = "".join(map(str, (raised.value, hook.name, repr(hook))))
    assert SECRET not in shown
    assert raised.value.__cause__ is None


def test_a_host_that_does_not_answer_is_a_clause():
    with Server(answers(200)) as server:
        url = server.url
    with pytest.raises(HookFailed, match="cannot be reached"):
        Hook(url=url).tell("{}", 5.0, NEVER)


@pytest.mark.parametrize("stops", [False, True])
def test_a_name_that_is_never_resolved_is_waited_for_no_longer_than_an_answer(monkeypatch, stops):
    released, stopping = threading.Event(), threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: released.wait() and [])
    if stops:
        stopping.set()
    try:
        with pytest.raises(
            HookStopped if stops else HookFailed, match=None if stops else "did not answer within 0.3 s"
        ):
            Hook(url="https://example.org/hook").tell("{}", 30.0 if stops else 0.3, stopping)
    finally:
        released.set()
