"""Enqueues new jobs: requests from the inbox, files from the watch folders.

Each is handled on its own: whatever cannot be a job is refused with a result, if possible before it is claimed.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.errors import JobFormatError, described, printable, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import may_pass
from tsbs_daw.queue.jobs import Event, JobLifecycle
from tsbs_daw.queue.records import Enqueued, NewJob, SeenFile, read_new_job
from tsbs_daw.watch.watcher import Watcher

log = logging.getLogger(__name__)

_REQUESTS_PER_TICK = 200  # so that a burst does not keep a tick from its other duties


class Ingest:
    """Holds what was claimed but is not in the store yet, so that it is retried when the store cannot write."""

    def __init__(self, lifecycle: JobLifecycle):
        self._lifecycle, self._store, self._spool = lifecycle, lifecycle.store, lifecycle.spool
        self._new_jobs: list[NewJob] = []
        self._ignored: list[SeenFile] = []
        self._stuck: set[Path] = set()

    @property
    def empty(self) -> bool:
        """Whether everything that was there, and can be moved, is in the store."""
        return not self._new_jobs and not self._ignored and not self._waiting()

    def _waiting(self) -> list[Path]:
        return [folder for folder in self._spool.waiting() if folder not in self._stuck]

    def tick(self, watchers: Sequence[Watcher] = ()) -> None:
        """Raises: NoSpaceLeft: the store cannot take it; nothing is lost"""
        if not self._new_jobs:
            self._claim_requests()
        for watcher in watchers:
            self._drain(watcher)
        self._enqueue()
        self._note_ignored()

    def restore(self, folder: Path) -> None:
        """Queue a job whose folder lies in jobs/, unknown to the store."""
        try:
            self._new_jobs.append(read_new_job(folder, self._spool.read_request(folder)))
        except JobFormatError as error:
            self._refuse(folder, str(error))

    def _claim_requests(self) -> None:
        for entry in self._spool.strays():
            if entry not in self._stuck:
                self._refuse(entry, f"{shown(entry)} is not a folder; make one, with the request as its job.json.")
        for folder in self._waiting()[:_REQUESTS_PER_TICK]:
            try:
                new_job = read_new_job(folder, self._spool.read_request(folder))
            except JobFormatError as error:
                self._refuse(folder, str(error))
                continue
            try:
                self._spool.claim(folder)
            except OSError as error:
                self._cannot_claim(folder, error)
            else:
                self._new_jobs.append(new_job)

    def _cannot_claim(self, folder: Path, error: OSError) -> None:
        if not os.path.lexists(folder):  # whoever asked has taken it back
            return
        if os.path.lexists(self._spool.folder(folder.name)):
            self._refuse(folder, f"A job with the id {folder.name} already exists. Give this one another id.")
        elif may_pass(error):
            self._give_up_for_now(folder, error)
        else:
            self._refuse(folder, f"{shown(folder)} cannot be claimed ({error.strerror}). Remove it.")

    def _drain(self, watcher: Watcher) -> None:
        for item in watcher.news():
            if isinstance(item, NewJob):
                self._new_jobs.append(item)
            elif isinstance(item, SeenFile):
                self._ignored.append(item)
            else:
                self._lifecycle.publish(item)

    def _enqueue(self) -> None:
        """Enqueue all in one transaction; if it fails, one by one, so that only the culprit is refused."""
        if not self._new_jobs:
            return
        try:
            outcome = self._store.enqueue(self._new_jobs)
        except Exception as error:
            if self._lifecycle.affects_all_jobs(error):
                raise
            self._enqueue_singly()
            return
        new_jobs, self._new_jobs = self._new_jobs, []
        self._note_enqueued(new_jobs, outcome)

    def _enqueue_singly(self) -> None:
        while self._new_jobs:
            new_job = self._new_jobs[0]
            try:
                outcome = self._store.enqueue([new_job])
            except Exception as error:
                if self._lifecycle.affects_all_jobs(error):
                    raise
                log.exception("job %s cannot be queued", new_job.job.id)
                why = f"The job {new_job.job.id} cannot be queued ({described(error)}); write it again."
                self._refuse(self._spool.folder(new_job.job.id), why)
                self._new_jobs.pop(0)
                continue
            self._new_jobs.pop(0)
            self._note_enqueued([new_job], outcome)

    def _note_enqueued(self, new_jobs: list[NewJob], outcome: Enqueued) -> None:
        for job_id in outcome.unchanged:
            self._spool.discard(job_id)
        for job_id in outcome.superseded:
            with self._lifecycle.confine(job_id):
                row = self._store.get(job_id)
                if row is not None and row.state is State.QUEUED:
                    error = "The file changed; its newer version is separated instead."
                    self._lifecycle.finish(row, State.SUPERSEDED, error=error)
        for new_job in new_jobs:
            with self._lifecycle.confine(new_job.job.id):
                self._spool.forget_again(new_job.job.id)
                row = self._store.get(new_job.job.id)
                if row is not None:
                    log.info("job %s queued: %s", row.id, row.source_key)
                    self._lifecycle.emit("queued", row)

    def _note_ignored(self) -> None:
        if not self._ignored:
            return
        self._store.remember_files(self._ignored)
        for file in self._ignored:
            path = source_name(Path(file.root, file.relative))
            log.info("%s is ignored: %s", path, file.reason)
            self._lifecycle.publish(Event("ignored", song=file.relative, file=path, message=file.reason or ""))
        self._ignored = []

    def _refuse(self, entry: Path, sentence: str) -> None:
        """End at once what cannot be a job, with a result like any other."""
        job_id = re.sub(r"[^A-Za-z0-9_-]", "-", entry.name).lstrip("-_")[:64] or "unnamed"
        result = Result(id=job_id, state=State.FAILED, error=sentence, finished_unix_s=time.time())
        try:
            self._spool.refuse(entry, result)
        except OSError as error:
            self._give_up_for_now(entry, error)
            return
        self._store.record_finished(None, result)
        self._lifecycle.announce(result)

    def _give_up_for_now(self, entry: Path, error: OSError) -> None:
        """Skip what can be neither claimed nor refused. If the whole spool fails, the next tick retries."""
        if not self._spool.usable:
            raise error
        self._stuck.add(entry)
        log.error("%s cannot be claimed: %s", entry, error)
        sentence = f"{shown(entry)} cannot be claimed ({error.strerror}). Check its permissions, then start again."
        self._lifecycle.publish(Event("ignored", song=printable(entry.name), message=sentence))
