"""Drum parts: a groove per song, varied per bar, with fills before a new section and crashes on it.

Grooves are written as steps of a quarter beat: 16 in a bar of 4/4, 12 in 3/4 and 6/8; one piece of the kit per line.
X strong, x normal, o softer, - a ghost, . nothing.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.score import Hit, Section
from tsbs_daw.lab.songs.styles import Style

GROOVES_4 = {
    "pop": {"kick": "X.....x.X.......", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
    "pop2": {"kick": "X..x....X.x.....", "snare": "....X.......X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "four": {
        "kick": "X...X...X...X...",
        "clap": "....X.......X...",
        "hat": "..x...x...x...x.",
        "hat2": "o-o-o-o-o-o-o-o-",
    },
    "four2": {
        "kick": "X...X...X...X...",
        "snare": "....x.......x...",
        "open": "..x...x...x...x.",
        "hat": "o.-oo.-oo.-oo.-o",
        "rim": "...-..o....-..o.",
    },
    "rock": {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    "rock2": {"kick": "X.x...x.X.x...x.", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
    "punk": {"kick": "X...X...X...X...", "snare": "..X...X...X...X.", "hat": "x.x.x.x.x.x.x.x."},
    "half": {"kick": "X.....x.......x.", "snare": "........X.......", "hat": "x.o.x.o.x.o.x.o."},
    "trap": {
        "kick": "X......x..x.....",
        "clap": "........X.......",
        "hat": "xoxoxoxoxoxoxoxo",
        "open": "..............o.",
    },
    "trap2": {
        "kick": "X..x......X..x..",
        "snare": "........X.......",
        "hat": "x.o.x.o.x.o.xoxo",
        "rim": "..............o.",
    },
    "boombap": {"kick": "X..x...x..X.....", "snare": "....X..-.-..X..-", "hat": "x.o.x.o.x.o.x.o."},
    "boombap2": {"kick": "X.......x.X..x..", "snare": "....X.......X..-", "hat": "xoxox-xoxoxox-xo"},
    "ballad": {"kick": "X.........X.....", "snare": "........X.......", "hat": "x...o...x...o..."},
    "funk": {"kick": "X.x...x...x..x..", "snare": "....X--.-o.-X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "funk2": {
        "kick": "X..x..x.x..x....",
        "snare": "....X..-.-..X.o-",
        "hat": "x.xox.xox.xox.x.",
        "open": "......o.......o.",
    },
    "onedrop": {"kick": "........X.......", "rim": "........X..o....", "hat": "x.o.x.o.x.o.x.o."},
    "steppers": {"kick": "X...X...X...X...", "rim": "....x...X..o..x.", "hat": "x.o.x.o.x.o.x.o."},
    "brush": {"kick": "X.......o.......", "brush": "o-o-X-o-o-o-X-o-"},
    "train": {"kick": "X...x...X...x...", "brush": "o-x-X-xoo-x-X-xo"},
    "swing": {
        "ride": "x...x.o.x...x.o.",
        "hat": "....x.......x...",
        "kick": "o...-...o...-...",
        "snare": "......-.......-.",
    },
    "swing2": {
        "ride": "x...x.o.x...x.o.",
        "hat": "....x.......x...",
        "kick": "o.....-.....o...",
        "rim": "............x...",
    },
    "shuffle": {"kick": "X.....x.X.......", "snare": "....X.....-.X...", "hat": "x.o.x.o.x.o.x.o."},
    "bossa": {"kick": "X.....xXX.....xX", "rim": "x.....x.....x...", "shaker": "xoxoxoxoxoxoxoxo"},
    "salsa": {
        "kick": "......x.......x.",
        "cowbell": "x...x.x.x...x.x.",
        "conga": "..o.x..o..o.x.xx",
        "clave": "x..x..x...x.x...",
    },
    "reggaeton": {"kick": "X...X...X...X...", "snare": "...x..x....x..x.", "hat": "x.o.x.o.x.o.x.o."},
    "soul": {
        "kick": "X..o....X.......",
        "snare": "....X....-..X...",
        "hat": "x.o.x.o.x.o.x.oo",
        "tambourine": "....x.......x...",
    },
    "dnb": {"kick": "X.........X.....", "snare": "....X..-.-..X...", "hat": "x.o.x.o.x.o.x.o."},
    "dnb2": {"kick": "X.x.......Xx....", "snare": "....X..-.o..X..o", "ride": "x.x.x.x.x.x.x.x."},
    "eighties": {
        "kick": "X.......X.x.....",
        "snare": "....X.......X...",
        "hat": "xoxoxoxoxoxoxoxo",
        "tom": "..............o.",
    },
    "metal": {"kick": "XxXxXxXxXxXxXxXx", "snare": "....X.......X...", "ride": "x...x...x...x..."},
}

GROOVES_3 = {
    "waltz": {"kick": "X...........", "snare": "....o...o...", "hat": "....x...x..."},
    "ballad": {"kick": "X.......o...", "snare": "......X.....", "hat": "x.o.o.x.o.o."},
    "brush": {"kick": "X.....o.....", "brush": "o-o-X-o-X-o-"},
    "swing": {"ride": "x...x.o.x...", "hat": "....x...x...", "kick": "o..........."},
    "soul": {"kick": "X....x......", "snare": "......X.....", "hat": "x.o.o.x.o.o."},
}

# Layers that may be added on top of any groove.
LAYERS = {
    "shaker": "xoxoxoxoxoxoxoxo",
    "tambourine": "....x.......x...",
    "clap": "....x.......x...",
    "conga": "x..o.ox.x..o.xo.",
    "cowbell": "x...x...x...x...",
    "bongo": "xooxxooxxooxxooo",
    "snap": "....x.......x...",
    "rim": "...o..o....o..o.",
}


STRENGTH = {"X": 1.0, "x": 0.8, "o": 0.58, "-": 0.3}
CYMBALS = {"hat", "hat2", "ride", "open", "shaker"}


def choose_groove(style: Style, bar_beats: int, rng: np.random.Generator) -> dict[str, str]:
    """The song's basic groove, with sometimes a layer of percussion and a mutated kick."""
    library = GROOVES_3 if bar_beats == 3 else GROOVES_4
    names = [name for name in style.grooves if name in library] or ["waltz" if bar_beats == 3 else "pop"]
    groove = dict(library[names[rng.integers(len(names))]])
    for layer, steps in LAYERS.items():
        if layer not in groove and rng.random() < 0.12:
            groove[layer] = steps[: bar_beats * 4]
    if rng.random() < 0.5:
        kick = list(groove.get("kick", "." * bar_beats * 4))
        for step in rng.integers(1, len(kick), size=2):
            kick[step] = "." if kick[step] != "." else ("x" if step % 2 == 0 and rng.random() < 0.6 else kick[step])
        groove["kick"] = "".join(kick)
    if "hat" in groove and rng.random() < 0.2:
        groove["ride"] = groove.pop("hat")
    return groove


