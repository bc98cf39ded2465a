"""Store, spool and whoever listens, kept in step: the store first, then result.json, then the folder's move to done/.

A crash between two of these steps is made good at the next start, because the store is always the first to know.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that whoever runs the daemon may want to show.

    kind: "queued", "started", "progress", "retrying", or the state that a job ended in;
          about watch folders: "ignored", "waiting", "offline", "online";
          about the daemon: "paused", "resumed", "worker"
    id, song, file: of the job, `file` being the path of its source; empty for events about something else
    message:  one phrase or sentence
    result:   of a job that has ended
    """

    kind: str
    id: str = ""
    song: str = ""
    file: str = ""
    fraction: float = 0.0
    message: str = ""
    result: Result | None = None


Listener = Callable[[Event], None]


class Register:
    """What the daemon's parts write their news into.

    ended: how many jobs ended in which state since the start
    """

    def __init__(self, store: JobStore, spool: Spool, listener: Listener | None = None):
        self.store, self.spool = store, spool
        self.ended: Counter[State] = Counter()
        self._listener = listener
        self._unsettled: dict[str, Result] = {}

    def tell(self, kind: str, row: JobRow | None = None, *, fraction: float = 0.0, message: str = "") -> None:
        about = {"id": row.id, "song": row.song, "file": row.source_key} if row else {}
        self.publish(Event(kind, **about, fraction=fraction, message=message))

    def finish(
        self,
        row: JobRow,
        state: State,
        *,
        fence: int | None = None,
        error: str | None = None,
        retryable: bool = False,
        result: Result | None = None,
    ) -> bool:
        """End a job.

        Args:    fence: of the lease that is ended; None for a job that waits
                 result: what a worker, or an equal job, delivered; its id, state and time are set here
        Returns: False when the lease was another's: nothing has changed
        """
        error = _in_the_words_of_the_user(row, error)
        deliver = row.job.deliver if row.job_json else {}
        known: dict[str, Any] = {
            "id": row.id,
            "state": state,
            "error": error,
            "retryable": retryable,
            "deliver": deliver,
        }
        known["finished_unix_s"] = time.time()
        final = result.model_copy(update=known) if result else Result(**known)
        if not self.store.finish(final, fence):
            log.warning("job %s: the result of lease %s is dropped: it is not the current one", row.id, fence)
            return False
        self.settle(final)
        self.announce(final, row.song, row.source_key)
        return True

    def announce(self, result: Result, song: str = "", file: str = "") -> None:
        """Count and tell an ending that the store knows."""
        self.ended[result.state] += 1
        level = logging.WARNING if result.state in (State.FAILED, State.DEAD) else logging.INFO
        detail = f" -> {result.folder}" if result.folder else f": {result.error}" if result.error else ""
        log.log(level, "job %s %s: %s%s", result.id, result.state.value, song, detail)
        fraction = 1.0 if result.state is State.DONE else 0.0
        self.publish(Event(result.state.value, result.id, song, file, fraction, result.error or "", result))

    def settle(self, result: Result) -> None:
        """Let the result appear in done/; on a full disk, later."""
        try:
            self.spool.settle(result.id, result)
            self._unsettled.pop(result.id, None)
        except OSError as error:
            if result.id not in self._unsettled:
                log.error("job %s: its result cannot be written yet: %s", result.id, error)
            self._unsettled[result.id] = result

    def settle_rest(self) -> None:
        for result in list(self._unsettled.values()):
            self.settle(result)

    @property
    def all_settled(self) -> bool:
        return not self._unsettled

    def publish(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)


def _in_the_words_of_the_user(row: JobRow, error: str | None) -> str | None:
    """A watched file is read from its copy in the spool; the user knows it by its own path."""
    if error is None or not row.from_watch_folder:
        return error
    return error.replace(str(row.job.source.path), row.source_key)
