"""Runs errands after a song of a watch folder is done or has failed: moves or deletes its file and calls its hook.

A few threads run the errands, so that neither a slow disk nor a hook delays the queue. Only the daemon's thread uses
the store, and records the results there. An errand that a kill interrupts is run again; see `queue.errands`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tsbs_daw.contracts.job import JobEnded, Result, State
from tsbs_daw.core.config import DaemonOptions, back_off
from tsbs_daw.core.errors import JobFormatError, described
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue import errands
from tsbs_daw.queue.errands import Errand
from tsbs_daw.queue.jobs import Event, JobLifecycle
from tsbs_daw.watch.folders import WatchFolder, watched_place
from tsbs_daw.watch.hooks import HookFailed, HookStopped
from tsbs_daw.watch.leave import Departure, Stays, leave

log = logging.getLogger(__name__)

_THREADS = 4
_LOOK_S = 5.0  # interval of checks for errands without an event, such as those of the previous daemon


@dataclass(frozen=True)
class _Task:
    """An errand with everything that a thread needs to run it."""

    errand: Errand
    folder: WatchFolder
    song: str
    result: Result


@dataclass(frozen=True)
class _Report:
    """The outcome of an errand.

    Attributes:
        note: Lines for the user.
        again: Whether to try again, because the file could not be moved or deleted yet.
    """

    task: _Task
    note: str
    again: bool = False


class ErrandRunner:
    """Runs the errands of watch folders.

    Args:
        folders: The watched folders with their rules.
        lifecycle: The jobs.
        options: Limits and intervals.
        wake: Called from a thread when an errand has ended.
    """

    def __init__(
        self, folders: Sequence[WatchFolder], lifecycle: JobLifecycle, options: DaemonOptions, wake: Callable[[], None]
    ):
        self._lifecycle, self._store, self._options, self._wake = lifecycle, lifecycle.store, options, wake
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[_Report] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: set[str] = set()  # ids of jobs
        self._failures: dict[str, tuple[int, float]] = {}  # by job: number of failures, and when to try again
        self._stopping = threading.Event()
        self._next_look, self._seen_ended = float("-inf"), -1
        self.set_folders(folders)

    def set_folders(self, folders: Sequence[WatchFolder]) -> None:
        """Set the watched folders."""
        self._folders = {str(folder.path): folder for folder in folders}
        self._store.attended = frozenset(root for root, folder in self._folders.items() if folder.attended)

    @property
    def idle(self) -> bool:
        """Whether every errand has been tried and none is running."""
        if self._running or not self._reports.empty():
            return False
        return all(errand.job_id in self._failures for errand in self._pending())

    @property
    def incomplete(self) -> bool:
        """Whether an errand failed and will be tried again."""
        return bool(self._failures)

    def tick(self, now: float) -> None:
        """Record the errands that have ended, and start those that are due.

        Raises:
            NoSpaceLeft, sqlite3.DatabaseError: The results cannot be stored now. The call may be repeated.
        """
        self._record_reports(now)
        ended = sum(self._lifecycle.ended.values())
        if ended == self._seen_ended and now < self._next_look:
            return
        self._seen_ended, self._next_look = ended, now + _LOOK_S
        for errand in self._pending():
            if errand.job_id not in self._running and now >= self._failures.get(errand.job_id, (0, now))[1]:
                self._begin(errand)

    def close(self) -> None:
        """Stop the threads. The next daemon repeats unfinished errands."""
        self._stopping.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(2.0)

    def _pending(self) -> list[Errand]:
        return errands.pending(self._store.database, self._store.attended, 1000) if self._store.attended else []

    def _begin(self, errand: Errand) -> None:
        row = self._store.get(errand.job_id)
        try:
            result = row.result if row is not None else None
        except JobFormatError as error:
            errands.write_note(self._store.database, errand, str(error), done=True)
            return
        if row is None or result is None:
            errands.write_note(self._store.database, errand, "", done=True)
            return
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"errands-{n}", daemon=True) for n in range(_THREADS)
            ]
            for thread in self._threads:
                thread.start()
        self._running.add(errand.job_id)
        self._tasks.put(_Task(errand, self._folders[errand.file.root], row.song, result))

    def _record_reports(self, now: float) -> None:
        while not self._reports.empty():
            report = self._reports.get()
            errand = report.task.errand
            errands.write_note(self._store.database, errand, report.note, done=not report.again, told=True)
            self._running.discard(errand.job_id)
            self._next_look = now
            failures, _ = self._failures.pop(errand.job_id, (0, 0.0))
            if report.again:
                wait_s = back_off(failures + 1, self._options.retry_first_s, self._options.retry_longest_s)
                self._failures[errand.job_id] = (failures + 1, now + wait_s)
            self._publish(report)

    def _publish(self, report: _Report) -> None:
        file = source_name(Path(report.task.errand.file.root, report.task.errand.file.relative))
        known = report.task.errand.note.splitlines()
        for line in report.note.splitlines():
            log.info("job %s: %s", report.task.errand.job_id, line)
            if line not in known:
                kind = "hook" if line.startswith(_HOOKS) else "kept" if line.startswith(_KEPT) else "after"
                self._lifecycle.publish(Event(kind, report.task.errand.job_id, report.task.song, file, message=line))

    # In the threads

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                report: _Report | None = self._do(task)
            except Exception as error:  # the other errands must continue
                log.exception("the errand of job %s failed", task.errand.job_id)
                report = _Report(task, f"{_KEPT}: unexpected error ({described(error)}).")
            if report is not None:
                self._reports.put(report)
                self._wake()

    def _do(self, task: _Task) -> _Report | None:
        """Handle the file, then call the hook with the file's new place. Return None if the daemon is stopping."""
        errand = task.errand
        departure, again = self._leave(task)
        lines = [departure.note] if departure.note else []
        hook_lines = [line for line in errand.note.splitlines() if line.startswith(_HOOKS)]
        if errand.tell:
            try:
                hook_lines = self._call_hook(task, departure.path)
            except HookStopped:
                return None
        return _Report(task, "\n".join(lines + hook_lines), again=again)

    def _leave(self, task: _Task) -> tuple[Departure, bool]:
        """Move or delete the file by its folder's rule. Return the outcome and whether to try again."""
        file, result = task.errand.file, task.result
        here = Departure("", Path(file.root, file.relative))
        if result.state not in (State.DONE, State.DUPLICATE):
            return here, False
        try:
            return leave(file, task.folder.rule_for(file.relative).after, result, self._is_watched) or here, False
        except Stays as reason:
            again = " It will be retried." if reason.passing else ""
            return replace(here, note=f"{_KEPT}: {reason}.{again}"), reason.passing

    def _call_hook(self, task: _Task, place: Path | None) -> list[str]:
        """Call the folder's hook.

        Returns:
            One line for the user; none if the folder has no hook.

        Raises:
            HookStopped: The daemon is stopping.
        """
        ended_well = task.result.state in (State.DONE, State.DUPLICATE)
        hook = task.folder.on_done if ended_well else task.folder.on_failed
        if hook is None:
            return []
        name = _HOOKS[0] if ended_well else _HOOKS[1]
        try:
            hook.tell(_document(task, place), self._options.hook_s, self._stopping)
        except HookFailed as clause:
            return [f"{name} {hook.name} {clause}."]
        return [f"{name} called {hook.name}."]

    def _is_watched(self, place: Path) -> bool:
        return watched_place(place, list(self._folders.values())) is not None


def _document(task: _Task, place: Path | None) -> str:
    result, file = task.result, task.errand.file
    return JobEnded(
        event="done" if result.state in (State.DONE, State.DUPLICATE) else "failed",
        id=task.errand.event_id,
        job=result.id,
        state=result.state,
        song=task.song,
        source=source_name(Path(file.root, file.relative)),
        source_now=source_name(place) if place is not None else None,
        **{name: getattr(result, name) for name in _RESULT_FIELDS},
    ).to_json()


_KEPT = "The song's file stays where it is"
_HOOKS = ("on_done:", "on_failed:")  # start of lines about hooks
_RESULT_FIELDS = ("error", "folder", "session", "manifest", "stems", "warnings", "finished_unix_s")
