"""Pull a known model: a resumable download, held to its hash, converted, and recorded.

A file arrives completely, or stays a partial file that the next try resumes:

    FILE.part        the bytes so far
    FILE.part.json   their address, and the server's validator (ETag or date) of that version

A later try requests the rest with `Range` and sends the validator with `If-Range`, so that a file that changed on the
server is downloaded from the beginning and two versions are never mixed.
"""

from __future__ import annotations

import difflib
import email.message
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import (
    CheckpointError,
    DownloadError,
    NoSpaceLeft,
    OutputError,
    UnknownModel,
    UsageError,
    shown,
)
from tsbs_daw.core.files import disk_is_full, file_sha256, write_atomically
from tsbs_daw.models.convert import convert
from tsbs_daw.models.kinds import KINDS
from tsbs_daw.models.registry import (
    DESCRIPTION_SUFFIX,
    KNOWN,
    Description,
    HashRecord,
    bundled_model,
    is_name,
    known_models,
    model_path,
    read_description,
)

log = logging.getLogger(__name__)

ProgressCallback = Callable[[int, "int | None"], None]  # bytes so far, bytes in all or None

BLOCK_BYTES = 1 << 18
STALL_S = 30.0
TRIES_WITHOUT_PROGRESS = 4
LARGEST_BYTES = 4 << 30  # more than any checkpoint; an endless response must not fill the disk


def pull(
    model: str | Description,
    settings: Settings,
    *,
    accept_licence: bool = False,
    progress: ProgressCallback | None = None,
) -> Path:
    """Download and convert a known model; what is already here is only checked.

    Where no hash is published, the download's is recorded once it proved to be a checkpoint, and a later pull must give
    the same.

    Args:
        model: A name, a description, or the path of a YAML file with one, which is kept among the models.
        accept_licence: The user accepts the licence of a model that asks for it.
        progress: Called with the bytes so far and in all (None: the server does not say).

    Raises:
        UnknownModel, SettingsError: No such model, or its description cannot be used.
        UsageError: Its licence must be accepted first.
        ModelError: The package of its network is not installed.
        DownloadError, NoSpaceLeft: What came so far is kept.
        CheckpointError: Another file than described, or not a checkpoint of the network.
    """
    known = _known(model, settings)
    if known.url is None:
        return bundled_model()
    output = model_path(known.name, settings)
    if output.is_file():
        HashRecord(settings.models).check(output)
        return output
    KINDS[known.network].require()
    if known.accept_licence and not accept_licence:
        raise UsageError(
            f"The licence of {known.name} must be accepted: {known.licence} Source: {known.licence_source}. "
            "Rerun the command with --accept-licence if you do."
        )
    try:
        settings.models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{settings.models} cannot be made ({error.strerror}); set TSBS_DAW_HOME elsewhere."
        ) from error
    _check_space(known, settings)
    downloaded = settings.models / f"{known.name}.ckpt"
    if not downloaded.is_file():
        download(known.url, downloaded, progress=progress)
    return _accept(known, downloaded, output, settings)


def _accept(known: Description, downloaded: Path, output: Path, settings: Settings) -> Path:
    """Hold the download to its published or recorded hash, convert it, and only then record what is new."""
    record = HashRecord(settings.models)
    sha256, expected = file_sha256(downloaded), known.sha256 or record.known(downloaded)
    if expected is not None and expected != sha256:
        downloaded.unlink()
        found = f"(SHA-256 {sha256[:12]}… instead of {expected[:12]}…), so it was deleted unread; "
        if known.sha256:
            raise CheckpointError(
                f"{known.url} gave another file than described {found}"
                f"check the address and the `sha256:` of {known.name}."
            )
        raise CheckpointError(
            f"{known.url} has changed since it was first pulled {found}"
            f"if the publisher announced a new one, remove its line from {record.path}."
        )
    try:
        metadata = {"name": known.name, "source": str(known.url), "source_sha256": sha256, "licence": known.licence}
        convert(downloaded, output, network=known.network, values=known.values(), overwrite=True, metadata=metadata)
    except CheckpointError:
        downloaded.unlink(missing_ok=True)  # a later pull must download it again
        raise
    record.record(downloaded, sha256)
    record.record(output, file_sha256(output))
    downloaded.unlink()
    return output


def _known(model: str | Description, settings: Settings) -> Description:
    if isinstance(model, Description):
        return model
    models = known_models(settings)
    if model in models:
        return models[model]
    if model.lower().endswith(DESCRIPTION_SUFFIX):
        return _add(Path(model), settings)
    close = difflib.get_close_matches(model, list(models), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"these can be: {', '.join(models)}."
    raise UnknownModel(f"There is no model {model!r} to pull; {hint}")


def _add(path: Path, settings: Settings) -> Description:
    """Keep a user's description among the models, under the name of its file."""
    known = read_description(path)
    if not is_name(known.name) or known.name in KNOWN:
        raise UsageError(f"{known.name!r} cannot be the name of another model; rename {shown(path)}.")
    settings.models.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.models / f"{known.name}{DESCRIPTION_SUFFIX}", path.read_text(encoding="utf-8"))
    return known


def _check_space(known: Description, settings: Settings) -> None:
    """Check that there is space for the download and the converted file."""
    needed, free = 2 * known.size_bytes, shutil.disk_usage(settings.models).free
    if free < needed:
        raise NoSpaceLeft(
            f"The model {known.name} needs {needed / 1e6:,.0f} MB while it is converted and {settings.models} has "
            f"{free / 1e6:,.0f} MB free; free some space and try again."
        )


@dataclass(frozen=True)
class Part:
    """The origin of FILE.part: enough to request the rest of the same version."""

    url: str
    mark: str  # a strong ETag, or a Last-Modified date


