"""The songs on the page: their descriptions, the ids of their files, and sending files to players and for download.

An id is derived from the job and the file's name with the page's secret. It is looked up among the files that the
manifest of a job or the catalogue of a batch lists, so no other file can be requested; a link that leaves its folder
counts as missing. Players get parts of files; whole files and archives can be downloaded.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from tsbs_daw.batch.catalogue import done_entry
from tsbs_daw.batch.page import linked_page, song_row
from tsbs_daw.batch.waveform import waveforms
from tsbs_daw.contracts.catalogue import CSV, JSON, Catalogue, SongEntry
from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.jobs import describe
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.store import JobStore
from tsbs_daw.web.access import Access, Refused

_ORIGINAL = "\0original"  # cannot be the name of a file
_LOOK_UP = 4  # levels at and above a song's folder in which the batch's catalogue is searched

# A player requests a file in parts: a browser opens six connections to a host, so a player that holds one open for each
# of eight stems would block itself.
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
# Whatever a file contains, the browser must never run it as a page.
_HARMLESS = {"content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}


def brief(job: dict[str, Any], afterwards: Sequence[str] = ()) -> dict[str, Any]:
    """Collect what the list of jobs shows, as JSON.

    Args:
        job: From `queue.jobs.describe`.
        afterwards: Notes on what happened to the song's file and on the hooks.
    """
    request, result = job["request"] or {}, job["result"] or {}
    return {
        "id": job["id"],
        "state": job["state"],
        "song": job["song"],
        "source": Path(job["source"]).name if job["origin"] == "web" else job["source"],  # hide the path in the spool
        "origin": job["origin"],
        "fraction": round(job["fraction"] or 0.0, 3),
        "message": job["message"] or "",
        "error": job["error"] or "",
        "warnings": list(result.get("warnings", ())),
        "afterwards": list(afterwards),
        "attempts": job["attempts"],
        "created": job["created_unix_s"],
        "finished": job["finished_unix_s"],
        "preset": request.get("preset", ""),
        "model": request.get("model", ""),
        "playable": job["state"] in ("done", "duplicate") and bool(result.get("folder")),
    }


@dataclass(frozen=True)
class FoundCatalogue:
    """A batch's catalogue.

    Attributes:
        id: Its id on the page.
        name: Name of the folder.
        folder: Folder that contains it.
    """

    id: str
    name: str
    folder: Path


class Songs:
    """Finds songs and their files by id. `access` makes the ids."""

    def __init__(self, settings: Settings, access: Access):
        self._settings, self._access = settings, access
        self._pictures = settings.cache / "waveforms"
        self._catalogues: dict[Path, tuple[tuple[int, int], Catalogue]] = {}

    # Jobs

    def describe(self, row: JobRow) -> dict[str, Any]:
        """Describe a job and the files that can be downloaded, as JSON."""
        found = brief(describe(row))
        folder, manifest = self._delivered(row)
        saved = [] if folder is None else [PurePosixPath(name) for name, _ in self._files(folder, manifest)]
        found["folder"] = source_name(folder) if folder else ""
        found["files"] = [
            {"id": self._access.file_id(row.id, str(name)), "name": str(name), "kind": _kind(str(name), manifest)}
            for name in saved
        ]
        return found

    def player(self, row: JobRow) -> dict[str, Any]:
        """Describe a song for the player, with waveforms. Raises `Refused` if its stems are missing."""
        folder, manifest = self._delivered(row)
        if folder is None or manifest is None:
            raise Refused(404, f"The stems of {row.song} are missing; retry the job.")
        out = folder.parent

        def url(file: str) -> str | None:
            inner = PurePosixPath(file).relative_to(folder.name)
            return f"/api/jobs/{row.id}/files/{self._access.file_id(row.id, str(inner))}"

        entry = done_entry(SongEntry(source=row.source_key, title=row.song), out, folder, manifest)
        entry = entry.model_copy(update={"sessions": (), "loops_folder": None, "stem_mp4": None})
        song = song_row(entry, out, url=url, cache=self._pictures)
        song["links"] = []
        original = self._original(row, manifest)
        if original is not None:
            drawn = waveforms(original.parent, str(original), [original.name], self._pictures)[original.name]
            song["files"].append(
                {
                    "name": "source",
                    "kind": "source",
                    "url": f"/api/jobs/{row.id}/files/{self._access.file_id(row.id, _ORIGINAL)}",
                    "color": "#9e9e9e",
                    "levels": drawn.levels,
                    "problem": drawn.problem,
                    "lufs": None,
                    "peakDb": None,
                }
            )
        return song | {"id": row.id}

    def file(self, row: JobRow, file_id: str) -> Path:
        """Find a job's file by its id. Raises `Refused` if none has this id."""
        folder, manifest = self._delivered(row)
        for name, path in self._files(folder, manifest) if folder else ():
            if self._access.file_id(row.id, name) == file_id:
                return path
        original = self._original(row, manifest)
        if original is not None and self._access.file_id(row.id, _ORIGINAL) == file_id:
            return original
        raise Refused(404, "This file is missing; reload the page.")

    def everything(self, row: JobRow) -> list[tuple[str, Path]]:
        """List all files of a job with their names in an archive. Raises `Refused` if there are none."""
        folder, manifest = self._delivered(row)
        found = [(f"{folder.name}/{name}", path) for name, path in self._files(folder, manifest)] if folder else []
        if not found:
            raise Refused(404, f"The stems of {row.song} are missing; retry the job.")
        return found

    def _delivered(self, row: JobRow) -> tuple[Path | None, Manifest | None]:
        try:
            folder = row.result.folder if row.result else None
        except JobFormatError:
            return None, None
        if folder is None or not folder.is_dir():
            return None, None
        return folder, read_manifest(folder)

    def _original(self, row: JobRow, manifest: Manifest | None) -> Path | None:
        """Find the original song, for comparison with its stems.

        None if a copy was delivered with the stems, if only a portion was separated, or if the file is missing or has
        changed since.
        """
        if manifest is None or any(entry.kind == "source" for entry in manifest.stems):
            return None
        if manifest.source.start_samples or manifest.source.length_samples is not None:
            return None
        path = Path(row.source_key) if row.from_watch_folder else row.job.source.path
        try:
            unchanged = path.is_file() and path.stat().st_mtime <= row.finished_unix_s
        except (OSError, ValueError):
            return None
        return path if unchanged else None

    def _files(self, folder: Path, manifest: Manifest | None) -> Iterator[tuple[str, Path]]:
        """Yield the name and path of each file that a manifest lists, and of the manifest itself."""
        if manifest is None:
            return
        names = [entry.file for entry in manifest.stems] + list(manifest.sessions or ())
        names += [entry.file for entry in manifest.others] + [manifest.analysis or "", FILE_NAME]
        for name in dict.fromkeys(filter(None, names)):
            path = inside(folder, name)
            if path is not None:
                yield name, path

    # Batches

    def catalogues(self, store: JobStore | None) -> list[FoundCatalogue]:
        """List the catalogues of all batches in the queue."""
        found: dict[Path, FoundCatalogue] = {}
        for output in store.outputs("batch") if store else ():
            for folder in [output, *output.parents][:_LOOK_UP]:
                if folder not in found and (folder / JSON).is_file():
                    found[folder] = FoundCatalogue(self._access.file_id("", str(folder)), folder.name, folder)
                    break
        return sorted(found.values(), key=lambda one: one.name.lower())

    def catalogue_page(self, found: FoundCatalogue) -> str:
        """Build the page of a batch, with its files by id. Raises `Refused` if the catalogue cannot be read."""
        catalogue = self._read(found)
        beside = [name for name in (catalogue.session, CSV) if inside(found.folder, name)]

        def url(file: str) -> str | None:
            if inside(found.folder, file) is None:
                return None  # a folder, which the server does not list
            return f"/catalogues/{found.id}/files/{self._access.file_id(found.id, file)}"

        return linked_page(catalogue, found.folder, beside, url=url)

    def catalogue_file(self, found: FoundCatalogue, file_id: str) -> Path:
        """Find a batch's file by its id. Raises `Refused` if none has this id."""
        catalogue = self._read(found)
        names = [catalogue.session, CSV]
        for song in catalogue.songs:
            names += [file.file for file in song.files] + [*song.sessions, song.stem_mp4 or ""]
        for name in filter(None, names):
            if self._access.file_id(found.id, name) == file_id:
                path = inside(found.folder, name)
                if path is not None:
                    return path
        raise Refused(404, "This file is missing; reload the page.")

    def _read(self, found: FoundCatalogue) -> Catalogue:
        """Read a catalogue. It is parsed again only if it has changed, because a player requests many parts."""
        path = found.folder / JSON
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._catalogues.get(path)
            if known is None or known[0] != look:
                known = self._catalogues[path] = look, Catalogue.from_json(path.read_bytes(), str(path))
            return known[1]
        except (OSError, JobFormatError) as error:
            raise Refused(404, f"Cannot read the catalogue {found.name}; run the batch again.") from error


