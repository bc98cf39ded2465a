"""Installs the scripts in Ardour, and uninstalls them.

<config>/scripts/tsbs-daw_*.lua            the scripts, with the path of the spool filled in
<config>/ui_scripts                        the scripts in use
<config>/ui_scripts.before-tsbs-daw        a backup from before the first installation

Ardour keeps a copy of each script in use inside ui_scripts, so both are written. Each major version has its own
configuration folder. Inside ui_scripts:

    <UIScripts>
      <ActionScript>    base64 of a Lua program that fills the table `scripts`: one entry for each action slot
      <ActionHooks>
        <LuaCallback signals="0100...">   base64 of a Lua program that fills the table `s`: one hook

In an entry, "n" is the name, "s" the script's text, and "f" a program that is called with the arguments "a" and returns
the function that Ardour calls. Ardour rewrites the file when its list changes, with different programs that fill the
same tables. This module therefore makes changes by appending statements to the program.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.core.errors import OutputError, SettingsError, UsageError, shown

UI_SCRIPTS = "ui_scripts"
BACKUP = f"{UI_SCRIPTS}.before-tsbs-daw"
SCRIPTS = Path(__file__).parent / "ardour_scripts"
FILES = ("tsbs-daw_background.lua", "tsbs-daw_separate_region.lua", "tsbs-daw_jobs.lua")
OLDEST = 6  # the first version with Lua 5.3 and the functions that the scripts call

_FOLDER_NAME = re.compile(r"(?i)ardour(\d+)")
_NAME = re.compile(r'(?m)^  name = "(.+)",$')
_HOOK = re.compile(r'(?m)^  \["type"\] = "EditorHook",$')
_SPOOL = re.compile(r'(?m)^  local SPOOL = ("(?:[^"\\]|\\.)*")')
_PRESET = re.compile(r'(?m)^  local PRESET = ("(?:[^"\\]|\\.)*")')


def usual_place(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that contains `ardour7`, `ardour8` and so on.

    Arguments default to those of this system: `sys.platform` and `os.environ`.
    """
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if platform == "darwin":
        return home / "Library" / "Preferences"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")


def version_of(folder: Path) -> int | None:
    """Return the major version in the name of a configuration folder; None for other names."""
    match = _FOLDER_NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_folders(chosen: Path | None = None) -> list[Path]:
    """Return the configuration folders to install to, oldest version first.

    Args:
        chosen: One configuration folder. Default: all in the usual location.

    Raises:
        UsageError: The folder does not exist, or Ardour was never started.
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
        f"There is no configuration of Ardour {OLDEST} or newer in {shown(place)}; start Ardour once, or pass its "
        "configuration folder with --config FOLDER."
    )


@dataclass(frozen=True)
class Installation:
    """The state of one configuration folder.

    Attributes:
        files: Scripts of `FILES` that exist.
        in_use: Names of the scripts that Ardour runs.
        missing: Names of the scripts that it does not run.
        spool: Spool that the installed scripts use; None if they are not installed.
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
    """Return the scripts to install, by file name.

    Args:
        spool: Path of the spool.
        preset: Preset of the action.
    """
    found = {}
    for name in FILES:
        text = (SCRIPTS / name).read_text(encoding="utf-8")
        text = _filled(_PRESET, _filled(_SPOOL, text, spool.as_posix()), preset)
        found[name] = Script(_name_in(text), text, hook=_HOOK.search(text) is not None)
    return found


def install(config: Path, spool: Path, preset: str = "none") -> Installation:
    """Copy the scripts and, if this version is supported, register them with Ardour.

    Raises:
        OutputError: A file cannot be written.
        SettingsError: ui_scripts is damaged or has no free slot.
    """
    wanted = scripts(spool, preset)
    for name, script in wanted.items():
        _write(config / "scripts" / name, script.text.encode())
    signals = SIGNALS.get(version_of(config) or 0)
    if signals is not None:
        path = config / UI_SCRIPTS
        before = _read(path)
        try:
            after = add_scripts(before, list(wanted.values()), signals)
        except ValueError as error:
            raise _damaged(path, error) from error
        if before and not (config / BACKUP).exists():
            _write(config / BACKUP, before)
        _write(path, after)
    return installation(config)


def uninstall(config: Path) -> Installation:
    """Remove our scripts; others stay. Raises OutputError, or SettingsError if ui_scripts is damaged."""
    path = config / UI_SCRIPTS
    before = _read(path)
    if before:
        try:
            left = remove_scripts(before, [script.name for script in scripts(Path()).values()])
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
    """Return the current state. Raises SettingsError if ui_scripts is damaged."""
    path = config / UI_SCRIPTS
    try:
        known = registered_scripts(_read(path))
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
    """Return the text of a literal that `lua_quoted` wrote."""

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


# ---- the scripts in use ----------------------------------------------------------------------------------------------

SLOTS = 9  # only the first slots have buttons
_LUA = "Lua 5.3"
_HOOK_ID = "900100"


@dataclass(frozen=True)
class Signals:
    """The signals of a version that a hook may connect to.

    Attributes:
        count: Number of signals, which must be the length of the bit string.
        tenth: Numbers of the timer that fires every 0.1 s; several, if minor versions differ.
    """

    count: int
    tenth: tuple[int, ...]

    @property
    def timer(self) -> str:
        """Bit string of that timer, highest number first."""
        return "".join("1" if number in self.tenth else "0" for number in reversed(range(self.count)))


