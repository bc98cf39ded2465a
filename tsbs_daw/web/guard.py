"""What stands before every request: refuse whatever the page itself would not send.

    Host            one of the names that the server answers to, or a name of an attacker may lead here (DNS rebinding)
    Sec-Fetch-Site  same-origin, or none for the address bar: no other page may ask, not even one of another port
    Origin          ours, where there is one
    path            plain characters only; everything is called by ids, so that a path of a file never comes in
    body            POST as application/json, PUT with a header of our own: neither can be sent by a form, and another
                    page has to ask before it sends them, and gets no answer
    cookie          the right one, compared in constant time

A refusal is one sentence, on the page and in the log; neither holds a cookie or a query. The connection is closed, so
that the rest of a hostile request is not read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tsbs_daw.web.access import Access

log = logging.getLogger(__name__)

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
