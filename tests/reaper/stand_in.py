"""A stand-in for REAPER, strict: what the real one would refuse, misunderstand or crash at, fails.

    known functions alone, with the right number, types and live handles of arguments, and known parameter names
    functions that not every version has, only after `APIExists`
    accessor reads inside a coroutine give nil; silence leaves the buffer as it was; peaks need building
    undo steps and UI refresh are balanced at the end of every tick; projects change inside undo steps alone
    sources belong to one take; handles die with undo; folders are listed from a cache
    nothing written to `reaper`, no new global variable, no tick longer than 10 ms of this stand-in's own clock

The clock is not the machine's: each call costs a fixed time, so that the same run takes the same time everywhere. Only
for the benchmark it `counts_lua`: what the scripts' own code costs this machine's processor is added, less `bridge_s`
for each answer, which is what going from Lua to Python and back costs here alone. `work` counts what scripts do.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reaper.functions_media import RENDER, MediaFunctions
from reaper.functions_project import ProjectFunctions
from reaper.imgui import ImGui
from reaper.model import Handle, Project, Source
from reaper.scripts import Script
from reaper.signatures import Misuse, check, functions, lua_only

from tsbs_daw.integrations.reaper import action_id

NEW_TAB, NEW_EMPTY_TAB = 40859, 41929  # the second one ignores the default template
PLAY_STOP = 40044
CALL_S = 5e-6
TICK_S = 0.010
BETWEEN_TICKS_S = 0.030


SWS = ("CF_CreatePreview", "CF_Preview_Play", "CF_Preview_Stop")


class Preview(Handle):
    """Of the SWS extension: plays a source."""

    kind = "CF_Preview"

    def __init__(self, source: Source):
        super().__init__()
        self.source, self.plays = source, False


class Reaper(ProjectFunctions, MediaFunctions):
    """One REAPER with its tabs, and the scripts that run in it.

    Args: folder: its resource path; version: "53" or "54", which Lua it has
    """

    def __init__(self, folder: Path, version: str = "54"):
        self.folder, self.version = folder, version
        self.projects: list[Project] = []
        self.scripts: list[Script] = []
        self.misuses: list[str] = []
        self.ext_state: dict[tuple[str, str], str] = {}
        self.saved_ext_state: dict[tuple[str, str], str] = {}
        self.started: list[tuple[str, int]] = []
        self.runs: Callable[[str], str | None] = lambda command: "0"  # None: there is no such program
        self.picked_file: str | None = None
        self.ui_locks = self.updates = self.accessors = 0
        self.in_coroutine = self.blocked = self.patient = self.counts_lua = False
        self.render_does = "everything"
        self.console = self.help_line = ""
        self.screen, self.retina = (1366, 728), 1.0  # 1366 x 768 without the taskbar
        self.lit: set[str] = set()  # scripts whose toolbar button is lit
        self.app_version = "7.40/stand-in"
        self.played, self.has_template = 0, False
        self.left_over: list[Source] = []  # sources that takes have no more; whoever set another one destroys them
        self.lacks: set[str] = set()  # functions of a later version
        self.imgui: ImGui | None = None
        self.has_sws = False
        self.explored: list[str] = []  # what the Media Explorer was told to play
        self.previews: list[Preview] = []
        self.fails_at: dict[str, int] = {}  # function -> the call that fails, counted down: not the script's fault
        self._now_s, self._depth = 1000.0, 0
        self.work: Counter[str] = Counter()  # calls of REAPER's functions and of gfx's, files opened, bytes in them
        self.bridge_s = self.lua_s = self.lua_wall_s = 0.0
        self._lua_since: tuple[float, float] | None = None
        self._commands: list[Path] = []
        self._listings: dict[str, list[str]] = {}
        self._saved: dict[str, Project] = {}
        self._ids = self._read_list()

    def _read_list(self) -> dict[str, Path]:
        """The scripts of reaper-kb.ini by their ids: it is read when REAPER begins, and not again."""
        path = self.folder / "reaper-kb.ini"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        matches = (re.match(r'SCR 4 0 (RS\w+) "[^"]*" "([^"]*)"$', line) for line in lines)
        return {match[1]: self.folder / "Scripts" / match[2] for match in matches if match}

    # What a user does

    def begin(self) -> None:
        """What REAPER runs by itself when it starts, with its project open."""
        startup = self.folder / "Scripts" / "__startup.lua"
        if startup.is_file():
            self.run(startup)

    def open(self, project: Project, *, in_front: bool = True) -> Project:
        self.projects.insert(0 if in_front else len(self.projects), project)
        project.alive = True
        return project

    def close(self, project: Project) -> None:
        self.projects.remove(project)
        project.alive = False

    def bring_to_front(self, project: Project) -> None:
        self.projects.remove(project)
        self.projects.insert(0, project)

    def run(self, path: Path) -> Script:
        """Run an action. Raises: Misuse"""
        for script in self.scripts:
            if script.path == path and script.running:
                if script.toggles:
                    script.end()
                    return script
                if not script.gives_way:
                    raise Misuse(f"{path.name} runs already: REAPER would ask the user what to do")
                script.end()
        script = Script(self, path)
        self.scripts.append(script)
        self._timed(script.start)
        return script

    def tick(self) -> None:
        """One round of deferred functions, of every script. Raises: Misuse, for anything that happened meanwhile"""
        self._now_s += BETWEEN_TICKS_S
        for script in list(self.scripts):
            if script.running:
                self._timed(script.tick)
        self.scripts = [script for script in self.scripts if script.running]

    def quit(self) -> Reaper:
        """End everything. Returns: REAPER as it is at its next start, without projects"""
        for script in self.scripts:
            script.end()
        again = Reaper(self.folder, self.version)
        again.saved_ext_state, again.ext_state = self.saved_ext_state, dict(self.saved_ext_state)
        return again

    def window(self, name: str):
        """The gfx window of the script whose file's name has this in it."""
        (script,) = [script for script in self.scripts if name in script.path.name]
        return script.gfx

    def _timed(self, do: Callable[[], None]) -> None:
        began, self.blocked = self._now_s, False
        nested = self._depth = self._depth + 1
        try:
            do()
        finally:
            self._depth -= 1
        if nested > 1:
            return
        for project in self.projects:
            if project.undo_depth:
                self.misuses.append("the tick ended inside an undo step")
        if self.left_over:
            self.misuses.append("a source that a take has no more was not destroyed: its file stays locked")
        self.left_over.clear()
        if self.folders_changed:
            self.misuses.append("folders were made, and TrackList_AdjustWindows(false) was not called")
            self.folders_changed = False
        if self.ui_locks:
            self.misuses.append("the tick ended with the UI's refresh prevented")
        took_s = self._now_s - began
        if took_s > TICK_S and not self.blocked and not self.patient:
            self.misuses.append(f"the tick took {took_s * 1000:.1f} ms")
        if self.misuses:
            found, self.misuses = self.misuses, []
            raise Misuse("; ".join(found))

    def spend(self, seconds: float) -> None:
        self._now_s += seconds

    def lua_begins(self) -> None:
        """From here on Lua runs, and not this stand-in, whose own work costs what `spend` says."""
        self._lua_since = (time.perf_counter(), time.thread_time()) if self.counts_lua else None

    def lua_ends(self) -> None:
        if self._lua_since is not None:
            wall_s, cpu_s = self._lua_since
            passed_s = max(0.0, time.thread_time() - cpu_s - self.bridge_s)
            self.lua_wall_s += max(0.0, time.perf_counter() - wall_s - self.bridge_s)
            self.lua_s, self._now_s, self._lua_since = self.lua_s + passed_s, self._now_s + passed_s, None

    # What a script calls

    def exists(self, name: str) -> bool:
        if name in self.lacks:
            return False
        if self.has_sws and name in SWS:
            return True
        return name in functions() or name in lua_only() or (self.imgui is not None and self.imgui.has(name))

    def call(self, script: Script, name: str, in_coroutine: bool, arguments: list[Any]) -> Any:
        """Raises: Misuse, which is also kept: a script's pcall does not make it good"""
        self.spend(CALL_S)
        self.work["calls"] += 1
        self.in_coroutine, self.caller = in_coroutine, script
        try:
            if not self.exists(name):
                raise Misuse(f"there is no function reaper.{name}")
            if name.startswith("ImGui_"):
                return self.imgui.call(name, arguments)
            if name in SWS:
                if name not in script.asked_for:
                    raise Misuse(f"{name}: not everybody has the SWS extension; ask APIExists before")
                return getattr(self, name)(*arguments)
            if name in functions() and not functions()[name]["in_lua_docs"] and name not in script.asked_for:
                raise Misuse(f"{name}: not every REAPER has it; ask APIExists before")
            checked = check(name, arguments, self.projects)
            if name in self.fails_at:
                self.fails_at[name] -= 1
                if self.fails_at[name] == 0:
                    raise RuntimeError(f"{name} failed")
            function = getattr(script, name, None) or getattr(self, name, None)
            if function is None:
                raise Misuse(f"{name}: this stand-in does not know what it does")
            return function(*checked)
        except Misuse as misuse:
            self.misuses.append(str(misuse))
            raise

    def time_precise(self):
        return self._now_s

    def GetResourcePath(self):
        return str(self.folder)

    def GetExtState(self, section, key):
        return self.ext_state.get((section, key), "")

    def SetExtState(self, section, key, value, persist):
        self.ext_state[section, key] = value
        if persist:
            if "\n" in value:
                raise Misuse("SetExtState: a line break does not survive in the file it is kept in")
            self.saved_ext_state[section, key] = value

    def file_exists(self, path):
        return Path(path).is_file()

    def RecursiveCreateDirectory(self, path, ignored):
        try:
            os.makedirs(path, exist_ok=True)  # noqa: PTH103
        except OSError:
            return 0
        return 1

    def EnumerateFiles(self, path, index):
        if index == -1:
            self._listings.pop(path, None)
            return None
        if path not in self._listings:
            folder = Path(path)
            self._listings[path] = (
                sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
            )
        listing = self._listings[path]
        return listing[index] if index < len(listing) else None

    def AddRemoveReaScript(self, add, section, path, commit):
        """Its id is made from its path below Scripts in upper case: six pairs of three users' action lists say so."""
        file = Path(path)
        if not add:
            self._ids = {name: other for name, other in self._ids.items() if other != file}
            return 1
        if not file.is_file():
            return 0
        if file not in self._commands:
            self._commands.append(file)
        if file not in self._ids.values():
            self._ids[self.id_of(file)] = file
        return 50000 + self._commands.index(file)

    def registered(self) -> set[Path]:
        """The scripts that are in the list of actions."""
        return set(self._ids.values())

    def id_of(self, file: Path) -> str:
        scripts = self.folder / "Scripts"
        return action_id((file.relative_to(scripts) if file.is_relative_to(scripts) else file).as_posix())

    def NamedCommandLookup(self, name):
        path = self._ids.get(name.removeprefix("_"))
        return self.AddRemoveReaScript(True, 0, str(path), False) if path else 0

    def Main_SaveProjectEx(self, project, path, options):
        self._saved[path] = project.as_saved(Path(path))
        Path(path).write_text("<REAPER_PROJECT", encoding="utf-8")

    def Main_openProject(self, name):
        if not name.startswith("noprompt:"):
            raise Misuse("Main_openProject: this asks the user what to do about changes")
        self.close(self.projects[0])
        self.open(self._saved[name.removeprefix("noprompt:")])

    def Main_OnCommand(self, command, flag):
        if command == PLAY_STOP:
            self.played += 1
            return
        if command in (NEW_TAB, NEW_EMPTY_TAB):
            project = self.open(Project(self.folder / "unsaved", ""))
            if command == NEW_TAB and self.has_template:
                project.add_track("Of the template")
            return
        if not 50000 <= command < 50000 + len(self._commands):
            raise Misuse(f"Main_OnCommand: there is no action {command}")
        self.run(self._commands[command - 50000])

    def Main_OnCommandEx(self, command, flag, project):
        if command != RENDER:
            raise Misuse(f"Main_OnCommandEx: there is no action {command}")
        self.blocked = True
        self._render(project)

    # The SWS extension, as its own documentation says

    def CF_CreatePreview(self, source):
        """It does not take ownership of the source."""
        self.previews.append(Preview(source))
        return self.previews[-1]

    def CF_Preview_Play(self, preview):
        preview.plays = True
        return True

    def CF_Preview_Stop(self, preview):
        if not preview.source.alive:
            raise Misuse("CF_Preview_Stop: the source was destroyed before")
        preview.plays = False
        return True

    def OpenMediaExplorer(self, path, play):
        self.explored.append(path)
        return None

    def my_getViewport(self, *rectangle):
        return 0, 0, *self.screen

    def SetToggleCommandState(self, section, command, state):
        (self.lit.add if state else self.lit.discard)(self._commands[command - 50000].name)
        return True

    def RefreshToolbar2(self, section, command):
        return None

    def Help_Set(self, text, is_temporary):
        self.help_line = text

    def GetAppVersion(self):
        return self.app_version

    def GetOS(self):
        return "Other"

    def ShowConsoleMsg(self, text):
        self.console += text

    def ExecProcess(self, command, timeout_ms):
        if timeout_ms not in (-1, -2):
            raise Misuse("ExecProcess: this waits for the program to end")
        self.started.append((command, timeout_ms))
        return self.runs(command)

    def GetUserFileNameForRead(self, path, title, ending):
        self.blocked = True  # a dialog of the system's
        return self.picked_file is not None, self.picked_file or ""
