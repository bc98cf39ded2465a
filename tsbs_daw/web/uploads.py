"""A file that was dropped onto the page: streamed into the spool, then a job like any other.

It is written where a bridge puts audio of its own, `inbox/<id>/source/<name>`; the folder becomes a request with its
job.json. Whether the file can be separated is for the daemon to say, so that a refusal stands in the queue, in the log
and in `tsbs-daw jobs show` as well.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
from pydantic import ValidationError

from tsbs_daw.contracts.job import Job, Source, new_job_id
from tsbs_daw.core.config import Settings
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import disk_is_full
from tsbs_daw.models.registry import list_models
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import preset_files
from tsbs_daw.queue.spool import SOURCE, complete_request
from tsbs_daw.web.guard import Refused

log = logging.getLogger(__name__)

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
            raise Refused(400, f"This cannot be asked for: {error.errors()[0]['msg']}.") from error

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
