"""One run of a batch: find the songs, enqueue the missing ones, track their jobs, and update the catalogue.

    find -> hash -> known content? -> done already? -> enqueue -> track -> catalogue.json and .csv

Results of earlier runs are reused; failed songs and failed analyses are retried. However a run ends, even by `kill -9`,
the next one resumes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tsbs_daw.batch.catalogue import CatalogueWriter, complete_manifest, done_entry
from tsbs_daw.batch.page import Thumbnails
from tsbs_daw.batch.plan import BatchRequest, FoundSong, Plan, SongRefused, find_songs
from tsbs_daw.batch.queue import JobPlace, JobStatus, Queue
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.config import DaemonOptions, Settings
from tsbs_daw.core.errors import DaemonError, OutputError, TsbsDawError, UsageError, shown
from tsbs_daw.core.locks import HeldElsewhere, LockFile
from tsbs_daw.pipeline.publish import has_analysis

log = logging.getLogger(__name__)


@dataclass
class Song:
    """One song of a running batch.

    Attributes:
        found: The audio file.
        entry: Its catalogue entry so far.
        job: Id of its job while that waits or runs; otherwise "".
        submitted: Whether it was submitted to the queue in this run.
        fraction: Fraction of its job that is done, 0 to 1.
        message: Current step of its job; "" while it waits.
    """

    found: FoundSong
    entry: SongEntry
    job: str = ""
    submitted: bool = False
    fraction: float = 0.0
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.entry.state != "waiting"


@dataclass(frozen=True)
class BatchProgress:
    """A snapshot of a batch's progress.

    Attributes:
        counts: Number of songs in each state.
        running: Songs whose jobs are running.
        seconds_left: Estimated time left; None if unknown.
        note: Why no jobs are started; "" if they are.
    """

    counts: dict[str, int]
    running: tuple[Song, ...]
    seconds_left: float | None
    note: str = ""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return self.total - self.counts["waiting"]


class Listener(Protocol):
    """Displays a running batch. Called in the thread that runs it."""

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        """Report a song that has ended. `fresh`: in this run, not in an earlier one."""

    def update(self, progress: BatchProgress) -> None:
        """Show the current progress. Called several times a second."""

    def note(self, sentence: str) -> None:
        """Show a message to the user."""


class SilentListener:
    """Shows nothing."""

    def ended(self, entry: SongEntry, *, fresh: bool) -> None: ...

    def update(self, progress: BatchProgress) -> None: ...

    def note(self, sentence: str) -> None: ...


@dataclass
class Clock:
    """Estimates the time left, from the sizes of the songs that were submitted in this run."""

    began: float | None = field(default=None)

    def seconds_left(self, songs: Iterable[Song], now: float | None = None) -> float | None:
        """Estimate the time left; None until a hundredth of the work is done. `now` is on the monotonic clock."""
        now = time.monotonic() if now is None else now
        songs = list(songs)
        done = sum(song.found.size_bytes * (1.0 if song.ended else song.fraction) for song in songs if song.submitted)
        left = sum(song.found.size_bytes * (1.0 - song.fraction) for song in songs if not song.ended)
        if self.began is None and any(song.submitted for song in songs):
            self.began = now
        if self.began is None or done <= 0.01 * (done + left):
            return None
        return (now - self.began) * left / done


def progress_of(songs: Iterable[Song], clock: Clock, note: str = "") -> BatchProgress:
    songs = list(songs)
    counts = dict.fromkeys(("done", "failed", "duplicate", "waiting"), 0)
    for song in songs:
        counts[song.entry.state] += 1
    running = tuple(song for song in songs if song.job and song.message)
    return BatchProgress(counts, running, clock.seconds_left(songs), note)


LOCK = ".crate.lock"

_LOOK_EVERY_S = 0.25
_NOT_DONE = "It is not done yet; rerun the command."
_ENDINGS = {
    State.CANCELLED: "It was cancelled; rerun the command to separate it.",
    State.SUPERSEDED: "The file changed meanwhile; rerun the command.",
}


class Batch:
    """One run of a batch.

    Args:
        request: Parameters of the batch.
        settings: Settings of the program.
        options: Options of the embedded daemon, which is started if no daemon is running.
        listener: Displays the progress. Default: nothing.
    """

    def __init__(
        self,
        request: BatchRequest,
        settings: Settings,
        *,
        options: DaemonOptions | None = None,
        listener: Listener | None = None,
    ):
        self.request, self._settings, self._options = request, settings, options or DaemonOptions()
        self._listener = listener or SilentListener()
        self._clock, self._next_look = Clock(), float("-inf")
        self._songs: list[Song] = []
        self._reported_daemon: int | None = None
        self._analyses = False
        self._queue = Queue(settings, self._options)
        self._thumbnails = Thumbnails(request.out, lambda: self.catalogue_writer.catalogue)

    def run(self) -> Catalogue:
        """Process every song; one that fails does not stop the others.

        Returns:
            The complete catalogue.

        Raises:
            UsageError: The folder is missing or contains no songs.
            DaemonError: Another run of this batch is in progress, or the daemon failed.
            OutputError: The catalogue cannot be written.
            KeyboardInterrupt: The user stopped the batch; finished songs are kept.
        """
        with _locked(self.request.out):
            self._open()
            try:
                with self._thumbnails, self._queue:
                    self._work()
                    self._finish_interactive_jobs()
                    self._listener.update(self._view())
            finally:
                self._close()
            return self.catalogue_writer.catalogue

    @property
    def without_analysis(self) -> list[str]:
        """Songs that were separated but not analysed."""
        entries = (song.entry for song in self._songs if self._analyses)
        return [entry.source for entry in entries if entry.state == "done" and entry.analysis is None]

    @property
    def ended(self) -> tuple[int, int]:
        """Number of finished songs, and of all songs."""
        return sum(song.ended for song in self._songs), len(self._songs)

    @property
    def other_daemon(self) -> int | None:
        """Process id of the running daemon, if it is not this process."""
        return self._queue.other_daemon

    def _open(self) -> None:
        request = self.request
        self._analyses = request.delivery(self._settings.presets).analyses
        excluded = (request.out, self._settings.home, self._settings.cache, self._settings.models)
        found = find_songs(request.folder, excluded=excluded)
        if not found:
            raise UsageError(f"{shown(request.folder)} contains no songs. Specify the folder of your songs.")
        self._plan = Plan(request, self._settings, found)
        self._songs = [Song(one, self._plan.entry(one)) for one in found]
        self.catalogue_writer = CatalogueWriter(request, self._plan, self._songs)
        self.catalogue_writer.write()  # fail before the work if the output folder cannot be written to

    def _work(self) -> None:
        untouched = iter(self._songs)
        while True:
            song = next(untouched, None)
            if song is not None:
                self._start_song(song)
            elif not any(song.job for song in self._songs):
                return
            self._poll(wait=song is None)

    def _finish_interactive_jobs(self) -> None:
        """Wait until the embedded daemon has finished jobs that a DAW sent to it."""
        announced = False
        while self._queue.has_interactive_jobs():
            if not announced:
                self._listener.note("All songs are finished. The daemon stops once it has finished the DAW's jobs.")
            announced = True
            time.sleep(_LOOK_EVERY_S)

    def _close(self) -> None:
        """Record songs that ended at the last moment and write the catalogue, however the run ended."""
        with contextlib.suppress(TsbsDawError):
            self._update_songs()
        for song in self._songs:
            if not song.ended:
                song.entry = song.entry.model_copy(update={"reason": _NOT_DONE})
        self.catalogue_writer.write()

    # One song

    def _start_song(self, song: Song) -> None:
        """Submit the song, unless it is a duplicate or is already done."""
        try:
            song.entry = self._plan.identify(song.found)
            if song.entry.state == "duplicate":
                self._end(song, song.entry, fresh=False)
            elif (folder := self._existing_folder(song)) is not None and self._deliver(song, folder, fresh=False):
                pass
            else:
                song.job, song.submitted = self._plan.job_id(song.found), True
                self._queue.ask(self._plan.job(song.found))
        except (SongRefused, DaemonError) as error:
            song.job = ""
            self._fail(song, str(error))

    def _existing_folder(self, song: Song) -> Path | None:
        folder = self._plan.known_folder(song.found)
        if folder is None:
            result = self._queue.done_result(self._plan.job_id(song.found))
            folder = result.folder if result is not None else None
        return folder

    def _poll(self, *, wait: bool) -> None:
        """Update the songs from the queue if an update is due. With `wait`, sleep until it is."""
        pause_s = self._next_look - time.monotonic()
        if pause_s > 0 and not wait:
            return
        time.sleep(max(pause_s, 0.0))
        began = time.monotonic()
        if any(song.job for song in self._songs):
            self._queue.ensure_daemon()
            self._report_other_daemon()
            self._update_songs()
        self._listener.update(self._view())
        self.catalogue_writer.write_if_due()
        self._next_look = time.monotonic() + max(_LOOK_EVERY_S, 5 * (time.monotonic() - began))

    def _report_other_daemon(self) -> None:
        pid = self._queue.other_daemon
        if pid is not None and pid != self._reported_daemon:
            self._listener.note(f"The running daemon (process {pid}) separates the songs with its own workers.")
        self._reported_daemon = pid

    def _update_songs(self) -> None:
        submitted = {song.job: song for song in self._songs if song.job}
        for job_id, status in self._queue.statuses(submitted).items():
            self._note(submitted[job_id], status)

    def _note(self, song: Song, status: JobStatus) -> None:
        if status.place is JobPlace.ENDED:
            assert status.result is not None, "a job that ended has a result"
            song.job = ""
            self._conclude(song, status.result)
        elif status.place is JobPlace.GONE:
            song.job = ""
            self._fail(song, "Its job was removed from the queue; rerun the command.")
        else:
            running = status.place is JobPlace.RUNNING
            song.fraction, song.message = status.fraction, (status.message or "working") if running else ""

    def _conclude(self, song: Song, result: Result) -> None:
        if result.state is not State.DONE:
            self._fail(song, _ENDINGS.get(result.state) or result.error or f"Its job ended as {result.state.value}.")
        elif result.folder is None or not self._deliver(song, result.folder, fresh=True):
            self._fail(song, "Its stems disappeared right after they were written; rerun the command.")

    def _deliver(self, song: Song, folder: Path, *, fresh: bool) -> bool:
        """Mark the song as done if its folder is complete, and return whether it is."""
        manifest = complete_manifest(folder)
        if manifest is None or not folder.is_relative_to(self.request.out):
            return False
        if not fresh and self._analyses and not has_analysis(folder, manifest):
            self._listener.note(f"{song.found.relative}: its analysis had failed and is retried.")
            return False
        self._plan.note_done(song.found, folder)
        self._end(song, done_entry(song.entry, self.request.out, folder, manifest), fresh=fresh)
        return True

    def _fail(self, song: Song, reason: str) -> None:
        self._end(song, song.entry.model_copy(update={"state": "failed", "reason": reason}), fresh=True)

    def _end(self, song: Song, entry: SongEntry, *, fresh: bool) -> None:
        song.entry, song.message = entry, ""
        self.catalogue_writer.changed()
        self._thumbnails.add(entry)
        self._listener.ended(entry, fresh=fresh)

    def _view(self):
        return progress_of(self._songs, self._clock, self._queue.paused)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Create the output folder and hold its lock.

    Raises:
        DaemonError: Another run of this batch is in progress.
        OutputError: The output folder cannot be created or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = LockFile(out / LOCK)
        lock.acquire()
    except HeldElsewhere as error:
        raise DaemonError(
            f"Another `tsbs-daw batch` is using {shown(out)}. Let it finish, or stop it first."
        ) from error
    except OSError as error:
        raise OutputError(
            f"Cannot write to {shown(out)} ({error.strerror}). Check its permissions, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
