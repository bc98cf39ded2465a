"""Jobs as they are shown to people: on the command line and on the web page.

Requests that no daemon has claimed yet lie in the spool's inbox, everything else in the store. A finished job that
waits for a retry is in both; then it is listed as a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tsbs_daw.contracts.job import State
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.records import JobRow, song_name
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore

SUBMITTED = "submitted"


def list_jobs(
    store: JobStore | None, spool: Spool, states: Iterable[State] = tuple(State), limit: int = -1
) -> list[dict[str, Any]]:
    """Requests, then at most `limit` jobs in these states; newest first. store: None when no daemon has ever run."""
    requests = unclaimed(spool)
    again = {job["id"] for job in requests}
    stored = [describe(row) for row in store.rows(states, limit)] if store is not None else []
    return requests + [job for job in stored if job["id"] not in again]


def describe(row: JobRow) -> dict[str, Any]:
    """A job of the store, ready for JSON."""
    return {
        "id": row.id,
        "state": row.state.value,
        "song": row.song,
        "source": row.source_key,
        "origin": row.origin,
        "fraction": row.progress,
        "message": row.message,
        "error": row.error,
        "attempts": row.attempts,
        "created_unix_s": row.created_unix_s,
        "finished_unix_s": row.finished_unix_s or None,
        "request": json.loads(row.job_json) if row.job_json else None,
        "result": json.loads(row.result_json) if row.result_json else None,
    }


def unclaimed(spool: Spool, limit: int = -1) -> list[dict[str, Any]]:
    """The newest `limit` requests that no daemon has claimed yet, in the form of `describe`; newest first."""
    if not spool.inbox.is_dir():
        return []
    folders = spool.waiting()[::-1]
    found = []
    for folder in folders[:limit] if limit >= 0 else folders:
        entry: dict[str, Any] = dict.fromkeys(("song", "source", "origin", "message", "request", "result", "error"))
        entry |= {"id": folder.name, "state": SUBMITTED, "fraction": 0.0, "attempts": 0, "finished_unix_s": None}
        try:
            entry["created_unix_s"] = (folder / "job.json").lstat().st_mtime
            job = spool.read_request(folder)
        except OSError:
            continue  # claimed in the meantime; the store has it now
        except JobFormatError as error:
            entry |= {"song": "?", "source": "?", "origin": "?", "error": str(error)}
        else:
            entry |= {"song": song_name(job), "source": source_name(job.source.path), "origin": job.origin}
            entry["request"] = json.loads(job.to_json())
        found.append(entry)
    return found
