"""The daemon: enqueues requests, assigns them to workers, and stores the results.

It is a loop around `tick(now)`. All persistent state is in the store and the spool, so a tick may be interrupted
anywhere, even by `kill -9`; `takeover` repairs the state at the next start. This process never imports torch.

If the daemon is killed, its running job loses an attempt, which only affects the order, but does not count as a crash
of the job. If the daemon is asked to stop, it gives its job a moment to finish, then returns it to the queue.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import tsbs_daw
from tsbs_daw.contracts.job import Heartbeat, State
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.core.errors import DaemonError, NoSpaceLeft, shown
from tsbs_daw.core.files import may_pass
from tsbs_daw.core.locks import DaemonLocks, WatchedRoot
from tsbs_daw.daemon.dispatcher import Dispatcher
from tsbs_daw.daemon.errand_runner import ErrandRunner
from tsbs_daw.daemon.takeover import OutputCleaner, TrustedClock, recover, take_over
from tsbs_daw.queue.database import comes_and_goes
from tsbs_daw.queue.jobs import Event, JobLifecycle, Listener
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.folders import WatchFolder, check_folders, watched_place
from tsbs_daw.watch.ingest import Budget, Ingest
from tsbs_daw.watch.scan import Notifications
from tsbs_daw.watch.watcher import make_watchers

log = logging.getLogger(__name__)

_HOUSEKEEPING_S = 10.0
_HANDOVER_S = 1.0
_PRUNE_S = 3600.0
_BALLAST_S = 2.0


class Daemon:
    """The daemon. At most one runs for a home or a watch folder. Context manager; call `run` inside it.

    Args:
        settings: Folders of home, cache and models, and the device.
        folders: Folders to watch. If there are none, the daemon serves only the spool.
        options: Limits and intervals.
        listener: Called with every event, in the daemon's thread; see `jobs.Event`.
        once: Whether to end when the existing jobs are done.
    """

    def __init__(
        self,
        settings: Settings,
        folders: Sequence[WatchFolder] = (),
        *,
        options: DaemonOptions | None = None,
        listener: Listener | None = None,
        once: bool = False,
    ):
        check_folders(folders)
        self.settings, self.folders, self.options = settings, tuple(folders), options or DaemonOptions()
        self._listener, self._once = listener, once
        self._locks, self._wake = DaemonLocks(settings.home), threading.Event()
        self._stops = 0
        self._last_tick: float | None = None
        self._last_beat = self._last_housekeeping = self._last_prune = self._last_ballast = float("-inf")
        self._last_handover = float("-inf")
        self._paused = False

    def __enter__(self) -> Daemon:
        """Lock the home, open the store and recover from an earlier crash.

        Raises:
            DaemonError: Another daemon is running, or the database cannot be opened.
            NoSpaceLeft: The disk is full.
            SettingsError: A folder cannot be created or written to.
        """
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._locks.release()
            what = f"The job database {shown(self.settings.store)} cannot be opened ({error})"
            raise DaemonError(f"{what}. Check its disk and permissions, then start again.") from error
        except BaseException:
            self._locks.release()
            raise
        return self

    def _open(self) -> None:
        self._clock = TrustedClock(self.settings.home)
        self.settings.make_folders()
        self._locks.lock_home()
        self._lock(self.folders)
        spool = Spool(self.settings.spool)
        spool.create()
        self.store = JobStore.open(self.settings.store)
        self._cleaner = OutputCleaner(self.store)
        self.lifecycle = JobLifecycle(self.store, spool, self._on_event)
        self._dispatcher = Dispatcher(self.options, self.settings, self.lifecycle, uuid.uuid4().hex, self._wake.set)
        self._budget = Budget(self.options.copies_bytes)
        ingest = Ingest(self.lifecycle)
        recover(self.lifecycle, ingest)
        self._cleaner.sweep()
        self._budget.set(self.store.live_source_bytes())
        self._errands = ErrandRunner(self.folders, self.lifecycle, self.options, self._wake.set)
        self.store.limits = {str(folder.path): folder.songs_at_once for folder in self.folders if folder.songs_at_once}
        watchers = make_watchers(self.folders, self.settings, self.store, self._budget, self.options, once=self._once)
        self._ingest, self._watchers = ingest, watchers

    def _lock(self, folders: Sequence[WatchFolder]) -> None:
        """Lock watch folders. Raises DaemonError if another daemon watches one of them, or an overlapping folder."""
        self._locks.claim([WatchedRoot(folder.path, folder.recursive) for folder in folders])
        for folder in folders:
            self._locks.lock_folder(folder.path)

    def watch(self, folders: Sequence[WatchFolder]) -> None:
        """Watch more folders until the daemon ends. Folders that are watched already are not changed.

        Raises:
            SettingsError, DaemonError: They cannot be watched together with the others; nothing is changed.
        """
        known = {folder.path.resolve() for folder in self.folders}
        new = [folder for folder in folders if folder.path.resolve() not in known]
        check_folders([*self.folders, *new])
        for folder in new:
            for place in (folder.path, folder.output):
                if around := watched_place(place, self.folders):
                    raise DaemonError(
                        f"{shown(place)} is inside {shown(around)}, which is watched already; list both in one YAML "
                        "file and restart the daemon."
                    )
        self._lock(new)
        self.folders += tuple(new)
        self._errands.set_folders(self.folders)
        self.store.limits = {str(folder.path): folder.songs_at_once for folder in self.folders if folder.songs_at_once}
        watchers = make_watchers(self.folders, self.settings, self.store, self._budget, self.options, once=self._once)
        for watcher in (watcher for watcher in watchers if watcher.folder in new):
            self._watchers.append(watcher)
            watcher.start()
            log.info("now watching %s", watcher.folder.path)
            self.lifecycle.emit("online", message=f"Now watching {shown(watcher.folder.path)}.")

    def __exit__(self, *_: object) -> None:
        for watcher in self._watchers:
            watcher.stop()
        try:
            self._errands.close()
            self._dispatcher.close()
            self.lifecycle.spool.remove_heartbeat()
        except (sqlite3.DatabaseError, NoSpaceLeft, OSError) as error:  # the next start recovers the jobs
            log.error("running jobs cannot be returned to the queue now: %s", error)
        finally:
            self.store.close()
            self._locks.release()

    # Running

    def run(self) -> Counter[State]:
        """Run until `stop`, SIGTERM or Ctrl-C; with `once`, until all jobs are done.

        Returns:
            The number of jobs that ended, by state.

        Raises:
            DaemonError: A part of the daemon failed or, with `once`, the worker cannot start.
        """
        before, options = self._catch_signals(), self.options
        requests = Notifications(self.lifecycle.spool.inbox, recursive=False, changed=self._wake.set)
        try:
            requests.start()
            for watcher in self._watchers:
                watcher.start()
            while not self._stops and not (self._once and self.finished):
                busy = self.tick(time.monotonic())
                self._wait(options.busy_tick_s if busy or self._once else options.idle_tick_s)
            if self._stops:
                self._shut_down()
        finally:
            requests.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.lifecycle.ended

    def stop(self) -> None:
        """Shut down soon; a second call does not wait for running jobs. Safe in a signal handler."""
        self._stops += 1

    def tick(self, now: float) -> bool:
        """Do all work that is due now.

        Args:
            now: Seconds of the monotonic clock.

        Returns:
            Whether jobs or files are being processed.
        """
        self._allow_for_sleep(now)
        self._write_heartbeat(now)
        busy = True
        with self._waiting_for_the_disk():
            self._work(now)
            self._run_housekeeping(now)
            self._resume(now)
            pending = any(watcher.pending for watcher in self._watchers)
            coming = self.lifecycle.spool.request_is_coming
            busy = self._dispatcher.busy or not self._ingest.empty or pending or coming
        return busy

    @contextlib.contextmanager
    def _waiting_for_the_disk(self) -> Iterator[None]:
        """Pause while a disk is full or unavailable. Every step inside must be repeatable.

        Raises:
            DaemonError: The database is damaged; the next start rebuilds it.
        """
        try:
            yield
        except NoSpaceLeft as error:
            self._pause(str(error))
        except sqlite3.DatabaseError as error:
            path = shown(self.settings.store)
            if "locked" in str(error):
                log.warning("the job database is locked by another program; trying again")
            elif comes_and_goes(error):
                self._pause(f"The job database {path} is unavailable ({error}); the queue waits for its disk.")
            else:
                raise DaemonError(f"The job database {path} failed ({error}); start again.") from error
        except OSError as error:
            if not may_pass(error):
                raise
            where = shown(error.filename or self.settings.spool)
            self._pause(f"{where} is unavailable ({error.strerror or error}); the queue waits for it.")

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        with self._waiting_for_the_disk():
            watched = all(watcher.settled for watcher in self._watchers)
            queue_is_empty = self._ingest.empty and self.store.live_count() == 0 and self.lifecycle.all_settled
            return watched and queue_is_empty and self._errands.idle
        return False

    @property
    def incomplete(self) -> bool:
        """Whether some work could not be done yet.

        Either songs were not enqueued, because they are unreadable, still growing or in a folder that is offline, or
        the file of a finished song could not be moved or deleted.
        """
        return self._errands.incomplete or any(watcher.incomplete for watcher in self._watchers)

    @property
    def ticked(self) -> bool:
        """Whether the daemon is open and has run its first tick."""
        return self._last_tick is not None

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the running workers."""
        return self._dispatcher.worker_pids

    def _work(self, now: float) -> None:
        for watcher in self._watchers:
            if watcher.failure is not None:
                raise DaemonError(
                    f"Watching {watcher.folder.path} failed ({watcher.failure}); start again."
                ) from watcher.failure
        self._dispatcher.process_events(now)
        self._dispatcher.apply_user_requests(now)
        self.lifecycle.settle_unsettled()
        self._errands.tick(now)
        if self._paused or self._stops:
            return
        if now - self._last_handover >= _HANDOVER_S:
            self._last_handover = now
            take_over(self.settings.spool, self.watch)
        self._ingest.tick(self._watchers)
        self._apply_hours()
        if any(watcher.pending for watcher in self._watchers if str(watcher.folder.path) not in self.store.closed):
            self._dispatcher.prepare(now)  # load the model in the seconds until a file counts as complete
        self._dispatcher.assign_jobs(now)
        if self._once:
            self._dispatcher.check_workers_can_start()
        if self._budget.refused:
            self._budget.set(self.store.live_source_bytes())

    def _apply_hours(self) -> None:
        """Hold the jobs of folders outside their hours. `once` ignores hours, because the user wants the songs now."""
        now = time.time()
        waiting = [folder for folder in self.folders if folder.hours and not folder.hours.open_at(now)]
        closed = {str(folder.path): folder for folder in waiting if not self._once}
        for root in closed.keys() - self.store.closed:
            hours = closed[root].hours
            assert hours is not None, "it is closed"
            message = f"Songs of {shown(root)} wait until {hours.next_start(now)}."
            log.info("%s", message)
            self.lifecycle.emit("held", message=message)
        self.store.closed = frozenset(closed)

    def _run_housekeeping(self, now: float) -> None:
        if now - self._last_housekeeping < _HOUSEKEEPING_S:
            return
        self._last_housekeeping = now
        self._dispatcher.requeue_orphaned(now)
        if now - self._last_prune >= _PRUNE_S:
            self._last_prune = now
            pruned = self.lifecycle.spool.prune(self._clock.now(time.time(), now), self.options.done_days)
            if pruned:
                log.info("removed the folders of %d jobs finished over %g days ago", pruned, self.options.done_days)

    def _shut_down(self) -> None:
        """Let running jobs finish, then release them, then end; within the 10 s that operating systems grant."""
        log.info("stopping")
        options = self.options
        for watcher in self._watchers:
            watcher.ask_to_stop()
        until = time.monotonic() + options.finish_s
        while self._dispatcher.busy and time.monotonic() < until and self._stops < 2:
            self.tick(time.monotonic())
            self._wait(options.busy_tick_s / 2)
        self._dispatcher.release(time.monotonic())
        until = time.monotonic() + options.release_s
        while self._dispatcher.busy and time.monotonic() < until:
            self.tick(time.monotonic())
            self._wait(options.busy_tick_s / 2)

    # Small duties

    def _on_event(self, event: Event) -> None:
        """Remove the temporary folder of a failed job, then call the listener."""
        if event.result is not None and event.result.state not in (State.DONE, State.DUPLICATE):
            self._cleaner.sweep_after(event.id)
        if self._listener is not None:
            self._listener(event)

    def _allow_for_sleep(self, now: float) -> None:
        """Extend all leases if the machine or this process was suspended, so that no lease expires because of it."""
        if self._last_tick is not None and now - self._last_tick > 5.0:
            self._dispatcher.extend_leases(now - self._last_tick)
        self._last_tick = now

    def _write_heartbeat(self, now: float) -> None:
        if now - self._last_beat < self.options.heartbeat_s:
            return
        self._last_beat = now
        try:
            beat = Heartbeat(pid=os.getpid(), version=tsbs_daw.__version__, updated_unix_s=time.time())
            self.lifecycle.spool.write_heartbeat(beat)
        except OSError as error:
            log.warning("the heartbeat cannot be written: %s", error)

    def _pause(self, why: str) -> None:
        if not self._paused:
            self._paused = True
            log.error("%s", why)
            self.lifecycle.emit("paused", message=why)

    def _resume(self, now: float) -> None:
        """Resume once the ballast fits on the disk again."""
        database = self.store.database
        if (database.short_of_space or self._paused) and now - self._last_ballast < _BALLAST_S:
            return
        self._last_ballast = now
        if database.short_of_space and not database.restore_ballast():
            self._pause(f"The disk of {self.settings.home} is nearly full. Free some space; no job starts until then.")
        elif self._paused and database.writable and self.lifecycle.spool.usable:
            self._paused = False
            log.info("the disk is writable again")
            self.lifecycle.emit("resumed", message="The disk is writable again.")

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _catch_signals(self) -> dict[int, Callable[[int, FrameType | None], Any] | int | None]:
        """Install handlers that call `stop`, and return the previous ones. Ignored signals stay ignored (`nohup`)."""

        def count(number: int, frame: FrameType | None) -> None:
            self.stop()

        if threading.current_thread() is not threading.main_thread():
            return {}
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: signal.signal(number, count) for number in handled}
