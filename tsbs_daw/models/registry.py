"""Models by name: the bundled model, known models to pull, the user's converted models, and any local path.

default            in the package
htdemucs, ...      described by a YAML file in `zoo/` or among the user's models, and pulled on request; see `pull`
<name>             <models>/<name>.safetensors, written by `tsbs-daw models convert`
a path             any .safetensors file

A description says which network it is, where its weights are, which file they must be, and under which licence, with
the source of that statement. No weights but the default's are bundled. It pins the hash of its download where one is
published; else the first pull records it. The first use of a model records its hash in `hashes.json` beside it, and a
file that changes later is refused before anything in it is read.
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
ZOO = Path(__file__).parent / "zoo"  # a description each, named like the model
DESCRIPTION_SUFFIX = ".yaml"
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".th", ".bin", ".pkl", ".chpt")
HASHES = "hashes.json"
SCHEMA = 1
SPEEDS = "speeds.json"  # in the cache: how fast each model was here

_DESCRIPTION = DocumentKind("model description", SettingsError, "it needs at least `network:`, `stems:` and `url:`")


class Description(BaseModel):
    """A checkpoint that can be pulled.

    Attributes:
        name: That of its file, without the ending.
        network: A key of `kinds.KINDS`.
        config: What the network needs to know beside its weights; `{size: full}` for TS-BSMamba2.
        complement: The stem that is the mixture without the others, for a network of one stem.
        url: Where its weights are: a safetensors file or a pickle. None for the bundled model.
        size_bytes: Of the download, exactly or nearly; checked against the free space.
        sha256: Of the download, where one is published. None: the first pull records it.
        licence: One sentence about the weights; `licence_source` says where that is stated.
        accept_licence: Whether `pull` asks for `--accept-licence`.
        standardised: The weights expect chunks of zero mean and unit deviation.
        sdr_db: Published or measured SDR by stem; `measured_on` says on what, which kind, and by whom.
        memory_bytes: What a separation needs, measured on a processor.
        cost: Its time for a second of sound over that of the bundled model, measured on a processor; 0: unknown.
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
            raise ValueError(f"the complement {self.complement!r} is none of the stems {', '.join(self.stems)}")
        return self

    def values(self) -> dict[str, Any]:
        """What `Kind.config` takes."""
        found: dict[str, Any] = {**self.config, "stems": list(self.stems)}
        if self.complement is not None:
            found["complement"] = self.complement
        if self.standardised:
            found["standardised"] = True
        return found


def read_description(path: Path) -> Description:
    """A file's description, under the file's name. Raises: SettingsError: with line and column"""
    found = read_model(path, Description, _DESCRIPTION)
    if found.url is None:
        raise SettingsError("`url:` is missing; say where the weights are.", path)
    return found.model_copy(update={"name": path.stem})


@cache
def bundled_descriptions() -> dict[str, Description]:
    """The descriptions of this package, by name."""
    return {path.stem: read_description(path) for path in sorted(ZOO.glob(f"*{DESCRIPTION_SUFFIX}"))}


def own_descriptions(folder: Path) -> dict[str, Description]:
    """The user's descriptions in a folder, by name. One that cannot be used is logged and left out."""
    found = {}
    for path in sorted(folder.glob(f"*{DESCRIPTION_SUFFIX}")):
        if path.stem in bundled_descriptions() or path.stem == "default":
            log.warning("%s has the name of a known model and is not used; rename it", path)
            continue
        try:
            found[path.stem] = read_description(path)
        except UsageError as error:
            log.warning("%s It is not listed.", error)
    return found


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
    """What can be pulled: the bundled descriptions and the user's own."""
    return {**KNOWN, **own_descriptions(settings.models)}


