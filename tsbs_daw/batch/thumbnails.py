"""Draws the pictures of songs, and writes the page, while other songs are still being worked on."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tsbs_daw.batch.catalogue_document import Catalogue, SongEntry

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for the song that is just drawn, where the crate was interrupted
_PAGE_EVERY_S = 4.0
_PAGE_SHARE = 20  # at most a twentieth of the time is spent on writing it


class Drawing:
    """A thread of its own, begun with the first song that ends. Use it in a `with`.

    What is left at the end of a crate is for whoever writes the last page.

    Args: catalogue: how the crate stands; called in that thread
    """

    def __init__(self, out: Path, catalogue: Callable[[], Catalogue]):
        self._out, self._catalogue = out, catalogue
        self._songs: queue.SimpleQueue[SongEntry | None] = queue.SimpleQueue()
        self._stop_wanted = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_wanted = True
        if self._thread is not None:
            self._songs.put(None)  # it may be waiting for a song
            self._thread.join(None if kind is None else _PATIENCE_S)

    def add(self, song: SongEntry) -> None:
        """A song that has come to its end, however."""
        self._songs.put(song)
        if self._thread is None and not self._stop_wanted:
            self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        old, due = False, time.monotonic()  # the page, and when it may be written again
        while not self._stop_wanted:
            song = self._next(max(due - time.monotonic(), 0.0) if old else None)
            if song is not None:
                self._draw(song)
                old = True
            if old and not self._stop_wanted and time.monotonic() >= due:
                began = time.monotonic()
                self._write_page()
                old, due = False, began + max(_PAGE_EVERY_S, _PAGE_SHARE * (time.monotonic() - began))

    def _next(self, timeout_s: float | None) -> SongEntry | None:
        try:
            return self._songs.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _draw(self, song: SongEntry) -> None:
        from tsbs_daw.batch.waveform import pictures

        try:
            pictures(self._out, song.folder or song.source, [file.file for file in song.files])
        except Exception:  # the page tries again, and says what is wrong
            log.info("%s could not be drawn", song.source, exc_info=True)

    def _write_page(self) -> None:
        from tsbs_daw.batch.page import write_page

        try:
            write_page(self._catalogue(), self._out)
        except Exception:  # a full disk, for example: the last page is written by whoever closes the crate, and says so
            log.info("the page could not be written yet", exc_info=True)
