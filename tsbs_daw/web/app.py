"""The page's routes: one line for each in `make_app`, and one short function that handles it."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tsbs_daw.batch.page import joined_parts
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import TsbsDawError, UsageError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.models.registry import list_models
from tsbs_daw.presets.preset import preset_files
from tsbs_daw.queue.spool import MOVES, request_cancel, request_move, request_retry
from tsbs_daw.web.access import COOKIE_LIFE_S, Access, Guard, Refused, Scope
from tsbs_daw.web.queue import Options, QueueReader, Uploads, folders, stream
from tsbs_daw.web.songs import PLAYED, Songs, send_archive, send_audio, send_download

log = logging.getLogger(__name__)

STREAMS = 24  # most pages that can be open at the same time
_BODY_BYTES = 64 << 10
_BODY_S = 10.0
_DOCTOR_S = 600.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHARED = ("words", "music", "picture", "player", "deck", "details")  # of the catalogue's page
_OWN = ("api", "queue", "song", "drop", "places", "main")


def make_app(options: Options, access: Access, hosts: frozenset[str], *, stopped: Callable[[], bool]) -> Any:
    """Build the ASGI application.

    Args:
        options: Options of the page.
        access: The secret.
        hosts: Allowed Host headers, in lower case, with the port.
        stopped: Returns whether the server is shutting down.
    """
    page = Page(options, access, stopped)
    routes = [
        Route("/open", page.open),
        Route("/", page.home),
        Route("/favicon.ico", _no_icon),
        Route("/static/{name}", page.static),
        Route("/api/events", page.events),
        Route("/api/choices", page.choices),
        Route("/api/songs", page.upload, methods=["PUT"]),
        Route("/api/jobs/{job}", page.job),
        Route("/api/jobs/{job}/{act:str}", page.act, methods=["POST"]),
        Route("/api/jobs/{job}/song", page.song),
        Route("/api/jobs/{job}/archive", page.archive),
        Route("/api/jobs/{job}/files/{file}", page.audio),
        Route("/api/jobs/{job}/files/{file}/save", page.save),
        Route("/api/folders", page.folders),
        Route("/api/models", page.models),
        Route("/api/doctor", page.doctor, methods=["POST"]),
        Route("/api/catalogues", page.catalogues),
        Route("/catalogues/{catalogue}", page.catalogue),
        Route("/catalogues/{catalogue}/files/{file}", page.catalogue_file),
    ]
    handlers: dict[Any, Any] = {Refused: _refused, TsbsDawError: _failed, ClientDisconnect: _gone}
    app = Starlette(routes=routes, exception_handlers=handlers | {404: _nothing, 405: _nothing})
    app.router.redirect_slashes = False
    return Guard(_BugsLast(app), access, hosts)


class Page:
    """The request handlers. They read everything from the queue and the disk."""

    def __init__(self, options: Options, access: Access, stopped: Callable[[], bool]):
        self._options, self._access, self._stopped = options, access, stopped
        self._settings = options.settings
        self._reader = QueueReader(options.settings)
        self._songs = Songs(options.settings, access)
        self._uploads = Uploads(options.settings, options.out, options.most_bytes)
        self._streams = 0
        self._doctor = asyncio.Lock()
        self._static = {
            "app.css": _text("app.css"),
            "app.js": joined_parts(_SHARED, [_text(f"{name}.js") for name in _OWN]),
            "catalogue.css": joined_parts(style=True),
            "catalogue.js": joined_parts(),
        }

    # The page itself

    async def open(self, request: Request) -> Response:
        """Exchange a link's code for a cookie. The redirect removes the code from the address bar."""
        if not self._access.redeem(request.query_params.get("code", "")[:200]):
            raise Refused(
                403, "This link has been used already or has expired; `tsbs-daw web --link` prints a new one."
            )
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self._access.cookie_name,
            self._access.cookie,
            max_age=COOKIE_LIFE_S,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def home(self, request: Request) -> Response:
        return HTMLResponse(_text("app.html"))

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise Refused(404, "There is nothing at this address.")
        return Response(self._static[name], media_type="text/css" if name.endswith(".css") else "text/javascript")

    # The queue

    async def events(self, request: Request) -> Response:
        if self._streams >= STREAMS:
            raise Refused(503, f"{STREAMS} pages are open already; close one of them.")
        return StreamingResponse(self._stream(request.headers.get("last-event-id", "")), media_type="text/event-stream")

    async def _stream(self, last_id: str) -> Any:
        self._streams += 1
        try:
            async for event in stream(self._reader, last_id, self._stopped):
                yield event
        finally:
            self._streams -= 1

    async def act(self, request: Request) -> Response:
        """Cancel, retry or move a job, with the same functions as the command line."""
        job_id, act = _job_id(request), request.path_params["act"]
        body, spool = await _json(request), self._settings.spool
        if act == "cancel":
            ask = partial(request_cancel, spool, job_id)
        elif act == "retry":
            ask = partial(request_retry, spool, job_id)
        elif act == "move" and body.get("to") in MOVES:
            ask = partial(request_move, spool, job_id, body["to"])
        else:
            raise Refused(404, "Jobs do not support this action.")
        await anyio.to_thread.run_sync(ask)
        log.info("job %s: %s requested on the page", job_id, act)
        return JSONResponse({})

    async def upload(self, request: Request) -> Response:
        query = request.query_params
        name = unquote(query.get("name", ""), errors="replace")[:400]
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 19 else None
        preset, model = query.get("preset", "none"), query.get("model", "default")
        job = await self._uploads.receive(name, preset, model, size, request.stream())
        return JSONResponse({"id": job.id, "song": job.song}, 201)

    async def choices(self, request: Request) -> Response:
        return JSONResponse(await anyio.to_thread.run_sync(_choices, self._options))

    # Songs

    async def job(self, request: Request) -> Response:
        return JSONResponse(self._songs.describe(await self._row(request)))

    async def song(self, request: Request) -> Response:
        row = await self._row(request)
        return JSONResponse(await anyio.to_thread.run_sync(self._songs.player, row))

    async def audio(self, request: Request) -> Response:
        path = await self._file(request)
        return send_audio(path, request.headers.get("range"), request.headers.get("if-range"))

    async def save(self, request: Request) -> Response:
        return send_download(await self._file(request))

    async def archive(self, request: Request) -> Response:
        row = await self._row(request)
        entries = await anyio.to_thread.run_sync(self._songs.everything, row)
        return send_archive(entries[0][0].partition("/")[0], entries)

    async def _file(self, request: Request) -> Path:
        row = await self._row(request)
        return await anyio.to_thread.run_sync(self._songs.file, row, request.path_params["file"])

    async def _row(self, request: Request) -> Any:
        """Read the job of a request from the store.

        Raises:
            Refused: There is no such job.
        """
        job_id = _job_id(request)
        row = await self._reader.ask(lambda store: store.get(job_id) if store else None)
        if row is None:
            raise Refused(404, f"There is no job {job_id}.")
        return row

    # Watch folders, models, catalogues

    async def folders(self, request: Request) -> Response:
        return JSONResponse(await self._reader.ask(partial(folders, self._settings)))

    async def models(self, request: Request) -> Response:
        return JSONResponse(await anyio.to_thread.run_sync(_models, self._settings))

    async def doctor(self, request: Request) -> Response:
        """Run the checks of `tsbs-daw doctor` in a separate process, once at a time."""
        await _json(request)
        if self._doctor.locked():
            raise Refused(409, "The checks are already running.")
        async with self._doctor:
            words = [sys.executable, "-m", "tsbs_daw", "doctor", "--json"]
            pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            child = await asyncio.create_subprocess_exec(*words, stdin=nothing, stdout=pipe, stderr=nothing)
            try:
                text, _ = await asyncio.wait_for(child.communicate(), _DOCTOR_S)
                return JSONResponse(json.loads(text))
            except (asyncio.TimeoutError, TimeoutError, ValueError) as error:
                raise Refused(500, "The checks did not finish; run `tsbs-daw doctor` in a terminal.") from error
            finally:
                if child.returncode is None:
                    child.kill()

    async def catalogues(self, request: Request) -> Response:
        found = await self._reader.ask(self._songs.catalogues)
        return JSONResponse([{"id": one.id, "name": one.name, "folder": str(one.folder)} for one in found])

    async def catalogue(self, request: Request) -> Response:
        found = await self._catalogue(request)
        return HTMLResponse(await anyio.to_thread.run_sync(self._songs.catalogue_page, found))

    async def catalogue_file(self, request: Request) -> Response:
        found = await self._catalogue(request)
        path = await anyio.to_thread.run_sync(self._songs.catalogue_file, found, request.path_params["file"])
        if path.suffix.lower() in PLAYED:
            return send_audio(path, request.headers.get("range"), request.headers.get("if-range"))
        return send_download(path)

    async def _catalogue(self, request: Request) -> Any:
        wanted = request.path_params["catalogue"]
        found = await self._reader.ask(self._songs.catalogues)
        for one in found:
            if one.id == wanted:
                return one
        raise Refused(404, "There is no such catalogue.")