def drum_hits(groove: dict[str, str], section: Section, bar_beats: int, rng: np.random.Generator) -> list[Hit]:
    """Hits of one section; `section.playing` names drums, or only "hats" or "kick" for thinned-out sections."""
    pieces = dict(groove)
    if "drums" not in section.playing:
        keep = CYMBALS | {"rim", "snap", "tambourine"} if "hats" in section.playing else {"kick"} | CYMBALS
        pieces = {piece: steps for piece, steps in groove.items() if piece in keep}
    hits: list[Hit] = []
    full = "drums" in section.playing
    fill_bar = section.bars - 1 if full and rng.random() < 0.75 else -1
    for bar in range(section.bars):
        start = (section.bar + bar) * bar_beats
        fill_from = bar_beats
        if bar == fill_bar:
            fill_from = bar_beats - int(rng.choice([1, 1, 2, bar_beats]))
            hits += _fill(start + fill_from, bar_beats - fill_from, rng)
        elif full and bar % 4 == 3 and rng.random() < 0.3:
            fill_from = bar_beats - 1
            hits += _fill(start + fill_from, 1, rng)
        hits += _bar(pieces, start, fill_from, section.energy, rng)
    if full and rng.random() < 0.8:
        first = section.bar * bar_beats
        hits = [hit for hit in hits if not (hit.beat == first and hit.piece in CYMBALS)]
        hits.append(Hit(float(first), "crash", 0.9))
    return sorted(hits, key=lambda hit: (hit.beat, hit.piece))


def _bar(pieces: dict[str, str], start: float, until: float, energy: float, rng: np.random.Generator) -> list[Hit]:
    hits = []
    for piece, steps in pieces.items():
        name = "hat" if piece == "hat2" else piece
        for step, mark in enumerate(steps):
            if mark == "." or step / 4 >= until:
                continue
            velocity = STRENGTH[mark] * (0.75 + 0.25 * energy) + rng.normal(0.0, 0.04)
            if mark in "o-" and rng.random() < 0.08:
                continue
            played = "open" if name == "hat" and step % 4 == 2 and rng.random() < 0.06 else name
            hits.append(Hit(start + step / 4, played, float(np.clip(velocity, 0.1, 1.0))))
    if "hat" in pieces and rng.random() < 0.12:  # a roll of thirty-seconds
        step = int(rng.integers(0, len(pieces["hat"]) - 1))
        hits += [Hit(start + step / 4 + 0.125, "hat", 0.5)] if step / 4 < until - 0.25 else []
    return hits


def _fill(start: float, beats: float, rng: np.random.Generator) -> list[Hit]:
    kind = rng.choice(["snare", "toms", "mixed", "kick", "claps"], p=[0.3, 0.3, 0.25, 0.1, 0.05])
    density = rng.choice([2, 4, 4])
    count = int(beats * density)
    hits = []
    for index in range(count):
        place = index / max(count - 1, 1)
        if rng.random() < 0.15 and index > 0:
            continue
        toms = ("tom_high", "tom", "tom_low")[min(int(place * 3), 2)]
        piece = {"snare": "snare", "toms": toms, "kick": "kick", "claps": "clap"}.get(str(kind))
        piece = piece or str(rng.choice(["snare", toms, "kick"]))
        hits.append(Hit(start + index / density, piece, float(0.6 + 0.35 * place)))
    return hits
