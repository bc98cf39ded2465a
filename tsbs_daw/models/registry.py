"""Models by name: the bundled model, known models to pull, the user's converted models, and any local path.

default            in the package
htdemucs, ...      described in `zoo`, pulled on request: downloaded, checked, converted
<name>             <models>/<name>.safetensors, written by `tsbs-daw models convert`
a path             any .safetensors file

A description pins the hash of its download where one is published; else the first pull records it. The first use of a
model records its hash in `hashes.json` beside it, and a file that changes later is refused before anything in it is
read.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, NoSpaceLeft, OutputError, UnknownModel, UsageError, shown
from tsbs_daw.core.files import file_sha256, write_atomically
from tsbs_daw.models.convert import convert
from tsbs_daw.models.download import download
from tsbs_daw.models.kinds import KINDS
from tsbs_daw.models.zoo import SUFFIX as DESCRIPTION_SUFFIX
from tsbs_daw.models.zoo import Description, bundled, own, read_description

FILE_NAME = "hashes.json"
SCHEMA = 1
SPEEDS = "speeds.json"  # in the cache: how fast each model was here


class HashRecord:
    """The SHA-256 hashes of the files in one folder, by file name. Safe for several processes."""

    def __init__(self, folder: Path):
        self.path = folder / FILE_NAME

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


log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "weights" / "default.safetensors"
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".th", ".bin", ".pkl", ".chpt")


KnownModel = Description  # a model that this program knows by name

KNOWN = {
    "default": KnownModel(
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
    **bundled(),
}


def known_models(settings: Settings) -> dict[str, Description]:
    """What can be pulled: the bundled descriptions and the user's own."""
    return {**KNOWN, **own(settings.models)}


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
        return _bundled()
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


def _bundled() -> Path:
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


def pull(
    model: str | Description,
    settings: Settings,
    *,
    accept_licence: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Download and convert a known model; what is already here is only checked.

    Where no hash is published, the download's is recorded once it proved to be a checkpoint, and a later pull must give
    the same.

    Args:
        model: A name, a description, or the path of a YAML file with one, which is kept among the models.
        accept_licence: The user accepts the licence of a model that asks for it.
        progress: Called with the bytes so far and in all (None: the server does not say).

    Raises:
        UnknownModel, SettingsError: No such model, or its description cannot be used.
        UsageError: Its licence must be accepted first.
        ModelError: The package of its network is not installed.
        DownloadError, NoSpaceLeft: What came so far is kept.
        CheckpointError: Another file than described, or not a checkpoint of the network.
    """
    known = _known(model, settings)
    if known.url is None:
        return _bundled()
    output = model_path(known.name, settings)
    if output.is_file():
        return _checked(output, settings)
    KINDS[known.network].require()
    if known.accept_licence and not accept_licence:
        raise UsageError(
            f"The licence of {known.name} must be accepted: {known.licence} Source: {known.licence_source}. "
            "Rerun the command with --accept-licence if you do."
        )
    try:
        settings.models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{settings.models} cannot be made ({error.strerror}); set TSBS_DAW_HOME elsewhere."
        ) from error
    _check_space(known, settings)
    downloaded = settings.models / f"{known.name}.ckpt"
    if not downloaded.is_file():
        download(known.url, downloaded, progress=progress)
    return _accept(known, downloaded, output, settings)


def _accept(known: Description, downloaded: Path, output: Path, settings: Settings) -> Path:
    """Hold the download to its published or recorded hash, convert it, and only then record what is new."""
    record = HashRecord(settings.models)
    sha256, expected = file_sha256(downloaded), known.sha256 or record.known(downloaded)
    if expected is not None and expected != sha256:
        downloaded.unlink()
        found = f"(SHA-256 {sha256[:12]}… instead of {expected[:12]}…), so it was deleted unread; "
        if known.sha256:
            raise CheckpointError(
                f"{known.url} gave another file than described {found}"
                f"check the address and the `sha256:` of {known.name}."
            )
        raise CheckpointError(
            f"{known.url} has changed since it was first pulled {found}"
            f"if the publisher announced a new one, remove its line from {record.path}."
        )
    try:
        metadata = {"name": known.name, "source": str(known.url), "source_sha256": sha256, "licence": known.licence}
        convert(downloaded, output, network=known.network, values=known.values(), overwrite=True, metadata=metadata)
    except CheckpointError:
        downloaded.unlink(missing_ok=True)  # a later pull must download it again
        raise
    record.record(downloaded, sha256)
    record.record(output, file_sha256(output))
    downloaded.unlink()
    return output


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


def convert_into(source: Path, output: str | Path, settings: Settings, **options) -> Path:
    """Convert to a path or, given a name, into the user's own models, and record the hash. Options as for `convert`.

    Raises like `convert`, and UnknownModel if the name is that of a known model.
    """
    text = str(output)
    if text in known_models(settings):
        raise UnknownModel(f"The name {text} is reserved for a known model; choose another.")
    path = model_path(text, settings) if is_name(text) else Path(output)
    done = convert(source, path, **options).path
    if done.parent == settings.models.absolute():
        HashRecord(settings.models).record(done, file_sha256(done))
    return done


def _known(model: str | Description, settings: Settings) -> Description:
    if isinstance(model, Description):
        return model
    models = known_models(settings)
    if model in models:
        return models[model]
    if model.lower().endswith(DESCRIPTION_SUFFIX):
        return _add(Path(model), settings)
    close = difflib.get_close_matches(model, list(models), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"these can be: {', '.join(models)}."
    raise UnknownModel(f"There is no model {model!r} to pull; {hint}")


def _add(path: Path, settings: Settings) -> Description:
    """Keep a user's description among the models, under the name of its file."""
    known = read_description(path)
    if not is_name(known.name) or known.name in KNOWN:
        raise UsageError(f"{known.name!r} cannot be the name of another model; rename {shown(path)}.")
    settings.models.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.models / f"{known.name}{DESCRIPTION_SUFFIX}", path.read_text(encoding="utf-8"))
    return known


def _checked(path: Path, settings: Settings) -> Path:
    HashRecord(settings.models).check(path)
    return path


def _check_space(known: Description, settings: Settings) -> None:
    """Check that there is space for the download and the converted file."""
    needed, free = 2 * known.size_bytes, shutil.disk_usage(settings.models).free
    if free < needed:
        raise NoSpaceLeft(
            f"The model {known.name} needs {needed / 1e6:,.0f} MB while it is converted and {settings.models} has "
            f"{free / 1e6:,.0f} MB free; free some space and try again."
        )
