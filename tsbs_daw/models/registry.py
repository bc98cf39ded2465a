"""Models by name: the bundled model, known models to pull, the user's converted models, and any local path.

default            in the package
htdemucs, ...      described by a YAML file in `zoo/` or among the user's models, and pulled on request; see `pull`
<name>             <models>/<name>.safetensors, written by `tsbs-daw models convert`
a path             any .safetensors file

A description states the kind of network, the address of the weights, and their licence with its source. It pins the
hash of the download if one is published; otherwise the first pull records it. Only the default model's weights are
bundled. The first use of a model records its hash in `hashes.json` beside it; a file that changes later is refused
before it is opened.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsbs_daw.core.config import Settings
from tsbs_daw.core.documents import Kind as DocumentKind
from tsbs_daw.core.documents import read_model
from tsbs_daw.core.errors import CheckpointError, SettingsError, UnknownModel, UsageError, shown
from tsbs_daw.core.files import file_sha256, write_atomically

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "weights" / "default.safetensors"
ZOO = Path(__file__).parent / "zoo"  # one description per model, with the model's name
DESCRIPTION_SUFFIX = ".yaml"
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".th", ".bin", ".pkl", ".chpt")
HASHES = "hashes.json"
SCHEMA = 1
SPEEDS = "speeds.json"  # in the cache: measured speed of each model on this machine

_DESCRIPTION = DocumentKind("model description", SettingsError, "it needs at least `network:`, `stems:` and `url:`")


class Description(BaseModel):
    """A known model: a checkpoint that can be pulled, or the bundled model.

    Attributes:
        name: Name of the description's file, without its ending.
        network: A key of `kinds.KINDS`.
        config: Values of the network's config; for TS-BSMamba2, `{size: full}`.
        complement: The stem that is the mixture minus the others, for a network with a single output.
        url: Address of the weights, a safetensors file or a pickle. None for the bundled model.
        size_bytes: Approximate size of the download, checked against the free space.
        sha256: Published hash of the download. None if there is none; then the first pull records it.
        licence: One sentence about the weights; `licence_source` says where that is stated.
        accept_licence: Whether `pull` requires `--accept-licence`.
        standardised: Whether the weights expect chunks of zero mean and unit standard deviation.
        sdr_db: SDR by stem; `measured_on` says on which songs, with which definition, and by whom.
        memory_bytes: Memory for a separation, measured on a CPU.
        cost: Computing time relative to the bundled model, measured on a CPU; 0 if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: Annotated[str, Field(min_length=1, max_length=300)]
    licence: Annotated[str, Field(min_length=1, max_length=600)]
    licence_source: str = ""
    accept_licence: bool = False
    network: Literal["ts-bs-mamba2", "htdemucs", "bs-roformer", "mel-band-roformer"] = "ts-bs-mamba2"
    config: dict[str, Any] = Field(default_factory=dict)
    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    complement: str | None = None
    standardised: bool = False
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    size_bytes: Annotated[int, Field(ge=0, le=4 << 30)] = 0
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sdr_db: dict[str, float] = Field(default_factory=dict)
    measured_on: str = ""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _complement_is_a_stem(self) -> Description:
        if self.complement is not None and self.complement not in self.stems:
            raise ValueError(f"the complement {self.complement!r} is not one of the stems {', '.join(self.stems)}")
        return self

    def values(self) -> dict[str, Any]:
        """Return the values for `Kind.config`."""
        values: dict[str, Any] = {**self.config, "stems": list(self.stems)}
        if self.complement is not None:
            values["complement"] = self.complement
        if self.standardised:
            values["standardised"] = True
        return values


def read_description(path: Path) -> Description:
    """Read a description from a file, which gives it its name.

    Raises:
        SettingsError: The file is not a valid description; with line and column.
    """
    description = read_model(path, Description, _DESCRIPTION)
    if description.url is None:
        raise SettingsError("`url:` is missing; give the address of the weights.", path)
    return description.model_copy(update={"name": path.stem})


@cache
def bundled_descriptions() -> dict[str, Description]:
    """Return the descriptions of this package, by name."""
    return {path.stem: read_description(path) for path in sorted(ZOO.glob(f"*{DESCRIPTION_SUFFIX}"))}


