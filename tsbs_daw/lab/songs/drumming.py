"""Drum parts: a groove per song, varied per bar, with fills before a new section and crashes on it."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.grooves import GROOVES_3, GROOVES_4, LAYERS
from tsbs_daw.lab.songs.score import Hit, Section
from tsbs_daw.lab.songs.styles import Style

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
