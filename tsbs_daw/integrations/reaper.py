"""Puts the scripts into a REAPER, and takes them out again.

<resource>/Scripts/TSBS-DAW/...               the scripts, whole or not at all
<resource>/Scripts/TSBS-DAW ReaPack/...       the scripts where ReaPack installs them; left to ReaPack
<resource>/Scripts/__startup.lua              one block: deliver at REAPER's start what was finished meanwhile
<resource>/Data/TSBS-DAW/installed.json       where the spool is, how a daemon is started, which presets there are
<resource>/Data/TSBS-DAW/setup.json           what `reaper setup` found, for the action that asked for it
<resource>/Data/toolbar_icons/tsbs-daw_*.png  pictures for toolbar buttons, also in 150/ and 200/
<resource>/reaper-kb.ini                      the actions: lines are added and taken out, all else stays byte for byte

A script is one line of reaper-kb.ini, `SCR 4 0 RS<id> "Custom: <name>" "<path below Scripts>"`. Its id is what key
bindings and toolbars refer to. REAPER makes it from the path, so it is the same in every installation, however the
script was loaded. Bindings to actions that were removed stay, and work again after the next installation.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tsbs_daw
from tsbs_daw.core.config import resource_folder
from tsbs_daw.core.errors import OutputError, UsageError, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.integrations.reaper_application import ascii_spelling

NAME = "TSBS-DAW"
REAPACK = f"{NAME} ReaPack"  # ReaPack installs to Scripts/<name of the index>/<category>
SCHEMA = 1
ACTION = "tsbs-daw_*.lua"
ICONS = "toolbar_icons"
KEYS = "reaper-kb.ini"
BACKUP = "reaper-kb.ini.before-tsbs-daw"

_SCRIPT = re.compile(rb'^SCR\s+\d+\s+\d+\s+("[^"]*"|\S+)\s+("[^"]*"|\S+)\s+(?P<path>"[^"\r\n]*"|\S+)', re.MULTILINE)

_BEGIN, _END = "-- tsbs-daw begin", "-- tsbs-daw end"
_STARTUP = f"""{_BEGIN}
-- Stems that were finished while REAPER was closed go into their projects. `tsbs-daw reaper uninstall` removes this.
do
  reaper.defer(function() end) -- or REAPER adds an undo point
  reaper.SetExtState("{NAME}", "startup", "ran", false)
  for _, folder in ipairs({{ FOLDERS }}) do
    local script = reaper.GetResourcePath() .. "/Scripts/" .. folder .. "/tsbs-daw_Background.lua"
    if reaper.file_exists(script) then
      script = script:gsub("[/\\\\]", package.config:sub(1, 1))
      local command = reaper.AddRemoveReaScript(true, 0, script, true)
      if command ~= 0 then
        reaper.Main_OnCommand(command, 0)
      end
      break
    end
  end
end
{_END}
"""


@dataclass(frozen=True)
class PresetEntry:
    """What the dialog shows of a preset. stems: the dry stems that it writes; None: all of the model's"""

    name: str
    description: str
    outputs: tuple[str, ...]
    stems: tuple[str, ...] | None = None

    def document(self) -> dict[str, object]:
        found: dict[str, object] = {"name": self.name, "description": self.description, "outputs": list(self.outputs)}
        return found if self.stems is None else found | {"stems": list(self.stems)}


@dataclass(frozen=True)
class ModelEntry:
    """What the dialog shows of a model that is on this machine."""

    name: str
    description: str
    stems: tuple[str, ...]


@dataclass(frozen=True)
class Installation:
    """What is in a REAPER. `actions` are registered; `missing` are there as files and not registered.

    scripts: the folder that holds them; reapack: whether ReaPack put them there; second: the copy of `reaper install`
    beside ReaPack's, where its user installed the package afterwards
    """

    resource: Path
    version: str | None
    spool: str | None
    actions: tuple[str, ...]
    missing: tuple[str, ...]
    scripts: Path
    reapack: bool
    second: Path | None = None


def source_folder() -> Path:
    """Where the scripts are in this installation of the program."""
    return resource_folder("reaper_scripts") / NAME


def reapack_folder(resource: Path) -> Path | None:
    """Where ReaPack has installed the scripts, whatever its user called the repository; None: it has not."""
    found = (resource / "Scripts").glob("*/*/tsbs-daw_Background.lua")
    return min((path.parent for path in found), default=None)


def action_files(folder: Path, scripts: Path) -> list[str]:
    """The actions in a folder, as paths below `scripts`."""
    return [path.relative_to(scripts).as_posix() for path in sorted(folder.glob(ACTION))]


