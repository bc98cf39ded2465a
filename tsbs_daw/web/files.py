"""Sending files that an id leads to: parts of them to players, the whole to save, several in one archive."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from tsbs_daw.web.guard import Refused

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
