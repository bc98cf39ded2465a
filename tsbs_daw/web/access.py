"""Who may use the page, and the checks that every request passes.

The secret is 256 random bits, in a file that only its user can read. It never leaves the file: a link carries a code
and the browser a cookie, both derived from it by a keyed hash. A code works once and for a few minutes, so it is worth
nothing in a browser's history. The cookie is valid until the secret is replaced (`tsbs-daw web --new-token`); it
survives a restart of the server, so a page that was left open keeps working.

`Guard` refuses every request that the page itself would not send:

    Host            one of the names that the server answers to; else an attacker's name may lead here (DNS rebinding)
    Sec-Fetch-Site  same-origin, or none for the address bar: no other page may ask, not even one of another port
    Origin          ours, if present
    path            plain characters only; everything is addressed by ids, so no file path ever comes in
    body            POST as application/json, PUT with a header of our own: a form can send neither, and another page
                    has to ask first and gets no answer
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
_CHECKED = os.name != "nt"  # Windows has no mode bits; the home belongs to its user there


def access_path(home: Path) -> Path:
    """The file with the secret, and where the server that uses it answers."""
    return home / "web" / "access.json"


@dataclass
class Access:
    """The secret, and what is made from it.

    Attributes:
        token: The secret, in hex.
        url: Where the server answers, without a slash at its end; empty before it does.
        pid: The server's process.
    """

    token: str
    url: str = ""
    pid: int = 0
    _used: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def cookie_name(self) -> str:
        """One for each port: browsers keep the cookies of all ports of a host together."""
        return f"tsbs-daw-{self.url.rpartition(':')[2]}"

    @property
    def cookie(self) -> str:
        """The cookie's value."""
        return self._sign("cookie")

    def admits(self, cookie: str) -> bool:
        """Whether this is the cookie's value, compared in constant time."""
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self.cookie.encode())

    def link(self) -> str:
        """A new link, good once and for `LINK_LIFE_S`."""
        stem = f"{int(time.time()) + LINK_LIFE_S}-{secrets.token_hex(16)}"
        return f"{self.url}/open?code={stem}-{self._sign(stem)}"

    def redeem(self, code: str) -> bool:
        """Whether this is the code of a link that is neither used nor too old. From now on it is used."""
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
        """A name for a file that says nothing about where it lies."""
        return self._sign("\0".join(("file", *parts)))[:24]

    def _sign(self, text: str) -> str:
        message = text.encode("utf-8", "surrogatepass")
        return hmac.new(bytes.fromhex(self.token), message, hashlib.sha256).hexdigest()


def read_access(home: Path) -> Access | None:
    """What the file says; None when there is none, or others could have read or written it."""
    path = access_path(home)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not _is_private(os.fstat(file.fileno())):
            log.warning("%s could have been read by others; a new token is made, and pages must be opened anew.", path)
            return None
        try:
            found = json.loads(file.read(10_000))
            access = Access(str(found["token"]), str(found["url"]), int(found["pid"]))
            return access if len(bytes.fromhex(access.token)) == TOKEN_BYTES else None
        except (ValueError, KeyError, TypeError):
            return None


def write_access(home: Path, access: Access) -> None:
    """Put the secret where only its user can read it. Raises: DaemonError: that is not possible there"""
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
        raise DaemonError(f"The page's token cannot be written to {shown(path)} ({error.strerror}).") from error
    if not private:
        raise DaemonError(
            f"The page's token cannot be kept secret in {shown(path)}: that file system does not know file modes. "
            "Set TSBS_DAW_HOME to a folder on another one."
        )


def new_token() -> str:
    """256 random bits, in hex."""
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
    """A request that is not answered. The message is one sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str):
        self.status = status
        super().__init__(sentence)


class Guard:
    """ASGI middleware around the whole application.

    Args:
        hosts: What a Host header may say, in lower case, with the port
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], access: Access, hosts: frozenset[str]):
        self._app, self._access, self._hosts = app, access, hosts
        self._origins = {f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there are no websockets, and the server is asked for no lifespan

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
        """Raises: Refused"""
        headers = _headers(scope)
        if headers.get("host", "").lower() not in self._hosts:
            raise Refused(421, "This name does not lead to tsbs-daw; open the link that `tsbs-daw web` prints.")
        method = scope["method"]
        if method not in _METHODS:
            raise Refused(405, "This method is not known here.")
        site = headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" and not (site == "none" and method in _SAFE):
            raise Refused(403, "Another page asked for this; copy the link into the address bar instead.")
        if "origin" in headers and headers["origin"].lower() not in self._origins:
            raise Refused(403, "Another page asked for this.")
        if not _PATH.fullmatch(scope.get("raw_path") or scope["path"].encode("utf-8", "replace")):
            raise Refused(404, "There is nothing of this name here.")
        if method == "POST" and not _JSON.fullmatch(headers.get("content-type", "")):
            raise Refused(415, "Send JSON, as application/json.")
        if method == "PUT" and headers.get(UPLOAD_HEADER) != "upload":
            raise Refused(415, "A file is sent by the page itself, with the header X-Tsbs-Daw.")
        if scope["path"] != SIGN_IN and not self._access.admits(self._cookie(headers)):
            raise Refused(401, "Open the link that `tsbs-daw web` prints; `tsbs-daw web --link` prints a new one.")

    def _cookie(self, headers: dict[str, str]) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._access.cookie_name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name. Raises: Refused: one that may be there once is there twice"""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in _ONCE:
            raise Refused(400, "A header of this request is there twice.")
        found[key] = value.decode("latin-1")
    if "content-length" in found and "transfer-encoding" in found:
        raise Refused(400, "The length of this request is said in two ways.")
    return found


def _refusal(scope: Scope, refusal: Refused) -> Response:
    path = scope["path"][:80].encode("unicode_escape").decode("ascii")
    log.warning("refused %s %s: %s", scope["method"][:10], path, refusal)
    headers = {"connection": "close"}
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": str(refusal)}, refusal.status, headers)
    return PlainTextResponse(str(refusal) + "\n", refusal.status, headers)
