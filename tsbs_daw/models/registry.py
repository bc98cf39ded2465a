"""Models by name: the bundled model, known models to pull, the user's converted models, and any local path.

default            in the package
musdb18            pulled on request: downloaded, its hash recorded, converted
<name>             <models>/<name>.safetensors, written by `tsbs-daw models convert`
a path             any .safetensors file

Published checkpoints have no checksum. The first use of a model records its hash in `hashes.json` beside it, and a file
that changes later is refused before anything in it is read.
"""

from __future__ import annotations

import difflib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import CheckpointError, NoSpaceLeft, OutputError, UnknownModel, shown
from tsbs_daw.core.files import file_sha256, write_atomically
from tsbs_daw.models.convert import DEFAULT_STEMS, convert
from tsbs_daw.models.download import download

FILE_NAME = "hashes.json"
SCHEMA = 1


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
                self._write(json.dumps({"schema": SCHEMA, "files": files}, indent=2, sort_keys=True))
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

    def _write(self, text: str) -> None:
        write_atomically(self.path, text)


log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "weights" / "default.safetensors"
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".th", ".bin", ".pkl", ".chpt")


@dataclass(frozen=True)
class KnownModel:
    """A model that this program knows by name.

    Attributes:
        url: None for the bundled model
        size_bytes: approximate, to check the free space before the server states the size
        sdr_db: published or measured SDR per stem
        measured_on: the data of `sdr_db`
    """

    name: str
    description: str
    licence: str
    url: str | None = None
    config: str = "full"
    stems: tuple[str, ...] = DEFAULT_STEMS
    size_bytes: int = 0
    sdr_db: dict[str, float] = field(default_factory=dict)
    measured_on: str = ""


KNOWN = {
    model.name: model
    for model in (
        KnownModel(
            name="default",
            description="The small model of this package, for any laptop; its own card says what it was trained on.",
            licence="Apache-2.0",
            config="tiny",
        ),
        KnownModel(
            name="musdb18",
            description="A community checkpoint of the full model, trained on MUSDB18-HQ with segments of 3 s.",
            licence=(
                "The repository that publishes it is under the MIT licence and says nothing of the weights themselves; "
                "MUSDB18-HQ is for education and research, so ask before commercial use."
            ),
            url=(
                "https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/download/v1.0.9/"
                "model_bs_mamba2_ep_11_sdr_6.8723.ckpt"
            ),
            size_bytes=143_000_000,
            sdr_db={"drums": 8.15, "bass": 5.82, "other": 5.16, "vocals": 8.36, "mean": 6.87},
            measured_on="the MUSDB18 test songs, by its publisher (stems in the checkpoint's order)",
        ),
    )
}


@dataclass(frozen=True)
class Entry:
    """A line of `models list`.

    Attributes:
        path: None while a known model is not pulled
        known: None for the user's own models
    """

    name: str
    path: Path | None
    known: KnownModel | None

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
    if name in KNOWN:
        raise UnknownModel(f"The model {name} is not installed; get it with `tsbs-daw models pull {name}`.")
    return _local_file(name, settings)


def locate(name_or_path: str, settings: Settings) -> Path | None:
    """The file that a name or a path leads to, unchecked; None when there is none."""
    if name_or_path == "default":
        return BUNDLED if BUNDLED.is_file() else None
    path = model_path(name_or_path, settings)
    if is_name(name_or_path) and path.is_file():
        return path
    return _existing_file(name_or_path) if name_or_path not in KNOWN else None


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
    places = {name: BUNDLED if known.url is None else model_path(name, settings) for name, known in KNOWN.items()}
    entries = [Entry(name, path if path.is_file() else None, KNOWN[name]) for name, path in places.items()]
    files = (path for path in settings.models.glob(f"*{SUFFIX}") if path.is_file())  # reading a pipe would wait
    own = sorted(path for path in files if path.stem not in KNOWN and is_name(path.stem))
    return entries + [Entry(path.stem, path, None) for path in own]


def find(name: str, settings: Settings) -> Entry:
    """The entry of a name. Raises: UnknownModel, as `resolve` does for a path that is not there"""
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    return Entry(name, _local_file(name, settings), None)


def pull(
    model: str | KnownModel,
    settings: Settings,
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Download and convert a known model; what is already here is only checked.

    The downloaded pickle's hash is recorded once it proved to be a checkpoint, and a later pull must give the same.

    Args:   progress: called with the bytes so far and in all (None: the server does not say)
    Raises: UnknownModel; DownloadError, NoSpaceLeft: what came so far is kept; CheckpointError
    """
    known = _known(model, settings)
    if known.url is None:
        return _bundled()
    output = model_path(known.name, settings)
    if output.is_file():
        return resolve(known.name, settings) if known.name in KNOWN else _checked(output, settings)
    try:
        settings.models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{settings.models} cannot be made ({error.strerror}); set TSBS_DAW_HOME elsewhere."
        ) from error
    _check_space(known, settings)
    pickled = settings.models / f"{known.name}.ckpt"
    if not pickled.is_file():
        download(known.url, pickled, progress=progress)
    return _accept(known, pickled, output, settings)


def _accept(known: KnownModel, pickled: Path, output: Path, settings: Settings) -> Path:
    """Hold the download to its recorded hash, convert it, and only then record what is new."""
    record = HashRecord(settings.models)
    sha256, expected = file_sha256(pickled), record.known(pickled)
    if expected is not None and expected != sha256:
        pickled.unlink()
        raise CheckpointError(
            f"{known.url} has changed since it was first pulled (SHA-256 {sha256[:12]}… instead of {expected[:12]}…), "
            f"so it was deleted unread; if the publisher announced a new one, remove its line from {record.path}."
        )
    try:
        metadata = {"name": known.name, "source": str(known.url), "source_sha256": sha256, "licence": known.licence}
        convert(pickled, output, config=known.config, stems=known.stems, overwrite=True, metadata=metadata)
    except CheckpointError:
        pickled.unlink(missing_ok=True)  # a later pull must download it again
        raise
    record.record(pickled, sha256)
    record.record(output, file_sha256(output))
    pickled.unlink()
    return output


def convert_into(source: Path, output: str | Path, settings: Settings, **options) -> Path:
    """`convert`, to a path or, given a name, among the user's own models; its hash counts from then on.

    Args:   options: those of `convert`
    Raises: what `convert` does; UnknownModel: the name is one of the known models'
    """
    text = str(output)
    if text in KNOWN:
        raise UnknownModel(f"The name {text} is reserved for a known model; choose another.")
    path = model_path(text, settings) if is_name(text) else Path(output)
    done = convert(source, path, **options).path
    if done.parent == settings.models.absolute():
        HashRecord(settings.models).record(done, file_sha256(done))
    return done


def _known(model: str | KnownModel, settings: Settings) -> KnownModel:
    if isinstance(model, KnownModel):
        return model
    if model in KNOWN:
        return KNOWN[model]
    close = difflib.get_close_matches(model, list(KNOWN), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"these can be: {', '.join(KNOWN)}."
    raise UnknownModel(f"There is no model {model!r} to pull; {hint}")


def _checked(path: Path, settings: Settings) -> Path:
    HashRecord(settings.models).check(path)
    return path


def _check_space(known: KnownModel, settings: Settings) -> None:
    """Check that there is space for the download and the converted file."""
    needed, free = 2 * known.size_bytes, shutil.disk_usage(settings.models).free
    if free < needed:
        raise NoSpaceLeft(
            f"The model {known.name} needs {needed / 1e6:,.0f} MB while it is converted and {settings.models} has "
            f"{free / 1e6:,.0f} MB free; make room and try again."
        )
