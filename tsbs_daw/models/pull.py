"""Pull a known model: download it, resuming if possible, check its hash, convert it, and record the hashes.

Until a download is complete, it is a partial file that the next attempt resumes:

    FILE.part        the bytes received so far
    FILE.part.json   their address, and the server's validator (ETag or date) for that version

A later attempt requests the rest with `Range` and sends the validator with `If-Range`, so that a file that changed on
the server is downloaded from the beginning and two versions are never mixed.
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
from tsbs_daw.core.files import disk_is_full, file_sha256, write_atomically, write_error
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

ByteCount = Callable[[int, "int | None"], None]  # called with bytes received, and total bytes or None

BLOCK_BYTES = 1 << 18
STALL_S = 30.0
TRIES_WITHOUT_PROGRESS = 4
LARGEST_BYTES = 4 << 30  # more than any checkpoint, so that an endless response cannot fill the disk


def pull(
    model: str | Description, settings: Settings, *, accept_licence: bool = False, progress: ByteCount | None = None
) -> Path:
    """Download and convert a known model; if it is already installed, only check it.

    If no hash is published, the hash of the download is recorded once it has been converted, and later pulls must
    produce the same file.

    Args:
        model: A name, a description, or the path of a YAML file with a description, which is copied into the folder of
            models.
        settings: The folder of models.
        accept_licence: Whether the user accepts the licence, for models that require it.
        progress: Called with the bytes received and the total; the total is None if the server does not state it.

    Raises:
        UnknownModel, SettingsError: There is no such model, or its description is invalid.
        UsageError: Its licence must be accepted first.
        ModelError: The package of its network is not installed.
        OutputError: The folder of models cannot be created.
        DownloadError, NoSpaceLeft: The download failed; the partial file is kept.
        CheckpointError: The file differs from the description, or is not a checkpoint of the network.
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
            f"The model {known.name} requires that you accept its licence: {known.licence} "
            f"Source: {known.licence_source}. To accept it, rerun the command with --accept-licence."
        )
    _make_folder(settings.models)
    _check_space(known, settings)
    downloaded = settings.models / f"{known.name}.ckpt"
    if not downloaded.is_file():
        download(known.url, downloaded, progress=progress)
    return _accept(known, downloaded, output, settings)


