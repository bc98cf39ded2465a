"""Authentication for the page, and the checks that every request has to pass.

The secret is 256 random bits, in a file that only its user can read. It is never sent: a link contains a code and the
browser a cookie, both derived from it by a keyed hash. A code works once and for a few minutes, so it is worthless in a
browser's history. The cookie is valid until the secret is replaced (`tsbs-daw web --new-token`); it survives a restart
of the server, so a page that was left open keeps working.

`Guard` refuses every request that the page itself would not send:

    Host            one of the server's own names, because an attacker's name may resolve to it (DNS rebinding)
    Sec-Fetch-Site  same-origin, or none for the address bar: no other page may send requests, even from another port
    Origin          ours, if present
    path            plain characters only; everything is addressed by ids, so a request never contains a file path
    body            POST as application/json, PUT with a custom header: a form can send neither, and a script of another
                    page needs a CORS preflight, which is refused
    cookie          the right one, compared in constant time

A refusal is one sentence, on the page and in the log; neither contains a cookie or a query. The connection is closed,
so the rest of a hostile request is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tsbs_daw.core.errors import DaemonError, shown

log = logging.getLogger(__name__)

TOKEN_BYTES = 32
LINK_LIFE_S = 600
COOKIE_LIFE_S = 90 * 86400
_CHECKED = os.name != "nt"  # Windows has no mode bits; there, the home folder is private by default


def access_path(home: Path) -> Path:
    """Path of the file that stores the secret, and the URL and process of the server."""
    return home / "web" / "access.json"


@dataclass
class Access:
    """The secret, and the codes and cookies derived from it.

    Attributes:
        token: The secret, in hex.
        url: The server's URL, without a trailing slash; "" before it listens.
        pid: Process id of the server.
    """

    token: str
    url: str = ""
    pid: int = 0
    _used: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def cookie_name(self) -> str:
        """Name of the cookie, with the port: browsers share cookies between all ports of a host."""
        return f"tsbs-daw-{self.url.rpartition(':')[2]}"

    @property
    def cookie(self) -> str:
        """Value of the cookie."""
        return self._sign("cookie")

    def admits(self, cookie: str) -> bool:
        """Return whether this is the cookie's value, compared in constant time."""
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self.cookie.encode())

    def link(self) -> str:
        """Make a link that works once, within `LINK_LIFE_S`."""
        stem = f"{int(time.time()) + LINK_LIFE_S}-{secrets.token_hex(16)}"
        return f"{self.url}/open?code={stem}-{self._sign(stem)}"

    def redeem(self, code: str) -> bool:
        """Return whether this is the code of an unused link that has not expired, and mark it as used."""
        stem, _, signature = code.rpartition("-")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(stem).encode()):
            return False
        now = time.time()
        self._used = {used: until for used, until in self._used.items() if until > now}
        until = float(stem.partition("-")[0])
        if stem in self._used or until < now:
            return False
        self._used[stem] = until
        return True

    def file_id(self, *parts: str) -> str:
        """Make an id for a file that does not reveal its path."""
        return self._sign("\0".join(("file", *parts)))[:24]

    def _sign(self, text: str) -> str:
        message = text.encode("utf-8", "surrogatepass")
        return hmac.new(bytes.fromhex(self.token), message, hashlib.sha256).hexdigest()


def read_access(home: Path) -> Access | None:
    """Read the secret; None if the file is missing or invalid, or if other users could have read or written it."""
    path = access_path(home)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not _is_private(os.fstat(file.fileno())):
            log.warning("other users could have read %s; made a new token, so every page must be opened again", path)
            return None
        try:
            found = json.loads(file.read(10_000))
            access = Access(str(found["token"]), str(found["url"]), int(found["pid"]))
            return access if len(bytes.fromhex(access.token)) == TOKEN_BYTES else None
        except (ValueError, KeyError, TypeError):
            return None


