"""A job's folder as it arrives: job.json, and for watched files intake.json beside it.

intake.json is the daemon's own note: which watched file the copy in the folder was made of, and what its content is.
With it the queue can be built again from the folders alone. It is ASCII; what is not text in a path is escaped.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tsbs_daw.contracts.job import Job, Source
from tsbs_daw.core.errors import JobFormatError, printable, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import read_small, write_atomically, write_synced
from tsbs_daw.queue.records import NewJob, SeenFile
from tsbs_daw.queue.spool import REQUEST_BYTES, SOURCE

INTAKE = "intake.json"
SCHEMA = 1


def write_new_job(folder: Path, new_job: NewJob) -> None:
    """Both notes, synced; job.json last, because it makes the folder complete."""
    if new_job.file is not None:
        note = {"schema": SCHEMA, "file": asdict(new_job.file)}
        note |= {"model_hash": new_job.model_hash, "source_bytes": new_job.source_bytes}
        write_synced(folder / INTAKE, json.dumps(note, indent=2))
    write_atomically(folder / "job.json", new_job.job.to_json())


def read_new_job(folder: Path, job: Job, *, finished: bool = False) -> NewJob:
    """What arrived in this folder, whose job.json has been read.

    Args:   finished: the job will not run, so it does not matter whether its source is still there
    Raises: JobFormatError: the note is damaged, or neither the copy of the source nor the source is there any more
    """
    path = folder / INTAKE
    if not os.path.lexists(path):
        return NewJob(job)
    try:
        new_job = _new_job_of(job, json.loads(read_small(path, REQUEST_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = printable(getattr(error, "strerror", None) or str(error))[:300]
        raise JobFormatError(f"{shown(path)} is damaged ({why}); drop the song into its folder again.") from error
    if finished or (folder / SOURCE / job.source.path.name).is_file():
        return new_job
    return _from_original(new_job)


def _new_job_of(job: Job, note: Any) -> NewJob:
    """Raises: KeyError, TypeError, ValueError: not a note of ours"""
    file = SeenFile(**note["file"])
    for field in fields(file):
        value = getattr(file, field.name)
        if not isinstance(value, str) and (value is not None or field.default is not None):
            raise TypeError(f"{field.name} is not a text")
        # Paths may hold what is not text, as the system hands it out; nothing else may.
        codec = os.fsencode if field.name in ("root", "relative") else str.encode
        if value is not None and b"\0" in codec(value):
            raise ValueError(f"{field.name} holds a NUL")
    model_hash, source_bytes = note["model_hash"], note["source_bytes"]
    if not isinstance(model_hash, str) or model_hash.encode() is None:
        raise TypeError("model_hash is not a text")
    if not isinstance(source_bytes, int) or not 0 <= source_bytes < 1 << 62:
        raise TypeError("source_bytes is not a size")
    return NewJob(job, source_name(Path(file.root, file.relative)), file, model_hash, source_bytes)


def _from_original(new_job: NewJob) -> NewJob:
    """The copy left with an earlier run: use the file itself, whatever is in it by now."""
    assert new_job.file is not None, "only files of watch folders are copied"
    original = Path(new_job.file.root, new_job.file.relative)
    try:
        original.stat()
        source = Source(**(new_job.job.source.model_dump() | {"path": original}))
    except (OSError, ValueError) as error:
        raise JobFormatError(f"{shown(new_job.source_key)} is gone, so it cannot run again; put it back.") from error
    return NewJob(new_job.job.model_copy(update={"source": source}), source_key=new_job.source_key)
