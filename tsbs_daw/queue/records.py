"""One job as the queue remembers it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, fields

from tsbs_daw.contracts.job import Job, Result, State
from tsbs_daw.queue.seen import SeenFile


@dataclass(frozen=True)
class JobRow:
    """A row of the table `jobs`.

    seq:              order of arrival
    attempts:         how often a worker took it up; retries: how often in vain, for a reason that may pass;
    crashes:          how often the worker died of it
    fence:            number of the latest lease; a result of an earlier one is dropped
    owner:            the daemon's run that holds the lease
    lease_until, not_before: seconds of the monotonic clock of that run, so that no wall clock can end them;
                      another run knows neither, and starts without
    cancel_requested: empty, or the state that the job shall end in: "cancelled" or "superseded"
    source_key:       the file it is about, for people and for superseding; escaped where it is not text
    job_json:         empty when the request could not be read
    source_bytes:     size of the copy of the source that lies in the spool; 0 without a copy
    """

    seq: int
    id: str
    state: State
    priority: int
    attempts: int
    retries: int
    crashes: int
    fence: int
    owner: str
    lease_until: float
    not_before: float
    cancel_requested: str
    progress: float
    message: str
    error: str | None
    source_key: str
    song: str
    origin: str
    input_hash: str | None
    preset_hash: str | None
    model_hash: str | None
    source_bytes: int
    created_unix_s: float
    finished_unix_s: float
    job_json: str
    result_json: str | None

    @property
    def job(self) -> Job:
        return Job.from_json(self.job_json, f"job {self.id}")

    @property
    def result(self) -> Result | None:
        return Result.from_json(self.result_json, f"the result of job {self.id}") if self.result_json else None

    @property
    def from_watch_folder(self) -> bool:
        return self.input_hash is not None

    @classmethod
    def from_sql(cls, row: sqlite3.Row) -> JobRow:
        values = {name.name: row[name.name] for name in fields(cls)}
        values["state"] = State(values["state"])
        return cls(**values)


@dataclass(frozen=True)
class Arrival:
    """A job on its way into the queue.

    file:         the watched file it came from; its `input_hash` is that of the copy in the spool
    source_bytes: size of that copy
    model_hash:   fingerprint of the model; that of the preset and the folder's options is in `file.settings_hash`
    """

    job: Job
    source_key: str = ""
    file: SeenFile | None = None
    model_hash: str = ""
    source_bytes: int = 0


@dataclass
class Enqueued:
    """What a batch of arrivals came to, by job id.

    unchanged:  nothing to do: the same content is already queued or done under the same name
    superseded: waiting jobs that a newer version of their file has ended
    """

    queued: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