def own_descriptions(folder: Path) -> dict[str, Description]:
    """Return the user's descriptions in a folder, by name. Invalid ones are logged and skipped."""
    descriptions = {}
    for path in sorted(folder.glob(f"*{DESCRIPTION_SUFFIX}")):
        if path.stem in bundled_descriptions() or path.stem == "default":
            log.warning("%s has the name of a known model and is ignored; rename it", path)
            continue
        try:
            descriptions[path.stem] = read_description(path)
        except UsageError as error:
            log.warning("%s The description is ignored.", error)
    return descriptions


KNOWN = {
    "default": Description(
        name="default",
        description="The small model of this package, for any laptop; its own card says what it was trained on.",
        licence="Apache-2.0",
        licence_source="its own card, in docs/models.md",
        config={"size": "tiny"},
        sdr_db={"drums": 0.7, "bass": 4.21, "other": -0.01, "vocals": 2.98, "mean": 1.97},
        measured_on="five real songs, whole-track SDR, the median over songs (docs/results/default-real.json)",
        memory_bytes=1_000_000_000,
        cost=1.0,
    ),
    **bundled_descriptions(),
}


def known_models(settings: Settings) -> dict[str, Description]:
    """Return all known models: the bundled descriptions and the user's own."""
    return {**KNOWN, **own_descriptions(settings.models)}


