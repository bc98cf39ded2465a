"""Hooks: a command or a webhook of the user that is called when a job of a watch folder has ended.

A command is a list of arguments that runs without a shell and receives the job as JSON on its stdin. A webhook is one
POST of the same JSON to a host that the user allows, by https, or by http to this computer; redirects are not followed.
Both have a time limit. A failure is reported as a sentence and never fails the job. Messages do not quote URLs, because
they may contain secrets.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tsbs_daw.core.child import describe_exit
from tsbs_daw.core.errors import printable, shown

_OUTPUT_BYTES = 2000  # how much of the end of a command's output is kept
_POLL_S = 0.1
_WEB = ("https://", "http://")


class HookFailed(Exception):
    """A hook failed. The message is a clause for the user that follows the hook's name."""


class HookStopped(Exception):
    """The daemon is stopping. The next daemon calls the hook again."""


@dataclass(frozen=True)
class Hook:
    """A command or a webhook.

    Attributes:
        command: Path of the program and its arguments; empty for a webhook.
        url: URL of the webhook, if there is no command.
    """

    command: tuple[str, ...] = ()
    url: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The hook's name in messages."""
        return shown(Path(self.command[0]).name) if self.command else f"the webhook at {urlsplit(self.url).hostname}"

    def tell(self, document: str, limit_s: float, stopping: threading.Event) -> None:
        """Run the command, or send the document to the webhook.

        Args:
            document: The job as JSON.
            limit_s: Time limit for the whole call.
            stopping: Set when the daemon is stopping.

        Raises:
            HookFailed: The hook failed or exceeded its time limit.
            HookStopped: The daemon is stopping.
        """
        if self.command:
            _run(self.command, document.encode(), limit_s, stopping)
        else:
            _post(self.url, document.encode(), limit_s, stopping)


def check_shape(value: Any) -> Any:
    """Check the form of a hook in YAML, without its paths and hosts, and return it unchanged.

    Raises:
        ValueError: The value is neither a command nor a URL. The message is a clause.
    """
    if isinstance(value, str) and value.startswith(_WEB):
        _checked_url(value)
        return value
    if isinstance(value, list) and value and all(isinstance(part, str) and "\0" not in part for part in value):
        if not value[0].strip() or value[0].startswith(_WEB):
            raise ValueError("a command starts with the name of a program; a webhook is written without brackets")
        return value
    raise ValueError(
        "a hook is a list of strings with a command and its arguments, such as [~/bin/tell-me, '5'], or a URL"
    )


def parse_hook(value: Any, base: Path, hosts: Collection[str]) -> Hook:
    """Build a hook and check that it can be called.

    Args:
        value: A value that `check_shape` accepts.
        base: Folder that a command's relative path starts at.
        hosts: Hosts that webhooks may use in addition to this computer.

    Raises:
        ValueError: The command is missing or not executable, or the host is not allowed. The message is a clause.
    """
    if isinstance(value, str):
        host = _checked_url(value).hostname or ""
        if not _is_loopback(host) and host not in {host.casefold() for host in hosts}:
            raise ValueError(f"webhooks to {host!r} are not allowed; add the host to `webhook_hosts` if it is yours")
        return Hook(url=value)
    program, *arguments = value
    if program.startswith("~") or "/" in program or os.sep in program:
        path = base / Path(program).expanduser()
        if not path.is_file():
            raise ValueError(f"the command {shown(path)} does not exist")
        if not os.access(path, os.X_OK):
            raise ValueError(f"the command {shown(path)} cannot be run; make it executable (`chmod +x`)")
        return Hook((str(path), *arguments))
    found = shutil.which(program)
    if found is None:
        raise ValueError(f"the command {shown(program)} is not in PATH; give its full path")
    return Hook((found, *arguments))


