"""What REAPER's functions are called and take, from `data/reaper_api.json`; a call that differs is a misuse."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from reaper.model import Handle

PATH = Path(__file__).parent / "data" / "reaper_api.json"

# GUIDs are text in Lua; the parameter names of project settings are not part of the data.
TEXT_TYPES = ("string", "GUID")
SETTINGS = {
    "GetSetProjectInfo": {
        "RENDER_SETTINGS", "RENDER_BOUNDSFLAG", "RENDER_CHANNELS", "RENDER_SRATE", "RENDER_STARTPOS",
        "RENDER_ENDPOS", "RENDER_TAILFLAG", "RENDER_TAILMS", "RENDER_ADDTOPROJ", "RENDER_DITHER",
        "RENDER_NORMALIZE", "PROJECT_SRATE", "PROJECT_SRATE_USE",
    },
    "GetSetProjectInfo_String": {"RENDER_FILE", "RENDER_PATTERN", "RENDER_FORMAT", "RENDER_FORMAT2", "RENDER_TARGETS"},
}  # fmt: skip

# Older documentation has one argument more for each of these, a text for the answer to be written into, and versions of
# that time insist on it; later ones take one. Public scripts of all years pass "".
WITH_BUFFER = {
    "EnumProjects", "GetMediaSourceFileName", "GetMediaSourceType", "GetProjectName", "GetProjectPathEx",
}  # fmt: skip


class Misuse(Exception):
    """A call that REAPER would refuse, misunderstand, or crash at."""


@cache
def functions() -> dict[str, dict[str, Any]]:
    return json.loads(PATH.read_text(encoding="utf-8"))["functions"]


@cache
def lua_only() -> frozenset[str]:
    return frozenset(json.loads(PATH.read_text(encoding="utf-8"))["lua_only"])


def check(name: str, arguments: list[Any], projects: list[Handle]) -> list[Any]:
    """The arguments as the function takes them. Raises: Misuse"""
    if name not in functions():
        return arguments  # one of those that exist in Lua alone
    spec = functions()[name]
    if name in WITH_BUFFER:
        if arguments[len(spec["args"]) :] != [""]:
            raise Misuse(f"{name}: older versions want a text to write into; pass one that is empty")
        arguments = arguments[:-1]
    if len(arguments) > len(spec["args"]):
        raise Misuse(f"{name}: {len(arguments)} arguments, and it takes {len(spec['args'])}")
    checked = []
    for number, (argument, type_, *optional) in enumerate(spec["args"]):
        if number >= len(arguments) or arguments[number] is None:
            if not optional:
                raise Misuse(f"{name}: argument {number + 1} ({argument}) is missing")
            checked.append(None)
            continue
        checked.append(_checked(f"{name}: argument {number + 1} ({argument})", type_, arguments[number], projects))
    _check_parameter(name, spec, checked)
    return checked


def _checked(where: str, type_: str, value: Any, projects: list[Handle]) -> Any:
    if type_ == "any":
        return value
    if type_ == "ReaProject" and value == 0 and not isinstance(value, Handle):
        return projects[0]
    if type_ == "integer":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Misuse(f"{where}: {value!r} is no integer")
        if value != int(value):
            raise Misuse(f"{where}: {value!r} has no integer representation")
        return int(value)
    plain = {"number": (int, float), "boolean": bool} | dict.fromkeys(TEXT_TYPES, str)
    if type_ in plain:
        if not isinstance(value, plain[type_]) or (type_ == "number" and isinstance(value, bool)):
            raise Misuse(f"{where}: {value!r} is no {type_}")
        return value
    if getattr(value, "kind", None) != type_:
        raise Misuse(f"{where}: {value!r} is no {type_}")
    if not value.alive:
        raise Misuse(f"{where}: this {type_} is gone")
    return value


def _check_parameter(name: str, spec: dict[str, Any], arguments: list[Any]) -> None:
    known = set(spec.get("parmnames", ())) | SETTINGS.get(name, set())
    if not known:
        return
    parameter = arguments[1]
    if parameter.startswith("P_EXT:") and "P_EXT" in known:
        return
    if parameter not in known:
        raise Misuse(f"{name}: there is no parameter {parameter!r}")
