"""The server of the page: address, allowed host names, and limits for slow or hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import uvicorn
from filelock import FileLock, Timeout
from uvicorn.protocols.http.h11_impl import H11Protocol

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError, UsageError
from tsbs_daw.web.access import Access, access_path, new_token, read_access, write_access
from tsbs_daw.web.app import make_app
from tsbs_daw.web.queue import Options

DEFAULT_PORT = 8765
REQUEST_S = 15.0  # time for the head of a request to arrive; browsers send it in one piece
CONNECTIONS = 64


@dataclass(frozen=True)
class Address:
    """The address to listen on.

    Attributes:
        host: An address of this machine, or "localhost".
        port: Port number; 0 for any free port.
        names: Further host names that the page may be opened under, as in the browser's address bar, without the port.
            Required beyond loopback.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()

    def checked(self) -> Address:
        """Check the address and resolve "localhost".

        Raises:
            UsageError: The host is not an IP address, or is not loopback and has no name.
        """
        host = "127.0.0.1" if self.host.lower() == "localhost" else self.host
        try:
            address = ipaddress.ip_address(host)
        except ValueError as error:
            raise UsageError(f"Invalid --host {self.host!r}. Write an address such as 127.0.0.1 or ::1.") from error
        if not address.is_loopback and not self.names:
            raise UsageError(
                f"--host {self.host} can be reached from other machines. Specify with --name the host name that they "
                "use for the page, or keep 127.0.0.1 and use an SSH tunnel."
            )
        return Address(str(address), self.port, self.names)

    def hosts(self, port: int) -> frozenset[str]:
        """Return the allowed Host headers."""
        here = (self.host, "localhost", "127.0.0.1", "[::1]", *self.names)
        names = {f"[{name}]" if ":" in name and not name.startswith("[") else name.lower() for name in here}
        with_port = {f"{name}:{port}" for name in names}
        return frozenset(with_port | set(self.names) | ({*names} if port == 80 else set()))


class _PromptH11(H11Protocol):
    """HTTP/1.1 that closes a connection if the head of a request does not arrive completely in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._cancel()

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before and not self.transport.is_closing():  # otherwise the next request has arrived
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.close)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@dataclass
class PageServer:
    """A server with a listening socket; `run` serves requests. Created by `page_server`."""

    access: Access
    options: Options
    _socket: socket.socket
    _hosts: frozenset[str]
    _server: uvicorn.Server | None = field(default=None, repr=False)
    _stop_wanted: bool = False

    def run(self) -> None:
        """Serve requests until Ctrl-C, SIGTERM or `stop`."""
        app = make_app(self.options, self.access, self._hosts, stopped=self._stopping)
        config = uvicorn.Config(
            app,
            http=_PromptH11,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # otherwise a client could claim another address
            server_header=False,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=16 * 1024,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._server.should_exit = self._stop_wanted
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ask the server to stop. Thread-safe."""
        self._stop_wanted = True
        if self._server is not None:
            self._server.should_exit = True

    def stop_with(self, stream: BinaryIO) -> None:
        """Stop the server once `stream` is closed from the other end."""

        def wait() -> None:
            with contextlib.suppress(OSError, ValueError):
                while stream.read(1024):
                    pass
            self.stop()

        threading.Thread(target=wait, name="lifeline", daemon=True).start()

    def _stopping(self) -> bool:
        return self._server is not None and self._server.should_exit


@contextmanager
def page_server(settings: Settings, address: Address, options: Options, *, renew: bool = False) -> Iterator[PageServer]:
    """Listen on an address, and write the access file.

    Args:
        settings: Settings of the program.
        address: The address to listen on.
        options: Options of the page.
        renew: Make a new token, which signs out every open page.

    Raises:
        UsageError: The address is invalid.
        DaemonError: Another server uses this home folder, the port is taken, or the token cannot be kept secret.
    """
    address = address.checked()
    with _only_one(settings), _listening(address) as listener:
        port = listener.getsockname()[1]
        known = None if renew else read_access(settings.home)
        name = address.names[0] if address.names else address.host
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        access = Access(known.token if known else new_token(), url, os.getpid())
        write_access(settings.home, access)
        yield PageServer(access, options, listener, address.hosts(port))


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    path = access_path(settings.home).with_name("lock")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        other = read_access(settings.home)
        where = f" (process {other.pid}) at {other.url}" if other else ""
        raise DaemonError(
            f"The page is being served already{where}; `tsbs-daw web --link` prints a link to it."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DaemonError(
            f"Cannot listen on {address.host}, port {address.port} ({reason}); choose another with --port."
        ) from error
    with listener:
        yield listener


def link_to_running(home: Path) -> str:
    """Make a new link to the page that is being served.

    Raises:
        DaemonError: No server is running.
    """
    access = read_access(home)
    lock = FileLock(access_path(home).with_name("lock"))
    if access is not None and access.url:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return access.link()
        lock.release()
    raise DaemonError("No page is served now. Start one with `tsbs-daw web`.")