def _checked_url(url: str) -> SplitResult:
    """Parse and check the URL of a webhook.

    Raises:
        ValueError: The URL is invalid or not allowed. The message is a clause that quotes at most the host.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("the webhook's URL is invalid; check its host and port") from error
    if not host or not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ValueError("the webhook's URL is invalid; it needs a host, and only ASCII characters without spaces")
    if parts.username or parts.password:
        raise ValueError(f"the URL of the webhook at {host} contains a user name or a password; use a token instead")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(f"the webhook at {host} needs https; http is allowed only for this computer")
    return parts


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# ---- commands --------------------------------------------------------------------------------------------------------


def _run(command: tuple[str, ...], document: bytes, limit_s: float, stopping: threading.Event) -> None:
    with tempfile.TemporaryFile() as stdin:
        stdin.write(document)
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=Path.home(),
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except (OSError, ValueError) as error:
            raise HookFailed(f"cannot be run ({getattr(error, 'strerror', None) or error})") from error
    output = _Tail(process)
    until = time.monotonic() + limit_s
    while process.poll() is None:
        if stopping.is_set():
            _kill(process)
            raise HookStopped
        if time.monotonic() >= until:
            _kill(process)
            raise HookFailed(f"did not end within {limit_s:g} s and was stopped")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    if process.returncode:
        last = output.last_line()
        raise HookFailed(f"ended with {describe_exit(process.returncode)}{': ' if last else ''}{last}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all processes that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


class _Tail:
    """Reads all output of a command, so that the command never blocks, and keeps the last part."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process, self._kept = process, b""
        self._thread = threading.Thread(target=self._read, name=f"hook-{process.pid}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        with self._process.stdout as stream:
            while block := os.read(stream.fileno(), 65536):
                self._kept = (self._kept + block)[-_OUTPUT_BYTES:]

    def last_line(self) -> str:
        """Return the last line of output. Does not wait for child processes that still hold the pipe open."""
        self._thread.join(1.0)
        lines = self._kept.decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1].strip())[:200] if lines else ""


# ---- webhooks --------------------------------------------------------------------------------------------------------


def _post(url: str, document: bytes, limit_s: float, stopping: threading.Event) -> None:
    """Send the document. Plain `http.client` follows no redirects and uses no proxies or stored credentials.

    Another thread sends it, because neither resolving a name nor an answer that trickles in can be bounded otherwise.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=limit_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=limit_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    answer: SimpleQueue[int | Exception] = SimpleQueue()
    threading.Thread(target=_exchange, args=(connection, target, document, answer), daemon=True).start()
    until = time.monotonic() + limit_s
    while (status := _next_answer(answer)) is None:
        if stopping.is_set() or time.monotonic() >= until:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            if stopping.is_set():
                raise HookStopped
            raise HookFailed(f"did not answer within {limit_s:g} s")
    if isinstance(status, TimeoutError):
        raise HookFailed(f"did not answer within {limit_s:g} s")
    if isinstance(status, Exception):  # it may quote the URL
        why = (status.strerror if isinstance(status, OSError) else None) or type(status).__name__
        raise HookFailed(f"cannot be reached ({printable(why)})")
    if 300 <= status < 400:
        raise HookFailed(f"answered with a redirect ({status}), which is not followed")
    if not 200 <= status < 300:
        raise HookFailed(f"answered {status}")


def _exchange(
    connection: http.client.HTTPConnection, target: str, document: bytes, answer: SimpleQueue[int | Exception]
) -> None:
    """Send the document, and put the status of the answer into the queue, or the error."""
    headers = {"Content-Type": "application/json", "User-Agent": "tsbs-daw", "Connection": "close"}
    try:
        connection.request("POST", target, document, headers)
        answer.put(connection.getresponse().status)
    except (OSError, http.client.HTTPException, ValueError) as error:
        answer.put(error)
    finally:
        connection.close()


def _next_answer(answer: SimpleQueue[int | Exception]) -> int | Exception | None:
    try:
        return answer.get(timeout=_POLL_S)
    except Empty:
        return None
