"""What is watched: folders, each with its own output, preset and model; from the command line or from a YAML file.

folders:
  - path: ~/Music/To separate          # relative paths start at the YAML file
    output: ~/Music/Stems
    preset: karaoke                    # optional, like everything below
    model: default
    stage: full
    null: false
    recursive: true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tsbs_daw.core.errors import SettingsError, shown

FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class WatchFolder:
    """A folder whose songs are separated.

    path, output: absolute; songs of subfolders go to the subfolders of the same names in `output`
    preset:       a shipped preset's name or an absolute path
    recursive:    look into subfolders
    polling:      look only, wait for no events, as on a network share; None: find out
    """

    path: Path
    output: Path
    preset: str = "none"
    model: str = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    recursive: bool = True
    polling: bool | None = None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_the_key_null(cls, found: Any) -> Any:
        """YAML takes the bare word `null` for nothing, even where it is a key."""
        if isinstance(found, dict) and None in found:
            return {"null" if name is None else name: value for name, value in found.items()}
        return found

    path: str = Field(min_length=1)
    output: str = Field(min_length=1)
    preset: str = "none"
    model: str = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    recursive: bool = True
    polling: bool | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folders: list[_Entry] = Field(min_length=1)


def load_folders(path: Path) -> tuple[WatchFolder, ...]:
    """The folders of a YAML file.

    Raises: SettingsError: not readable, not YAML, unknown or wrong keys; one sentence with the place
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{shown(path)} cannot be read ({error.strerror}); give the YAML file of your folders."
        ) from error
    if len(text) > FILE_BYTES:
        raise SettingsError(
            f"{shown(path)} is larger than {FILE_BYTES // 1024} KiB; is it really the file of your folders?"
        )
    try:
        entries = _File.model_validate(_parse(path, text)).folders
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SettingsError(f"{path}: {where}: {first['msg']}.") from error
    base = path.absolute().parent
    folders = [_folder(entry, base) for entry in entries]
    check_folders(folders)
    return tuple(folders)


def check_folders(folders: Sequence[WatchFolder]) -> None:
    """Raises: SettingsError: the same folder twice, one that is a file, or a path that is not absolute"""
    seen: set[Path] = set()
    for folder in folders:
        for path in (folder.path, folder.output):
            if not path.is_absolute():
                raise SettingsError(f"{shown(path)} is not an absolute path; start it at the root.")
        real = folder.path.resolve()
        if real in seen:
            raise SettingsError(
                f"{shown(folder.path)} is listed twice; a folder can have one preset, so make it two folders."
            )
        if folder.path.exists() and not folder.path.is_dir():
            raise SettingsError(f"{shown(folder.path)} is a file; name the folder that songs are dropped into.")
        seen.add(real)


def _parse(path: Path, text: bytes) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise SettingsError(f"{place}: this is not valid YAML: {problem}.") from error
    except (RecursionError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"{path}: this is not valid YAML: {error}.") from error


def _folder(entry: _Entry, base: Path) -> WatchFolder:
    values = entry.model_dump()
    places = {name: base / Path(values.pop(name)).expanduser() for name in ("path", "output")}
    if values["preset"].endswith((".yaml", ".yml")):
        values["preset"] = str(base / Path(values["preset"]).expanduser())
    if values["model"].endswith(".safetensors"):
        values["model"] = str(base / Path(values["model"]).expanduser())
    return WatchFolder(**places, **values)
