"""A script in a Lua state of its own, with its deferred functions and its gfx window."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reaper.gfx import Gfx
from reaper.signatures import Misuse

if TYPE_CHECKING:
    from reaper.stand_in import Reaper

# Builds the globals `reaper` and `gfx`; from then on a new global is an error, as is writing into `reaper`.
PRELUDE = """
local call, exists, gfx_window = ...
local known = {}
local table_ = setmetatable({}, {
  __index = function(_, name)
    if not exists(name) then
      return nil
    end
    known[name] = known[name] or function(...)
      local _, is_main = coroutine.running()
      return call(name, not is_main, select("#", ...), ...)
    end
    return known[name]
  end,
  __newindex = function(_, name)
    error("a script writes reaper." .. tostring(name), 2)
  end,
})
rawset(_G, "reaper", table_)
rawset(_G, "gfx", gfx_window)
os.exit = nil
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
        lupa = importlib.import_module(f"lupa.lua{reaper.version}")
        self.lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self.asked_for: set[str] = set()
        self.gfx = Gfx()
        self.running = self.gives_way = False
        self._deferred: list[Any] = []
        self._at_exit: list[Any] = []
        self.lua.execute(PRELUDE, self._call, self._exists, self.gfx)

    def start(self) -> None:
        load = self.lua.eval("function(path) return assert(loadfile(path))() end")
        self.running = True
        self._protected(load, str(self.path))
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

    def _protected(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Misuse as misuse:
            if str(misuse) not in self.reaper.misuses:
                self.reaper.misuses.append(str(misuse))
        except Exception as error:
            self.reaper.misuses.append(f"{self.path.name}: {error}")

    def _exists(self, name: str) -> bool:
        if not self.reaper.exists(name):
            self.reaper.misuses.append(f"there is no function reaper.{name}")
            return False
        return True

    def _call(self, name: str, in_coroutine: bool, count: int, *arguments: Any) -> Any:
        filled = list(arguments) + [None] * (count - len(arguments))
        return self.reaper.call(self, name, in_coroutine, filled)

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
        self.gives_way = flags & 3 == 3

    def get_action_context(self):
        return False, str(self.path), 0, 50000, 0, 0, 0

    def new_array(self, size):
        return self.reaper.array(self.lua, size)
