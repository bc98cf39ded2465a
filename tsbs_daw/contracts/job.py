"""The JSON contract: what asks for a separation, how it goes, and what came of it.

The same four documents are written by the REAPER scripts, the command line and the watch folder. Each carries a
`schema` number; unknown keys are refused, so that a misspelt option is an error and not a surprise.

    job.json        Job        what to do             written by whoever asks
    progress.json   Progress   how far it is          written by the daemon, while it works
    result.json     Result     what came of it        written by the daemon, last
    heartbeat.json  Heartbeat  a daemon is alive      written by the daemon, in the spool root
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.presets.delivery import FEWEST_BARS, LOUDEST_LUFS, MOST_BARS, QUIETEST_LUFS, Delivery, template_problem

SCHEMA: Final = 1

AnyDocument = TypeVar("AnyDocument", bound="Document")


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"the path {str(path)!r} is not absolute")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class State(str, Enum):
    """The states of a job. A job that is not `queued` or `running` is finished and stays as it is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"  # its worker crashed three times
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # the source file changed before it was done
    DUPLICATE = "duplicate"  # the same content, preset and model are already done or queued

    @property
    def finished(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


class Part(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """A whole JSON file, with its schema number."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2)

    @classmethod
    def from_json(cls: type[AnyDocument], text: str | bytes, name: str) -> AnyDocument:
        """Parse and validate.

        Args:   name: what the message calls this text, usually its file
        Raises: JobFormatError: not JSON, another schema, unknown or wrong keys; one sentence
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise JobFormatError(f"{name} is not valid JSON ({error}); write it again.") from error
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise JobFormatError(
                f"{name} has schema {schema!r}, and this version of tsbs-daw understands schema {SCHEMA}; "
                "update whichever of the two is older."
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise JobFormatError(f"{name}: {where}: {first['msg']}.") from error


def new_job_id() -> str:
    """Sorts by creation time, safe as a file name, unique without coordination."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:12]}"


JobId = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$").pattern)]


class Source(Part):
    """The audio to separate: a file, or a portion of it.

    start_samples, length_samples: at the file's own sample rate; length None means to the end
    """

    path: AbsolutePath
    start_samples: int = Field(0, ge=0)
    length_samples: int | None = Field(None, ge=1)


def _template(text: str) -> str:
    if problem := template_problem(text):
        raise ValueError(f"the template {problem}")
    return text


class DeliveryOptions(Part):
    """What a request changes of its preset's `delivery:` section; what it leaves out stays as the preset has it."""

    format: Literal["wav32f", "wav24", "wav16", "flac24", "flac16", "aiff24", "aiff16", "mp3"] | None = None
    names: Annotated[str, AfterValidator(_template)] | None = None
    loudness_lufs: float | None = Field(None, ge=QUIETEST_LUFS, le=LOUDEST_LUFS)
    sessions: tuple[Literal["rpp", "dawproject"], ...] | None = None
    analysis: bool | None = None
    loops: tuple[Annotated[int, Field(ge=FEWEST_BARS, le=MOST_BARS)], ...] | None = None
    stem_mp4: bool | None = None
    markers: Literal["sections", "bars", "none"] | None = None
    source: Literal["none", "reference", "copy"] | None = None
    embed: bool | None = None

    def applied_to(self, delivery: Delivery) -> Delivery:
        return replace(delivery, **self.model_dump(exclude_none=True))


class Job(Document):
    """One request.

    output:   folder in which the song's folder appears
    song:     name of that folder and of the session; None: the source file's name without its ending
    preset:   a shipped preset's name or an absolute path to a YAML file
    model:    a registered model's name or an absolute path
    stage:    "full" runs both stages, "mask" only the first
    null:     give the residual back to the stems so that they sum to the source
    salvage:  separate what is there of a cut file
    delivery: what is to be different from the preset's own `delivery:`
    deliver:  what the DAW side needs to find its item again; carried to the result untouched
    """

    id: JobId = Field(default_factory=new_job_id)
    source: Source
    output: AbsolutePath
    song: str | None = Field(None, max_length=200)
    preset: str = "none"
    model: str = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    salvage: bool = False
    delivery: DeliveryOptions | None = None
    origin: Literal["watch", "reaper", "ardour", "cli", "batch", "demo"] = "cli"
    priority: Literal["interactive", "batch"] = "batch"
    deliver: dict[str, Any] = Field(default_factory=dict)


class Progress(Document):
    """How far a job is. `fraction` never falls; `message` is one plain phrase such as "separating"."""

    id: JobId
    state: State
    fraction: float = Field(0.0, ge=0, le=1)
    message: str = ""
    attempt: int = 1
    updated_unix_s: float = 0.0


class StemFile(Part):
    """One delivered audio file. `kind` tells a dry stem from a preset's output; `color` is #rrggbb."""

    name: str
    path: AbsolutePath
    kind: Literal["stem", "output"]
    color: str
    muted: bool = False


class Result(Document):
    """What came of a job. `error` is one sentence for a musician; None when done.

    folder:                 where the stems are
    time_reference_samples: where the source starts in the session (BWF), at sample_rate
    """

    id: JobId
    state: State
    error: str | None = None
    retryable: bool = False
    folder: AbsolutePath | None = None
    session: AbsolutePath | None = None
    manifest: AbsolutePath | None = None
    stems: tuple[StemFile, ...] = ()
    sample_rate: int = 0
    samples: int = 0
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()
    deliver: dict[str, Any] = Field(default_factory=dict)
    finished_unix_s: float = 0.0


class Heartbeat(Document):
    """A daemon is alive if `updated_unix_s` is less than 10 s old."""

    pid: int
    version: str
    updated_unix_s: float
    device: str = ""
