"""How far a batch is, for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tsbs_daw.batch.scan import FoundSong
from tsbs_daw.contracts.catalogue import SongEntry


@dataclass
class Song:
    """One song of a running batch.

    entry:    its entry in the catalogue so far
    job:      the id of its job, while that waits or runs; else empty
    asked:    whether it was handed to the queue in this run
    fraction: how far its job is; message: what it is at; empty while it waits
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
    """A batch at one moment. running: the songs that are being worked on; note: what it waits for, if anything."""

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
    """Whoever shows a batch. Called in the thread that runs it."""

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        """A song has come to its end. fresh: in this run; else it was there already"""

    def update(self, progress: BatchProgress) -> None:
        """How it stands; several times a second."""

    def note(self, sentence: str) -> None:
        """Something that a user may want to know."""


class SilentListener:
    """Nobody listens."""

    def ended(self, entry: SongEntry, *, fresh: bool) -> None: ...

    def update(self, progress: BatchProgress) -> None: ...

    def note(self, sentence: str) -> None: ...


@dataclass
class Clock:
    """Estimates the time left, by the bytes of the songs that were handed to the queue in this run."""

    began: float | None = field(default=None)

    def seconds_left(self, songs: Iterable[Song], now: float | None = None) -> float | None:
        """None until a hundredth of the work is done. Args: now: seconds of the monotonic clock"""
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
