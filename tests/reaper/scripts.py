"""A script in a Lua state of its own, with its deferred functions and its gfx window."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reaper.functions_media import Array
from reaper.gfx import FUNCTIONS, VARIABLES, Gfx
from reaper.imgui import ImGui
from reaper.model import Handle
from reaper.signatures import Misuse

if TYPE_CHECKING:
    from reaper.stand_in import Reaper

FILE_S, DRAW_S = 3e-5, 5e-6

# Builds the globals `reaper` and `gfx`; from then on a new global is an error, as is writing into `reaper`.
PRELUDE = r"""
local call, exists, gfx_call, gfx_get, gfx_set, spend = ...

-- Handles and arrays are tables in Lua; to Python they go as texts with a mark. No object of either language is held by
-- the other: the bridge mistakes one for another when there are many, and crashes over those of a coroutine.
local MARK = "\0handle "
local stubs, names = {}, {}
local ARRAY = { __name = "reaper.array", __index = function(array, key)
  return array.values[key]
end }

-- REAPER fills and copies an array in C. `table.move` is the nearest to that; a loop would count as the script's own.
local function new_array(size)
  local array = setmetatable({ values = {} }, ARRAY)
  local zeros = {}
  for index = 1, size do
    zeros[index] = 0.0
  end
  function array.clear(value)
    table.move(zeros, 1, size, 1, array.values)
    for index = 1, value and size or 0 do
      array.values[index] = value
    end
  end
  function array.table(offset, count)
    return table.move(array.values, offset or 1, (offset or 1) + (count or size) - 1, 1, {})
  end
  array.size = size
  array.clear()
  return array
end

local function sent(value, ...)
  if getmetatable(value) == ARRAY then
    value = "\0array " .. value.size
  elseif type(value) == "table" then
    value = names[value] or "\0table"
  end
  if select("#", ...) == 0 then
    return value
  end
  return value, sent(...)
end