class HashRecord:
    """The SHA-256 hashes of the files in one folder, by file name. Safe for several processes."""

    def __init__(self, folder: Path):
        self.path = folder / HASHES

    def known(self, file: Path) -> str | None:
        """The recorded hash; None if there is none.

        Raises:
            CheckpointError: the record is damaged
        """
        return self._read().get(file.name)

    def check(self, file: Path) -> str:
        """Hash a file and compare it with the record; record it on first use.

        Returns:
            The hash in hex

        Raises:
            CheckpointError: the file has changed since its first use
        """
        found, recorded = file_sha256(file), self.known(file)
        if recorded is None:
            self.record(file, found)
        elif recorded != found:
            raise CheckpointError(
                f"{shown(file)} has changed since its first use (SHA-256 {found[:12]}… instead of {recorded[:12]}…); "
                f"delete it and get it again or, if you changed it, remove its line from {shown(self.path)}."
            )
        return found

    def record(self, file: Path, sha256: str) -> None:
        """Record the hash of a file. If the folder is not writable, only a warning is logged."""
        try:
            with FileLock(f"{self.path}.lock"):
                files = self._read() | {file.name: sha256}
                write_atomically(self.path, json.dumps({"schema": SCHEMA, "files": files}, indent=2, sort_keys=True))
        except OSError as error:
            log.warning("cannot write %s (%s): %s is not checked for changes", self.path, error, file.name)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']}")
            return {str(name): str(sha256) for name, sha256 in found["files"].items()}
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
        path: None while a known model is not pulled
        known: None for the user's own models
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
    """The checkpoint behind a name or a path, its hash checked if it lies among the pulled and converted ones.

    Raises: UnknownModel: neither a name nor a file; CheckpointError: changed, missing, or a pickle
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
    """The models whose mean is asked for by `a,b`; a single one is alone. A file may have a comma in its path."""
    if "," not in model or _existing_file(model) is not None:
        return (model,)
    return tuple(dict.fromkeys(part.strip() for part in model.split(",")))


def locate(name_or_path: str, settings: Settings) -> Path | None:
    """The file that a name or a path leads to, unchecked; None when there is none."""
    if name_or_path == "default":
        return BUNDLED if BUNDLED.is_file() else None
    path = model_path(name_or_path, settings)
    if is_name(name_or_path) and path.is_file():
        return path
    return _existing_file(name_or_path) if name_or_path not in known_models(settings) else None


def bundled_model() -> Path:
    """The checkpoint of the package. Raises: CheckpointError: it is missing"""
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
    """The path of a file; None if it is missing or cannot be a path (a NUL, too long, no such home)."""
    try:
        path = Path(name).expanduser().absolute()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def is_name(text: str) -> bool:
    """Whether this can be the name of a model: no folder, no ending, only characters that every file system accepts."""
    return bool(text) and text[0].isalnum() and all(c.isalnum() or c in "-_+" for c in text) and len(text) <= 100


def model_path(name: str, settings: Settings) -> Path:
    """The path of the pulled or converted model `name`, whether it exists or not."""
    return settings.models / f"{name}{SUFFIX}"


def list_models(settings: Settings) -> list[Entry]:
    """The known models first, then the user's own by name."""
    models = known_models(settings)
    places = {name: BUNDLED if known.url is None else model_path(name, settings) for name, known in models.items()}
    entries = [Entry(name, path if path.is_file() else None, models[name]) for name, path in places.items()]
    files = (path for path in settings.models.glob(f"*{SUFFIX}") if path.is_file())  # reading a pipe would wait
    mine = sorted(path for path in files if path.stem not in models and is_name(path.stem))
    return entries + [Entry(path.stem, path, None) for path in mine]


def find(name: str, settings: Settings) -> Entry:
    """The entry of a name. Raises: UnknownModel, as `resolve` does for a path that is not there"""
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    return Entry(name, _local_file(name, settings), None)


def speed_here(path: Path, settings: Settings) -> float | None:
    """How many times faster than real time this model last separated on this machine; None: it has not yet."""
    return _speeds(settings.cache).get(_speed_key(path))


def expected_speed(known: Description, settings: Settings) -> float | None:
    """How many times faster than real time this model should be here, judging by the bundled one; None: unknown."""
    reached = speed_here(BUNDLED, settings) if BUNDLED.is_file() else None
    return reached / known.cost if reached and known.cost else None


def record_speed(path: Path, times_real_time: float, cache: Path) -> None:
    """Keep a measured speed for `models list`. What cannot be written is not needed."""
    with contextlib.suppress(OSError, Timeout), FileLock(f"{cache / SPEEDS}.lock", timeout=1):
        known = _speeds(cache) | {_speed_key(path): round(times_real_time, 3)}
        write_atomically(cache / SPEEDS, json.dumps(known, indent=2, sort_keys=True))


def _speed_key(path: Path) -> str:
    return f"{path.stem} {path.stat().st_size}"


def _speeds(cache: Path) -> dict[str, float]:
    try:
        found = json.loads((cache / SPEEDS).read_text(encoding="utf-8"))
        return {str(name): float(speed) for name, speed in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
