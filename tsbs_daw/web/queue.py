"""The page's view of the queue as server-sent events, of the watch folders, and uploads.

An event's id is a hash of everything the page shows after it. A page that reconnects sends the last id it saw
(Last-Event-ID): if nothing has changed since, nothing is sent; otherwise everything, once. The server keeps no state
for it, so a page is correct again after any interruption, whichever side was restarted.

An upload is streamed to `inbox/<id>/source/<name>`, where a DAW also puts its audio; job.json turns the folder into a
request. The daemon decides whether the file can be separated, so a refusal also shows up in the queue, in the log and
in `tsbs-daw jobs show`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from pydantic import ValidationError

from tsbs_daw.contracts.job import Job, Source, State, new_job_id
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError, JobFormatError, first_problem
from tsbs_daw.core.filenames import safe_name, source_name
from tsbs_daw.core.files import disk_is_full
from tsbs_daw.core.locks import watching_process
from tsbs_daw.models.registry import list_models
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import preset_files
from tsbs_daw.queue.errands import notes
from tsbs_daw.queue.jobs import describe, unclaimed
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.spool import SOURCE, Spool, complete_request, living_daemon, read_progress
from tsbs_daw.queue.store import JobStore
from tsbs_daw.web.access import Refused
from tsbs_daw.web.songs import brief

log = logging.getLogger(__name__)

LIVE_JOBS = 300  # most waiting jobs that are sent; the page shows the number of others
FINISHED_JOBS = 100
_LOOK_EVERY_S = 0.5
_PING_EVERY = 30  # polls without a change until a comment is sent, to detect a dead connection
_FINISHED = tuple(state for state in State if state.finished)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Options:
    """Options of the page.

    Attributes:
        out: Output folder for the stems of files that are dropped onto the page.
        most_bytes: Largest file that can be dropped.
    """

    settings: Settings
    out: Path
    most_bytes: int = 4 << 30


class QueueReader:
    """Reads the queue in a thread of its own: an SQLite connection belongs to one thread, and may wait for a writer."""

    def __init__(self, settings: Settings):
        self.settings, self.spool = settings, Spool(settings.spool)
        self._thread = ThreadPoolExecutor(1, "queue")
        self._store: JobStore | None = None
        self._file: tuple[int, int] | None = None
        self._finished: tuple[int, list[dict[str, Any]]] = (-1, [])

    async def ask(self, question: Callable[[JobStore | None], Answer]) -> Answer:
        """Call `question` with the store, or with None while there is no store yet.

        Raises:
            DaemonError: The store cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    async def snapshot(self) -> dict[str, Any]:
        """Return everything that the page shows of the queue."""
        try:
            return await self.ask(self._snapshot)
        except (DaemonError, OSError) as error:
            log.warning("%s", error)
            return {"daemon": None, "trouble": str(error), "jobs": [], "counts": {}, "more": 0}

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Callable[[JobStore | None], Answer]) -> Answer:
        try:
            return question(self._opened())
        except sqlite3.Error as error:
            self._forget()
            raise DaemonError(
                f"Cannot read the job database ({error}); the daemon repairs it when it starts."
            ) from error

    def _opened(self) -> JobStore | None:
        """Return the store, reopened if its file was replaced."""
        try:
            status = Path(self.settings.store).stat()
            file = (status.st_dev, status.st_ino)
        except OSError:
            file = None
        if file != self._file or file is None:
            self._forget()
            self._store = JobStore.open_for_reading(self.settings.store)
            self._file = file if self._store is not None else None
        return self._store

    def _forget(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store, self._file, self._finished = None, None, (-1, [])

    def _snapshot(self, store: JobStore | None) -> dict[str, Any]:
        requests = [brief(job) for job in unclaimed(self.spool, LIVE_JOBS)]
        again = {job["id"] for job in requests}
        live = [self._live(row) for row in store.in_order(LIVE_JOBS)] if store else []
        finished = [job for job in self._latest_finished(store) if job["id"] not in again] if store else []
        counts = {state.value: count for state, count in store.counts().items()} if store else {}
        waiting = counts.get("queued", 0) + counts.get("running", 0)
        heartbeat = living_daemon(self.settings.spool)
        return {
            "daemon": {"pid": heartbeat.pid, "version": heartbeat.version} if heartbeat else None,
            "trouble": "",
            "jobs": live + requests[::-1] + finished,  # in the order in which they will run, then the latest first
            "counts": counts,
            "more": max(waiting - len(live), 0),
        }

    def _latest_finished(self, store: JobStore) -> list[dict[str, Any]]:
        """Return the latest finished jobs. They are read again only if the database has changed."""
        version = store.database.read("PRAGMA data_version")[0][0]
        if version != self._finished[0]:
            rows = store.rows(_FINISHED, FINISHED_JOBS)
            rows.sort(key=lambda row: row.finished_unix_s, reverse=True)
            afterwards = notes(store.database, [row.id for row in rows])
            self._finished = version, [brief(describe(row), afterwards.get(row.id, ())) for row in rows]
        return self._finished[1]

    def _live(self, row: JobRow) -> dict[str, Any]:
        found = brief(describe(row))
        found["cancelling"] = bool(row.cancel_requested) or (self.spool.folder(row.id) / "cancel").exists()
        if row.state is State.RUNNING:
            found["started"] = _changed_unix_s(self.spool.folder(row.id) / "fence")
            try:
                progress = read_progress(self.settings.spool, row.id)
            except (JobFormatError, OSError):
                progress = None
            if progress is not None and progress.attempt == row.attempts:
                found |= {"fraction": round(progress.fraction, 3), "message": progress.message}
        return found


async def stream(reader: QueueReader, last_id: str, stopped: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield server-sent events: "all" first, then "change" with the differences.

    Args:
        last_id: Id of the last event that the page saw; "" if there is none.
        stopped: Returns whether the server is shutting down.
    """
    sent: dict[str, Any] | None = None
    quiet = 0
    yield "retry: 1000\n\n"
    while not stopped():
        now = await reader.snapshot()
        event_id = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()[:16]
        if event_id != last_id:
            kind, data = ("all", now) if sent is None else ("change", difference(sent, now))
            yield f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            sent, last_id, quiet = now, event_id, 0
        elif quiet >= _PING_EVERY:
            yield ": still here\n\n"
            quiet = 0
        else:
            quiet += 1
        await asyncio.sleep(_LOOK_EVERY_S)


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return what turns `old` into `new`: the jobs that changed, and the order of all jobs if that changed."""
    known = {job["id"]: job for job in old["jobs"]}
    changed = [job for job in new["jobs"] if known.get(job["id"]) != job]
    order = [job["id"] for job in new["jobs"]]
    same = order == [job["id"] for job in old["jobs"]]
    return {**new, "jobs": changed, "order": None if same else order}


def _changed_unix_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


_FILES_SHOWN = 200  # per folder


def folders(settings: Settings, store: JobStore | None) -> list[dict[str, Any]]:
    """List every folder that was ever watched, with the states of its latest files."""
    if store is None:
        return []
    daemon = living_daemon(settings.spool)
    found = []
    for root in store.roots():
        files = store.files_of(root)
        rows = {row.id: row for row in store.of_ids(file.job_id for file in files.values() if file.job_id)}
        entries: list[dict[str, Any]] = [
            {
                "file": source_name(file.relative),
                "state": rows[file.job_id].state.value if file.job_id in rows else "ignored" if file.reason else "gone",
                "job": file.job_id if file.job_id in rows else None,
                "why": (rows[file.job_id].error if file.job_id in rows else file.reason) or "",
                "when": rows[file.job_id].created_unix_s if file.job_id in rows else 0,
                "out": _output(rows[file.job_id].job_json) if file.job_id in rows else "",
            }
            for file in files.values()
        ]
        entries.sort(key=lambda entry: entry["when"], reverse=True)
        counts: dict[str, int] = {}
        for entry in entries:
            counts[str(entry["state"])] = counts.get(str(entry["state"]), 0) + 1
        found.append(
            {
                "folder": source_name(root),
                "there": Path(root).is_dir(),
                "watched": daemon is not None and watching_process(Path(root)) == daemon.pid,
                "counts": counts,
                "out": next((entry["out"] for entry in entries if entry["out"]), ""),
                "files": [{k: v for k, v in entry.items() if k != "out"} for entry in entries[:_FILES_SHOWN]],
                "more": max(len(entries) - _FILES_SHOWN, 0),
            }
        )
    return found


def _output(job_json: str) -> str:
    return str(json.loads(job_json).get("output", "")) if job_json else ""


# ---- uploads ---------------------------------------------------------------------------------------------------------

MOST_AT_ONCE = 4
SPARE_BYTES = 512 << 20  # what an upload leaves free on the disk
_SILENT_S = 30.0  # an upload without data for this long is aborted
_LEFT_OVER_S = 86400.0
_PREFIX = "web-"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

_NO_ROOM = "The disk is too full for this file; free some space and drop it again."


class Uploads:
    """Receives files.

    Args:
        out: Output folder for their stems.
        most_bytes: Largest file that is accepted.
    """

    def __init__(self, settings: Settings, out: Path, most_bytes: int):
        self._settings, self._out, self._most_bytes = settings, out, most_bytes
        self._running = 0
        self._sweep()

    async def receive(self, name: str, preset: str, model: str, length: int | None, body: AsyncIterator[bytes]) -> Job:
        """Write a file into the spool and submit a job for it.

        Args:
            name: The file's name, as sent by the browser.
            preset: Name of the preset.
            model: Name of the model.
            length: Length in bytes, as stated by the browser.
            body: The file's contents.

        Raises:
            Refused: The preset or model is unknown, the file is too large, incomplete or too slow, too many files are
                being sent, or the disk is full.
        """
        # Only names of models and presets are accepted: a path would let the page read any file.
        if preset not in preset_files(self._settings.presets):
            raise Refused(400, "There is no such preset.")
        if model not in {entry.name for entry in list_models(self._settings)}:
            raise Refused(400, "There is no such model.")
        self._check_size(length or 0)
        if self._running >= MOST_AT_ONCE:
            raise Refused(503, f"{MOST_AT_ONCE} files are already being sent; wait until one of them has arrived.")
        self._running += 1
        folder = self._settings.spool / "inbox" / f"{_PREFIX}{new_job_id()}"
        try:
            return await self._receive(folder, name, preset, model, length, body)
        except BaseException as error:
            await anyio.to_thread.run_sync(shutil.rmtree, folder, True)
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise Refused(
                    507, _NO_ROOM if disk_is_full(error) else f"Cannot write the file ({error.strerror})."
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
        # The file's path once the daemon has claimed the folder.
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
                delivery=DeliveryOptions(source="copy"),  # for comparison, once the spool's file is gone
            )
        except ValidationError as error:
            raise Refused(400, f"Invalid request: {first_problem(error).clause}.") from error

    def _check_size(self, size_bytes: int) -> None:
        """Check a file's size, in bytes.

        Raises:
            Refused: The file exceeds the limit, or does not fit on the disk.
        """
        if size_bytes > self._most_bytes:
            raise Refused(
                413, f"This file is larger than {self._most_bytes / 1e9:.1f} GB; use `tsbs-daw submit` for it."
            )
        root = next(place for place in (self._settings.spool, *self._settings.spool.parents) if place.is_dir())
        if shutil.disk_usage(root).free < SPARE_BYTES + (size_bytes if not self._running else 0):
            raise Refused(507, _NO_ROOM)

    def _sweep(self) -> None:
        """Remove the incomplete uploads of a server that was killed."""
        for folder in (self._settings.spool / "inbox").glob(f"{_PREFIX}*"):
            try:
                old = time.time() - folder.stat().st_mtime > _LEFT_OVER_S
                if old and not (folder / "job.json").exists():
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:  # the daemon has just claimed the folder
                continue


def _split(name: str) -> tuple[str, str]:
    """Convert the name sent by the browser to a valid file name, split into stem and extension."""
    base = name.replace("\\", "/").rpartition("/")[2]
    dot = base.rfind(".")
    suffix = base[dot:] if dot > 0 and _SUFFIX.fullmatch(base[dot:]) else ""
    return safe_name(base.removesuffix(suffix)), suffix


async def _in_time(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the blocks of a body, and raise `Refused` if none arrives for `_SILENT_S`."""
    while True:
        try:
            block = await asyncio.wait_for(anext(body), _SILENT_S)
        except StopAsyncIteration:
            return
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise Refused(408, "The upload stalled; drop the file again.") from error
        yield block