# From gtk2_ardour/luasignal_syms.h: 7.x has 49 signals with the timer at 47; 8.0 to 9.7 have 50 with the timer at 47;
# 9.8 added two before it. A configuration folder states only the major version, so Ardour 9 gets both numbers; the
# other one is a rare signal there, which only runs the hook once more. In later versions, users add the scripts in
# Ardour's Script Manager.
SIGNALS = {7: Signals(49, (47,)), 8: Signals(50, (47,)), 9: Signals(50, (47, 49))}


@dataclass(frozen=True)
class Script:
    """A script with the `name` that Ardour lists and the `text` of its file. It is a `hook` or an action."""

    name: str
    text: str
    hook: bool

    @property
    def program(self) -> str:
        """The program that Ardour loads: the script, then a call of its factory."""
        return f"local ardour = function () end\n{self.text}\nreturn factory (...)\n"


def lua_quoted(text: str) -> str:
    """Return a Lua string literal of the text in UTF-8, as one line of ASCII."""
    named = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n"}
    plain = range(32, 127)
    return '"' + "".join(named.get(b) or (chr(b) if b in plain else f"\\{b:03d}") for b in text.encode()) + '"'


def add_scripts(before: bytes, scripts: list[Script], signals: Signals) -> bytes:
    """Register scripts, replacing those with the same names.

    `before` is the current content of the file. Raises ValueError if it is invalid or no action slot is free.
    """
    root = _parsed(before)
    for script in scripts:
        if script.hook:
            _add_hook(root, script, signals)
        else:
            _add_action(root, script)
    return _written(root)


def remove_scripts(before: bytes, names: list[str]) -> bytes:
    """Unregister scripts. Returns the new content, or empty bytes if no scripts are left. Raises ValueError."""
    root = _parsed(before)
    hooks, actions = _part(root, "ActionHooks"), _part(root, "ActionScript")
    for hook in [hook for hook in hooks if hook.get("name") in names]:
        hooks.remove(hook)
    state = _state(actions)
    slots = _slots(state)
    ours = {slot for slot, name in slots.items() if name in names}
    _set_state(actions, state + "".join(f" scripts[{slot}] = nil " for slot in sorted(ours)))
    return _written(root) if len(hooks) or set(slots) - ours else b""


def registered_scripts(before: bytes) -> set[str]:
    """Return the names of all scripts in use. Raises ValueError if the content is invalid."""
    root = _parsed(before)
    hooks = {hook.get("name", "") for hook in _part(root, "ActionHooks")}
    return hooks | set(_slots(_state(_part(root, "ActionScript"))).values())


def _add_hook(root: ET.Element, script: Script, signals: Signals) -> None:
    hooks = _part(root, "ActionHooks")
    for hook in [hook for hook in hooks if hook.get("name") == script.name]:
        hooks.remove(hook)
    hook = ET.SubElement(
        hooks, "LuaCallback", {"lua": _LUA, "id": _HOOK_ID, "name": script.name, "signals": signals.timer}
    )
    _set_state(hook, "s = {} " + _entry("s", script))


def _add_action(root: ET.Element, script: Script) -> None:
    actions = _part(root, "ActionScript")
    state = _state(actions) or "scripts = {} "
    slots = _slots(state)
    earlier = [slot for slot, name in slots.items() if name == script.name]
    free = earlier or [slot for slot in range(1, SLOTS + 1) if slot not in slots]
    if not free:
        raise ValueError("all action slots are taken")
    _set_state(actions, f"{state} scripts[{free[0]}] = {{}} " + _entry(f"scripts[{free[0]}]", script))


def _entry(table: str, script: Script) -> str:
    return (
        f'{table}["n"] = {lua_quoted(script.name)} {table}["s"] = {lua_quoted(script.text)} '
        f'{table}["f"] = {lua_quoted(script.program)} {table}["a"] = {{}} '
    )


def _slots(state: str) -> dict[int, str]:
    """Return the name in each slot, by the last statement about that slot."""
    found: dict[int, str] = {}
    statement = re.compile(r'(?:^|\s)scripts\[(\d+)\](?:\["n"\] = "((?:[^"\\]|\\.)*)"| = (nil)(?=\s))')
    for match in statement.finditer(_without_programs(state)):
        slot = int(match[1])
        if match[3]:
            found.pop(slot, None)
        else:
            found[slot] = match[2]
    return found


def _without_programs(state: str) -> str:
    """Return the statements without the texts of scripts, which may contain anything."""
    return re.sub(r'\["[sfc]"\] = "(?:[^"\\]|\\.)*"', '["s"] = ""', state, flags=re.DOTALL)


def _parsed(before: bytes) -> ET.Element:
    if not before.strip():
        return ET.Element("UIScripts")
    try:
        root = ET.fromstring(before)
    except ET.ParseError as error:
        raise ValueError(f"it is not XML ({error})") from error
    if root.tag != "UIScripts":
        raise ValueError(f"it has the root element {root.tag}, not UIScripts")
    return root


def _part(root: ET.Element, tag: str) -> ET.Element:
    found = root.find(tag)
    return found if found is not None else ET.SubElement(root, tag, {"lua": _LUA} if tag == "ActionScript" else {})


def _state(node: ET.Element) -> str:
    # Latin-1 preserves every byte; Ardour's own programs contain compiled Lua.
    return base64.b64decode(node.text or "").decode("latin-1")


def _set_state(node: ET.Element, state: str) -> None:
    node.text = base64.b64encode(state.encode("latin-1")).decode("ascii")


def _written(root: ET.Element) -> bytes:
    return ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"