def settings_document(
    spool: Path, commands: Mapping[str, str | None], presets: Iterable[PresetEntry], models: Sequence[ModelEntry]
) -> dict[str, object]:
    """What installed.json says.

    Args:
        spool: the folder that the daemon looks into
        commands: `start`, which starts a daemon, and `setup`, which checks this machine; None: it cannot be run
        presets: what the dialog offers
        models: those that are on this machine, the default first
    """
    found = {"schema": SCHEMA, "version": tsbs_daw.__version__, "spool": str(ascii_spelling(spool))}
    found["stems"] = list(models[0].stems)
    return (
        found
        | {name: command for name, command in commands.items() if command is not None}
        | {
            "presets": [preset.document() for preset in presets],
            "models": [{**vars(model), "stems": list(model.stems)} for model in models],
        }
    )


def install(
    resource: Path, settings: dict[str, object], *, scripts: bool = True, more_actions: Mapping[str, str] | None = None
) -> Installation:
    """Put everything in its place; what an earlier installation left there is replaced.

    Args:   scripts: False for a REAPER that has the scripts from ReaPack: then only the settings are written
            more_actions: file name -> content, beside the shipped ones
    Raises: OutputError: something cannot be written; UsageError: ReaPack has installed the scripts, and `scripts` asks
            for a second copy
    """
    packaged = reapack_folder(resource)
    if scripts and packaged is not None:
        raise UsageError(
            f"ReaPack has installed the tsbs-daw actions in {shown(packaged)}, and a second copy would list each of "
            "them twice. Run `tsbs-daw reaper install --settings-only`, or uninstall the package in ReaPack first."
        )
    folder = resource / "Scripts" / NAME if scripts else packaged
    try:
        _write_settings(resource, settings)
        if scripts:
            _replace_folder(source_folder(), resource / "Scripts" / NAME, more_actions or {})
            _write_icons(resource)
        elif folder is not None:
            _write_actions(folder, more_actions or {})
    except OSError as error:
        where = error.filename or resource
        raise OutputError(f"Cannot write {shown(where)} ({error.strerror}). Check its permissions.") from error
    if folder is not None:
        keys = resource / KEYS
        before = keys.read_bytes() if keys.is_file() else b""
        rewrite(keys, add_scripts(before, action_files(folder, resource / "Scripts")))
    _rewrite_startup(resource, present=True, reapack=packaged)
    return installation(resource)


def uninstall(resource: Path) -> Installation:
    """Remove what `install` wrote; key bindings, other scripts and what ReaPack installed stay. Raises: OutputError"""
    keys = resource / KEYS
    if keys.is_file():
        left = remove_scripts(keys.read_bytes(), NAME, resource / "Scripts")
        rewrite(keys, left)
    _rewrite_startup(resource, present=False)
    if reapack_folder(resource) is None:
        _remove_icons(resource)
    for folder in (resource / "Scripts" / NAME, resource / "Data" / NAME):
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise OutputError(f"{shown(folder)} cannot be removed ({error.strerror}); close REAPER.") from error
    return installation(resource)


def installation(resource: Path) -> Installation:
    """What is there now."""
    keys = resource / KEYS
    registered = {path.lower() for path in scripts_in(keys.read_bytes())} if keys.is_file() else set()
    absolute = (resource / "Scripts").as_posix().lower() + "/"
    registered |= {path.removeprefix(absolute) for path in registered}
    packaged = reapack_folder(resource)
    own = resource / "Scripts" / NAME
    folder = packaged or own
    files = action_files(folder, resource / "Scripts")
    try:
        found = json.loads((resource / "Data" / NAME / "installed.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    return Installation(
        resource=resource,
        version=found.get("version"),
        spool=found.get("spool"),
        actions=tuple(path for path in files if path.lower() in registered),
        missing=tuple(path for path in files if path.lower() not in registered),
        scripts=folder,
        reapack=packaged is not None,
        second=own if packaged is not None and own.is_dir() else None,
    )


def write_answer(resource: Path, state: str, findings: Sequence[Mapping[str, object]] = ()) -> None:
    """Tell the action *Setup* how far `reaper setup` is.

    Args:   state: checking or done; findings: topic, status, what and advice of each
    Raises: OutputError: it cannot be written
    """
    answer = {"schema": SCHEMA, "state": state, "version": tsbs_daw.__version__, "python": sys.executable}
    path = resource / "Data" / NAME / "setup.json"
    try:
        write_atomically(path, json.dumps({**answer, "findings": list(findings)}))
    except OSError as error:
        raise OutputError(f"Cannot write {shown(path)} ({error.strerror}). Check its permissions.") from error


def _write_settings(resource: Path, settings: dict[str, object]) -> None:
    folder = resource / "Data" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "installed.json", json.dumps(settings, indent=2))


