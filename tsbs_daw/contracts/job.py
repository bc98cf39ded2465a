"""The JSON contract: a request for a separation, its progress, and its result.

The REAPER scripts, the command line and the watch folder all use the same four documents. Each carries a `schema`
number. Unknown keys are rejected, so that a misspelt option is an error and not a surprise.

A request has schema 1 or 2, and its result has the same. In schema 2, the result names the analysis. A client that
sends schema 1 gets the keys of schema 1 and no others.

    job.json        Job        what to do             written by the client
    progress.json   Progress   how far it is          written by the daemon, during the job
    result.json     Result     the outcome            written by the daemon, last
    heartbeat.json  Heartbeat  the daemon is alive    written by the daemon, in the spool root

A job's `Treatment` is what is done to its song: preset, model, options. Watch folders and batches use the same type.
Its fingerprint identifies the settings, and is only used to tell whether a song has been processed with them already.
What can be reused of an earlier separation is decided by the pipeline, from the hashes of what it really loaded. So
the fingerprint can be cheap: a file whose size and modification time are unchanged is not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import to_json

from tsbs_daw.contracts import Document, Part, Sentence
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import PresetError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import registry
from tsbs_daw.presets.delivery import DeliveryOptions

_LONGEST_PATH = 32767  # characters; the limit of Windows, which is the highest of any system
_MOST_SAMPLES = 1 << 53  # the largest integer that every JSON reader represents exactly


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"the path {str(path)[:200]!r} is not absolute")
    if "\0" in str(path) or len(str(path)) > _LONGEST_PATH:
        raise ValueError(f"the path {str(path)[:200]!r} is not valid on any system")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class State(str, Enum):
    """The states of a job. A job that is neither `queued` nor `running` is finished and does not change any more."""

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


def new_job_id() -> str:
    """Make an id that sorts by creation time, is safe as a file name, and is unique without coordination."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:12]}"


JobId = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$").pattern)]


class Source(Part):
    """The audio to separate: a file, or a portion of it.

    Attributes:
        path: The file.
        start_samples: Start of the portion, at the file's own sample rate.
        length_samples: Length of the portion, at the file's own sample rate; None: to the end.
    """

    path: AbsolutePath
    start_samples: int = Field(0, ge=0, le=_MOST_SAMPLES)
    length_samples: int | None = Field(None, ge=1, le=_MOST_SAMPLES)