class HashRecord:
    """The SHA-256 hashes of the files in one folder, by file name. Safe for use by several processes."""

    def __init__(self, folder: Path):
        self.path = folder / HASHES

    def known(self, file: Path) -> str | None:
        """Return the recorded hash; None if there is none.

        Raises:
            CheckpointError: The record is damaged.
        """
        return self._read().get(file.name)

    def check(self, file: Path) -> str:
        """Hash a file and compare it with the record; record it on first use.

        Returns:
            The hash in hex.

        Raises:
            CheckpointError: The file has changed since its first use, or the record is damaged.
        """
        sha256, recorded = file_sha256(file), self.known(file)
        if recorded is None:
            self.record(file, sha256)
        elif recorded != sha256:
            raise CheckpointError(
                f"{shown(file)} has changed since its first use (SHA-256 {sha256[:12]}… instead of {recorded[:12]}…). "
                f"Delete it and get it again or, if you changed it, remove its line from {shown(self.path)}."
            )
        return sha256

    def record(self, file: Path, sha256: str) -> None:
        """Record the hash of a file. If the folder is not writable, only a warning is logged."""
        try:
            with FileLock(f"{self.path}.lock"):
                files = self._read() | {file.name: sha256}
                write_atomically(self.path, json.dumps({"schema": SCHEMA, "files": files}, indent=2, sort_keys=True))
        except OSError as error:
            log.warning("cannot write %s (%s); changes to %s will not be detected", self.path, error, file.name)

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            return {str(name): str(sha256) for name, sha256 in content["files"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{shown(self.path)} is damaged ({error}), so models cannot be checked; "
                "delete it if you trust the models beside it."
            ) from error


@dataclass(frozen=True)
class Entry:
    """A line of `models list`.

    Attributes:
        name: Name of the model.
        path: The model file; None if a known model has not been pulled.
        known: The description; None for the user's own models.
    """

    name: str
    path: Path | None
    known: Description | None

    @property
    def state(self) -> str:
        if self.known is None:
            return "yours"
        if self.known.url is None:
            return "bundled" if self.path else "missing"
        return "pulled" if self.path else "not pulled"


def resolve(name_or_path: str | Path, settings: Settings) -> Path:
    """Return the model file for a name or a path. Files in the folder of models are checked against their hash.

    Raises:
        UnknownModel: There is no such model or file.
        CheckpointError: The file has changed or is a pickle, or the bundled model is missing.
    """
    name = str(name_or_path)
    if name == "default":
        return bundled_model()
    if is_name(name):
        path = model_path(name, settings)
        if path.is_file():
            HashRecord(settings.models).check(path)
            return path
    if name in known_models(settings):
        raise UnknownModel(f"The model {name} is not installed; get it with `tsbs-daw models pull {name}`.")
    return _local_file(name, settings)


def members(model: str) -> tuple[str, ...]:
    """Split `a,b`, which requests the mean of several models. The path of an existing file may contain a comma."""
    if "," not in model or _existing_file(model) is not None:
        return (model,)
    return tuple(dict.fromkeys(part.strip() for part in model.split(",")))


def locate(name_or_path: str, settings: Settings) -> Path | None:
    """Return the model file for a name or a path without checking it; None if there is none."""
    if name_or_path == "default":
        return BUNDLED if BUNDLED.is_file() else None
    path = model_path(name_or_path, settings)
    if is_name(name_or_path) and path.is_file():
        return path
    return _existing_file(name_or_path) if name_or_path not in known_models(settings) else None


def bundled_model() -> Path:
    """Return the model file of the package.

    Raises:
        CheckpointError: It is missing.
    """
    if not BUNDLED.is_file():
        raise CheckpointError(f"The bundled model is missing at {BUNDLED}; install tsbs-daw again.")
    return BUNDLED


def _local_file(name: str, settings: Settings) -> Path:
    path = _existing_file(name)
    if path is not None:
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(
                f"{shown(path)} is a pickled checkpoint, which is never loaded directly; "
                f"convert it with `tsbs-daw models convert {path.name} {path.stem}{SUFFIX}`."
            )
        return path
    if not is_name(name):
        raise UnknownModel(f"There is no model file {name[:300]!r}; `tsbs-daw models list` lists all models.")
    close = difflib.get_close_matches(name, [entry.name for entry in list_models(settings)], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "`tsbs-daw models list` lists all models."
    raise UnknownModel(f"There is no model {name!r}; {hint}")


def _existing_file(name: str) -> Path | None:
    """Return the path of a file; None if it is missing or the path is invalid (a NUL, too long, no such home)."""
    try:
        path = Path(name).expanduser().absolute()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def is_name(text: str) -> bool:
    """Return whether this is a valid model name: no folder or ending, only characters safe on every file system."""
    return bool(text) and text[0].isalnum() and all(c.isalnum() or c in "-_+" for c in text) and len(text) <= 100


def model_path(name: str, settings: Settings) -> Path:
    """Return the path of the pulled or converted model `name`, whether it exists or not."""
    return settings.models / f"{name}{SUFFIX}"


def list_models(settings: Settings) -> list[Entry]:
    """List the known models, then the user's own by name."""
    models = known_models(settings)
    places = {name: BUNDLED if known.url is None else model_path(name, settings) for name, known in models.items()}
    entries = [Entry(name, path if path.is_file() else None, models[name]) for name, path in places.items()]
    files = (path for path in settings.models.glob(f"*{SUFFIX}") if path.is_file())  # reading a named pipe would block
    mine = sorted(path for path in files if path.stem not in models and is_name(path.stem))
    return entries + [Entry(path.stem, path, None) for path in mine]


def find(name: str, settings: Settings) -> Entry:
    """Return the entry for a name or a path.

    Raises:
        UnknownModel: There is no such model or file.
        CheckpointError: The file is a pickle.
    """
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    return Entry(name, _local_file(name, settings), None)


def speed_here(path: Path, settings: Settings) -> float | None:
    """Return the last measured speed of a model on this machine, in times real time; None if it was never measured."""
    return _speeds(settings.cache).get(_speed_key(path))


def expected_speed(known: Description, settings: Settings) -> float | None:
    """Estimate the speed of a model from that of the bundled one, in times real time; None if unknown."""
    reached = speed_here(BUNDLED, settings) if BUNDLED.is_file() else None
    return reached / known.cost if reached and known.cost else None


def record_speed(path: Path, times_real_time: float, cache: Path) -> None:
    """Store a measured speed for `models list`. If that fails, it is ignored."""
    with contextlib.suppress(OSError, Timeout), FileLock(f"{cache / SPEEDS}.lock", timeout=1):
        known = _speeds(cache) | {_speed_key(path): round(times_real_time, 3)}
        write_atomically(cache / SPEEDS, json.dumps(known, indent=2, sort_keys=True))


def _speed_key(path: Path) -> str:
    return f"{path.stem} {path.stat().st_size}"


def _speeds(cache: Path) -> dict[str, float]:
    try:
        content = json.loads((cache / SPEEDS).read_text(encoding="utf-8"))
        return {str(name): float(speed) for name, speed in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