def write_access(home: Path, access: Access) -> None:
    """Write the secret to a file that only its user can read.

    Raises:
        DaemonError: The file cannot be written, or its file system has no permissions.
    """
    path = access_path(home)
    temporary = path.with_name(path.name + ".tmp")
    text = json.dumps({"token": access.token, "url": access.url, "pid": access.pid})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        private = _is_private(temporary.stat())
        if private:
            temporary.replace(path)
        else:
            temporary.unlink()
    except OSError as error:
        raise DaemonError(
            f"Cannot write the page's token to {shown(path)} ({error.strerror}). Check the folder's permissions."
        ) from error
    if not private:
        raise DaemonError(
            f"The page's token cannot be kept secret in {shown(path)}: its file system has no file permissions. "
            "Set TSBS_DAW_HOME to a folder on another file system."
        )


def new_token() -> str:
    """Generate 256 random bits, in hex."""
    return secrets.token_hex(TOKEN_BYTES)


def _is_private(status: os.stat_result) -> bool:
    own = not _CHECKED or (status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0)
    return stat.S_ISREG(status.st_mode) and own


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

UPLOAD_HEADER = "x-tsbs-daw"  # its value: "upload"
SIGN_IN = "/open"

_PATH = re.compile(rb"(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*/?")
_SAFE = ("GET", "HEAD")
_METHODS = (*_SAFE, "POST", "PUT")
_ONCE = ("host", "origin", "cookie", "content-type", "content-length", "transfer-encoding", "sec-fetch-site", "range")
_JSON = re.compile(r"application/json(; ?charset=utf-8)?", re.IGNORECASE)

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Refused(Exception):
    """A request that is refused, with an HTTP status. The message is one sentence for the user."""

    def __init__(self, status: int, sentence: str):
        self.status = status
        super().__init__(sentence)


class Guard:
    """ASGI middleware around the whole application: refuses hostile requests and adds security headers.

    Args:
        app: The application.
        access: The secret.
        hosts: Allowed Host headers, in lower case, with the port.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], access: Access, hosts: frozenset[str]):
        self._app, self._access, self._hosts = app, access, hosts
        self._origins = {f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # websockets and lifespan events are disabled in the server

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = HEADERS | {"cache-control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in extra.items() if n.encode() not in present),
                ]
            await send(message)

        try:
            self._check(scope)
        except Refused as refusal:
            await _refusal(scope, refusal)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Check a request as described in the module.

        Raises:
            Refused: The page itself would not send this request.
        """
        headers = _headers(scope)
        if headers.get("host", "").lower() not in self._hosts:
            raise Refused(421, "tsbs-daw does not answer to this host name; open the link that `tsbs-daw web` prints.")
        method = scope["method"]
        if method not in _METHODS:
            raise Refused(405, "This method is not supported.")
        site = headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" and not (site == "none" and method in _SAFE):
            raise Refused(403, "The request came from another page; copy the link into the address bar instead.")
        if "origin" in headers and headers["origin"].lower() not in self._origins:
            raise Refused(403, "The request came from another page.")
        if not _PATH.fullmatch(scope.get("raw_path") or scope["path"].encode("utf-8", "replace")):
            raise Refused(404, "There is nothing at this address.")
        if method == "POST" and not _JSON.fullmatch(headers.get("content-type", "")):
            raise Refused(415, "Send JSON, as application/json.")
        if method == "PUT" and headers.get(UPLOAD_HEADER) != "upload":
            raise Refused(415, "Only the page itself can send files, with the header X-Tsbs-Daw.")
        if scope["path"] != SIGN_IN and not self._access.admits(self._cookie(headers)):
            raise Refused(401, "Open the link that `tsbs-daw web` prints; `tsbs-daw web --link` prints a new one.")

    def _cookie(self, headers: dict[str, str]) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._access.cookie_name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name.

    Raises:
        Refused: A header that is allowed once occurs twice, or the length is ambiguous.
    """
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in _ONCE:
            raise Refused(400, f"The header {key} occurs twice in this request.")
        found[key] = value.decode("latin-1")
    if "content-length" in found and "transfer-encoding" in found:
        raise Refused(400, "This request states its length in two ways.")
    return found


def _refusal(scope: Scope, refusal: Refused) -> Response:
    path = scope["path"][:80].encode("unicode_escape").decode("ascii")
    log.warning("refused %s %s: %s", scope["method"][:10], path, refusal)
    headers = {"connection": "close"}
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": str(refusal)}, refusal.status, headers)
    return PlainTextResponse(str(refusal) + "\n", refusal.status, headers)
