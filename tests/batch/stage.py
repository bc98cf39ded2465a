"""Crates for tests: songs that the stand-ins of `jobs.runners` act on by their names, and a listener that keeps all."""

from __future__ import annotations

from pathlib import Path

from harness.stage import QUICK, settings_in, write_song

from tsbs_daw.batch.plan import CrateRequest
from tsbs_daw.batch.progress import View
from tsbs_daw.batch.run import Crate
from tsbs_daw.contracts.catalogue import Catalogue, SongEntry
from tsbs_daw.contracts.treatment import Treatment


class Ears:
    """Keeps what a crate tells; `react` is called with every look."""

    def __init__(self, react=lambda view: None):
        self.endings: list[tuple[str, str, bool]] = []
        self.notes: list[str] = []
        self.views: list[View] = []
        self._react = react

    def ended(self, entry: SongEntry, *, fresh: bool) -> None:
        self.endings.append((entry.source, entry.state, fresh))

    def look(self, view: View) -> None:
        self.views.append(view)
        self._react(view)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def crate_in(place: Path, *songs: str) -> CrateRequest:
    """A crate of small songs, every one with a content of its own."""
    for seed, song in enumerate(songs, start=1):
        write_song(place / "crate" / song, seed)
    return CrateRequest(folder=place / "crate", out=place / "out", treatment=Treatment())


def run_crate(request: CrateRequest, ears: Ears | None = None, **options: object) -> Catalogue:
    place = request.folder.parent
    crate = Crate(request, settings_in(place), options=options.get("options", QUICK), listener=ears)
    return crate.run()


def states(catalogue: Catalogue) -> dict[str, str]:
    return {song.source: song.state for song in catalogue.songs}


def the(catalogue: Catalogue, source: str) -> SongEntry:
    (found,) = (song for song in catalogue.songs if song.source == source)
    return found
