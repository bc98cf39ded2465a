"""Installs the scripts in REAPER, and uninstalls them.

<resource>/Scripts/TSBS-DAW/...               the scripts; the folder is replaced as a whole
<resource>/Scripts/TSBS-DAW ReaPack/...       the scripts where ReaPack installs them; never changed
<resource>/Scripts/__startup.lua              one block that delivers stems finished while REAPER was closed
<resource>/Data/TSBS-DAW/installed.json       the spool, the command that starts a daemon, the presets and the models
<resource>/Data/TSBS-DAW/setup.json           the findings of `reaper setup`, for the action that ran it
<resource>/Data/toolbar_icons/tsbs-daw_*.png  toolbar icons, also in 150/ and 200/
<resource>/reaper-kb.ini                      the list of actions: other lines are not changed

A script is one line of reaper-kb.ini, `SCR 4 0 RS<id> "Custom: <name>" "<path below Scripts>"`. Key bindings and
toolbars refer to its id, which REAPER derives from the path, so it is the same in every installation. Bindings to
removed actions stay, and work again after the next installation.
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
_BLOCK = re.compile(rf"^[ \t]*{_BEGIN}.*?^[ \t]*{_END}[^\n]*\n?".encode(), re.MULTILINE | re.DOTALL)
_STARTUP = f"""{_BEGIN}
-- Inserts stems finished while REAPER was closed into their projects. `tsbs-daw reaper uninstall` removes this block.
do
  reaper.defer(function() end) -- without this, REAPER adds an undo point
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
    """A preset in the dialog. `stems` are the dry stems that it writes; None means all stems of the model."""

    name: str
    description: str
    outputs: tuple[str, ...]
    stems: tuple[str, ...] | None = None

    def document(self) -> dict[str, object]:
        found: dict[str, object] = {"name": self.name, "description": self.description, "outputs": list(self.outputs)}
        return found if self.stems is None else found | {"stems": list(self.stems)}


@dataclass(frozen=True)
class ModelEntry:
    """An installed model in the dialog."""

    name: str
    description: str
    stems: tuple[str, ...]


@dataclass(frozen=True)
class Installation:
    """The state of an installation in REAPER.

    Attributes:
        actions: Registered actions.
        missing: Actions that exist as files but are not registered.
        scripts: Folder of the scripts.
        reapack: Whether ReaPack installed them.
        second: The copy of `reaper install`, if the package was installed with ReaPack afterwards.
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
    """Return the folder of the scripts in this installation of the program."""
    return resource_folder("reaper_scripts") / NAME


def reapack_folder(resource: Path) -> Path | None:
    """Return where ReaPack installed the scripts, under any name of the repository; None if it did not."""
    found = (resource / "Scripts").glob("*/*/tsbs-daw_Background.lua")
    return min((path.parent for path in found), default=None)


def action_files(folder: Path, scripts: Path) -> list[str]:
    """Return the actions in a folder, as paths below `scripts`."""
    return [path.relative_to(scripts).as_posix() for path in sorted(folder.glob(ACTION))]


def settings_document(
    spool: Path, commands: Mapping[str, str | None], presets: Iterable[PresetEntry], models: Sequence[ModelEntry]
) -> dict[str, object]:
    """Return the content of installed.json.

    Args:
        spool: The daemon's spool.
        commands: `start`, which starts a daemon, and `setup`, which checks this machine; None if it cannot be run.
        presets: Presets to offer in the dialog.
        models: Installed models, the default model first.
    """
    found: dict[str, object] = {"schema": SCHEMA, "version": tsbs_daw.__version__, "spool": str(ascii_spelling(spool))}
    found["stems"] = list(models[0].stems)
    found |= {name: command for name, command in commands.items() if command is not None}
    found["presets"] = [preset.document() for preset in presets]
    found["models"] = [{**vars(model), "stems": list(model.stems)} for model in models]
    return found


def install(
    resource: Path, settings: dict[str, object], *, scripts: bool = True, more_actions: Mapping[str, str] | None = None
) -> Installation:
    """Install everything, replacing an earlier installation.

    Args:
        scripts: Whether to install the scripts, too; False if ReaPack has installed them.
        more_actions: Content of additional actions, by file name.

    Raises:
        OutputError: A file cannot be written.
        UsageError: ReaPack has installed the scripts, and `scripts` would install a second copy.
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
    """Remove what `install` wrote. Key bindings, other scripts and the files of ReaPack stay. Raises OutputError."""
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
            raise OutputError(f"Cannot remove {shown(folder)} ({error.strerror}). Close REAPER.") from error
    return installation(resource)


