"""What is watched: folders, each with its own output, preset and model; from the command line or from a YAML file.

folders:
  - path: ~/Music/To separate          # relative paths start at the YAML file
    output: ~/Music/Stems
    preset: karaoke                    # optional, like everything below
    model: default
    stage: full
    null: false
    salvage: false
    delivery: {format: flac24}         # what differs from the preset
    recursive: true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tsbs_daw.contracts.treatment import Treatment
from tsbs_daw.core.errors import SettingsError, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import folder_problem


@dataclass(frozen=True)
class WatchFolder:
    """A folder whose songs are separated.

    Attributes:
        path, output: Absolute. Songs of subfolders go to the subfolders of the same names in `output`.
        treatment: What is done to the songs.
        recursive: Whether to look into subfolders.
        polling: Scan only, without waiting for events, as on a network share; None: find out.
    """

    path: Path
    output: Path
    treatment: Treatment = field(default_factory=Treatment)
    recursive: bool = True
    polling: bool | None = None


class _Entry(Treatment):
    path: str = Field(min_length=1)
    output: str = Field(min_length=1)
    recursive: bool = True
    polling: bool | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folders: list[_Entry] = Field(min_length=1)


def load_folders(path: Path) -> tuple[WatchFolder, ...]:
    """The folders of a YAML file.

    Raises: SettingsError: not readable, not YAML, unknown, repeated or wrong keys; with file, line and column
    """
    from tsbs_daw.core.documents import Kind, read_model

    kind = Kind("file of watch folders", SettingsError, "it needs `folders:` and a list of them")
    entries = read_model(path, _File, kind).folders
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
        if source_name(folder.output) != str(folder.output):
            raise SettingsError(f"The name of {shown(folder.output)} is not valid UTF-8; choose another output folder.")
        real = folder.path.resolve()
        if real in seen:
            raise SettingsError(
                f"{shown(folder.path)} is listed twice; a folder can have one preset, so make it two folders."
            )
        if folder.path.exists() and not folder.path.is_dir():
            raise SettingsError(f"{shown(folder.path)} is a file; name the folder that songs are dropped into.")
        if problem := folder_problem(folder.output, writable=False):
            raise SettingsError(f"Invalid output: {problem}.")
        seen.add(real)


def _folder(entry: _Entry, base: Path) -> WatchFolder:
    values = {name: getattr(entry, name) for name in Treatment.model_fields}
    for name, endings in (("preset", (".yaml", ".yml")), ("model", (".safetensors",))):
        if values[name].endswith(endings):
            values[name] = str(base / Path(values[name]).expanduser())
    path, output = (base / Path(place).expanduser() for place in (entry.path, entry.output))
    return WatchFolder(path, output, Treatment(**values), entry.recursive, entry.polling)
