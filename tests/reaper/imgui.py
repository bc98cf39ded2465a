"""The few functions of ReaImGui that the scripts use, with its rules: Begin before anything, End once after it."""

from __future__ import annotations

from typing import Any

from reaper.signatures import Misuse

# name: types of the arguments behind the context; a "?" may be left out
SIGNATURES: dict[str, tuple[str, ...]] = {
    "CreateContext": ("string", "integer?"),
    "SetNextWindowSize": ("number", "number", "integer?"),
    "Begin": ("string", "boolean?", "integer?"),
    "End": (),
    "SameLine": ("number?", "number?"),
    "Spacing": (),
    "TextWrapped": ("string",),
    "Button": ("string", "number?", "number?"),
    "Checkbox": ("string", "boolean"),
    "ProgressBar": ("number", "number?", "number?", "string?"),
    "PushStyleColor": ("integer", "integer"),
    "PopStyleColor": ("integer?",),
    "BeginCombo": ("string", "string", "integer?"),
    "EndCombo": (),
    "Selectable": ("string", "boolean?"),
    "IsKeyPressed": ("integer", "boolean?"),
    "GetCursorPosY": (),
    "SetCursorPosY": ("number",),
    "GetScrollY": (),
    "GetWindowHeight": (),
}
# Flags are functions without arguments, since their numbers differ between versions: those of 0.9 are these.
CONSTANTS = {"Cond_FirstUseEver": 4, "Col_Text": 0, "Key_Enter": 525, "Key_Escape": 526}
LINE = 20.0
TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool}


class ImGui:
    """`lines` is what the last window says; labels lose what follows ##."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clicked: str | None = None
        self.open = True
        self._frame: list[str] = []
        self._inside = self._in_combo = False
        self.picks: str | None = None  # the entry of the combo box that was clicked
        self.key: int | None = None
        self.styles = 0
        self.scroll, self.height, self._y = 0.0, 400.0, 0.0  # in pixels

    def has(self, name: str) -> bool:
        short = name.removeprefix("ImGui_")
        return name.startswith("ImGui_") and (short in SIGNATURES or short in CONSTANTS)

    def says(self, text: str) -> bool:
        return text in " ".join(self.lines)

    def call(self, name: str, arguments: list[Any]) -> Any:
        short = name.removeprefix("ImGui_")
        if short in CONSTANTS:
            return CONSTANTS[short]
        if short == "CreateContext":
            self._check(name, SIGNATURES[short], arguments)
            return self
        if not arguments or arguments[0] is not self:
            raise Misuse(f"{name}: the context is missing")
        self._check(name, SIGNATURES[short], arguments[1:])
        if short not in ("Begin", "SetNextWindowSize") and not self._inside:
            raise Misuse(f"{name}: outside a window")
        return getattr(self, "_" + short)(*arguments[1:])

    def _check(self, name: str, types: tuple[str, ...], arguments: list[Any]) -> None:
        if len(arguments) > len(types):
            raise Misuse(f"{name}: too many arguments")
        for number, type_ in enumerate(types):
            given = arguments[number] if number < len(arguments) else None
            if given is None and type_.endswith("?"):
                continue
            if not isinstance(given, TYPES[type_.rstrip("?")]):
                raise Misuse(f"{name}: argument {number + 2}: {given!r} is no {type_}")

    def _say(self, text: str) -> bool:
        shown = text.split("##")[0]
        if -LINE <= self._y - self.scroll <= self.height:
            self._frame.append(shown)
        self._y += LINE
        if self.clicked is not None and shown.startswith(self.clicked):
            self.clicked = None
            return True
        return False

    def _SetNextWindowSize(self, width, height, condition=0):
        if condition != CONSTANTS["Cond_FirstUseEver"]:
            raise Misuse("ImGui_SetNextWindowSize: the size that the user gave the window is lost")

    def _PushStyleColor(self, index, colour):
        self.styles += 1

    def _PopStyleColor(self, count=1):
        self.styles -= 1

    def _BeginCombo(self, label, preview, flags=0):
        self._frame.append(preview)
        self._in_combo = self._say(label)
        return self._in_combo

    def _EndCombo(self):
        if not self._in_combo:
            raise Misuse("ImGui_EndCombo: the combo box is not open")
        self._in_combo = False

    def _Selectable(self, label, selected=False):
        return self.picks is not None and label.split("##")[0].startswith(self.picks)

    def _IsKeyPressed(self, key, repeat=True):
        pressed, self.key = self.key == key, None if self.key == key else self.key
        return pressed

    def _Begin(self, title, p_open=None, flags=0):
        if self._inside:
            raise Misuse("ImGui_Begin: the last window has no End")
        self._inside, self._frame, self._y = True, [], 0.0
        return True, self.open

    def _End(self):
        if self.styles or self._in_combo:
            raise Misuse("ImGui_End: a style or a combo box was not ended")
        self._inside, self.lines = False, self._frame

    def _GetCursorPosY(self):
        return self._y

    def _SetCursorPosY(self, y):
        self._y = y

    def _GetScrollY(self):
        return self.scroll

    def _GetWindowHeight(self):
        return self.height

    def _SameLine(self, offset=0, spacing=-1):
        return None

    def _Spacing(self):
        return None

    def _TextWrapped(self, text):
        self._say(text)

    def _Button(self, label, width=0, height=0):
        return self._say(label)

    def _Checkbox(self, label, value):
        clicked = self._say(label)
        return clicked, value != clicked

    def _ProgressBar(self, fraction, width=-1, height=0, overlay=""):
        self._say(overlay)
