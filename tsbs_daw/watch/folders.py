"""Watch folders and their settings, as given on the command line or in a YAML file such as this one.

folders:
  - path: ~/Music/To separate          # relative paths start at the YAML file
    output: ~/Music/Stems
    preset: karaoke                    # optional, like everything below
    model: default
    stage: full
    null: false
    salvage: false
    delivery: {format: flac24}         # overrides the preset
    recursive: true
    after: move ~/Music/Separated      # or keep, or delete
    include: ["*.wav"]
    exclude: [demos]
    hours: 22:00-06:00
    songs_at_once: 1
    subfolders:
      karaoke: {preset: karaoke}       # overrides for songs in this subfolder
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.errors import SettingsError, shown
from tsbs_daw.core.filenames import source_name
from tsbs_daw.core.files import folder_problem
from tsbs_daw.models.registry import members
from tsbs_daw.watch.hooks import Hook, check_shape, parse_hook
from tsbs_daw.watch.rules import EVERYTHING, KEEP, After, Hours, Patterns, Subfolder, check_pattern, subfolder_key


@dataclass(frozen=True)
class WatchFolder:
    """A folder whose songs are separated.

    Attributes:
        path: Folder to watch; absolute.
        output: Folder for the stems; absolute. Songs of subfolders go to subfolders of the same names.
        treatment: How the songs are separated and delivered.
        recursive: Whether to watch subfolders too.
        polling: Whether to scan at intervals instead of waiting for events, as on a network share; None: detect it.
        after: What to do with a song's file after its stems are published.
        patterns: Which files are songs of this folder.
        hours: When its songs may start; None: always.
        songs_at_once: Maximum number of its songs that run at the same time; None: no limit of its own.
        subfolders: Rules that override `treatment` and `after` in subfolders. The nearest to a song applies.
        on_done: Hook to call when a song is done.
        on_failed: Hook to call when a song has failed.
    """

    path: Path
    output: Path
    treatment: Treatment = field(default_factory=Treatment)
    recursive: bool = True
    polling: bool | None = None
    after: After = KEEP
    patterns: Patterns = EVERYTHING
    hours: Hours | None = None
    songs_at_once: int | None = None
    subfolders: tuple[Subfolder, ...] = ()
    on_done: Hook | None = None
    on_failed: Hook | None = None

    @property
    def attended(self) -> bool:
        """Whether jobs of this folder need an errand: it has hooks, or songs to move or delete."""
        return bool(self.on_done or self.on_failed) or any(
            after.kind != "keep" for after in (self.after, *(rule.after for rule in self.subfolders))
        )

    def rule_for(self, relative: str) -> Subfolder:
        """Return the rule for a song. `relative` is its path below this folder."""
        rule = nearest(self.subfolders, PurePath(relative).parent.as_posix()) if self.subfolders else None
        return rule or Subfolder("", self.treatment, self.after)


def nearest(rules: Sequence[Subfolder], folder: str) -> Subfolder | None:
    """Return the rule for the folder itself or its closest ancestor; None if there is none."""
    steps = subfolder_key(folder) if folder not in ("", ".") else ()
    fitting = [rule for rule in rules if steps[: len(key := subfolder_key(rule.path))] == key]
    return max(fitting, key=lambda rule: len(subfolder_key(rule.path)), default=None)


def _parsed(parse: Any) -> AfterValidator:
    """Return a validator that parses a text only to check it; the final parse needs the base folder."""

    def check(text: str | None) -> str | None:
        if text is not None:
            parse(text)
        return text

    return AfterValidator(check)


_AfterText = Annotated[str | None, _parsed(lambda text: After.parse(text, Path()))]
_HoursText = Annotated[str | None, _parsed(Hours.parse)]
_Pattern = Annotated[str, AfterValidator(check_pattern)]
_HookValue = Annotated[Any, AfterValidator(check_shape)]
_SubfolderPath = Annotated[str, _parsed(subfolder_key)]


class _Subfolder(Treatment):
    after: _AfterText = None


class _Entry(Treatment):
    path: str = Field(min_length=1)
    output: str = Field(min_length=1)
    recursive: bool = True
    polling: bool | None = None
    after: _AfterText = None
    include: tuple[_Pattern, ...] = ()
    exclude: tuple[_Pattern, ...] = ()
    hours: _HoursText = None
    songs_at_once: int | None = Field(None, ge=1)
    on_done: _HookValue = None
    on_failed: _HookValue = None
    subfolders: dict[_SubfolderPath, _Subfolder] = Field(default_factory=dict)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)  # a URL may hold a password

    folders: list[_Entry] = Field(min_length=1)
    webhook_hosts: list[str] = Field(default_factory=list)


def load_folders(path: Path) -> tuple[WatchFolder, ...]:
    """Read the watch folders of a YAML file.

    Raises:
        SettingsError: The file is unreadable or not YAML, has unknown, repeated or invalid keys, or lists folders that
            `check_folders` refuses. The message has file, line and column where they are known.
    """
    from tsbs_daw.core.documents import Kind, read_model

    kind = Kind("watch folder configuration", SettingsError, "it needs `folders:` and a list of them")
    file = read_model(path, _File, kind)
    base = path.absolute().parent
    folders = [replace(_folder(entry, base), **_hooks(entry, base, file, path)) for entry in file.folders]
    check_folders(folders)
    return tuple(folders)


def as_yaml(folders: Sequence[WatchFolder]) -> str:
    """Return the text of a file that `load_folders` reads as these folders."""
    hooks = {hook.url for folder in folders for hook in (folder.on_done, folder.on_failed) if hook}
    hosts = sorted({urlsplit(url).hostname or "" for url in hooks if url})
    return json.dumps({"webhook_hosts": hosts, "folders": list(map(_as_entry, folders))}, ensure_ascii=False)


def _as_entry(folder: WatchFolder) -> dict[str, Any]:
    hooks = {"on_done": folder.on_done, "on_failed": folder.on_failed}
    entry = {
        "path": str(folder.path),
        "output": str(folder.output),
        "recursive": folder.recursive,
        "polling": folder.polling,
        "after": str(folder.after),
        "include": folder.patterns.include,
        "exclude": folder.patterns.exclude,
        "hours": str(folder.hours) if folder.hours else None,
        "songs_at_once": folder.songs_at_once,
        "subfolders": {
            rule.path: {**_as_values(rule.treatment), "after": str(rule.after)} for rule in folder.subfolders
        },
    }
    return {
        **entry,
        **_as_values(folder.treatment),
        **{name: list(hook.command) or hook.url for name, hook in hooks.items() if hook},
    }


def _as_values(treatment: Treatment) -> dict[str, Any]:
    delivery = json.loads(to_json(treatment.delivery.stated)) if treatment.delivery else None
    return {**treatment.model_dump(mode="json"), "delivery": delivery}


def check_folders(folders: Sequence[WatchFolder]) -> None:
    """Check watch folders before any work starts.

    Raises:
        SettingsError: A folder is listed twice or is a file, a path is not absolute, an output is unusable, or songs
            would be moved into a watched folder.
    """
    seen: set[Path] = set()
    for folder in folders:
        for path in (folder.path, folder.output):
            if not path.is_absolute():
                raise SettingsError(f"{shown(path)} is not an absolute path. Write it from the root.")
        if source_name(folder.output) != str(folder.output):
            raise SettingsError(f"The name of {shown(folder.output)} is not valid UTF-8. Choose another output folder.")
        real = folder.path.resolve()
        if real in seen:
            raise SettingsError(
                f"{shown(folder.path)} is listed twice. A folder can have only one preset; use two folders instead."
            )
        if folder.path.exists() and not folder.path.is_dir():
            raise SettingsError(f"{shown(folder.path)} is a file. Give the folder that songs are dropped into.")
        if problem := folder_problem(folder.output, writable=False):
            raise SettingsError(f"Invalid output: {problem}.")
        seen.add(real)
    for folder in folders:
        for after in (folder.after, *(rule.after for rule in folder.subfolders)):
            _check_target(after, folders)


def _check_target(after: After, folders: Sequence[WatchFolder]) -> None:
    """Check the target of `after: move`.

    Raises:
        SettingsError: The target is unusable, or lies in a watched folder.
    """
    if after.folder is None:
        return
    if problem := folder_problem(after.folder):
        raise SettingsError(f"Invalid `after: move`: {problem}.")
    if watched := watched_place(after.folder, folders):
        raise SettingsError(
            f"Songs cannot be moved to {shown(after.folder)}, because it lies in the watched folder {shown(watched)}. "
            "Choose a folder outside of it."
        )


def watched_place(place: Path, folders: Sequence[WatchFolder]) -> Path | None:
    """Return the watch folder that contains `place`, with links resolved; None if there is none."""
    real = place.resolve()
    for folder in folders:
        watched = folder.path.resolve()
        if real == watched or watched in real.parents:
            return folder.path
    return None


def _folder(entry: _Entry, base: Path) -> WatchFolder:
    path, output = (base / Path(place).expanduser() for place in (entry.path, entry.output))
    stated = {name: getattr(entry, name) for name in Treatment.model_fields}
    top = Subfolder("", _treatment(stated, base), After.parse(entry.after or "keep", base))
    return WatchFolder(
        path,
        output,
        top.treatment,
        entry.recursive,
        entry.polling,
        after=top.after,
        patterns=Patterns(entry.include, entry.exclude),
        hours=Hours.parse(entry.hours) if entry.hours is not None else None,
        songs_at_once=entry.songs_at_once,
        subfolders=_subfolders(entry.subfolders, top, base),
    )


def _hooks(entry: _Entry, base: Path, file: _File, path: Path) -> dict[str, Any]:
    """Parse the hooks of an entry.

    Raises:
        SettingsError: A hook is invalid.
    """
    hooks: dict[str, Any] = {}
    for name in ("on_done", "on_failed"):
        if (value := getattr(entry, name)) is not None:
            try:
                hooks[name] = parse_hook(value, base, file.webhook_hosts)
            except ValueError as error:
                raise SettingsError(f"{name}: {error}.", path) from None
    return hooks


def _subfolders(entries: Mapping[str, _Subfolder], top: Subfolder, base: Path) -> tuple[Subfolder, ...]:
    """Parse the rules of subfolders. Each inherits what it does not set from the nearest rule above.

    Raises:
        SettingsError: Two rules are for the same subfolder.
    """
    rules: list[Subfolder] = []
    for path, entry in sorted(entries.items(), key=lambda item: len(subfolder_key(item[0]))):
        if any(subfolder_key(rule.path) == subfolder_key(path) for rule in rules):
            raise SettingsError(f"`subfolders` has two rules for {path!r}. Merge them.")
        above = nearest(rules, path) or top
        stated = {name: getattr(entry, name) for name in entry.model_fields_set if name in Treatment.model_fields}
        treatment = _treatment(vars(above.treatment) | stated, base)
        after = After.parse(entry.after, base) if entry.after is not None else above.after
        rules.append(Subfolder(path, treatment, after))
    return tuple(rules)


def _treatment(values: Mapping[str, Any], base: Path) -> Treatment:
    """Build a treatment, with relative paths of preset and model resolved against `base`."""
    values = dict(values)

    def resolved(name: str, endings: tuple[str, ...]) -> str:
        return str(base / Path(name).expanduser()) if name.endswith(endings) else name

    values["preset"] = resolved(values["preset"], (".yaml", ".yml"))
    model = values["model"]
    names = (model,) if (base / model).is_file() else members(model)
    values["model"] = ",".join(resolved(name, (".safetensors",)) for name in names)
    return Treatment(**values)