def installation(resource: Path) -> Installation:
    """Return the current state."""
    keys = resource / KEYS
    registered = {path.lower() for path in scripts_in(keys.read_bytes())} if keys.is_file() else set()
    absolute = (resource / "Scripts").as_posix().lower() + "/"
    registered |= {path.removeprefix(absolute) for path in registered}
    packaged = reapack_folder(resource)
    own = resource / "Scripts" / NAME
    folder = packaged or own
    files = action_files(folder, resource / "Scripts")
    try:
        found = dict(json.loads((resource / "Data" / NAME / "installed.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
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
    """Report the state of `reaper setup` to the action *Setup*. Raises OutputError if the file cannot be written.

    Args:
        state: "checking" or "done".
        findings: Topic, status, what and advice of each finding.
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
    """Replace a folder by a copy of `source` and `more` files. REAPER sees only whole scripts, old or new."""
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
    """Return the toolbar icons, as paths below their folder."""
    folder = source_folder() / ICONS
    return [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]


def _write_icons(resource: Path) -> None:
    for path in _icons():
        target = resource / "Data" / ICONS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source_folder() / ICONS / path, target)


def _remove_icons(resource: Path) -> None:
    """Remove our icons, and the folders that are then empty."""
    folder = resource / "Data" / ICONS
    for path in _icons():
        (folder / path).unlink(missing_ok=True)
    for emptied in (*(folder / path.parent for path in _icons()), folder):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()


def _write_actions(folder: Path, more: Mapping[str, str]) -> None:
    """Write the actions of the user's presets next to those of ReaPack, and remove those of deleted presets."""
    for path in folder.glob("tsbs-daw_Separate selected items (*).lua"):
        ours = not (source_folder() / path.name).exists() and "tsbs-daw reaper actions" in path.read_text("utf-8")
        if ours and path.name not in more:
            path.unlink()
    for name, content in more.items():
        (folder / name).write_text(content, encoding="utf-8")


def _rewrite_startup(resource: Path, *, present: bool, reapack: Path | None = None) -> None:
    """Add our block to REAPER's startup script, or remove it. `reapack` is the folder of ReaPack's scripts, if any."""
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
    left = _BLOCK.sub(b"", before)
    if _BEGIN.encode() in left:
        what = f"has a line `{_BEGIN}` and no line `{_END}` after it"
        raise OutputError(f"{shown(path)} {what}. Remove the lines of tsbs-daw there, and try again.")
    if present:
        if left and not left.endswith(b"\n"):
            left += newline
        left += block.encode().replace(b"\n", newline)
    if left or not path.is_file():
        if left:
            rewrite(path, left)
    else:
        path.unlink()  # it contained only our block


# ---- the list of actions --------------------------------------------------------------------------------------------


def action_id(path: str) -> str:
    """Return the id that REAPER gives a script of its main section: the SHA-1 of its path in upper case.

    The path is relative to Scripts/, or absolute for a script elsewhere, with forward slashes.
    """
    return "RS" + hashlib.sha1(path.upper().encode("utf-8"), usedforsecurity=False).hexdigest()


def scripts_in(content: bytes) -> list[str]:
    """Return the paths of all registered scripts, with forward slashes."""
    found = (match["path"].decode("utf-8", "surrogateescape") for match in _SCRIPT.finditer(content))
    return [path.strip('"').replace("\\", "/") for path in found]


def add_scripts(content: bytes, paths: list[str]) -> bytes:
    """Return the file with these scripts registered. Scripts that are registered already are not changed."""
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
    """Return the file without the scripts of a folder, listed with a relative or an absolute path.

    Args:
        folder: Name of the folder below Scripts/.
        scripts: Absolute path of Scripts/.
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
    """Replace a file by a rename, after a backup. Returns whether its content changed.

    Raises OutputError if the file cannot be written; the old file is then unchanged.
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
        raise OutputError(f"Cannot write {shown(path)} ({error.strerror}). The file is unchanged.") from error
    return True
