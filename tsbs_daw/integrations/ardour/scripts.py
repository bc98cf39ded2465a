"""Ardour's `ui_scripts`: the scripts that are in use, each kept whole in the file.

    <UIScripts>
      <ActionScript>    base64 of a Lua program that fills the table `scripts`: one entry for each action slot
      <ActionHooks>
        <LuaCallback signals="0100...">   base64 of a Lua program that fills the table `s`: one hook

In an entry, "n" is the name, "s" the script's text, "f" what is loaded and called with the arguments "a" and returns
the function that is called afterwards. Ardour writes the file anew whenever its list of scripts changes; the programs
look different then and fill the same tables. So nothing in them is rewritten here: what is added or taken away is a
statement at the end.
"""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

FILE = "ui_scripts"

SLOTS = 9  # the first slots have buttons of their own
_LUA = "Lua 5.3"
_HOOK_ID = "900100"


@dataclass(frozen=True)
class Signals:
    """How a version numbers what a hook may listen to.

    Args:
        count: how many signals there are; a longer text would be read from its wrong end
        tenth: the numbers of the timer of a tenth of a second, where minor versions differ
    """

    count: int
    tenth: tuple[int, ...]

    @property
    def timer(self) -> str:
        """The bits of that timer alone, the highest number first."""
        return "".join("1" if number in self.tenth else "0" for number in reversed(range(self.count)))


# From gtk2_ardour/luasignal_syms.h: 49 signals with the timer at 47 in 7.x, 50 with it at 47 in 8.0 to 9.7; in 9.8 two
# were added before it. The folder of a configuration names the major version alone, so Ardour 9 gets both numbers: the
# other one is a rare signal there, and the hook only looks once more. In later versions, the user adds the scripts in
# Ardour's own Script Manager.
SIGNALS = {7: Signals(49, (47,)), 8: Signals(50, (47,)), 9: Signals(50, (47, 49))}


@dataclass(frozen=True)
class Script:
    """name: as Ardour lists it; text: the whole file; hook: whether it is called again and again, or is an action"""

    name: str
    text: str
    hook: bool

    @property
    def program(self) -> str:
        """What is loaded: the script, and then its factory."""
        return f"local ardour = function () end\n{self.text}\nreturn factory (...)\n"


def lua_quoted(text: str) -> str:
    """A Lua string literal of the text in UTF-8: ASCII, in one line."""
    named = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n"}
    plain = range(32, 127)
    return '"' + "".join(named.get(b) or (chr(b) if b in plain else f"\\{b:03d}") for b in text.encode()) + '"'


def add(before: bytes, scripts: list[Script], signals: Signals) -> bytes:
    """Register scripts; those registered earlier under the same names are replaced.

    Args:   before: the file as it is; empty if there is none
    Raises: ValueError: not such a file, or no action slot is free
    """
    root = _parsed(before)
    for script in scripts:
        if script.hook:
            _add_hook(root, script, signals)
        else:
            _add_action(root, script)
    return _written(root)


def remove(before: bytes, names: list[str]) -> bytes:
    """Take scripts out again. Returns: what is left; empty if that is nothing. Raises: ValueError"""
    root = _parsed(before)
    hooks, actions = _part(root, "ActionHooks"), _part(root, "ActionScript")
    for hook in [hook for hook in hooks if hook.get("name") in names]:
        hooks.remove(hook)
    state = _state(actions)
    slots = _slots(state)
    ours = {slot for slot, name in slots.items() if name in names}
    _set_state(actions, state + "".join(f" scripts[{slot}] = nil " for slot in sorted(ours)))
    return _written(root) if len(hooks) or set(slots) - ours else b""


def registered(before: bytes) -> set[str]:
    """The names of all scripts in use. Raises: ValueError"""
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
    """Which slot has which name, by the last statement about each."""
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
    """The statements without scripts' own texts, which may hold anything."""
    return re.sub(r'\["[sfc]"\] = "(?:[^"\\]|\\.)*"', '["s"] = ""', state, flags=re.DOTALL)


def _parsed(before: bytes) -> ET.Element:
    if not before.strip():
        return ET.Element("UIScripts")
    try:
        root = ET.fromstring(before)
    except ET.ParseError as error:
        raise ValueError(f"it is not XML ({error})") from error
    if root.tag != "UIScripts":
        raise ValueError(f"it holds {root.tag}, not UIScripts")
    return root


def _part(root: ET.Element, tag: str) -> ET.Element:
    found = root.find(tag)
    return found if found is not None else ET.SubElement(root, tag, {"lua": _LUA} if tag == "ActionScript" else {})


def _state(node: ET.Element) -> str:
    # Latin-1 keeps each byte: Ardour's own programs hold compiled Lua.
    return base64.b64decode(node.text or "").decode("latin-1")


def _set_state(node: ET.Element, state: str) -> None:
    node.text = base64.b64encode(state.encode("latin-1")).decode("ascii")


def _written(root: ET.Element) -> bytes:
    return ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"
