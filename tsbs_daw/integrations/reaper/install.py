"""Puts the scripts into a REAPER, and takes them out again.

<resource>/Scripts/TSBS-DAW/...               the scripts, whole or not at all
<resource>/Scripts/__startup.lua              one block: deliver at REAPER's start what was finished meanwhile
<resource>/Data/TSBS-DAW/installed.json       where the spool is, how a daemon is started, which presets there are
<resource>/reaper-kb.ini                      the actions
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tsbs_daw
from tsbs_daw.core.config import resource_folder
from tsbs_daw.core.errors import OutputError, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.integrations.reaper import keys as reaper_keys

NAME = "TSBS-DAW"
SCHEMA = 1
ACTION = "tsbs-daw_*.lua"

_BEGIN, _END = "-- tsbs-daw begin", "-- tsbs-daw end"
_STARTUP = f"""{_BEGIN}
-- Stems that were finished while REAPER was closed go into their projects. `tsbs-daw reaper uninstall` removes this.
do
  reaper.SetExtState("{NAME}", "startup", "ran", false)
  local script = reaper.GetResourcePath() .. "/Scripts/{NAME}/tsbs-daw_Background.lua"
  local command = reaper.AddRemoveReaScript(true, 0, script, true)
  if command ~= 0 then
    reaper.Main_OnCommand(command, 0)
  end
end
{_END}
"""


@dataclass(frozen=True)
class PresetEntry:
    """What the chooser shows of a preset."""

    name: str
    description: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Installation:
    """What is in a REAPER. `actions` are registered; `missing` are there as files and not registered."""

    resource: Path
    version: str | None
    spool: str | None
    actions: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def scripts(self) -> Path:
        return self.resource / "Scripts" / NAME


def source_folder() -> Path:
    """Where the scripts are in this installation of the program."""
    return resource_folder("reaper_scripts") / NAME


def action_files(folder: Path) -> list[str]:
    """The actions of an installation or of the sources, as paths below Scripts/."""
    return [f"{NAME}/{path.name}" for path in sorted(folder.glob(ACTION))]


def start_command(home: Path, python: Path, platform: str = sys.platform) -> str | None:
    """How REAPER starts a daemon, without a window; None where a path cannot be quoted safely."""
    if platform == "win32":
        windowless = python.with_name("pythonw.exe")
        python = windowless if windowless.is_file() else python
    parts = [str(python), str(home)]
    if any(set(part) & set('"$`\n\r%!') or (platform != "win32" and "\\" in part) for part in parts):
        return None
    return f'"{python}" -m tsbs_daw reaper serve --home "{home}"'


def settings_document(
    spool: Path, start: str | None, presets: Iterable[PresetEntry], stems: Sequence[str]
) -> dict[str, object]:
    """What installed.json says. Args: start: how a daemon is started; None: it cannot be"""
    found = {"schema": SCHEMA, "version": tsbs_daw.__version__, "spool": str(spool), "stems": list(stems)}
    if start is not None:
        found["start"] = start
    return found | {"presets": [{**vars(preset), "outputs": list(preset.outputs)} for preset in presets]}


def install(
    resource: Path, settings: dict[str, object], *, scripts: bool = True, more_actions: Mapping[str, str] | None = None
) -> Installation:
    """Put everything in its place; what an earlier installation left there is replaced.

    Args:   scripts: False for a REAPER that has the scripts from ReaPack: then only the settings are written
            more_actions: file name -> content, beside the shipped ones
    Raises: OutputError: something cannot be written
    """
    try:
        _write_settings(resource, settings)
        if scripts:
            _replace_folder(source_folder(), resource / "Scripts" / NAME, more_actions or {})
    except OSError as error:
        where = error.filename or resource
        raise OutputError(f"{shown(where)} cannot be written ({error.strerror}); check its permissions.") from error
    if scripts:
        keys = resource / reaper_keys.FILE
        before = keys.read_bytes() if keys.is_file() else b""
        reaper_keys.rewrite(keys, reaper_keys.add_scripts(before, action_files(resource / "Scripts" / NAME)))
        _rewrite_startup(resource, present=True)
    return installation(resource)


def uninstall(resource: Path) -> Installation:
    """Take everything out; bindings and the user's other scripts stay. Raises: OutputError"""
    keys = resource / reaper_keys.FILE
    if keys.is_file():
        left = reaper_keys.remove_scripts(keys.read_bytes(), NAME, resource / "Scripts")
        reaper_keys.rewrite(keys, left)
    _rewrite_startup(resource, present=False)
    for folder in (resource / "Scripts" / NAME, resource / "Data" / NAME):
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise OutputError(f"{shown(folder)} cannot be removed ({error.strerror}); close REAPER.") from error
    return installation(resource)


def installation(resource: Path) -> Installation:
    """What is there now."""
    keys = resource / reaper_keys.FILE
    registered = {path.lower() for path in reaper_keys.scripts_in(keys.read_bytes())} if keys.is_file() else set()
    absolute = (resource / "Scripts").as_posix().lower() + "/"
    registered |= {path.removeprefix(absolute) for path in registered}
    files = action_files(resource / "Scripts" / NAME)
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
    )


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
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns(".*"))
    for name, content in more.items():
        (fresh / name).write_text(content, encoding="utf-8")
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _rewrite_startup(resource: Path, *, present: bool) -> None:
    path = resource / "Scripts" / "__startup.lua"
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
        left += _STARTUP.encode().replace(b"\n", newline)
    if left or not path.is_file():
        if left:
            reaper_keys.rewrite(path, left)
    else:
        path.unlink()  # there was nothing but our block
