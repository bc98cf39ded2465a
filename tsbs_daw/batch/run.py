"""The way of a crate: find the songs, ask the queue for what is missing, follow it, and keep the catalogue.

    find -> hash -> known content? -> there already? -> ask the queue -> follow -> catalogue.json and .csv

What was done in an earlier run is recognised; a song that failed is tried again, and so is an analysis. Wherever a run
ends, also by `kill -9`, the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from tsbs_daw.batch.catalogue import Record, complete_manifest, done_entry
from tsbs_daw.batch.page import Drawing
from tsbs_daw.batch.plan import CrateRequest, Intake, Refused
from tsbs_daw.batch.progress import Clock, Listener, Silent, Song, view_of
from tsbs_daw.batch.queue import Look, Queue, Where
from tsbs_daw.batch.scan import find_songs
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError, OutputError, TsbsDawError, UsageError, shown
from tsbs_daw.core.locks import HeldElsewhere, LockFile
from tsbs_daw.pipeline.publish import has_analysis
from tsbs_daw.queue.options import DaemonOptions

log = logging.getLogger(__name__)

LOCK = ".crate.lock"

_LOOK_EVERY_S = 0.25
_NOT_DONE = "It is not done yet; rerun the command."
_ENDINGS = {
    State.CANCELLED: "It was cancelled; rerun the command to do it after all.",
    State.SUPERSEDED: "The file changed meanwhile; rerun the command.",
}


class Crate:
    """One run of one crate.

    Args: options: of the daemon that is started if none is there
    """

    def __init__(
        self,
        request: CrateRequest,
        settings: Settings,
        *,
        options: DaemonOptions | None = None,
        listener: Listener | None = None,
    ):
        self.request, self._settings, self._options = request, settings, options or DaemonOptions()
        self._listener = listener or Silent()
        self._clock, self._next_look = Clock(), float("-inf")
        self._songs: list[Song] = []
        self._introduced: int | None = None
        self._analyses = False
        self._queue = Queue(settings, self._options)
        self._drawing = Drawing(request.out, lambda: self.record.catalogue)

    def run(self) -> Catalogue:
        """Until every song has come to its end.

        Raises: UsageError: no folder, no songs; DaemonError: another run of this crate, or no daemon can do the work;
                OutputError: the catalogue cannot be written; KeyboardInterrupt. What is done stays done.
        """
        with _alone(self.request.out):
            self._open()
            try:
                with self._drawing, self._queue:
                    self._work()
                    self._serve_others()
                    self._listener.look(self._view())
            finally:
                self._close()
            return self.record.catalogue

    @property
    def without_analysis(self) -> list[str]:
        """The songs that are done but for their analysis, which failed."""
        entries = (song.entry for song in self._songs if self._analyses)
        return [entry.source for entry in entries if entry.state == "done" and entry.analysis is None]

    @property
    def ended(self) -> tuple[int, int]:
        """How many songs have come to their end, and how many there are."""
        return sum(song.ended for song in self._songs), len(self._songs)

    @property
    def other_daemon(self) -> int | None:
        """The process of the daemon that does the work, if it is not this one."""
        return self._queue.other_daemon

    def _open(self) -> None:
        request = self.request
        self._analyses = request.delivery(self._settings.presets).analyses
        excluded = (request.out, self._settings.home, self._settings.cache, self._settings.models)
        found = find_songs(request.folder, excluded=excluded)
        if not found:
            raise UsageError(f"{shown(request.folder)} has no songs in it; name the folder that they are in.")
        self._intake = Intake(request, self._settings, found)
        self._songs = [Song(one, self._intake.entry(one)) for one in found]
        self.record = Record(request, self._intake, self._songs)
        self.record.write()  # a disk that cannot be written to is better found now

    def _work(self) -> None:
        untouched = iter(self._songs)
        while True:
            song = next(untouched, None)
            if song is not None:
                self._take_up(song)
            elif not any(song.job for song in self._songs):
                return
            self._look(wait=song is None)

    def _serve_others(self) -> None:
        """Somebody may sit in front of a DAW, and have found this daemon."""
        told = False
        while self._queue.somebody_waits():
            if not told:
                self._listener.note("All songs have come to their end; what a DAW has asked for is finished first.")
            told = True
            time.sleep(_LOOK_EVERY_S)

    def _close(self) -> None:
        """Whatever has happened: songs that ended at the last moment count, and the catalogue says what is left."""
        with contextlib.suppress(TsbsDawError):
            self._hear()
        for song in self._songs:
            if not song.ended:
                song.entry = song.entry.model_copy(update={"reason": _NOT_DONE})
        self.record.write()

    # One song

    def _take_up(self, song: Song) -> None:
        """Find out whether it has to be done, and ask for it if so."""
        try:
            song.entry = self._intake.take_up(song.found)
            if song.entry.state == "duplicate":
                self._end(song, song.entry, fresh=False)
            elif (folder := self._there_already(song)) is not None and self._deliver(song, folder, fresh=False):
                pass
            else:
                song.job, song.asked = self._intake.job_id(song.found), True
                self._queue.ask(self._intake.job(song.found))
        except (Refused, DaemonError) as error:
            song.job = ""
            self._fail(song, str(error))

    def _there_already(self, song: Song) -> Path | None:
        folder = self._intake.known_folder(song.found)
        if folder is None:
            result = self._queue.ended_well(self._intake.job_id(song.found))
            folder = result.folder if result is not None else None
        return folder

    def _look(self, *, wait: bool) -> None:
        """See how the songs stand, every now and then. Args: wait: nothing else is to do meanwhile"""
        pause_s = self._next_look - time.monotonic()
        if pause_s > 0 and not wait:
            return
        time.sleep(max(pause_s, 0.0))
        began = time.monotonic()
        if any(song.job for song in self._songs):
            self._queue.keep_going()
            self._introduce_daemon()
            self._hear()
        self._listener.look(self._view())
        self.record.write_now_and_then()
        self._next_look = time.monotonic() + max(_LOOK_EVERY_S, 5 * (time.monotonic() - began))

    def _introduce_daemon(self) -> None:
        pid = self._queue.other_daemon
        if pid is not None and pid != self._introduced:
            self._listener.note(f"The daemon (process {pid}) does the work, with as many workers as it has.")
        self._introduced = pid

    def _hear(self) -> None:
        asked = {song.job: song for song in self._songs if song.job}
        for job_id, look in self._queue.look(asked).items():
            self._note(asked[job_id], look)

    def _note(self, song: Song, look: Look) -> None:
        if look.where is Where.ENDED:
            song.job = ""
            self._conclude(song, look.result)
        elif look.where is Where.GONE:
            song.job = ""
            self._fail(song, "Its job was removed from the queue; rerun the command.")
        else:
            at_work = look.where is Where.AT_WORK
            song.fraction, song.message = look.fraction, (look.message or "working") if at_work else ""

    def _conclude(self, song: Song, result: Result) -> None:
        if result.state is not State.DONE:
            self._fail(song, _ENDINGS.get(result.state) or result.error or f"Its job ended as {result.state.value}.")
        elif result.folder is None or not self._deliver(song, result.folder, fresh=True):
            self._fail(song, "Its stems went away as soon as they were there; rerun the command.")

    def _deliver(self, song: Song, folder: Path, *, fresh: bool) -> bool:
        """Whether the folder is complete; if so, the song is done."""
        manifest = complete_manifest(folder)
        if manifest is None or not folder.is_relative_to(self.request.out):
            return False
        if not fresh and self._analyses and not has_analysis(folder, manifest):
            self._listener.note(f"{song.found.relative}: its analysis had failed, and is tried again.")
            return False
        self._intake.note_done(song.found, folder)
        self._end(song, done_entry(song.entry, self.request.out, folder, manifest), fresh=fresh)
        return True

    def _fail(self, song: Song, reason: str) -> None:
        self._end(song, song.entry.model_copy(update={"state": "failed", "reason": reason}), fresh=True)

    def _end(self, song: Song, entry: SongEntry, *, fresh: bool) -> None:
        song.entry, song.message = entry, ""
        self.record.changed()
        self._drawing.add(entry)
        self._listener.ended(entry, fresh=fresh)

    def _view(self):
        return view_of(self._songs, self._clock, self._queue.paused)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Raises: DaemonError: another run works on this crate; OutputError: the out folder cannot be made"""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = LockFile(out / LOCK)
        lock.acquire()
    except HeldElsewhere as error:
        raise DaemonError(
            f"Another `tsbs-daw batch` is at work on {shown(out)}; let it finish, or stop it first."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{shown(out)} cannot be written to ({error.strerror}); check its permissions, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