local function got(value, ...)
  if type(value) == "string" and value:sub(1, #MARK) == MARK then
    local name = value
    value = stubs[name] or {}
    stubs[name], names[value] = value, name
  end
  if select("#", ...) == 0 then
    return value
  end
  return value, got(...)
end

local function filled(array, result, values)
  if values then
    table.move(values, 1, #values, 1, array.values)
  end
  return result
end

local functions = { new_array = new_array }
local function function_of(name)
  return functions[name] or function(...)
    local _, is_main = coroutine.running()
    local count = select("#", ...)
    if count == 0 then
      return got(call(name, not is_main, 0))
    elseif name == "GetAudioAccessorSamples" then
      return filled(select(6, ...), call(name, not is_main, count, sent(...)))
    end
    return got(call(name, not is_main, count, sent(...)))
  end
end

rawset(_G, "reaper", setmetatable({}, {
  __index = function(_, name)
    if not functions[name] then
      functions[name] = exists(name) and function_of(name) or nil
    end
    return functions[name]
  end,
  __newindex = function(_, name)
    error("a script writes reaper." .. tostring(name), 2)
  end,
}))
local drawing = {}
rawset(_G, "gfx", setmetatable({}, {
  __index = function(_, name)
    local value = gfx_get(name)
    if value ~= false then
      return value
    end
    drawing[name] = drawing[name] or function(...)
      return gfx_call(name, ...)
    end
    return drawing[name]
  end,
  __newindex = function(_, name, value)
    gfx_set(name, value)
  end,
}))
os.exit = nil
-- Opening, moving and removing a file take time too.
for _, entry in ipairs({ { io, "open" }, { os, "rename" }, { os, "remove" } }) do
  local library, name = entry[1], entry[2]
  local original = library[name]
  library[name] = function(...)
    spend(name, ...)
    return original(...)
  end
end
setmetatable(_G, {
  __newindex = function(_, name)
    error("a script makes the global " .. tostring(name), 2)
  end,
  __index = function(_, name)
    error("a script reads the global " .. tostring(name), 2)
  end,
})
"""


class Script:
    """path: its file. running: whether it has something deferred, or a window."""

    def __init__(self, reaper: Reaper, path: Path):
        self.reaper, self.path = reaper, path
        self.lupa = importlib.import_module(f"lupa.lua{reaper.version}")
        self.lua = self.lupa.LuaRuntime(unpack_returned_tuples=True)
        self.asked_for: set[str] = set()
        self.gfx = Gfx(reaper.screen, reaper.retina)
        self.running = self.gives_way = self.toggles = False
        self._deferred: list[Any] = []
        self._handles: dict[int, Handle | ImGui] = {}  # kept, so that none gets the address of another
        self._at_exit: list[Any] = []
        answers = (self._call, self._exists, self._draw, self._gfx_value, self._set_gfx, self._spend_on_a_file)
        self._bridge = tuple(map(self._outside_lua, answers))
        self.lua.execute(PRELUDE, *self._bridge)

    def start(self) -> None:
        load = self.lua.eval("function(path) return assert(loadfile(path))() end")
        self.running = True
        self._protected(load, str(self.path))
        if not self._deferred and self.reaper.projects:
            # "Undo points are created for ReaScripts by default. To prevent this, call defer()" (ReaScript how-to)
            self.reaper.projects[0].add_undo_point(self.path.name)
        self._settle()

    def tick(self) -> None:
        due, self._deferred = self._deferred, []
        for function in due:
            self._protected(function)
        self._settle()

    def end(self) -> None:
        """As when REAPER is closed, or the user ends the script."""
        if self.running:
            self.running, self._deferred = False, []
            for function in self._at_exit:
                self._protected(function)

    def _settle(self) -> None:
        if not self._deferred:
            self.end()

    def _outside_lua(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self.reaper.lua_ends()
            try:
                return answer(*arguments)
            finally:
                self.reaper.lua_begins()

        return timed

    def _protected(self, function: Any, *arguments: Any) -> None:
        self.reaper.lua_begins()
        try:
            function(*arguments)
        except Misuse as misuse:
            if str(misuse) not in self.reaper.misuses:
                self.reaper.misuses.append(str(misuse))
        except Exception as error:
            self.reaper.misuses.append(f"{self.path.name}: {error}")
        finally:
            self.reaper.lua_ends()

    def _exists(self, name: str) -> bool:
        if name in self.reaper.lacks:
            return False
        if not self.reaper.exists(name):
            self.reaper.misuses.append(f"there is no function reaper.{name}")
            return False
        return True

    def _spend_on_a_file(self, what: str, path: str, *_: str) -> None:
        self.reaper.spend(FILE_S)
        self.reaper.work["files"] += 1
        if what == "open" and Path(path).is_file():
            self.reaper.work["bytes"] += Path(path).stat().st_size

    def _call(self, name: str, in_coroutine: bool, count: int, *arguments: Any) -> Any:
        filled = list(arguments) + [None] * (count - len(arguments))
        found = self.reaper.call(self, name, in_coroutine, [self._received(argument) for argument in filled])
        if isinstance(found, tuple):
            return tuple(self._sent(value) for value in found)
        return self._sent(found)

    def _sent(self, value: Any) -> Any:
        if not isinstance(value, (Handle, ImGui)):
            return value
        self._handles[id(value)] = value
        return f"\0handle {id(value)}"

    def _received(self, value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith("\0"):
            return value
        kind, _, number = value[1:].partition(" ")
        if kind == "array":
            return Array(int(number))
        return self._handles[int(number)] if kind == "handle" else {}

    def _draw(self, name: str, *arguments: Any) -> Any:
        self.reaper.spend(DRAW_S)
        self.reaper.work["drawing"] += 1
        return getattr(self.gfx, name)(*arguments)

    def _gfx_value(self, name: str) -> Any:
        """Of a variable; False for a function. Raises: Misuse: neither"""
        if name in VARIABLES:
            return getattr(self.gfx, name)
        if name not in FUNCTIONS:
            raise Misuse(f"gfx.{name} is neither variable nor function")
        return False

    def _set_gfx(self, name: str, value: Any) -> None:
        setattr(self.gfx, name, value)

    # Functions that know which script calls them

    def APIExists(self, name):
        self.asked_for.add(name)
        return self.reaper.exists(name)

    def defer(self, function):
        if len(self._deferred) > 1000:
            raise Misuse("defer: a thousand functions are deferred already")
        self._deferred.append(function)

    def atexit(self, function):
        self._at_exit.append(function)

    def set_action_options(self, flags):
        """&1: end this script if it is begun again; &2: and begin the new one"""
        self.gives_way, self.toggles = flags & 3 == 3, flags & 3 == 1

    def get_action_context(self):
        return False, str(self.path), 0, 50000, 0, 0, 0
