"""From a seed to a score: style, key, tempo, form, harmony, and every part's notes.

The pitched parts are made of lines. Drums have a groove per song, varied per bar, with fills before a new section and
crashes on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.lines import backing_chords, bass_notes, comp_notes, harmony_of, lexicon, rap_line, sung_line
from tsbs_daw.lab.songs.score import PROGRESSIONS, Chord, Hit, Note, Part, Score, Section, Sung, chord_on, scale_of
from tsbs_daw.lab.songs.styles import STYLES, Style

# Voice types: lowest and highest comfortable MIDI pitch.
VOICES = {"soprano": (60, 79), "alto": (55, 74), "tenor": (48, 68), "baritone": (43, 63), "bass": (39, 59)}
REGISTERS = {"bell": 76, "flute": 74, "whistle": 79, "kalimba": 72, "harp": 64, "brass": 60, "fiddle": 69}
ELECTRONIC_STYLES = ("house", "trance", "dnb", "synthwave", "trap", "pop")


def compose(seed: int, duration_s: float = 40.0, *, style: str | None = None, complete: bool = False) -> Score:
    """Write a song. With `complete` every stem plays in every section.

    The same seed always gives the same score; about one song in twelve lacks a stem on purpose.
    """
    rng = stream(seed, "plan")
    names = list(STYLES)
    weights = np.array([STYLES[name].weight for name in names])
    chosen = style or names[int(rng.choice(len(names), p=weights / weights.sum()))]
    table = STYLES[chosen]
    meter = str(rng.choice(table.meters))
    bar_beats = 4 if meter == "4/4" else 3
    tempo_bpm = round(float(rng.uniform(*table.tempo)), 2)
    mode, tonic = str(rng.choice(table.modes)), int(rng.integers(12))
    missing = "" if complete or rng.random() > 0.08 else str(rng.choice(["vocals", "drums", "bass", "vocals", "other"]))
    roles = {stem for stem in ("vocals", "drums", "bass", "other") if stem != missing}
    bars = max(int(np.ceil(duration_s * tempo_bpm / 60.0 / bar_beats)), 4)
    sections = _form(bars, roles, rng, complete)
    chords = _harmony(sections, tonic, mode, table, bar_beats, stream(seed, "harmony"))
    score = Score(
        seed=seed, style=chosen, tonic=tonic, mode=mode, scale=scale_of(tonic, mode), tempo_bpm=tempo_bpm,
        bar_beats=bar_beats, meter=meter, swing=round(float(rng.uniform(*table.swing)), 3), swing_unit=table.swing_unit,
        sections=tuple(sections), chords=tuple(chords), parts=(), duration_s=duration_s,
    )  # fmt: skip
    parts: list[Part] = []
    if "drums" in roles:
        parts.append(_drums(score, table, stream(seed, "drums")))
    if "bass" in roles:
        parts.append(_bass(score, table, stream(seed, "bass")))
    if "other" in roles:
        parts += _accompaniment(score, table, stream(seed, "other"))
    if "vocals" in roles:
        parts += _vocals(score, table, stream(seed, "vocals"))
    return replace(score, parts=tuple(parts))


def _form(bars: int, roles: set[str], rng: np.random.Generator, complete: bool) -> list[Section]:
    """Compose the sections, of 4 bars (8 in fast songs), each with its energy and its parts."""
    sections, bar = [], 0
    size = 8 if bars > 40 else 4 if bars > 12 else 2
    kinds = ["verse", "chorus", "verse", "chorus", "bridge", "chorus", "solo", "chorus"]
    if rng.random() < 0.45 and not complete:
        kinds.insert(0, "intro")
    if rng.random() < 0.35 and not complete:
        kinds.insert(int(rng.integers(1, 4)), "break")
    for kind in kinds * 4:
        if bar >= bars:
            break
        length = min(size, bars - bar)
        energy = {"intro": 0.35, "verse": 0.55, "chorus": 0.95, "bridge": 0.6, "solo": 0.8, "break": 0.25}[kind]
        playing = set(roles) | {"lead voice", "layers"}
        playing |= {"backing"} if kind in ("chorus", "bridge") else set()
        if kind in ("intro", "solo"):
            playing -= {"lead voice"}
            playing |= {"lead instrument"}
        if kind in ("intro", "break"):
            playing -= set(rng.choice(["drums", "bass", "drums", "layers"], size=2).tolist())
        if kind == "verse" and rng.random() < 0.3 and not complete:
            playing -= {str(rng.choice(["drums", "layers", "bass", "other"]))}
        if rng.random() < 0.06 and not complete:
            playing &= {str(rng.choice(["vocals", "drums", "other"])), "lead voice", "backing", "vocals"}
        if "drums" not in playing and "drums" in roles and rng.random() < 0.5:
            playing |= {str(rng.choice(["hats", "kick"]))}
        sections.append(Section(kind, bar, length, energy, frozenset(playing)))
        bar += length
    return sections


def _harmony(sections, tonic, mode, style: Style, bar_beats: int, rng: np.random.Generator) -> list[Chord]:
    family = "major" if mode in ("major", "lydian") else "minor" if mode in ("minor", "harmonic minor") else "modal"
    pool = PROGRESSIONS[family] if family != "modal" else PROGRESSIONS["modal"] + PROGRESSIONS["minor"][:4]
    by_kind: dict[str, tuple] = {}
    colours = [str(rng.choice(style.colours)) for _ in range(7)]
    quick = rng.random() < 0.2 and bar_beats == 4
    chords: list[Chord] = []
    for section in sections:
        degrees = by_kind.setdefault(section.name, pool[int(rng.integers(len(pool)))])
        per_bar = 2 if quick and section.name != "verse" else 1
        for index in range(section.bars * per_bar):
            degree = degrees[index % len(degrees)]
            beat = (section.bar * per_bar + index) * bar_beats / per_bar
            chords.append(chord_on(tonic, mode, degree, colours[degree], float(beat), bar_beats / per_bar))
    return chords


def _drums(score: Score, style: Style, rng: np.random.Generator) -> Part:
    groove = _choose_groove(style, score.bar_beats, rng)
    kit = str(rng.choice(style.kits))
    hits: list = []
    for section in score.sections:
        if section.playing & {"drums", "hats", "kick"}:
            hits += _drum_hits(groove, section, score.bar_beats, rng)
    return Part("drums", "drums", tuple(hits), {"family": kit, "seed": int(rng.integers(2**31))}, {"groove": groove})


def _bass(score: Score, style: Style, rng: np.random.Generator) -> Part:
    family = str(rng.choice(style.basses))
    figures = {name: str(rng.choice(style.bass_lines)) for name in ("verse", "chorus", "bridge")}
    low = int(rng.integers(28, 34)) if family not in ("sub", "808") else int(rng.integers(26, 36))
    notes: list = []
    for section in score.sections:
        if "bass" in section.playing:
            figure = figures.get(section.name, figures["verse"])
            notes += bass_notes(figure, section, score, low, rng)
    return Part(
        "bass", "bass", tuple(notes), {"family": family, "seed": int(rng.integers(2**31))}, {"figures": figures}
    )


def _accompaniment(score: Score, style: Style, rng: np.random.Generator) -> list[Part]:
    """Two to five accompanying parts; layers thin out where the section says so."""
    count = int(min(rng.choice([2, 3, 3, 4, 5]), len(style.comps) + 1))
    order = [*rng.permutation(len(style.comps)).tolist(), int(rng.integers(len(style.comps)))]
    parts = []
    for index, choice in enumerate(order[:count]):
        figure, families = style.comps[choice]
        family = str(rng.choice(families))
        centre = REGISTERS.get(family, 62) + float(rng.choice([-7, -3, 0, 0, 4, 9]))
        leading = figure == "riff"
        notes: list = []
        for section in score.sections:
            if "other" not in section.playing:
                continue
            if index >= 2 and ("layers" not in section.playing or rng.random() > 0.35 + 0.6 * section.energy):
                continue
            if leading and "lead instrument" not in section.playing and rng.random() < 0.5:
                continue
            notes += comp_notes(figure, section, score, centre, rng)
        timbre = {"family": family, "seed": int(rng.integers(2**31))}
        parts.append(Part(f"{figure}-{index}", "other", tuple(notes), timbre, {"figure": figure}))
    if score.style in ELECTRONIC_STYLES and rng.random() < 0.5:
        parts.append(_risers(score, rng))
    return parts


def _risers(score: Score, rng: np.random.Generator) -> Part:
    """Noise that swells into a new section."""
    notes = []
    for section in score.sections[1:]:
        beats = float(rng.choice([2.0, 4.0, 8.0]))
        start = section.bar * score.bar_beats - beats
        if "other" in section.playing and start >= 0 and rng.random() < 0.7:
            notes.append(Note(start, beats, 60, float(rng.uniform(0.4, 0.9))))
    return Part(
        "riser", "other", tuple(notes), {"family": "sweep", "seed": int(rng.integers(2**31))}, {"figure": "riser"}
    )


def _vocals(score: Score, style: Style, rng: np.random.Generator) -> list[Part]:
    kind = str(rng.choice(style.vocal))
    voice = str(rng.choice(list(VOICES), p=[0.22, 0.28, 0.24, 0.2, 0.06]))
    low, high = VOICES[voice]
    low += int(rng.integers(0, 3))
    words = lexicon(rng, int(rng.integers(10, 26)))
    busy = float(rng.uniform(0.2, 0.9))
    lead: list[Sung] = []
    chorus: list[Sung] = []
    backing: list[list[Sung]] = [[], [], []]
    vowel = str(rng.choice(["oo", "ah", "oh"]))
    for section in score.sections:
        if "vocals" not in section.playing:
            continue
        if "lead voice" in section.playing:
            if kind == "rap" and section.name != "chorus":
                line = rap_line(section, score, low, words, rng)
            else:
                line = sung_line(section, score, low, high, words, busy, rng)
            lead += line
            if section.name == "chorus":
                chorus += line
        if "backing" in section.playing and rng.random() < 0.6:
            for number, line in enumerate(backing):
                line += backing_chords(section, score, low + 7, number, vowel)
    timbre = {"family": "voice", "voice": voice, "kind": kind, "seed": int(rng.integers(2**31))}
    return [_voice("lead", lead, timbre), *_around_the_lead(chorus, backing, timbre, score, rng)]


def _around_the_lead(
    chorus: list[Sung], backing: list[list[Sung]], lead: dict, score: Score, rng: np.random.Generator
) -> list[Part]:
    """Compose a double and a harmony in choruses, and background chords. `lead` is the timbre of the lead."""
    parts, seed = [], lead["seed"]
    if chorus and rng.random() < 0.6:
        parts.append(_voice("double", chorus, {**lead, "take": 1}))
    if chorus and lead["kind"] != "rap" and rng.random() < 0.55:
        line = harmony_of(chorus, score.scale, int(rng.choice([2, -2, 2, -5])))
        parts.append(_voice("harmony", line, {**lead, "seed": seed + 1, "take": 2}))
    if rng.random() < 0.4:
        for number, line in enumerate(backing[: int(rng.choice([2, 3]))]):
            if line:
                parts.append(_voice(f"backing-{number}", line, {**lead, "seed": seed + 2 + number, "take": 3 + number}))
    return parts


def _voice(name: str, line: list[Sung], timbre: dict) -> Part:
    return Part(name, "vocals", tuple(line), timbre, {"role": name.partition("-")[0]})


# Grooves are written as steps of a quarter beat: 16 in a bar of 4/4, 12 in 3/4 and 6/8.
# X strong, x normal, o softer, - a ghost, . nothing.
GROOVES_4 = {
    "pop": {"kick": "X.....x.X.......", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
    "pop2": {"kick": "X..x....X.x.....", "snare": "....X.......X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "four": {"kick": "X...X...X...X...", "clap": "....X.......X...",
             "hat": "..x...x...x...x.", "hat2": "o-o-o-o-o-o-o-o-"},
    "four2": {"kick": "X...X...X...X...", "snare": "....x.......x...", "open": "..x...x...x...x.",
              "hat": "o.-oo.-oo.-oo.-o", "rim": "...-..o....-..o."},
    "rock": {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    "rock2": {"kick": "X.x...x.X.x...x.", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
    "punk": {"kick": "X...X...X...X...", "snare": "..X...X...X...X.", "hat": "x.x.x.x.x.x.x.x."},
    "half": {"kick": "X.....x.......x.", "snare": "........X.......", "hat": "x.o.x.o.x.o.x.o."},
    "trap": {"kick": "X......x..x.....", "clap": "........X.......",
             "hat": "xoxoxoxoxoxoxoxo", "open": "..............o."},
    "trap2": {"kick": "X..x......X..x..", "snare": "........X.......",
              "hat": "x.o.x.o.x.o.xoxo", "rim": "..............o."},
    "boombap": {"kick": "X..x...x..X.....", "snare": "....X..-.-..X..-", "hat": "x.o.x.o.x.o.x.o."},
    "boombap2": {"kick": "X.......x.X..x..", "snare": "....X.......X..-", "hat": "xoxox-xoxoxox-xo"},
    "ballad": {"kick": "X.........X.....", "snare": "........X.......", "hat": "x...o...x...o..."},
    "funk": {"kick": "X.x...x...x..x..", "snare": "....X--.-o.-X..-", "hat": "xoxoxoxoxoxoxoxo"},
    "funk2": {"kick": "X..x..x.x..x....", "snare": "....X..-.-..X.o-",
              "hat": "x.xox.xox.xox.x.", "open": "......o.......o."},
    "onedrop": {"kick": "........X.......", "rim": "........X..o....", "hat": "x.o.x.o.x.o.x.o."},
    "steppers": {"kick": "X...X...X...X...", "rim": "....x...X..o..x.", "hat": "x.o.x.o.x.o.x.o."},
    "brush": {"kick": "X.......o.......", "brush": "o-o-X-o-o-o-X-o-"},
    "train": {"kick": "X...x...X...x...", "brush": "o-x-X-xoo-x-X-xo"},
    "swing": {"ride": "x...x.o.x...x.o.", "hat": "....x.......x...",
              "kick": "o...-...o...-...", "snare": "......-.......-."},
    "swing2": {"ride": "x...x.o.x...x.o.", "hat": "....x.......x...",
               "kick": "o.....-.....o...", "rim": "............x..."},
    "shuffle": {"kick": "X.....x.X.......", "snare": "....X.....-.X...", "hat": "x.o.x.o.x.o.x.o."},
    "bossa": {"kick": "X.....xXX.....xX", "rim": "x.....x.....x...", "shaker": "xoxoxoxoxoxoxoxo"},
    "salsa": {"kick": "......x.......x.", "cowbell": "x...x.x.x...x.x.",
              "conga": "..o.x..o..o.x.xx", "clave": "x..x..x...x.x..."},
    "reggaeton": {"kick": "X...X...X...X...", "snare": "...x..x....x..x.", "hat": "x.o.x.o.x.o.x.o."},
    "soul": {"kick": "X..o....X.......", "snare": "....X....-..X...",
             "hat": "x.o.x.o.x.o.x.oo", "tambourine": "....x.......x..."},
    "dnb": {"kick": "X.........X.....", "snare": "....X..-.-..X...", "hat": "x.o.x.o.x.o.x.o."},
    "dnb2": {"kick": "X.x.......Xx....", "snare": "....X..-.o..X..o", "ride": "x.x.x.x.x.x.x.x."},
    "eighties": {"kick": "X.......X.x.....", "snare": "....X.......X...",
                 "hat": "xoxoxoxoxoxoxoxo", "tom": "..............o."},
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


def _choose_groove(style: Style, bar_beats: int, rng: np.random.Generator) -> dict[str, str]:
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


def _drum_hits(groove: dict[str, str], section: Section, bar_beats: int, rng: np.random.Generator) -> list[Hit]:
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
            hits += _fill_hits(start + fill_from, bar_beats - fill_from, rng)
        elif full and bar % 4 == 3 and rng.random() < 0.3:
            fill_from = bar_beats - 1
            hits += _fill_hits(start + fill_from, 1, rng)
        hits += _bar_hits(pieces, start, fill_from, section.energy, rng)
    if full and rng.random() < 0.8:
        first = section.bar * bar_beats
        hits = [hit for hit in hits if not (hit.beat == first and hit.piece in CYMBALS)]
        hits.append(Hit(float(first), "crash", 0.9))
    return sorted(hits, key=lambda hit: (hit.beat, hit.piece))


def _bar_hits(pieces: dict[str, str], start: float, until: float, energy: float, rng: np.random.Generator) -> list[Hit]:
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


def _fill_hits(start: float, beats: float, rng: np.random.Generator) -> list[Hit]:
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
