"""Files in both directions: parts of them to players, whole ones and archives to save, and uploads into the spool.

An upload is streamed to where a DAW puts audio of its own, `inbox/<id>/source/<name>`; job.json turns the folder into a
request. The daemon decides whether the file can be separated, so a refusal shows up in the queue, in the log and in
`tsbs-daw jobs show` too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import stat
import time
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import anyio.to_thread
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from tsbs_daw.contracts.job import Job, Source, new_job_id
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import first_problem
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import disk_is_full
from tsbs_daw.models.registry import list_models
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import preset_files
from tsbs_daw.queue.spool import SOURCE, complete_request
from tsbs_daw.web.access import Refused

log = logging.getLogger(__name__)

# A player gets a part at a time and asks for the next: a browser opens six connections to a host, and a player that
# holds one open for each of eight stems would wait for itself.
PART_BYTES = 2 << 20
_BLOCK_BYTES = 256 << 10

_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")
PLAYED = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
}
# A file is never a page, whatever is in it.
_HARMLESS = {"content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}


def inside(folder: Path, relative: str | os.PathLike[str]) -> Path | None:
    """Where `relative` leads; None unless that is a regular file below `folder`, links followed."""
    try:
        real = (folder / relative).resolve(strict=True)
        return real if real.is_relative_to(folder.resolve()) and real.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def send_audio(path: Path, range_header: str | None, if_range: str | None) -> Response:
    """For a player: the part of a file that it asks for, at most `PART_BYTES` of it.

    Raises: Refused: the file is gone, or no such part of it
    """
    file = _opened(path)
    status = os.fstat(file.fileno())
    size, tag = status.st_size, f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
    headers = _HARMLESS | {"accept-ranges": "bytes", "etag": tag, "cache-control": "private, no-cache"}
    kind = PLAYED.get(path.suffix.lower(), "application/octet-stream")
    if range_header is None or (if_range is not None and if_range != tag):
        headers["content-length"] = str(size)
        return StreamingResponse(_blocks(file, 0, size), 200, headers, kind)
    part = _part(range_header, size)
    if part is None:
        file.close()
        headers = {"content-range": f"bytes */{size}"}
        return Response("This part of the file does not exist.\n", 416, headers, "text/plain")
    start, end = part[0], min(part[1], part[0] + PART_BYTES)
    headers |= {"content-length": str(end - start), "content-range": f"bytes {start}-{end - 1}/{size}"}
    return StreamingResponse(_blocks(file, start, end - start), 206, headers, kind)


def send_download(path: Path) -> Response:
    """A whole file, to save under its own name. Raises: Refused: it is gone"""
    file = _opened(path)
    size = os.fstat(file.fileno()).st_size
    headers = _HARMLESS | {"content-length": str(size), "content-disposition": _attachment(path.name)}
    return StreamingResponse(_blocks(file, 0, size), 200, headers, "application/octet-stream")


def send_archive(name: str, files: Iterable[tuple[str, Path]]) -> Response:
    """A zip that is made while it is sent, without compression: sound does not shrink.

    Args: name: of the archive; files: names inside it, and where they lie
    """
    headers = _HARMLESS | {"content-disposition": _attachment(f"{name}.zip")}
    return StreamingResponse(_zipped(list(files)), 200, headers, "application/zip")


def _opened(path: Path) -> BinaryIO:
    """Raises: Refused: there is no such regular file"""
    try:
        file = path.open("rb")
    except OSError as error:
        raise Refused(404, f"The file {path.name} cannot be read ({error.strerror}).") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise Refused(404, f"{path.name} is not a file.")


def _part(header: str, size: int) -> tuple[int, int] | None:
    """(start, end) in bytes, end excluded; None for what is not one part of the file."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.groups() == (None, None):
        return None
    first, last = (None if number is None else int(number) for number in match.groups())
    if first is None:
        start, end = max(size - (last or 0), 0), size
    else:
        start, end = first, size if last is None else min(last + 1, size)
    return (start, end) if start < end else None


