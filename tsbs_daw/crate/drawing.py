"""Draws the pictures of songs for the page while other songs are still being worked on."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

from tsbs_daw.crate.catalogue import SongEntry

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for the song that is just drawn, where the crate was interrupted


class Drawing:
    """A thread of its own, begun with the first song. Use it in a `with`; what is left at its end, the page draws."""

    def __init__(self, out: Path):
        self._out = out
        self._songs: queue.SimpleQueue[SongEntry] = queue.SimpleQueue()
        self._stop_wanted = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_wanted = True
        if self._thread is not None:
            self._songs.put(SongEntry(source=""))  # it may be waiting for a song
            self._thread.join(None if kind is None else _PATIENCE_S)

    def add(self, song: SongEntry) -> None:
        self._songs.put(song)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        from tsbs_daw.crate.waveform import pictures

        while True:
            song = self._songs.get()
            if self._stop_wanted:
                return
            try:
                pictures(self._out, song.folder or song.source, [file.file for file in song.files])
            except Exception:  # the page tries again, and says what is wrong
                log.info("%s could not be drawn", song.source, exc_info=True)