def _name_or_path(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST_PATH:
        raise ValueError(f"{text[:100]!r} is neither a name nor a valid path")
    return text


class Treatment(Part):
    """What is done to a song.

    Attributes:
        preset: A shipped preset's name or an absolute path to a YAML file.
        model: A registered model's name or an absolute path; several, separated by commas, are averaged.
        stage: "full" runs both stages of the network, "mask" only the first.
        null: Share the residual among the stems, whatever the preset says. This is the default by now.
        salvage: Separate what is left of a file that is cut short or damaged.
        delivery: Overrides of the preset's own `delivery:`.
    """

    preset: Annotated[str, AfterValidator(_name_or_path)] = "none"
    model: Annotated[str, AfterValidator(_name_or_path)] = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    salvage: bool = False
    delivery: DeliveryOptions | None = None

    def fingerprint(self, hashes: ContentHashes, output: Path) -> str:
        """Return a hash that is the same in every process for equal treatments with the same output.

        The preset counts by its content, models by their names; `ContentHashes.of_models` distinguishes their weights.
        """
        decisive: list[Any] = [hashes.of_preset(self.preset), self.preset, self.model, self.stage, self.null]
        decisive += [os.fsencode(output).hex(), *hashes.precision]
        # Only added if set: without them, the fingerprint equals that of versions without these options.
        decisive += ["salvage"] if self.salvage else []
        decisive += [to_json(self.delivery.stated).decode()] if self.delivery else []
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


class Exchanged(Document):
    """A request or a result, in the schema that the client understands."""

    SCHEMAS: ClassVar[tuple[int, ...]] = (1, 2)

    schema_: Literal[1, 2] = Field(1, alias="schema")  # type: ignore[assignment]  # wider than a Document's


class Job(Treatment, Exchanged):
    """One request: a song, what is done to it, and where the result goes.

    Attributes:
        id: The job's id.
        source: The audio to separate.
        output: Folder in which the song's folder is created.
        song: Name of that folder and of the session; None: the source file's name without its extension.
        origin: The kind of client.
        priority: "interactive" jobs go before "batch" jobs.
        deliver: What the DAW side needs to find its item again; passed on to the result unchanged.
    """

    id: JobId = Field(default_factory=new_job_id)
    source: Source
    output: AbsolutePath
    song: str | None = Field(None, max_length=200)
    origin: Literal["watch", "reaper", "ardour", "cli", "batch", "demo", "web"] = "cli"
    priority: Literal["interactive", "batch"] = "batch"
    deliver: dict[str, Any] = Field(default_factory=dict)

    @property
    def treatment(self) -> Treatment:
        return Treatment(**{name: getattr(self, name) for name in Treatment.model_fields})


class Progress(Document):
    """How far a job is.

    Attributes:
        id: The job's id.
        state: The job's state.
        fraction: Share of the work that is done; never decreases.
        message: One plain phrase such as "separating".
        attempt: Number of this attempt at the job, from 1.
        updated_unix_s: When this was written.
    """

    id: JobId
    state: State
    fraction: float = Field(0.0, ge=0, le=1)
    message: Sentence = ""
    attempt: int = 1
    updated_unix_s: float = 0.0


class StemFile(Part):
    """One delivered audio file.

    Attributes:
        kind: A dry stem or an output of the preset.
        color: As #rrggbb.
        folders: Folders that contain it, outermost first; see `manifest.AudioFile`. Only written in schema 2, if there
            are any.
    """

    name: str
    path: AbsolutePath
    kind: Literal["stem", "output"]
    color: str
    muted: bool = False
    folders: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_empty_folders(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if not self.folders:
            del written["folders"]
        return written


class Result(Exchanged):
    """The outcome of a job.

    Attributes:
        id: The job's id.
        state: The job's final state.
        error: One sentence for a musician; None when done.
        folder: Where the stems are.
        analysis: File with tempo, beats, key and sections, if the song was analysed. Only written in schema 2.
        time_reference_samples: Where the source starts in the session (BWF), at `sample_rate`.
    """

    id: JobId
    state: State
    error: Sentence | None = None
    retryable: bool = False
    folder: AbsolutePath | None = None
    session: AbsolutePath | None = None
    manifest: AbsolutePath | None = None
    analysis: AbsolutePath | None = None
    stems: tuple[StemFile, ...] = ()
    sample_rate: int = 0
    samples: int = 0
    time_reference_samples: int = 0
    warnings: tuple[Sentence, ...] = ()
    deliver: dict[str, Any] = Field(default_factory=dict)
    finished_unix_s: float = 0.0

    @model_serializer(mode="wrap")
    def _in_its_schema(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.schema_ == 1:
            del written["analysis"]
            for stem in written["stems"]:
                stem.pop("folders", None)
        return written


class JobEnded(Document):
    """The message to a watch folder's hook: a job has ended, and its stems, if any, are published.

    Attributes:
        id: Id of this message; the same when it is sent again after a crash.
        job: Id of the job.
        state: done, duplicate, failed or dead.
        source: Path of the song's file as it was found; bytes that are not text are escaped.
        source_now: Where that file is now; None if it was deleted.
    """

    event: Literal["done", "failed"]
    id: str
    job: JobId
    state: State
    song: Sentence
    source: Sentence
    source_now: Sentence | None = None
    error: Sentence | None = None
    folder: AbsolutePath | None = None
    session: AbsolutePath | None = None
    manifest: AbsolutePath | None = None
    stems: tuple[StemFile, ...] = ()
    warnings: tuple[Sentence, ...] = ()
    finished_unix_s: float = 0.0


class Heartbeat(Document):
    """A daemon's sign of life: it is alive if `updated_unix_s` is less than 10 s old."""

    pid: int
    version: str
    updated_unix_s: float
    device: str = ""


# ---- content behind names --------------------------------------------------------------------------------------------

_UNUSABLE = "unusable"  # the job will report what is wrong with it


class ContentHashes:
    """Hashes of the files behind the names of presets and models. A file is only read again when it has changed.

    Threads may share an instance: at worst, two of them compute the same hash.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._presets: dict[str, Path] = {}
        self._passes: dict[str, tuple[str, ...]] = {}  # models of the passes, by the hash of the preset
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}

    @property
    def precision(self) -> tuple[str, ...]:
        """The precision, if one was requested; empty otherwise, so that hashes match versions without the option."""
        return () if self._settings.precision == "auto" else (self._settings.precision,)

    def of_model(self, name: str) -> str:
        """Return the hashes of the checkpoints behind a name, and the precision.

        A checkpoint that is missing counts by its name.
        """
        return "-".join((*map(self._of_weights, registry.members(name)), *self.precision))

    def _of_weights(self, name: str) -> str:
        path = registry.locate(name, self._settings)
        digest = self._of_file(path, file_sha256) if path else _UNUSABLE
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest() if digest == _UNUSABLE else digest

    def of_models(self, treatment: Treatment) -> str:
        """Return a hash of the treatment's model and of the models that its preset's passes name."""
        own, preset = self.of_model(treatment.model), self.of_preset(treatment.preset)
        models = self._passes.get(preset, ())
        if not models:
            return own
        return hashlib.sha256("\n".join([own, *map(self.of_model, models)]).encode()).hexdigest()

    def of_preset(self, name: str) -> str:
        """Return the hash of a preset and of the files it names; a constant for one that cannot be read."""
        from tsbs_daw.presets.preset import preset_files, read_preset

        def digest(path: Path) -> str:
            preset = read_preset(path)
            self._passes[preset.sha256] = tuple(step.model for step in preset.passes)
            return preset.sha256

        path = Path(name) if Path(name).is_absolute() else self._presets.get(name)
        if path is None or not path.is_file():
            path = self._presets[name] = preset_files(self._settings.presets).get(name, Path(name))
        return self._of_file(path, digest)

    def _of_file(self, path: Path, digest: Callable[[Path], str]) -> str:
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != look:
                known = self._known[path] = (look, digest(path))
            return known[1]
        except (OSError, ValueError, PresetError):
            return _UNUSABLE