class _Cut(Exception):
    """The connection ended early; another try may resume."""


class _SameSecurityRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to an unprotected connection."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url} redirects to the unprotected address {newurl}; refusing to follow it.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    destination: Path,
    *,
    progress: ProgressCallback | None = None,
    pause_s: float = 1.0,
    largest_bytes: int = LARGEST_BYTES,
) -> Path:
    """Download a file, resuming an earlier try.

    Args:
        url: http or https
        destination: the file to write
        progress: called with the bytes so far, and in all if the server states it
        pause_s: wait before the second try; doubles with each further one
        largest_bytes: limit of the size

    Returns:
        `destination`, complete and durable

    Raises:
        DownloadError: the network or the server failed, or the file is already being downloaded; the part is kept
        NoSpaceLeft: the file does not fit; the part is kept
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is not a web address; give one that starts with https://.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{destination}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DownloadError(f"{destination.name} is already being downloaded; wait until that is done.") from error
    with lock:
        _fetch_with_retries(url, destination, progress or (lambda done, total: None), pause_s, largest_bytes)
    return destination


def _fetch_with_retries(
    url: str, destination: Path, progress: ProgressCallback, pause_s: float, largest_bytes: int
) -> None:
    part = destination.with_name(destination.name + ".part")
    note = destination.with_name(destination.name + ".part.json")
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, note, progress, largest_bytes)
            break
        except (_Cut, OSError, http.client.HTTPException) as error:
            _raise_if_final(error, url, part)
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= TRIES_WITHOUT_PROGRESS:
                raise DownloadError(
                    f"Cannot download {url} ({_reason(error)}). Rerun the command to resume after "
                    f"{_size(part):,} bytes."
                ) from error
            log.warning("download of %s was interrupted (%s), retrying", url, _reason(error))
            time.sleep(pause_s * 2 ** max(0, fruitless - 1))
    part.replace(destination)
    note.unlink(missing_ok=True)


def _raise_if_final(error: Exception, url: str, part: Path) -> None:
    """Raise if another try cannot help."""
    if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 416, 429):
        raise DownloadError(f"Cannot download {url}: {error.code} {error.reason}. The file may have moved.") from error
    if disk_is_full(error):
        raise NoSpaceLeft(f"Cannot write {part}: the disk is full. Free some space and try again.") from error
    if isinstance(error, PermissionError):
        raise DownloadError(f"Cannot write {part} ({error.strerror}). Check the permissions of the folder.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(url: str, part: Path, note: Path, progress: ProgressCallback, largest_bytes: int) -> None:
    """Make one request: append the rest to `part`, or restart it.

    Raises:
        _Cut: the response was shorter than promised
    """
    known = _read_note(note)
    have = _size(part) if known is not None and known.url == url else 0
    headers = {"User-Agent": "tsbs-daw", "Accept-Encoding": "identity"}
    if known is not None and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.mark}
    opener = urllib.request.build_opener(_SameSecurityRedirects)
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=STALL_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if _total_of(error.headers) == have:  # complete; only the rename was missing
                return
            note.unlink(missing_ok=True)  # the part is longer than the file: restart
        raise
    with answer:
        start = _start_of(answer, have, note)
        total = _total_of(answer.headers) if start else _length_of(answer.headers)
        _check_size(url, part, start, total, largest_bytes)
        _write_note(note, url, answer.headers)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = _copy(answer, file, start, total, progress, largest_bytes)
    if total is not None and done != total:
        raise _Cut(f"{done:,} of {total:,} bytes came")


def _start_of(answer: http.client.HTTPResponse, have: int, note: Path) -> int:
    """The offset of the first byte of the response: after the existing part, or 0."""
    if answer.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        note.unlink(missing_ok=True)  # a faulty server: the next try downloads the whole file
        raise _Cut("the server sent a different range than requested")
    return have


def _length_of(headers: http.client.HTTPMessage) -> int | None:
    value = headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _total_of(headers: email.message.Message) -> int | None:
    """The whole file's size, from `Content-Range: bytes 5-9/10` or `bytes */10`."""
    match = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _check_size(url: str, part: Path, start: int, total: int | None, largest_bytes: int) -> None:
    if total is None:
        return
    if total > largest_bytes:
        raise DownloadError(f"{url} has {total:,} bytes, more than any model; check the address.")
    free = shutil.disk_usage(part.parent).free + (0 if start else _size(part))
    if total - start > free:
        raise NoSpaceLeft(
            f"{url} needs {total - start:,} more bytes, but {part.parent} has {free:,} free. Free some space."
        )


def _copy(
    answer: BinaryIO, file: BinaryIO, done: int, total: int | None, progress: ProgressCallback, largest_bytes: int
) -> int:
    """Copy the response to the file; what arrived before an interruption is durable for the next try."""
    try:
        progress(done, total)
        while block := answer.read(BLOCK_BYTES):
            done += len(block)
            if done > largest_bytes:
                raise DownloadError("The server sends more than any model needs; check the address.")
            file.write(block)
            progress(done, total)
    finally:
        file.flush()
        os.fsync(file.fileno())
    return done


def _read_note(note: Path) -> Part | None:
    """The origin of the part; None if it is missing or invalid: restarting the download is always correct."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return Part(url=str(found["url"]), mark=str(found["mark"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("ignoring %s (%s), downloading from the beginning", note, error)
        return None


def _write_note(note: Path, url: str, headers: http.client.HTTPMessage) -> None:
    """Store the server's validator. Without a strong one the download cannot be resumed safely, so nothing is kept."""
    tag = headers.get("ETag", "")
    mark = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    if mark:
        note.write_text(json.dumps(asdict(Part(url, mark)), indent=2), encoding="utf-8")
    else:
        note.unlink(missing_ok=True)
