"""Watcher of a folder: finds songs that are completely written, and copies them into the spool.

    event or time  -> scan the whole folder; new and changed files become pending
    pending        -> sample them; a file that stays unchanged for long enough is stable
    stable         -> complete according to its header -> copied and hashed -> a job

If the spool fails, no song is given up: the watcher pauses, reports it, and retries with increasing delays. A song that
cannot be read is ignored with the reason, and retried from time to time and at each start.

Events only trigger scans. Each watch folder has a thread of its own, so that a hanging share does not block the others.
`step(now)` does all the work and can be called without the thread.

`make_watchers` builds the watchers of a daemon.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tsbs_daw.audio.probe import seems_unfinished
from tsbs_daw.contracts.job import ContentHashes
from tsbs_daw.core.config import DaemonOptions, Settings, WatchTimings, back_off
from tsbs_daw.core.errors import JobFormatError, described, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import disk_is_full
from tsbs_daw.queue.jobs import Event
from tsbs_daw.queue.records import NewJob, SeenFile
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.ingest import Budget, Destination, Moved, SourceUnreadable, copy_to_spool, destination_of
from tsbs_daw.watch.rules import LEFT_OUT
from tsbs_daw.watch.scan import FileStabilityTracker, Found, Notifications, Scanner, excluded_places, sends_no_events

log = logging.getLogger(__name__)


_HOT_S = 3.0  # keep scanning for this long after an event: a new folder's event may arrive without those of its files
_IDLE_PAUSE = 200  # pause before the next scan without an event, as a multiple of a scan's CPU time
_COPY_AT_MOST_S = 1.0  # copy for this long before the next scan
_OFFLINE_EVERY_S = 2.0
_TRIES = 6  # attempts to read a file, or with `once` to write to the spool, before giving up
_UNREADABLE = "It cannot be read"  # start of the reason for an unreadable file; stored in the database
_READ_AGAIN_S = (60.0, 3600.0)  # first and longest pause before a file that was given up is retried
_SPOOL_AGAIN_S = (2.0, 60.0)  # first and longest pause after the spool failed


@dataclass(frozen=True)
class WatchContext:
    """What a watcher needs besides its folder.

    Attributes:
        destination: Maps a song's path below the folder to its destination.
        budget: Limit for the copies in the spool.
        timings: Intervals of scans and samples.
        events: Whether to wait for events and scan rarely; if not, scan often.
        patience_s: None to watch forever; otherwise files that still grow after this time are skipped.
    """

    destination: Callable[[str], Destination]
    budget: Budget
    timings: WatchTimings
    events: bool = True
    patience_s: float | None = None


class Watcher:
    """Watches one folder. `seen` has the records of files from earlier runs, by relative path."""

    def __init__(self, folder: WatchFolder, scanner: Scanner, seen: dict[str, SeenFile], context: WatchContext):
        self.folder, self._scanner, self._context = folder, scanner, context
        self._seen = {relative: file for relative, file in seen.items() if not _is_unreadable(file)}
        # Accepted settings, by rule. Editing a preset while the watcher runs affects only new songs.
        self._accepted: dict[str, set[str]] = {}
        for place in ("", *(rule.path for rule in folder.subfolders)):
            self._accepted[place] = {context.destination(f"{place}/song".lstrip("/")).settings_hash}
        self._tracker = FileStabilityTracker(context.timings.samples, context.timings.span_s)
        self._pending: dict[str, Found] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        self._spool_failures, self._no_copy_before = 0, float("-inf")
        self._skipped: set[str] = set()
        self._unlisted: set[str] = set()
        self._waited_for: set[str] = set()
        self._news: queue.SimpleQueue[NewJob | SeenFile | Event] = queue.SimpleQueue()
        self._notifications = Notifications(folder.path, recursive=folder.recursive, changed=self._on_event)
        self._dirty, self._stopping, self._wake = False, False, threading.Event()
        self._thread: threading.Thread | None = None
        self._root: tuple[int, int] | None = None
        self._started: float | None = None
        self._next_scan = self._next_sample = self._hot_until = self._no_scan_before = float("-inf")
        self.looked = False
        self.failure: Exception | None = None

    # Called by the daemon's thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"watch-{self.folder.path.name}", daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def stop(self) -> None:
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(2.0)
        self._notifications.stop()

    def news(self) -> list[NewJob | SeenFile | Event]:
        """Return jobs, ignored files and events since the last call."""
        return [self._news.get() for _ in range(self._news.qsize())]

    @property
    def pending(self) -> int:
        """Number of files that are not completely written or not copied yet."""
        return len(self._pending)

    @property
    def settled(self) -> bool:
        """Whether all files have been handled, and the results fetched with `news`."""
        return self.looked and not self._pending and not self._dirty and self._news.empty()

    @property
    def incomplete(self) -> bool:
        """Whether songs may be missing: unreadable or still growing files, unlisted folders, or an offline root."""
        missing = self._root is None or bool(self._skipped or self._unlisted)
        return missing or any(_is_unreadable(file) for file in self._seen.values())

    # Called by the watcher's own thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                pause_s = self.step(time.monotonic())
                failures = 0
            except Exception as error:  # must not stop the other folders and the queue
                failures += 1
                log.exception("watching %s failed", self.folder.path)
                pause_s = back_off(failures, *_SPOOL_AGAIN_S)
                if failures == 1:
                    what = f"Watching {shown(self.folder.path)} failed ({described(error)}); retrying."
                    self._news.put(Event("offline", message=what))
                if failures >= _TRIES and self._context.patience_s is not None:
                    self.failure = error  # with `once`, the daemon raises it
                    return
            self._wake.wait(pause_s)
            self._wake.clear()

    def _on_event(self) -> None:
        self._dirty = True
        self._wake.set()

    def step(self, now: float) -> float:
        """Do what is due, and return the time in seconds until the next step, unless an event comes first."""
        self._started = now if self._started is None else self._started
        if not self._is_online():
            return _OFFLINE_EVERY_S
        if self._dirty:
            self._hot_until = now + _HOT_S
        if now >= self._no_scan_before and (self._dirty or now >= self._next_scan):
            self._dirty = False
            self._scan(now)
        if self._pending and now >= self._next_sample:
            self._next_sample = now + self._context.timings.sample_every_s
            self._sample(now)
        due = self._no_scan_before if self._dirty else max(self._next_scan, self._no_scan_before)
        return max(min(due, self._next_sample) - now if self._pending else due - now, 0.01)

    def _is_online(self) -> bool:
        """Whether the root exists. While it is offline, the records of its files are kept unchanged."""
        try:
            status = self.folder.path.stat()
            root = (status.st_dev, status.st_ino)
        except OSError as error:
            if self._root is not None or not self.looked:
                log.warning("%s is offline (%s); waiting for it", self.folder.path, error.strerror)
                self._news.put(Event("offline", message=f"{self.folder.path} is missing; waiting for it."))
            self._root, self.looked = None, True
            return False
        if root != self._root:
            if self._root is None and self.looked:
                log.info("%s is online again", self.folder.path)
                self._news.put(Event("online", message=f"{self.folder.path} is available again."))
            self._root, self.looked, self._next_scan = root, False, float("-inf")
            if self._context.events:
                self._notifications.start()
        return True

    def _scan(self, now: float) -> None:
        began, cpu_before_s = time.monotonic(), time.thread_time()
        try:
            files = sorted(self._scanner.scan(), key=lambda file: file.relative)
        except OSError as error:
            log.warning("cannot scan %s: %s", self.folder.path, error)
            self._no_scan_before = now + _OFFLINE_EVERY_S
            return
        for file in files:
            self._consider(file, now)
        self._report_unlisted()
        for relative in self._pending.keys() - {file.relative for file in files}:
            self._drop(relative)
        took_s, cpu_s = time.monotonic() - began, time.thread_time() - cpu_before_s
        self._no_scan_before = now + max(self._context.timings.look_every_s, 10 * took_s)
        rescan_s = max(self._context.timings.rescan_s, _IDLE_PAUSE * cpu_s)
        self._next_scan = self._no_scan_before if now < self._hot_until else now + rescan_s
        self.looked = True

    def _consider(self, found: Found, now: float) -> None:
        known = self._seen.get(found.relative)
        if known is not None and known.state != found.state and _is_unreadable(known):  # permissions may have changed
            del self._seen[found.relative]
            self._failures.pop(found.relative, None)
            known = None
        if found.reason is not None:
            if known is None or known.reason != found.reason:
                self._ignore(found, found.reason)
        elif known is not None and known.state == found.state and self._is_handled(known, now):
            pass
        elif found.relative not in self._skipped:
            self._pending[found.relative] = found
            self._tracker.observe(found.relative, found.state, now)

    def _is_handled(self, known: SeenFile, now: float) -> bool:
        if _is_unreadable(known):
            return now < self._failures.get(known.relative, (0, now))[1]
        if known.reason is not None:
            return not known.reason.startswith(LEFT_OUT)  # the patterns may have changed
        return known.settings_hash in self._accepted[self.folder.rule_for(known.relative).path]

    def _report_unlisted(self) -> None:
        """Report folders that cannot be listed, because they may contain songs."""
        for relative in self._scanner.unlisted.keys() - self._unlisted:
            what = f"Cannot list the folder ({self._scanner.unlisted[relative]}). Check its permissions."
            self._news.put(Event("ignored", song=relative, file=source_name(self.folder.path / relative), message=what))
        self._unlisted = set(self._scanner.unlisted)

    def _sample(self, now: float) -> None:
        began = time.monotonic()
        for relative in list(self._pending):
            if self._stopping or now < self._no_copy_before:
                return
            if self._failures.get(relative, (0, now))[1] > now:
                continue
            found = self._scanner.rescan_file(relative)
            if found is None or found.reason is not None:  # the next scan decides
                self._drop(relative)
                continue
            self._pending[relative] = found
            stable = self._tracker.observe(relative, found.state, now)
            if stable and self._is_complete(found, now):
                self._take(found, now)
                if time.monotonic() - began > _COPY_AT_MOST_S:
                    self._next_sample = now  # scan in between, then continue at once
                    return
            elif not stable and self._is_out_of_patience(relative, now):
                self._give_up_for_now(relative, "it is still being written")

    def _is_complete(self, found: Found, now: float) -> bool:
        """Whether a file is complete according to its header, or has been unchanged for so long that it must be."""
        patience_s = self._context.patience_s
        wait_s = self._context.timings.incomplete_s if patience_s is None else patience_s
        if self._tracker.still_for_s(found.relative, now) >= wait_s:
            return True
        try:
            unfinished = seems_unfinished(self.folder.path / found.relative)
        except OSError:
            return True  # copying it reports the error
        except Exception:  # an unexpected header: the job reports what is wrong with it
            log.exception("cannot examine the header of %s", self.folder.path / found.relative)
            return True
        if unfinished and found.relative not in self._waited_for:
            self._waited_for.add(found.relative)
            path = source_name(self.folder.path / found.relative)
            self._news.put(Event("waiting", song=found.relative, file=path, message="Waiting for the complete file."))
        return not unfinished

    def _is_out_of_patience(self, relative: str, now: float) -> bool:
        """Whether a file has just changed, although the time to wait for growing files is over."""
        patience_s, timings = self._context.patience_s, self._context.timings
        if patience_s is None or self._started is None or now - self._started <= patience_s:
            return False
        return self._tracker.still_for_s(relative, now) < timings.span_s

    def _take(self, found: Found, now: float) -> None:
        if not self._context.budget.take(found.size_bytes):
            return
        try:
            new_job = copy_to_spool(found, self._context.destination(found.relative), lambda: not self._stopping)
        except Moved:
            self._tracker.forget(found.relative)
        except SourceUnreadable as error:
            self._cannot_read(found, error, now)
        except JobFormatError as error:
            self._ignore(found, str(error))
        except OSError as error:
            self._cannot_write(error, now)
        except Exception as error:  # must not stop other songs
            log.exception("cannot enqueue %s", self.folder.path / found.relative)
            self._ignore(found, f"Unexpected error ({described(error)}); see the log for details.")
        else:
            self._spool_works()
            assert new_job.file is not None, "copies have one"
            self._seen[found.relative] = new_job.file
            self._accepted[self.folder.rule_for(found.relative).path].add(new_job.file.settings_hash)
            self._news.put(new_job)  # before it leaves `_pending`, so that `settled` stays false
            self._drop(found.relative)

    def _cannot_read(self, found: Found, error: SourceUnreadable, now: float) -> None:
        failures = self._failures.get(found.relative, (0, 0.0))[0] + 1
        log.warning("cannot read %s: %s", self.folder.path / found.relative, error)
        if failures < _TRIES and not error.not_permitted:
            self._failures[found.relative] = (failures, now + back_off(failures, 2.0, 60.0))
            return
        again = now + back_off(failures if error.not_permitted else failures - _TRIES + 1, *_READ_AGAIN_S)
        sentence = f"{_UNREADABLE} ({error}). Check the file and its permissions; it will be retried."
        known = self._seen.get(found.relative)
        if known is not None and known.reason == sentence and known.state == found.state:
            self._drop(found.relative)
        else:
            self._ignore(found, sentence)
        self._failures[found.relative] = (failures, again)

    def _cannot_write(self, error: OSError, now: float) -> None:
        """Pause copying after the spool failed; with `once`, give up after `_TRIES` attempts."""
        self._spool_failures += 1
        self._no_copy_before = now + back_off(self._spool_failures, *_SPOOL_AGAIN_S)
        jobs = self._context.destination("song").jobs
        why = f"Cannot copy songs to {shown(jobs)} ({error.strerror or error})"
        log.warning("%s: %s", self.folder.path, why)
        if self._spool_failures == 1:
            way_out = "free some space" if disk_is_full(error) else "check the folder and its disk"
            self._news.put(Event("paused", message=f"{why}; {way_out}. Retrying."))
        if self._spool_failures >= _TRIES and self._context.patience_s is not None:
            for relative in list(self._pending):
                self._give_up_for_now(relative, "the spool is not writable")

    def _spool_works(self) -> None:
        if self._spool_failures:
            self._spool_failures = 0
            log.info("the spool is writable again")
            self._news.put(Event("resumed", message="The spool is writable again."))

    def _give_up_for_now(self, relative: str, why: str) -> None:
        log.warning("%s is skipped until the next run: %s", self.folder.path / relative, why)
        path = source_name(self.folder.path / relative)
        self._news.put(Event("left", song=relative, file=path, message=f"Skipped until the next run: {why}."))
        self._skipped.add(relative)
        self._drop(relative)

    def _ignore(self, found: Found, reason: str) -> None:
        file = SeenFile(str(self.folder.path), found.relative, found.state, reason=reason)
        self._seen[found.relative] = file
        self._news.put(file)
        self._drop(found.relative)

    def _drop(self, relative: str) -> None:
        self._pending.pop(relative, None)
        self._failures.pop(relative, None)
        self._waited_for.discard(relative)
        self._tracker.forget(relative)


def _is_unreadable(file: SeenFile) -> bool:
    return file.reason is not None and file.reason.startswith(_UNREADABLE)


def make_watchers(
    folders: Sequence[WatchFolder],
    settings: Settings,
    store: JobStore,
    budget: Budget,
    options: DaemonOptions,
    *,
    once: bool = False,
) -> list[Watcher]:
    """Build one watcher per folder; the caller starts them."""
    hashes = ContentHashes(settings)
    jobs = Spool(settings.spool).jobs
    watchers = []
    for folder in folders:
        polling = sends_no_events(folder.path) if folder.polling is None else folder.polling
        context = WatchContext(
            destination=destination_of(folder, jobs, hashes),
            budget=budget,
            timings=options.share if polling else options.local,
            events=not polling,
            patience_s=options.patience_s if once else None,
        )
        excluded = excluded_places(folder, folders, settings)
        scanner = Scanner(folder.path, recursive=folder.recursive, excluded=excluded, patterns=folder.patterns)
        watchers.append(Watcher(folder, scanner, store.files_of(str(folder.path)), context))
    return watchers
