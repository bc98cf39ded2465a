"""The table of styles: what a composer of that style would choose from. Data, no logic.

Drum grooves are steps of a quarter beat: 16 in a bar of 4/4, 12 in 3/4 and 6/8. X strong, x normal, o softer, - a ghost.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    tempo: tuple[float, float]
    meters: tuple[str, ...]
    modes: tuple[str, ...]
    swing: tuple[float, float]
    swing_unit: float  # beats
    grooves: tuple[str, ...]
    kits: tuple[str, ...]
    bass_lines: tuple[str, ...]
    basses: tuple[str, ...]
    comps: tuple[tuple[str, tuple[str, ...]], ...]  # (figure, timbre families)
    colours: tuple[str, ...]
    vocal: tuple[str, ...] = ("sung",)
    weight: float = 1.0


KEYS_SOFT = ("piano", "epiano", "organ", "epiano")
GUITARS = ("steel", "nylon", "clean")
SYNTHS = ("saw", "square", "supersaw", "fm", "pulse")

STYLES = {
    "pop": Style((84, 128), ("4/4",), ("major", "major", "minor", "mixolydian"), (0.5, 0.5), 0.25,
        ("pop", "pop2", "four", "rock"), ("acoustic", "studio", "909", "electro"), ("eighths", "roots", "syncopated", "octaves"),
        ("finger", "pick", "saw", "sub"),
        (("pads", ("supersaw", "strings", "warm")), ("block", KEYS_SOFT), ("strum", GUITARS), ("arpeggio", SYNTHS), ("riff", ("clean", "pluck", "bell", "saw"))),
        ("triad", "triad", "add9", "sus2", "seventh"), weight=2.0),
    "rock": Style((100, 172), ("4/4",), ("major", "minor", "mixolydian", "dorian"), (0.5, 0.5), 0.25,
        ("rock", "rock2", "punk", "half"), ("acoustic", "room"), ("eighths", "roots", "fills"), ("pick", "pick", "drive"),
        (("power", ("distorted", "overdrive")), ("power", ("distorted",)), ("strum", ("clean", "overdrive", "steel")), ("riff", ("overdrive", "distorted")), ("pads", ("organ", "strings"))),
        ("triad", "power", "power", "sus4"), weight=1.6),
    "house": Style((118, 132), ("4/4",), ("minor", "minor", "dorian", "major"), (0.5, 0.57), 0.25,
        ("four", "four2"), ("909", "808", "electro"), ("offbeat", "octaves", "syncopated", "eighths"), ("saw", "square", "sub", "fm"),
        (("stabs", ("saw", "piano", "organ", "fm")), ("pads", ("supersaw", "warm")), ("arpeggio", ("pluck", "saw", "pulse")), ("riff", ("pluck", "square", "bell"))),
        ("seventh", "ninth", "triad"), weight=1.3),
    "trance": Style((126, 145), ("4/4",), ("minor", "harmonic minor"), (0.5, 0.5), 0.25,
        ("four", "four2"), ("909", "electro"), ("offbeat", "rolling"), ("saw", "sub"),
        (("arpeggio", ("supersaw", "pluck", "saw")), ("pads", ("supersaw", "strings")), ("riff", ("supersaw", "saw"))), ("triad", "sus2"), weight=0.8),
    "trap": Style((66, 82), ("4/4",), ("minor", "harmonic minor", "phrygian"), (0.5, 0.5), 0.25,
        ("trap", "trap2"), ("808", "808", "electro"), ("slides", "slides", "roots"), ("808", "808", "sub"),
        (("riff", ("bell", "pluck", "kalimba", "piano", "flute")), ("pads", ("warm", "strings", "choirless")), ("arpeggio", ("bell", "pluck"))),
        ("triad", "seventh"), ("rap", "sung", "rap"), 1.3),
    "hiphop": Style((78, 100), ("4/4",), ("minor", "dorian"), (0.54, 0.62), 0.25,
        ("boombap", "boombap2"), ("dusty", "808", "studio"), ("syncopated", "roots", "fills"), ("finger", "sub", "upright"),
        (("block", ("epiano", "piano")), ("riff", ("vibes", "clean", "flute", "brass")), ("pads", ("strings", "warm")), ("stabs", ("brass", "strings"))),
        ("seventh", "ninth", "sixth"), ("rap", "rap", "sung")),
    "ballad": Style((60, 84), ("4/4", "4/4", "6/8"), ("major", "minor"), (0.5, 0.5), 0.25,
        ("ballad", "half", "pop"), ("acoustic", "room", "studio"), ("roots", "sustained", "fills"), ("finger", "upright", "sub"),
        (("block", ("piano",)), ("arpeggio", ("piano", "nylon", "steel", "harp")), ("pads", ("strings", "warm")), ("strum", ("steel", "nylon"))),
        ("triad", "add9", "seventh", "sus2"), weight=1.2),
    "funk": Style((92, 118), ("4/4",), ("dorian", "mixolydian", "minor"), (0.5, 0.56), 0.25,
        ("funk", "funk2"), ("studio", "acoustic"), ("funk", "funk", "octaves"), ("slap", "finger", "square"),
        (("skank16", ("clean", "clav")), ("stabs", ("brass", "organ", "epiano")), ("riff", ("clav", "clean", "brass")), ("pads", ("organ", "strings"))),
        ("seventh", "ninth", "sixth")),
    "reggae": Style((66, 92), ("4/4",), ("major", "minor"), (0.52, 0.6), 0.25,
        ("onedrop", "steppers"), ("acoustic", "studio"), ("dub",), ("finger", "sub", "upright"),
        (("offbeat", ("clean", "organ", "piano")), ("offbeat", ("organ",)), ("riff", ("brass", "flute", "clean")), ("pads", ("organ",))), ("triad", "seventh"), weight=0.8),
    "folk": Style((76, 124), ("4/4", "3/4", "6/8"), ("major", "dorian", "mixolydian", "minor"), (0.5, 0.5), 0.25,
        ("brush", "train", "ballad"), ("brush", "acoustic", "hand"), ("fifths", "roots", "sustained"), ("upright", "finger"),
        (("strum", ("steel", "nylon")), ("arpeggio", ("nylon", "steel", "harp")), ("riff", ("fiddle", "flute", "accordion", "whistle")), ("pads", ("accordion", "strings"))),
        ("triad", "triad", "sus2", "add9")),
    "jazz": Style((100, 180), ("4/4", "3/4"), ("major", "dorian", "minor"), (0.6, 0.67), 0.5,
        ("swing", "swing2"), ("brush", "jazz"), ("walking",), ("upright", "upright", "finger"),
        (("charleston", ("piano", "clean", "vibes")), ("riff", ("brass", "clarinet", "vibes", "sax")), ("pads", ("strings", "organ"))),
        ("seventh", "ninth", "sixth"), weight=0.9),
    "shuffle": Style((96, 140), ("4/4",), ("mixolydian", "dorian", "minor"), (0.62, 0.67), 0.5,
        ("shuffle", "swing"), ("acoustic", "room"), ("walking", "boogie"), ("finger", "pick", "upright"),
        (("charleston", ("piano", "organ")), ("strum", ("overdrive", "clean")), ("riff", ("overdrive", "sax", "harmonica", "organ"))), ("seventh", "sixth", "triad"), weight=0.9),
    "latin": Style((88, 132), ("4/4",), ("minor", "major", "dorian"), (0.5, 0.5), 0.25,
        ("bossa", "salsa", "reggaeton"), ("hand", "acoustic", "electro"), ("bossa", "tumbao"), ("upright", "finger", "sub"),
        (("montuno", ("piano", "nylon", "marimba")), ("strum", ("nylon",)), ("stabs", ("brass",)), ("riff", ("flute", "brass", "nylon"))), ("seventh", "ninth", "sixth", "triad")),
    "soul": Style((62, 104), ("4/4", "6/8"), ("major", "dorian", "minor"), (0.5, 0.6), 0.25,
        ("soul", "pop", "half", "boombap"), ("studio", "acoustic", "dusty"), ("syncopated", "fills", "roots"), ("finger", "fm", "sub"),
        (("block", ("epiano", "organ", "piano")), ("skank16", ("clean",)), ("stabs", ("brass",)), ("pads", ("strings", "warm")), ("riff", ("clean", "epiano", "sax"))),
        ("seventh", "ninth", "ninth", "sixth"), weight=1.2),
    "dnb": Style((160, 178), ("4/4",), ("minor", "phrygian", "dorian"), (0.5, 0.5), 0.25,
        ("dnb", "dnb2"), ("electro", "dusty", "studio"), ("roots", "sustained", "slides"), ("reese", "sub", "fm", "saw"),
        (("pads", ("warm", "supersaw", "strings")), ("arpeggio", ("pluck", "bell", "fm")), ("stabs", ("saw", "piano"))), ("seventh", "triad", "ninth"), weight=0.8),
    "synthwave": Style((78, 120), ("4/4",), ("minor", "major", "dorian"), (0.5, 0.5), 0.25,
        ("four", "pop", "eighties"), ("electro", "808", "gated"), ("eighths", "rolling", "octaves"), ("saw", "square", "fm"),
        (("pads", ("supersaw", "warm", "strings")), ("arpeggio", ("saw", "square", "pulse", "fm")), ("riff", ("saw", "square", "bell")), ("stabs", ("brass", "fm"))), ("triad", "sus2", "seventh")),
    "metal": Style((120, 180), ("4/4",), ("minor", "phrygian", "harmonic minor"), (0.5, 0.5), 0.25,
        ("metal", "punk", "half", "rock2"), ("room", "metal"), ("eighths", "gallop", "roots"), ("drive", "pick"),
        (("power", ("distorted",)), ("gallop", ("distorted",)), ("riff", ("distorted", "saw")), ("pads", ("strings", "warm"))), ("power", "power", "triad"), weight=0.8),
    "waltz": Style((84, 160), ("3/4", "6/8"), ("major", "minor", "harmonic minor"), (0.5, 0.5), 0.25,
        ("waltz",), ("brush", "acoustic", "hand"), ("fifths", "sustained"), ("upright", "finger"),
        (("oompah", ("piano", "accordion", "nylon")), ("arpeggio", ("harp", "piano", "nylon")), ("riff", ("fiddle", "clarinet", "flute", "accordion")), ("pads", ("strings",))), ("triad", "seventh"), weight=0.6),
}  # fmt: skip

# piece -> steps; several lines are alternatives within one style, chosen once per song.
GROOVES_4 = {
    "pop": {"kick": "X.....x.X.......", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
    "pop2": {"kick": "X..x....X.x.....", "snare": "....X.......X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "four": {"kick": "X...X...X...X...", "clap": "....X.......X...", "hat": "..x...x...x...x.", "hat2": "o-o-o-o-o-o-o-o-"},
    "four2": {"kick": "X...X...X...X...", "snare": "....x.......x...", "open": "..x...x...x...x.", "hat": "o.-oo.-oo.-oo.-o", "rim": "...-..o....-..o."},
    "rock": {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    "rock2": {"kick": "X.x...x.X.x...x.", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
    "punk": {"kick": "X...X...X...X...", "snare": "..X...X...X...X.", "hat": "x.x.x.x.x.x.x.x."},
    "half": {"kick": "X.....x.......x.", "snare": "........X.......", "hat": "x.o.x.o.x.o.x.o."},
    "trap": {"kick": "X......x..x.....", "clap": "........X.......", "hat": "xoxoxoxoxoxoxoxo", "open": "..............o."},
    "trap2": {"kick": "X..x......X..x..", "snare": "........X.......", "hat": "x.o.x.o.x.o.xoxo", "rim": "..............o."},
    "boombap": {"kick": "X..x...x..X.....", "snare": "....X..-.-..X..-", "hat": "x.o.x.o.x.o.x.o."},
    "boombap2": {"kick": "X.......x.X..x..", "snare": "....X.......X..-", "hat": "xoxox-xoxoxox-xo"},
    "ballad": {"kick": "X.........X.....", "snare": "........X.......", "hat": "x...o...x...o..."},
    "funk": {"kick": "X.x...x...x..x..", "snare": "....X--.-o.-X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "funk2": {"kick": "X..x..x.x..x....", "snare": "....X..-.-..X.o-", "hat": "x.xox.xox.xox.x.", "open": "......o.......o."},
    "onedrop": {"kick": "........X.......", "rim": "........X..o....", "hat": "x.o.x.o.x.o.x.o."},
    "steppers": {"kick": "X...X...X...X...", "rim": "....x...X..o..x.", "hat": "x.o.x.o.x.o.x.o."},
    "brush": {"kick": "X.......o.......", "brush": "o-o-X-o-o-o-X-o-"},
    "train": {"kick": "X...x...X...x...", "brush": "o-x-X-xoo-x-X-xo"},
    "swing": {"ride": "x...x.o.x...x.o.", "hat": "....x.......x...", "kick": "o...-...o...-...", "snare": "......-.......-."},
    "swing2": {"ride": "x...x.o.x...x.o.", "hat": "....x.......x...", "kick": "o.....-.....o...", "rim": "............x..."},
    "shuffle": {"kick": "X.....x.X.......", "snare": "....X.....-.X...", "hat": "x.o.x.o.x.o.x.o."},
    "bossa": {"kick": "X.....xXX.....xX", "rim": "x.....x.....x...", "shaker": "xoxoxoxoxoxoxoxo"},
    "salsa": {"kick": "......x.......x.", "cowbell": "x...x.x.x...x.x.", "conga": "..o.x..o..o.x.xx", "clave": "x..x..x...x.x..."},
    "reggaeton": {"kick": "X...X...X...X...", "snare": "...x..x....x..x.", "hat": "x.o.x.o.x.o.x.o."},
    "soul": {"kick": "X..o....X.......", "snare": "....X....-..X...", "hat": "x.o.x.o.x.o.x.oo", "tambourine": "....x.......x..."},
    "dnb": {"kick": "X.........X.....", "snare": "....X..-.-..X...", "hat": "x.o.x.o.x.o.x.o."},
    "dnb2": {"kick": "X.x.......Xx....", "snare": "....X..-.o..X..o", "ride": "x.x.x.x.x.x.x.x."},
    "eighties": {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "xoxoxoxoxoxoxoxo", "tom": "..............o."},
    "metal": {"kick": "XxXxXxXxXxXxXxXx", "snare": "....X.......X...", "ride": "x...x...x...x..."},
}  # fmt: skip

GROOVES_3 = {
    "waltz": {"kick": "X...........", "snare": "....o...o...", "hat": "....x...x..."},
    "ballad": {"kick": "X.......o...", "snare": "......X.....", "hat": "x.o.o.x.o.o."},
    "brush": {"kick": "X.....o.....", "brush": "o-o-X-o-X-o-"},
    "swing": {"ride": "x...x.o.x...", "hat": "....x...x...", "kick": "o..........."},
    "soul": {"kick": "X....x......", "snare": "......X.....", "hat": "x.o.o.x.o.o."},
}  # fmt: skip

# Layers that may be added on top of any groove.
LAYERS = {
    "shaker": "xoxoxoxoxoxoxoxo", "tambourine": "....x.......x...", "clap": "....x.......x...", "conga": "x..o.ox.x..o.xo.",
    "cowbell": "x...x...x...x...", "bongo": "xooxxooxxooxxooo", "snap": "....x.......x...", "rim": "...o..o....o..o.",
}  # fmt: skip