async def _blocks(file: BinaryIO, start: int, length: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(start)
        while length > 0:
            block = await anyio.to_thread.run_sync(file.read, min(length, _BLOCK_BYTES))
            if not block:
                return  # it was cut meanwhile; the length that was promised says so
            length -= len(block)
            yield block


class _Pipe:
    """What zipfile writes into: no place to seek, and only what was not taken yet is kept."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data, self._written = b"".join(self._written), []
        return data


def _zipped(files: list[tuple[str, Path]]) -> Iterator[bytes]:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in files:
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                while block := source.read(_BLOCK_BYTES):
                    entry.write(block)
                    yield pipe.take()
    yield pipe.take()


def _attachment(name: str) -> str:
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    exact = quote(name.encode("utf-8", "surrogateescape"), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


MOST_AT_ONCE = 4
SPARE_BYTES = 512 << 20  # what an upload leaves free on the disk
_SILENT_S = 30.0  # a sender that sends nothing for so long has gone
_LEFT_OVER_S = 86400.0
_PREFIX = "web-"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

_NO_ROOM = "The disk is too full for this file; free some space and drop it again."


class Uploads:
    """Takes files in.

    Args:
        out: Where their stems go
        most_bytes: Of one file
    """

    def __init__(self, settings: Settings, out: Path, most_bytes: int):
        self._settings, self._out, self._most_bytes = settings, out, most_bytes
        self._running = 0
        self._sweep()

    async def receive(self, name: str, preset: str, model: str, length: int | None, body: AsyncIterator[bytes]) -> Job:
        """Write a file into the spool and ask for its separation.

        Args:   name: the file's own name; length: what the sender says
        Raises: Refused: a name that is not known, too large, too many, too slow, cut off, or no room
        """
        # Models and presets are known by name here: a path would let the page read any file.
        if preset not in preset_files(self._settings.presets):
            raise Refused(400, "This preset is not known here.")
        if model not in {entry.name for entry in list_models(self._settings)}:
            raise Refused(400, "This model is not known here.")
        self._check_size(length or 0)
        if self._running >= MOST_AT_ONCE:
            raise Refused(503, f"{MOST_AT_ONCE} files are being sent already; wait for one of them.")
        self._running += 1
        folder = self._settings.spool / "inbox" / f"{_PREFIX}{new_job_id()}"
        try:
            return await self._receive(folder, name, preset, model, length, body)
        except BaseException as error:
            await anyio.to_thread.run_sync(shutil.rmtree, folder, True)
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise Refused(
                    507, _NO_ROOM if disk_is_full(error) else f"Cannot write it: {error.strerror}."
                ) from error
            raise
        finally:
            self._running -= 1

    async def _receive(
        self, folder: Path, name: str, preset: str, model: str, length: int | None, body: AsyncIterator[bytes]
    ) -> Job:
        stem, suffix = _split(name)
        path = folder / SOURCE / f"{stem}{suffix}"
        job = self._job(folder.name, path, stem, preset, model)
        await anyio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True))
        received = 0
        with path.open("xb") as file:
            async for block in _in_time(body):
                received += len(block)
                if received > self._most_bytes or received % (64 << 20) < len(block):
                    self._check_size(received)
                await anyio.to_thread.run_sync(file.write, block)
        if received == 0:
            raise Refused(400, f"{stem}{suffix} is empty; choose another file.")
        if length is not None and received != length:
            raise Refused(400, f"{stem}{suffix} arrived incomplete; drop it again.")
        await anyio.to_thread.run_sync(complete_request, folder, job)
        log.info("job %s: %s arrived through the page (%d bytes)", job.id, path.name, received)
        return job

    def _job(self, job_id: str, path: Path, stem: str, preset: str, model: str) -> Job:
        # Where the file will be when the daemon has claimed the folder.
        source = self._settings.spool / "jobs" / job_id / SOURCE / path.name
        try:
            return Job(
                id=job_id,
                source=Source(path=source),
                output=self._out,
                song=stem,
                preset=preset,
                model=model,
                origin="web",
                delivery=DeliveryOptions(source="copy"),  # to compare with, once the spool's is gone
            )
        except ValidationError as error:
            raise Refused(400, f"This cannot be asked for: {first_problem(error).clause}.") from error

    def _check_size(self, size_bytes: int) -> None:
        """Raises: Refused: too large, or more than the disk has room for"""
        if size_bytes > self._most_bytes:
            raise Refused(
                413, f"This file is larger than {self._most_bytes / 1e9:.1f} GB; use `tsbs-daw submit` for it."
            )
        root = next(place for place in (self._settings.spool, *self._settings.spool.parents) if place.is_dir())
        if shutil.disk_usage(root).free < SPARE_BYTES + (size_bytes if not self._running else 0):
            raise Refused(507, _NO_ROOM)

    def _sweep(self) -> None:
        """Remove what a server that was killed was just receiving."""
        for folder in (self._settings.spool / "inbox").glob(f"{_PREFIX}*"):
            try:
                old = time.time() - folder.stat().st_mtime > _LEFT_OVER_S
                if old and not (folder / "job.json").exists():
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:  # claimed just now
                continue


def _split(name: str) -> tuple[str, str]:
    """A sender's file name as one that this system accepts: the song, and the ending."""
    base = name.replace("\\", "/").rpartition("/")[2]
    dot = base.rfind(".")
    suffix = base[dot:] if dot > 0 and _SUFFIX.fullmatch(base[dot:]) else ""
    return safe_name(base.removesuffix(suffix)), suffix


async def _in_time(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Raises: Refused: nothing came for too long"""
    while True:
        try:
            block = await asyncio.wait_for(anext(body), _SILENT_S)
        except StopAsyncIteration:
            return
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise Refused(408, "The file stopped arriving; drop it again.") from error
        yield block
