"""What a daemon does before anything else: bring the store and the spool, as the last one left them, into agreement.

running in the store                       queued again: no other daemon lives
folder in jobs/ that the store ignores     queued: the last daemon died between the rename and the commit
finished in the store, folder in jobs/     result.json and the move to done/ are caught up on
database damaged or gone                   built again from done/ and jobs/
"""

from __future__ import annotations

import logging
from pathlib import Path

from tsbs_daw.contracts.job import Result
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.events import JobLifecycle
from tsbs_daw.queue.intake import read_new_job
from tsbs_daw.queue.records import NewJob
from tsbs_daw.watch.ingest import Ingest

log = logging.getLogger(__name__)


def recover(lifecycle: JobLifecycle, ingest: Ingest) -> None:
    """Needs the lock of the home: it takes for granted that no other daemon lives.

    Raises: NoSpaceLeft: the store cannot be written to
    """
    store, spool = lifecycle.store, lifecycle.spool
    spool.sweep()
    if store.database.rebuilt:
        count = _gather_finished(lifecycle)
        if count:
            log.warning("the job database is new; %d finished jobs were gathered from %s", count, spool.done)
    for job_id in store.take_over():
        log.info("job %s was interrupted with its daemon, and waits again", job_id)
    for folder in spool.live_folders():
        with lifecycle.confine(folder.name):
            row = store.get(folder.name) if source_name(folder.name) == folder.name else None
            if row is None or (row.state.finished and spool.runs_again(row.id)):
                ingest.restore(folder)
            elif row.state.finished and row.result is not None:
                lifecycle.settle(row.result)


def _gather_finished(lifecycle: JobLifecycle) -> int:
    """Put the finished jobs of done/ into a new store, so that they are remembered and not computed again."""
    count = 0
    for folder in lifecycle.spool.finished_folders():
        try:
            result = Result.read(folder / "result.json")
            with lifecycle.confine(result.id):
                lifecycle.store.record_finished(_new_job_of(lifecycle, folder), result)
                count += 1
        except (OSError, JobFormatError) as error:
            log.warning("%s is left out: %s", folder, error)
    return count


def _new_job_of(lifecycle: JobLifecycle, folder: Path) -> NewJob | None:
    """None when the request could not be read, which is then what its result says."""
    try:
        return read_new_job(folder, lifecycle.spool.read_request(folder), finished=True)
    except JobFormatError:
        return None
