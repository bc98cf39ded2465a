"""Takes away what jobs that died left in output folders; see `publish.remove_stale`."""

from __future__ import annotations

from pathlib import Path

from tsbs_daw.contracts.job import State
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.pipeline.publish import remove_stale
from tsbs_daw.queue.store import JobStore

_LATEST = 1000  # older ones were looked at by earlier runs


class Janitor:
    """Knows from the queue who is at work. Folders of jobs that the queue does not know are left alone for a day."""

    def __init__(self, store: JobStore):
        self._store = store

    def sweep(self) -> list[Path]:
        """Look into the output folders of every recent job that did not end well. Returns what was removed."""
        rows = self._store.rows((state for state in State if state is not State.DONE), _LATEST)
        outputs = {row.job.output for row in rows if row.fence and row.job_json}
        return [folder for output in sorted(outputs) for folder in remove_stale(output, self._running)]

    def sweep_after(self, job_id: str) -> list[Path]:
        """Look into the output folder of one job that has just ended. Returns what was removed."""
        row = self._store.get(job_id)
        if row is None or not row.job_json:
            return []
        try:
            return remove_stale(row.job.output, self._running)
        except JobFormatError:
            return []  # written by another version; its own daemon has cleaned up

    def _running(self, job_id: str, fence: int) -> bool | None:
        row = self._store.get(job_id)
        return None if row is None else row.state is State.RUNNING and row.fence == fence