def _accept(known: Description, downloaded: Path, output: Path, settings: Settings) -> Path:
    """Check a download against its published or recorded hash, convert it, and only then record new hashes."""
    record = HashRecord(settings.models)
    sha256, expected = file_sha256(downloaded), known.sha256 or record.known(downloaded)
    if expected is not None and expected != sha256:
        downloaded.unlink()
        outcome = f"(SHA-256 {sha256[:12]}… instead of {expected[:12]}…), so it was deleted unread. "
        if known.sha256:
            raise CheckpointError(
                f"The file at {known.url} differs from its description {outcome}"
                f"Check the address and the `sha256:` of {known.name}."
            )
        raise CheckpointError(
            f"The file at {known.url} has changed since it was first pulled {outcome}"
            f"If the publisher announced a new version, remove its line from {record.path}."
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
    hint = f"did you mean {close[0]!r}?" if close else f"available: {', '.join(models)}."
    raise UnknownModel(f"There is no model {model!r} to pull; {hint}")


def _add(path: Path, settings: Settings) -> Description:
    """Copy a user's description into the folder of models. The name of its file becomes the name of the model."""
    known = read_description(path)
    if not is_name(known.name) or known.name in KNOWN:
        raise UsageError(f"{known.name!r} is taken or not a valid model name; rename {shown(path)}.")
    target = settings.models / f"{known.name}{DESCRIPTION_SUFFIX}"
    _make_folder(settings.models)
    try:
        write_atomically(target, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise write_error(target, error) from error
    return known


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot create {folder} ({error.strerror}). Set TSBS_DAW_HOME to another folder.") from error


def _check_space(known: Description, settings: Settings) -> None:
    """Check that there is space for the download and the converted file."""
    needed, free = 2 * known.size_bytes, shutil.disk_usage(settings.models).free
    if free < needed:
        raise NoSpaceLeft(
            f"Pulling {known.name} needs {needed / 1e6:,.0f} MB, but {settings.models} has {free / 1e6:,.0f} MB free; "
            "free some space and try again."
        )


@dataclass(frozen=True)
class Part:
    """The origin of FILE.part, from which the rest of the same version is requested.

    Attributes:
        url: Address of the file.
        mark: The validator: a strong ETag, or a Last-Modified date.
    """

    url: str
    mark: str


class _Cut(Exception):
    """The connection ended early; another attempt can resume."""


class _SameSecurityRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to an unencrypted connection."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is unencrypted; it was not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    destination: Path,
    *,
    progress: ByteCount | None = None,
    pause_s: float = 1.0,
    largest_bytes: int = LARGEST_BYTES,
) -> Path:
    """Download a file, resuming an earlier attempt.

    Args:
        url: Address, http or https.
        destination: The file to write.
        progress: Called with the bytes received, and the total or None.
        pause_s: Pause before the second attempt; it doubles with each further one.
        largest_bytes: Maximum size.

    Returns:
        `destination`, complete and durable.

    Raises:
        DownloadError: The network or the server failed, or the file is already being downloaded; the part is kept.
        NoSpaceLeft: The file does not fit; the part is kept.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is not a web address; use one that starts with https://.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{destination}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DownloadError(f"{destination.name} is already being downloaded; wait until that finishes.") from error
    with lock:
        _fetch_with_retries(url, destination, progress or (lambda done, total: None), pause_s, largest_bytes)
    return destination


def _fetch_with_retries(url: str, destination: Path, progress: ByteCount, pause_s: float, largest_bytes: int) -> None:
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
            log.warning("the download of %s was interrupted (%s); retrying", url, _reason(error))
            time.sleep(pause_s * 2 ** max(0, fruitless - 1))
    part.replace(destination)
    note.unlink(missing_ok=True)


def _raise_if_final(error: Exception, url: str, part: Path) -> None:
    """Raise an error that another attempt cannot fix.

    Raises:
        DownloadError, NoSpaceLeft
    """
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


def _fetch_rest(url: str, part: Path, note: Path, progress: ByteCount, largest_bytes: int) -> None:
    """Make one request that appends the rest to `part`, or restarts it.

    Raises:
        _Cut: The response was shorter than announced.
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
            if _total_of(error.headers) == have:  # complete, but not renamed yet
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
        raise _Cut(f"received {done:,} of {total:,} bytes")


def _start_of(answer: http.client.HTTPResponse, have: int, note: Path) -> int:
    """Return the offset of the first byte of the response: after the existing part, or 0."""
    if answer.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        note.unlink(missing_ok=True)  # a faulty server; the next attempt downloads the whole file
        raise _Cut("the server sent another range than requested")
    return have


def _length_of(headers: http.client.HTTPMessage) -> int | None:
    value = headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _total_of(headers: email.message.Message) -> int | None:
    """Return the size of the whole file from `Content-Range: bytes 5-9/10` or `bytes */10`."""
    match = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _check_size(url: str, part: Path, start: int, total: int | None, largest_bytes: int) -> None:
    if total is None:
        return
    if total > largest_bytes:
        raise DownloadError(f"{url} has {total:,} bytes, which is more than any model; check the address.")
    free = shutil.disk_usage(part.parent).free + (0 if start else _size(part))
    if total - start > free:
        raise NoSpaceLeft(
            f"{url} needs {total - start:,} more bytes, but {part.parent} has {free:,} free. Free some space."
        )


def _copy(
    answer: BinaryIO, file: BinaryIO, done: int, total: int | None, progress: ByteCount, largest_bytes: int
) -> int:
    """Copy the response to the file. The data received before an interruption is durable for the next attempt."""
    try:
        progress(done, total)
        while block := answer.read(BLOCK_BYTES):
            done += len(block)
            if done > largest_bytes:
                raise DownloadError("The server sends more than any model has; check the address.")
            file.write(block)
            progress(done, total)
    finally:
        file.flush()
        os.fsync(file.fileno())
    return done


def _read_note(note: Path) -> Part | None:
    """Return the origin of the part; None if it is missing or invalid, because restarting is always safe."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return Part(url=str(content["url"]), mark=str(content["mark"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("ignoring %s (%s); downloading from the beginning", note, error)
        return None


def _write_note(note: Path, url: str, headers: http.client.HTTPMessage) -> None:
    """Store the server's validator. Without a strong one, the download cannot be resumed safely, so store nothing."""
    tag = headers.get("ETag", "")
    mark = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    if mark:
        note.write_text(json.dumps(asdict(Part(url, mark)), indent=2), encoding="utf-8")
    else:
        note.unlink(missing_ok=True)