def _kind(name: str, manifest: Manifest | None) -> str:
    """Classify a file as "stem", "output", "source", "session", "loop" or "other", as the page groups downloads."""
    if manifest is None:
        return "other"
    kinds: dict[str, str] = {entry.file: entry.kind for entry in manifest.stems}
    kinds |= dict.fromkeys(manifest.sessions or (), "session")
    kinds |= {entry.file: "loop" if entry.kind == "loop" else "other" for entry in manifest.others}
    return kinds.get(name, "other")


# ---- sending ---------------------------------------------------------------------------------------------------------


def inside(folder: Path, relative: str | os.PathLike[str]) -> Path | None:
    """Resolve a path, following links; None unless it is a regular file below `folder`."""
    try:
        real = (folder / relative).resolve(strict=True)
        return real if real.is_relative_to(folder.resolve()) and real.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def send_audio(path: Path, range_header: str | None, if_range: str | None) -> Response:
    """Send a player the part of a file that it requests, at most `PART_BYTES`. Raises `Refused` if it is missing."""
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
    """Send a whole file as a download, under its own name. Raises `Refused` if it is missing."""
    file = _opened(path)
    size = os.fstat(file.fileno()).st_size
    headers = _HARMLESS | {"content-length": str(size), "content-disposition": _attachment(path.name)}
    return StreamingResponse(_blocks(file, 0, size), 200, headers, "application/octet-stream")


def send_archive(name: str, files: Iterable[tuple[str, Path]]) -> Response:
    """Send a zip archive that is made on the fly, uncompressed because audio hardly compresses.

    Args:
        name: Name of the archive, without extension.
        files: Each file's name in the archive, and its path.
    """
    headers = _HARMLESS | {"content-disposition": _attachment(f"{name}.zip")}
    return StreamingResponse(_zipped(list(files)), 200, headers, "application/zip")


def _opened(path: Path) -> BinaryIO:
    """Open a regular file. Raises `Refused` if there is none."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise Refused(404, f"Cannot read {path.name} ({error.strerror}).") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise Refused(404, f"{path.name} is not a file.")


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Parse a Range header to (start, end) in bytes, end excluded; None if it is not a single valid range."""
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
                return  # the file was truncated; the client notices by Content-Length
            length -= len(block)
            yield block


class _Pipe:
    """Output of zipfile: not seekable; keeps only the data that was not taken yet."""

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