def _replace_folder(source: Path, target: Path, more: Mapping[str, str]) -> None:
    """Copy beside the target, with `more` files, then swap: a script that REAPER loads is old or new, and whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = target.with_name(f".{NAME}.new"), target.with_name(f".{NAME}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns(".*", ICONS))
    for name, content in more.items():
        (fresh / name).write_text(content, encoding="utf-8")
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _icons() -> list[Path]:
    """The toolbar icons, as paths below their folder."""
    folder = source_folder() / ICONS
    return [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]


def _write_icons(resource: Path) -> None:
    for path in _icons():
        target = resource / "Data" / ICONS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source_folder() / ICONS / path, target)


def _remove_icons(resource: Path) -> None:
    """Remove our icons, and the folders that nothing is left in."""
    folder = resource / "Data" / ICONS
    for path in _icons():
        (folder / path).unlink(missing_ok=True)
    for emptied in (*(folder / path.parent for path in _icons()), folder):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()


def _write_actions(folder: Path, more: Mapping[str, str]) -> None:
    """Put a user's own actions beside those of ReaPack, and remove those of presets that are gone."""
    for path in folder.glob("tsbs-daw_Separate selected items (*).lua"):
        ours = not (source_folder() / path.name).exists() and "tsbs-daw reaper actions" in path.read_text("utf-8")
        if ours and path.name not in more:
            path.unlink()
    for name, content in more.items():
        (folder / name).write_text(content, encoding="utf-8")


def _rewrite_startup(resource: Path, *, present: bool, reapack: Path | None = None) -> None:
    """Write our block into the script that REAPER runs at its start, or take it out.

    Args: reapack: where ReaPack has the scripts, if not in the folder that it gives them by default
    """
    folders = [NAME, f"{REAPACK}/{NAME}"]
    own = reapack.relative_to(resource / "Scripts").as_posix() if reapack is not None else ""
    if own and not set('"\\\n') & set(own):  # Lua reads it between quotes
        folders.append(own)
    block = _STARTUP.replace("FOLDERS", ", ".join(f'"{folder}"' for folder in dict.fromkeys(folders)))
    path = resource / "Scripts" / "__startup.lua"
    if present:
        path.parent.mkdir(exist_ok=True)
    before = path.read_bytes() if path.is_file() else b""
    newline = b"\r\n" if b"\r\n" in before else b"\n"
    lines, ours = [], False
    for line in before.splitlines(keepends=True):
        ours = ours or line.strip() == _BEGIN.encode()
        if not ours:
            lines.append(line)
        ours = ours and line.strip() != _END.encode()
    left = b"".join(lines)
    if present:
        if left and not left.endswith(b"\n"):
            left += newline
        left += block.encode().replace(b"\n", newline)
    if left or not path.is_file():
        if left:
            rewrite(path, left)
    else:
        path.unlink()  # there was nothing but our block


# ---- the list of actions --------------------------------------------------------------------------------------------


def action_id(path: str) -> str:
    """The id that REAPER gives a script of its main section: the SHA-1 of its path in upper case.

    Args: path: below Scripts/, or absolute for a script elsewhere; with forward slashes
    """
    return "RS" + hashlib.sha1(path.upper().encode("utf-8"), usedforsecurity=False).hexdigest()


def scripts_in(content: bytes) -> list[str]:
    """The paths of all scripts that are registered, with forward slashes."""
    found = (match["path"].decode("utf-8", "surrogateescape") for match in _SCRIPT.finditer(content))
    return [path.strip('"').replace("\\", "/") for path in found]


def add_scripts(content: bytes, paths: list[str]) -> bytes:
    """The file with these scripts registered; those that are there already stay as they are."""
    known = {path.lower() for path in scripts_in(content)}
    newline = b"\r\n" if b"\r\n" in content else b"\n"
    if content and not content.endswith(b"\n"):
        content += newline
    for path in paths:
        if path.lower() not in known:
            name = path.rsplit("/", 1)[-1]
            content += f'SCR 4 0 {action_id(path)} "Custom: {name}" "{path}"'.encode() + newline
    return content


def remove_scripts(content: bytes, folder: str, scripts: Path) -> bytes:
    """The file without any script of a folder below Scripts/, named from there or absolutely.

    Args: folder: its name; scripts: the absolute path of Scripts/
    """
    absolute = scripts.as_posix().lower().rstrip("/") + "/"
    start = folder.lower() + "/"
    kept = []
    for line in content.splitlines(keepends=True):
        (path,) = scripts_in(line) or ("",)
        if not path.lower().removeprefix(absolute).startswith(start):
            kept.append(line)
    return b"".join(kept)


def rewrite(path: Path, content: bytes) -> bool:
    """Put `content` in the place of the file, by a rename, the old one kept beside it. Returns: whether it changed

    Raises: OutputError: it cannot be written; the old one is untouched
    """
    before = path.read_bytes() if path.is_file() else b""
    if content == before:
        return False
    temporary = path.with_name(path.name + ".tsbs-daw.tmp")
    try:
        if path.is_file():
            shutil.copy2(path, path.with_name(BACKUP if path.name == KEYS else path.name + ".before-tsbs-daw"))
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"{shown(path)} cannot be written ({error.strerror}); it is as it was.") from error
    return True
