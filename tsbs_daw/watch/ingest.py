"""Takes in what arrives: requests from the inbox, files from the watch folders."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.events import Event, Register
from tsbs_daw.queue.records import Arrival, SeenFile
from tsbs_daw.queue.spool import read_arrival
from tsbs_daw.watch.watcher import Watcher

log = logging.getLogger(__name__)

_AT_ONCE = 200  # so that a burst does not keep a tick from its other duties


class Reception:
    """What has been taken and is not in the store yet is kept here: when the store cannot write, it comes again."""

    def __init__(self, register: Register):
        self._register, self._store, self._spool = register, register.store, register.spool
        self._arrived: list[Arrival] = []
        self._ignored: list[SeenFile] = []
        self._complained: set[Path] = set()

    @property
    def empty(self) -> bool:
        """Whether everything that was there is in the store."""
        return not self._arrived and not self._ignored and not self._spool.waiting()

    def tick(self, watchers: Sequence[Watcher] = ()) -> None:
        """Raises: NoSpaceLeft: the store cannot take it; nothing is lost"""
        if not self._arrived:
            self._claim_requests()
        for watcher in watchers:
            self._hear(watcher)
        self._enqueue()
        self._note_ignored()

    def restore(self, folder: Path) -> None:
        """Queue a job whose folder lies in jobs/, unknown to the store."""
        try:
            self._arrived.append(read_arrival(folder, self._spool.read_request(folder)))
        except JobFormatError as error:
            self._refuse(folder, str(error))

    def _claim_requests(self) -> None:
        for folder in self._spool.waiting()[:_AT_ONCE]:
            try:
                arrival = read_arrival(folder, self._spool.read_request(folder))
            except JobFormatError as error:
                self._refuse(folder, str(error))
                continue
            try:
                self._spool.claim(folder)
            except OSError as error:
                if self._spool.folder(folder.name).exists():
                    sentence = f"A job with the id {folder.name} is under way; give this one an id of its own."
                    self._refuse(folder, sentence)
                else:
                    self._complain(folder, error)
                continue
            self._arrived.append(arrival)

    def _hear(self, watcher: Watcher) -> None:
        for item in watcher.news():
            if isinstance(item, Arrival):
                self._arrived.append(item)
            elif isinstance(item, SeenFile):
                self._ignored.append(item)
            else:
                self._register.publish(item)

    def _enqueue(self) -> None:
        if not self._arrived:
            return
        outcome = self._store.enqueue(self._arrived)
        arrived, self._arrived = self._arrived, []
        for job_id in outcome.unchanged:
            self._spool.discard(job_id)
        for job_id in outcome.superseded:
            row = self._store.get(job_id)
            if row is not None and row.state is State.QUEUED:
                error = "The file changed, and its newer version is separated instead."
                self._register.finish(row, State.SUPERSEDED, error=error)
        for arrival in arrived:
            self._spool.forget_again(arrival.job.id)
            row = self._store.get(arrival.job.id)
            if row is not None:
                log.info("job %s queued: %s", row.id, row.source_key)
                self._register.tell("queued", row)

    def _note_ignored(self) -> None:
        if not self._ignored:
            return
        self._store.remember_files(self._ignored)
        for file in self._ignored:
            path = source_name(Path(file.root, file.relative))
            log.info("%s is ignored: %s", path, file.reason)
            self._register.publish(Event("ignored", song=file.relative, file=path, message=file.reason or ""))
        self._ignored = []

    def _refuse(self, folder: Path, sentence: str) -> None:
        """A request that cannot be a job ends at once, with a result like any other."""
        job_id = re.sub(r"[^A-Za-z0-9_-]", "-", folder.name).lstrip("-_")[:64] or "unnamed"
        result = Result(id=job_id, state=State.FAILED, error=sentence, finished_unix_s=time.time())
        try:
            self._spool.refuse(folder, result)
        except OSError as error:
            self._complain(folder, error)
            return
        self._store.record_finished(None, result)
        self._register.announce(result)

    def _complain(self, folder: Path, error: OSError) -> None:
        """The disk is full, or someone holds a file open: the next tick tries again."""
        if folder not in self._complained:
            self._complained.add(folder)
            log.error("%s cannot be taken in yet: %s", folder, error)
