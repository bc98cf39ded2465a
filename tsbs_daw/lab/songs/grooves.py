"""Drum grooves as steps of a quarter beat: 16 in a bar of 4/4, 12 in 3/4 and 6/8.

X strong, x normal, o softer, - a ghost, . nothing; one piece of the kit per line.
"""

from __future__ import annotations

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
