"""Draws what a gfx window shows, from the draw calls that the scripts made.

    make pictures-reaper      every dialog, at 1366 x 768 and at 4K, in build/reaper

REAPER's own font rendering is not in it; letters are as wide as the stand-in says that they are.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from reaper.gfx import CHARACTER, Gfx
from reaper.stage import DaemonByHand, Studio

from tsbs_daw.integrations import reaper

DPI = 100
SCREENS = {"1366x768": (1366, 728), "4k": (3840, 2100)}
ACTIONS = {
    "Separate with preset": "dialog",
    "Re-separate in place": "again",
    "Insert analysis of selected item": "analysis",
    "Setup": "setup",
    "Jobs": "jobs",
}
FINDINGS = [
    {"topic": "space", "status": "problem", "what": "Only 1 GB of disk is free in '/home/me'.", "advice": "Make room."},
    {"topic": "device", "status": "note", "what": "There is no GPU.", "advice": "It works without one, more slowly."},
]
GLYPH = 0.602  # of its size: how wide a letter of the monospaced font is


def draw(window: Gfx, path: Path) -> None:
    """Write the last frame of a window as a picture."""
    figure = Figure((window.w / DPI, window.h / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, window.w), ylim=(window.h, 0))
    axes.axis("off")
    for kind, x, y, *rest in window.calls:
        if kind == "rect":
            width, height, filled, colour = rest
            axes.add_patch(Rectangle((x, y), width, height, fill=bool(filled), color=colour, linewidth=1))
        else:
            text, size, colour = rest
            points = size * CHARACTER / GLYPH * 72 / DPI
            axes.text(x, y + size * 0.55, text, color=colour, size=points, family="monospace", va="center")
    FigureCanvasAgg(figure).print_png(path)


def dialogs(studio: Studio, daemon: DaemonByHand) -> dict[str, Gfx]:
    """Every window of the scripts, open: its name and what it shows."""
    for number, name in enumerate(["Chorus", "Bridge, second take with a rather long name", "Guitar", "Verse"]):
        item = studio.project.add_item(studio.project.add_track(name), studio.song(), 10.0 * number, 1.0)
        item.take.strings["P_NAME"] = name
    studio.choose(listen="yes", layout="children")
    studio.run("Separate selected items")
    studio.ticks(40)
    jobs = daemon.claim()
    daemon.progress(jobs[0], 0.62)
    daemon.progress(jobs[1], 0.1, "reading")
    daemon.fail(jobs[2], "The song is silent from beginning to end; choose another, or another part of this one.")
    daemon.finish(jobs[3])  # it waits until it was listened to
    studio.reaper.runs = lambda command: reaper.write_answer(studio.reaper.folder, "done", FINDINGS) or "0"
    found = {}
    for action, name in ACTIONS.items():
        studio.run(action)
        studio.ticks(20)
        found[name] = studio.reaper.window(action)
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for screen, size in SCREENS.items():
        with tempfile.TemporaryDirectory() as place:
            studio = Studio(Path(place), Path(place) / "home", presets=True)
            studio.reaper.screen = size
            for name, window in dialogs(studio, DaemonByHand(studio.home)).items():
                draw(window, folder / f"reaper-{name}-{screen}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
