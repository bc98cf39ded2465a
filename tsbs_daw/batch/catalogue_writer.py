"""Keeps catalogue.json, catalogue.csv and the crate's memory on disk, while the crate runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw.batch.catalogue_document import Catalogue
from tsbs_daw.batch.plan import Intake
from tsbs_daw.batch.progress import Song
from tsbs_daw.batch.request import CrateRequest
from tsbs_daw.batch.state import remember
from tsbs_daw.batch.table import NAME as CSV
from tsbs_daw.batch.table import to_csv
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

JSON = "catalogue.json"

_EVERY_S = 2.0
_SHARE = 20  # at most a twentieth of the time is spent on writing


class Record:
    def __init__(self, request: CrateRequest, intake: Intake, songs: Sequence[Song]):
        self._request, self._intake, self._songs = request, intake, songs
        self._changed, self._not_before = True, float("-inf")

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(
            crate=self._request.name,
            preset=self._request.preset,
            songs=tuple(song.entry for song in self._songs),
        )

    def changed(self) -> None:
        self._changed = True

    def write_now_and_then(self) -> None:
        """If something has changed. A full disk is not the end: what it was too full for is written later."""
        if not self._changed or time.monotonic() < self._not_before:
            return
        began = time.monotonic()
        try:
            self.write()
        except OutputError as error:
            log.warning("%s", error)
        self._not_before = time.monotonic() + max(_EVERY_S, _SHARE * (time.monotonic() - began))

    def write(self) -> None:
        """Raises: OutputError: the out folder cannot be written to"""
        out, catalogue = self._request.out, self.catalogue
        try:
            remember(out, self._intake.memory)
            write_atomically(out / JSON, catalogue.to_json())
            write_atomically(out / CSV, to_csv(catalogue))
        except OSError as error:
            for name in (JSON, CSV):
                Path(out, f"{name}.tmp").unlink(missing_ok=True)
            raise OutputError(
                f"The catalogue cannot be written to {shown(out)} ({error.strerror}); mend that and run the same "
                "command again, which goes on from here."
            ) from error
        self._changed = False
