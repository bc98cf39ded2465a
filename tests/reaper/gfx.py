"""REAPER's gfx: a window that remembers what was drawn, and can be clicked, typed into and scrolled.

What lies outside of the window is not seen and cannot be clicked, and a window is no larger than the screen leaves room
for: below and beyond that there is nothing to click either.
"""

from __future__ import annotations

from reaper.signatures import Misuse

CHARACTER = 0.47  # of a font's size: how wide a letter is
VARIABLES = (
    "x", "y", "w", "h", "mouse_x", "mouse_y", "mouse_cap", "mouse_wheel", "r", "g", "b", "a", "mode", "dest",
    "ext_retina",
)  # fmt: skip
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "Up": 30064, "Down": 1685026670, "Left": 1818584692,
    "Right": 1919379572, "PageUp": 1885828464, "PageDown": 1885824110,
}  # fmt: skip
FUNCTIONS = ("init", "quit", "getchar", "update", "set", "setfont", "rect", "measurestr", "drawstr", "showmenu")


class Gfx:
    """`lines` is what the last frame says. `click(label)` presses and releases over it in the next two frames.

    screen: width and height of the usable part, in pixels; retina: the display's own scale
    """

    def __init__(self, screen: tuple[int, int] = (1366, 728), retina: float = 1.0) -> None:
        for name in VARIABLES:
            object.__setattr__(self, name, 0)
        self._hidden: dict[str, object] = {
            "open": False, "closing": False, "frame": [], "shown": [], "presses": [], "title": "", "screen": screen,
            "keys": [], "picks": None, "size": 10, "retina": retina, "calls": [], "drawn": [],
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
    def calls(self) -> list[tuple]:
        """The draw calls of the last frame: ("rect", x, y, width, height, filled, colour) and ("text", ...)."""
        return self._hidden["drawn"]

    @property
    def is_open(self) -> bool:
        return self._hidden["open"]

    @property
    def title(self) -> str:
        return self._hidden["title"]

    def says(self, text: str) -> bool:
        """Wherever its lines are broken."""
        return text.replace(" ", "") in "".join(self.lines).replace(" ", "")

    def place_of(self, label: str) -> tuple[float, float]:
        """Where a line that begins so is. Raises: AssertionError: it is not seen"""
        shown = sorted(self._hidden["shown"], key=lambda entry: entry[2] != label)
        ways = [(x, y, (text, text.removeprefix("[x] ").removeprefix("[  ] "))) for x, y, text in shown]
        places = [(x, y) for x, y, texts in ways if any(text.startswith(label) for text in texts)]
        assert places, f"{label!r} is not among {self.lines}"
        x, y = places[0]
        assert 0 <= x < self.w and y >= 0 and y + self._hidden["size"] <= self.h, f"{label!r} is outside of the window"
        return x, y

    def click(self, label: str, picks: str | None = None) -> None:
        """Args: picks: the entry of the menu that opens, by the beginning of its text"""
        x, y = self.place_of(label)
        self._hidden["presses"] = [(x + 2, y + 2, 1), (x + 2, y + 2, 0)]
        self._hidden["picks"] = picks

    def pick(self, name: str, entry: str) -> None:
        """Choose an entry of the list of this name, by the beginning of its text."""
        x, y = self.place_of(name)
        left = min(other for other, at, _ in self._hidden["shown"] if at == y and other > x)
        self._hidden["presses"] = [(left + 2, y + 2, 1), (left + 2, y + 2, 0)]
        self._hidden["picks"] = entry

    def press(self, *keys: str) -> None:
        """Each in a frame of its own: a name of KEYS, or a character."""
        self._hidden["keys"] += [KEYS.get(key) or ord(key) for key in keys]

    def scroll(self, steps: int) -> None:
        self.mouse_wheel = -120 * steps

    def shut(self) -> None:
        self._hidden["closing"] = True

    # What a script calls

    def init(self, title, width=0, height=0, dock=0, x=0, y=0):
        wide, high = self._hidden["screen"]
        if width > wide or height > high:
            raise Misuse(f"gfx.init: a window of {width} x {height} on a screen of {wide} x {high}")
        if x < 0 or y < 0 or x + width > wide or y + height > high:
            raise Misuse(f"gfx.init: at {x}, {y} the window is beyond the screen")
        scale = self._hidden["retina"] if self.ext_retina else 1
        self.ext_retina = scale if self.ext_retina else 0
        self._hidden |= {"open": True, "title": title}
        self.w, self.h = int(width * scale), int(height * scale)
        return 1

    def quit(self):
        self._hidden["open"] = False

    def getchar(self, char=0):
        if not self._hidden["open"] or self._hidden["closing"]:
            return -1
        self._hidden["frame"], self._hidden["calls"] = [], []
        if self._hidden["presses"]:
            self.mouse_x, self.mouse_y, self.mouse_cap = self._hidden["presses"].pop(0)
        return self._hidden["keys"].pop(0) if self._hidden["keys"] else 0

    def update(self):
        self._hidden["shown"], self._hidden["drawn"] = self._hidden["frame"], self._hidden["calls"]

    def set(self, r, g=0, b=0, a=1, mode=0, dest=0):
        self.r, self.g, self.b, self.a = r, g, b, a

    def setfont(self, index, name="", size=10, flags=0):
        self._hidden["size"] = size
        return 1

    def rect(self, x, y, width, height, filled=1):
        self._hidden["calls"].append(("rect", x, y, width, height, filled, (self.r, self.g, self.b)))

    def measurestr(self, text):
        return len(text) * CHARACTER * self._hidden["size"], self._hidden["size"]

    def drawstr(self, text, flags=0, right=0, bottom=0):
        size = self._hidden["size"]
        self._hidden["calls"].append(("text", self.x, self.y, text, size, (self.r, self.g, self.b)))
        if self.x + self.measurestr(text)[0] > self.w + 1:
            raise Misuse(f"gfx.drawstr: {text!r} goes beyond the window")
        self._hidden["frame"].append((self.x, self.y, text))
        return 0

    def showmenu(self, entries):
        names = entries.split("|")
        picks, self._hidden["picks"] = self._hidden["picks"], None
        if picks is None:
            return 0
        found = [index for index, name in enumerate(names, 1) if name.lstrip("!").startswith(picks)]
        assert found, f"{picks!r} is not among {names}"
        return found[0]
