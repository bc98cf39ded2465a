"""A daemon in a thread of this process, for as long as a crate needs one."""

from __future__ import annotations

import logging
import threading

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import DaemonError
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.queue.events import Event
from tsbs_daw.queue.options import DaemonOptions

log = logging.getLogger(__name__)


class OwnDaemon:
    """Starts at once. It serves everybody, not only the crate; workers are processes, as ever.

    running: whether it is open, and has not ended
    """

    def __init__(self, settings: Settings, options: DaemonOptions):
        self._settings, self._options = settings, options
        self._daemon: Daemon | None = None
        self._failed_starts = 0
        self._failure: Exception | None = None
        self._stop_wanted = False
        self.running = False
        self.paused = ""  # why nothing is started, if so
        self._thread = threading.Thread(target=self._run, name="daemon")
        self._thread.start()

    def check(self) -> None:
        """Raises: TsbsDawError, or whatever else ended it; DaemonError: no worker can be started"""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let the running songs finish for a moment, then put them back; called again, without the moment.

        Raises: KeyboardInterrupt: while it winds up; call it again
        """
        self._stop_wanted = True
        if self._daemon is not None:
            self._daemon.stop()
        while self._thread.is_alive():
            self._thread.join(0.2)  # with a limit, so that Ctrl-C comes through on every system

    def _run(self) -> None:
        try:
            with Daemon(self._settings, options=self._options, listener=self._hear) as daemon:
                self._daemon = daemon
                if not self._stop_wanted:
                    self.running = True
                    daemon.run()
        except Exception as error:  # raised again by `check`, in a thread that someone looks at
            self._failure = error
        finally:
            self.running = False

    def _hear(self, event: Event) -> None:
        if event.kind == "worker":
            self._failed_starts += 1
            if self._failed_starts >= self._options.start_limit * self._options.workers:
                self._failure = self._failure or DaemonError(event.message)
        elif event.kind == "started":
            self._failed_starts = 0
        elif event.kind in ("paused", "resumed"):
            self.paused = event.message if event.kind == "paused" else ""
