"""Batches for tests: songs whose names tell the stand-in runners what to do, and a listener that keeps everything."""

from __future__ import annotations

from pathlib import Path

from harness.stage import QUICK, settings_in, write_song

from tsbs_daw.batch.plan import BatchRequest
from tsbs_daw.batch.run import Batch, BatchProgress
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.job import Treatment


class ListenerLog:
    """Keeps what a batch tells; `react` is called with every look."""

    def __init__(self, react=lambda view: None):
        self.endings: list[tuple[str, str, bool]] = []
        self.notes: list[str] = []
        self.views: list[BatchProgress] = []
        self._react = react

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        self.endings.append((entry.source, entry.state, fresh))

    def update(self, progress: BatchProgress) -> None:
        self.views.append(progress)
        self._react(progress)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def batch_in(place: Path, *songs: str) -> BatchRequest:
    """A batch of small songs, every one with a content of its own."""
    for seed, song in enumerate(songs, start=1):
        write_song(place / "crate" / song, seed)
    return BatchRequest(folder=place / "crate", out=place / "out", treatment=Treatment())


def run_batch(request: BatchRequest, listener: ListenerLog | None = None, **options: object) -> Catalogue:
    place = request.folder.parent
    crate = Batch(request, settings_in(place), options=options.get("options", QUICK), listener=listener)
    return crate.run()


def states(catalogue: Catalogue) -> dict[str, str]:
    return {song.source: song.state for song in catalogue.songs}


def the(catalogue: Catalogue, source: str) -> SongEntry:
    (found,) = (song for song in catalogue.songs if song.source == source)
    return found
