"""A real `tsbs-daw web` in a process of its own, and requests over real sockets, as hostile as need be."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.stage import python_path
from timeouts import PATIENCE_S


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """One running page. `cookie` is a browser's that has opened the link."""

    def __init__(self, home: Path, *options: str, port: int = 0):
        self.home, self.output = home, home.parent / "web.out"
        home.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TSBS_DAW_HOME": str(home), "PYTHONPATH": python_path(), "COLUMNS": "200"}
        words = [sys.executable, "-m", "tsbs_daw", "web", "--port", str(port), *options]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self.link = self._link()
        place = urlsplit(self.link)
        self.port = int(place.port or 0)
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.cookie = ""

    def _link(self) -> str:
        end = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"Open (http\S+)\n", self.output.read_text())):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end, "no link was printed"
            time.sleep(0.05)
        return found[1]

    def sign_in(self) -> Served:
        answer = self.request("GET", self.link.partition(self.host)[2], cookie="")
        assert answer.status == 303, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def request(self, method: str, path: str, body: Any = None, *, cookie: str | None = None, **headers: str) -> Answer:
        """As the page itself asks; headers by name, `_` for `-`, replace its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        sent = {"Host": self.host, "Cookie": self.cookie if cookie is None else cookie}
        if method == "POST":
            sent["Content-Type"] = "application/json"
            body = json.dumps(body or {})
        if method == "PUT":
            sent["X-Tsbs-Daw"] = "upload"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> int:
        """Send bytes; the status of the answer, 0 for none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            return status_of(connection)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        path = self.home / "logs" / "web.log"
        return path.read_text() if path.exists() else ""


def status_of(connection: socket.socket) -> int:
    head = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n" not in head and (block := connection.recv(4096)):
            head += block
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    return int(match[1]) if match else 0


@contextlib.contextmanager
def served(home: Path, *options: str, port: int = 0) -> Iterator[Served]:
    page = Served(home, *options, port=port)
    try:
        yield page
    finally:
        page.end()
