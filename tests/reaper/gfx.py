"""REAPER's gfx: a window that remembers what was written into it, and can be clicked."""

from __future__ import annotations

from reaper.signatures import Misuse

CHARACTER = 7
VARIABLES = ("x", "y", "w", "h", "mouse_x", "mouse_y", "mouse_cap", "r", "g", "b", "a", "mode", "dest")

FUNCTIONS = ("init", "quit", "getchar", "update", "set", "setfont", "rect", "measurestr", "drawstr")


class Gfx:
    """`lines` is what the last frame says. `click(label)` presses and releases over it in the next two frames."""

    def __init__(self) -> None:
        for name in VARIABLES:
            object.__setattr__(self, name, 0)
        self._hidden: dict[str, object] = {
            "open": False, "closing": False, "frame": [], "shown": [], "presses": [], "title": ""
        }  # fmt: skip

    def __setattr__(self, name: str, value: object) -> None:
        if name not in VARIABLES and name != "_hidden":
            raise Misuse(f"gfx.{name} is no variable")
        object.__setattr__(self, name, value)

    # What a test does

    @property
    def lines(self) -> list[str]:
        return [text for _, _, text in self._hidden["shown"]]

    @property
    def is_open(self) -> bool:
        return self._hidden["open"]

    @property
    def title(self) -> str:
        return self._hidden["title"]

    def says(self, text: str) -> bool:
        return text in " ".join(self.lines)

    def click(self, label: str) -> None:
        shown = sorted(self._hidden["shown"], key=lambda entry: entry[2] != label)
        places = [(x, y) for x, y, text in shown if text.startswith(label)]
        assert places, f"{label!r} is not among {self.lines}"
        x, y = places[0]
        self._hidden["presses"] = [(x + 2, y + 2, 1), (x + 2, y + 2, 0)]

    def shut(self) -> None:
        self._hidden["closing"] = True

    # What a script calls

    def init(self, title, width=0, height=0, dock=0, x=0, y=0):
        self._hidden |= {"open": True, "title": title}
        self.w, self.h = width, height
        return 1

    def quit(self):
        self._hidden["open"] = False

    def getchar(self, char=0):
        if not self._hidden["open"] or self._hidden["closing"]:
            return -1
        self._hidden["frame"] = []
        if self._hidden["presses"]:
            self.mouse_x, self.mouse_y, self.mouse_cap = self._hidden["presses"].pop(0)
        return 0

    def update(self):
        self._hidden["shown"] = self._hidden["frame"]

    def set(self, r, g=0, b=0, a=1, mode=0, dest=0):
        self.r, self.g, self.b, self.a = r, g, b, a

    def setfont(self, index, name="", size=10, flags=0):
        return 1

    def rect(self, x, y, width, height, filled=1):
        return None

    def measurestr(self, text):
        return len(text) * CHARACTER, 16

    def drawstr(self, text, flags=0, right=0, bottom=0):
        self._hidden["frame"].append((self.x, self.y, text))
        return 0