def _choices(options: Options) -> dict[str, Any]:
    """List presets and models by name, the output folder, and the size limit for uploads."""
    return {
        "presets": list(preset_files(options.settings.presets)),
        "models": [entry.name for entry in list_models(options.settings) if entry.path is not None],
        "out": source_name(options.out),
        "mostBytes": options.most_bytes,
    }


def _models(settings: Settings) -> list[dict[str, Any]]:
    """List the models that `tsbs-daw models list` shows."""
    return [
        {
            "name": entry.name,
            "state": entry.state,
            "description": entry.known.description if entry.known else source_name(entry.path or ""),
            "size": entry.path.stat().st_size if entry.path and entry.path.is_file() else None,
        }
        for entry in list_models(settings)
    ]


async def _no_icon(request: Request) -> Response:
    """Answer a browser's request for an icon."""
    return Response(status_code=204)


def _job_id(request: Request) -> str:
    """Return the job id in a request's path.

    Raises:
        Refused: It is not a valid id.
    """
    job_id = request.path_params["job"]
    if not _ID.fullmatch(job_id):
        raise Refused(404, "There is no such job.")
    return str(job_id)


async def _json(request: Request) -> dict[str, Any]:
    """Read a request's body as JSON.

    Raises:
        Refused: The body is too large, arrives too slowly, or is not a JSON object.
    """

    async def read() -> bytes:
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > _BODY_BYTES:
                raise Refused(413, "The request is too large.")
        return body

    try:
        found = json.loads(await asyncio.wait_for(read(), _BODY_S))
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise Refused(408, "The request arrived too slowly.") from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request is not valid JSON.") from error
    if not isinstance(found, dict):
        raise Refused(400, "The request is not a JSON object.")
    return found


def _text(name: str) -> str:
    return (importlib.resources.files("tsbs_daw.web") / "static" / name).read_text(encoding="utf-8")


# ---- refusals: one sentence, on the page and in the log --------------------------------------------------------------


def _answer(request: Request, status: int, sentence: str) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, sentence)
    return JSONResponse({"error": sentence}, status, {"connection": "close"})


async def _refused(request: Request, error: Refused) -> Response:
    return _answer(request, error.status, str(error))


async def _failed(request: Request, error: TsbsDawError) -> Response:
    return _answer(request, 400 if isinstance(error, UsageError) else 409, str(error))


async def _nothing(request: Request, error: Exception) -> Response:
    return _answer(request, 404, "There is nothing at this address.")


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


class _BugsLast:
    """ASGI middleware that reports an unexpected exception: traceback to the log, one sentence to the page."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        began = False

        async def watched(message: Any) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if began:
                raise
            sentence = "This is a bug in tsbs-daw. Please report it with the last lines of the page's log, web.log."
            await JSONResponse({"error": sentence}, 500, {"connection": "close"})(scope, receive, send)
