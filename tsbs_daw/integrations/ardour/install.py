"""Installs the scripts in Ardour, and uninstalls them.

<config>/scripts/tsbs-daw_*.lua            the scripts, with the path of the spool filled in
<config>/ui_scripts                        the scripts in use
<config>/ui_scripts.before-tsbs-daw        a backup from before the first installation

Ardour keeps a copy of each script in use inside ui_scripts, so both are written. Each major version has its own
configuration folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.core.errors import OutputError, SettingsError, UsageError, shown
from tsbs_daw.integrations.ardour import scripts as ardour_scripts
from tsbs_daw.integrations.ardour.scripts import SIGNALS, Script, lua_quoted

OLDEST = 6  # the first with Lua 5.3 and the functions that the scripts call

_FOLDER_NAME = re.compile(r"(?i)ardour(\d+)")


def usual_place(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder in which `ardour7`, `ardour8`, ... are.

    Args: platform: as `sys.platform`; environment: as `os.environ`
    """
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if platform == "darwin":
        return home / "Library" / "Preferences"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")


def version_of(folder: Path) -> int | None:
    """The major version of a configuration folder, by its name; None for other names."""
    match = _FOLDER_NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_folders(chosen: Path | None = None) -> list[Path]:
    """The configuration folders to install to, oldest version first.

    Args:
        chosen: one configuration folder; None: all in the default location

    Raises:
        UsageError: the folder does not exist, or Ardour was never started
    """
    if chosen is not None:
        folder = chosen.expanduser().absolute()
        if folder.is_dir():
            return [folder]
        raise UsageError(f"Ardour's configuration folder {shown(folder)} does not exist; check its name.")
    place = usual_place()
    named = [(version_of(folder) or 0, folder) for folder in place.iterdir()] if place.is_dir() else []
    found = [folder for version, folder in sorted(named) if version >= OLDEST and folder.is_dir()]
    if found:
        return found
    raise UsageError(
        f"There is no configuration of Ardour {OLDEST} or newer in {shown(place)}; start Ardour once, or name its "
        "configuration folder: --config FOLDER."
    )


BACKUP = f"{ardour_scripts.FILE}.before-tsbs-daw"
FILES = ("tsbs-daw_background.lua", "tsbs-daw_separate_region.lua", "tsbs-daw_jobs.lua")

_NAME = re.compile(r'(?m)^  name = "(.+)",$')
_HOOK = re.compile(r'(?m)^  \["type"\] = "EditorHook",$')
_SPOOL = re.compile(r'(?m)^  local SPOOL = ("(?:[^"\\]|\\.)*")')
_PRESET = re.compile(r'(?m)^  local PRESET = ("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class Installation:
    """The state of one configuration folder.

    Attributes:
        files: the scripts that exist, of `FILES`
        in_use: names of the scripts that Ardour runs
        missing: names of the scripts that it does not run
        spool: the spool that the installed scripts use; None: not installed
    """

    config: Path
    files: tuple[str, ...]
    in_use: tuple[str, ...]
    missing: tuple[str, ...]
    spool: str | None

    @property
    def complete(self) -> bool:
        return len(self.files) == len(FILES) and not self.missing


def scripts(spool: Path, preset: str = "none") -> dict[str, Script]:
    """The scripts by file name, as they are installed.

    Args:
        spool: path of the spool
        preset: preset of the action
    """
    found = {}
    for name in FILES:
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        text = _filled(_PRESET, _filled(_SPOOL, text, spool.as_posix()), preset)
        found[name] = Script(_name_in(text), text, hook=_HOOK.search(text) is not None)
    return found


def install(config: Path, spool: Path, preset: str = "none") -> Installation:
    """Copy the scripts and, if this version is supported, register them with Ardour.

    Raises:
        OutputError: a file cannot be written
        SettingsError: ui_scripts is damaged or has no free slot
    """
    wanted = scripts(spool, preset)
    for name, script in wanted.items():
        _write(config / "scripts" / name, script.text.encode())
    signals = SIGNALS.get(version_of(config) or 0)
    if signals is not None:
        path = config / ardour_scripts.FILE
        before = _read(path)
        try:
            after = ardour_scripts.add(before, list(wanted.values()), signals)
        except ValueError as error:
            raise _damaged(path, error) from error
        if before and not (config / BACKUP).exists():
            _write(config / BACKUP, before)
        _write(path, after)
    return installation(config)


def uninstall(config: Path) -> Installation:
    """Remove the scripts; other scripts stay. Raises: OutputError, SettingsError"""
    path = config / ardour_scripts.FILE
    before = _read(path)
    if before:
        try:
            left = ardour_scripts.remove(before, [script.name for script in scripts(Path()).values()])
        except ValueError as error:
            raise _damaged(path, error) from error
        if left:
            _write(path, left)
        else:
            _remove(path)  # it held only our scripts
    for gone in [config / "scripts" / name for name in FILES] + [config / BACKUP]:
        _remove(gone)
    return installation(config)


def installation(config: Path) -> Installation:
    """The current state. Raises: SettingsError: ui_scripts is damaged"""
    path = config / ardour_scripts.FILE
    try:
        known = ardour_scripts.registered(_read(path))
    except ValueError as error:
        raise _damaged(path, error) from error
    names = [script.name for script in scripts(Path()).values()]
    texts = {name: _read(config / "scripts" / name).decode("utf-8", "replace") for name in FILES}
    spool = _SPOOL.search(texts[FILES[0]])
    return Installation(
        config=config,
        files=tuple(name for name, text in texts.items() if text),
        in_use=tuple(name for name in names if name in known),
        missing=tuple(name for name in names if name not in known),
        spool=_unquoted(spool[1]) if spool else None,
    )


def _filled(constant: re.Pattern[str], text: str, value: str) -> str:
    return constant.sub(lambda match: match[0].replace(match[1], lua_quoted(value)), text)


def _name_in(text: str) -> str:
    match = _NAME.search(text)
    assert match, "every script has a name"
    return match[1]


def _unquoted(literal: str) -> str:
    """The text of a literal that `lua_quoted` wrote."""

    def byte(match: re.Match[bytes]) -> bytes:
        found = match[1]
        return bytes([int(found)]) if found.isdigit() else found.replace(b"n", b"\n")

    found = re.sub(rb"\\(\d{3}|.)", byte, literal[1:-1].encode())
    return found.decode("utf-8", "replace")


def _damaged(path: Path, error: ValueError) -> SettingsError:
    return SettingsError(f"Cannot change {shown(path)}: {error}. Check it in Ardour's Script Manager.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise OutputError(f"Cannot read {shown(path)} ({error.strerror}). Check its permissions.") from error


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"Cannot write {shown(path)} ({error.strerror}). Check its permissions.") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot remove {shown(path)} ({error.strerror}). Close Ardour.") from error
