"""A job's folder as it arrives: job.json, and for watched files intake.json beside it.

intake.json is the daemon's own note: which watched file the copy in the folder was made of, and what its content is.
With it the queue can be built again from the folders alone. It is ASCII; what is not text in a path is escaped.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tsbs_daw.contracts.job import Job, Source
from tsbs_daw.core.errors import JobFormatError, shown
from tsbs_daw.core.files import write_atomically, write_synced
from tsbs_daw.queue.enqueue import source_name
from tsbs_daw.queue.records import Arrival
from tsbs_daw.queue.seen import SeenFile
from tsbs_daw.queue.spool import SOURCE

INTAKE = "intake.json"
SCHEMA = 1


def write_arrival(folder: Path, arrival: Arrival) -> None:
    """Both notes, synced; job.json last, because it makes the folder complete."""
    if arrival.file is not None:
        note = {"schema": SCHEMA, "file": asdict(arrival.file)}
        note |= {"model_hash": arrival.model_hash, "source_bytes": arrival.source_bytes}
        write_synced(folder / INTAKE, json.dumps(note, indent=2))
    write_atomically(folder / "job.json", arrival.job.to_json())


def read_arrival(folder: Path, job: Job, *, finished: bool = False) -> Arrival:
    """What arrived in this folder, whose job.json has been read.

    Args:   finished: the job will not run, so it does not matter whether its source is still there
    Raises: JobFormatError: the note is damaged, or neither the copy of the source nor the source is there any more
    """
    path = folder / INTAKE
    if not path.is_file():
        return Arrival(job)
    try:
        note = json.loads(path.read_bytes())
        file = SeenFile(**note["file"])
        arrival = Arrival(
            job,
            source_key=source_name(Path(file.root, file.relative)),
            file=file,
            model_hash=note["model_hash"],
            source_bytes=note["source_bytes"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobFormatError(f"{shown(path)} is damaged ({error}); drop the song into its folder again.") from error
    if finished or (folder / SOURCE / job.source.path.name).is_file():
        return arrival
    return _from_original(arrival)


def _from_original(arrival: Arrival) -> Arrival:
    """The copy left with an earlier run: use the file itself, whatever is in it by now."""
    original = Path(arrival.file.root, arrival.file.relative)
    try:
        original.stat()
        source = Source(**(arrival.job.source.model_dump() | {"path": original}))
    except (OSError, ValueError) as error:
        raise JobFormatError(f"{shown(arrival.source_key)} is gone, so it cannot run again; put it back.") from error
    return Arrival(arrival.job.model_copy(update={"source": source}), source_key=arrival.source_key)
