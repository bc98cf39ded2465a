"""A real HTTP server on this machine that misbehaves as asked: it cuts, changes its file, or ignores ranges."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Behaviour:
    """What the server serves, and how.

    cut_after:  per answer, in order, how many bytes of it are sent before the connection closes; then none is cut
    """

    content: bytes = b""
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    marks: bool = True
    say_length: bool = True
    status: int = 200
    location: str = ""
    claimed_length: int | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'


def _handler(behaviour: Behaviour) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.requests.append(dict(self.headers.items()))
            if behaviour.status != 200:
                self.send_response(behaviour.status)
                if behaviour.location:
                    self.send_header("Location", behaviour.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = self._start()
            if start > 0 and start >= len(behaviour.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(behaviour.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(start)

        def _start(self) -> int:
            wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", behaviour.tag) == behaviour.tag
            return int(wanted[1]) if wanted and same and behaviour.ranges else 0

        def _send(self, start: int) -> None:
            body = behaviour.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(behaviour.content) - 1}/{len(behaviour.content)}"
                )
            if behaviour.marks:
                self.send_header("ETag", behaviour.tag)
            if behaviour.say_length:
                self.send_header("Content-Length", str(behaviour.claimed_length or len(body)))
            self.end_headers()
            self.wfile.write(body[: behaviour.cut_after.pop(0)] if behaviour.cut_after else body)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving(content: bytes, **how: object) -> Iterator[Behaviour]:
    """Serve `content` at `behaviour.url` on 127.0.0.1 while the block runs."""
    behaviour = Behaviour(content, **how)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour))
    behaviour.url = f"http://127.0.0.1:{server.server_address[1]}/model.ckpt"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
