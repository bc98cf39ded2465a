"""From a seed to a score: style, key, tempo, form, harmony, and every part's notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.lab.songs.drumming import choose_groove, drum_hits
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.lines import backing_chords, bass_notes, comp_notes, harmony_of, lexicon, rap_line, sung_line
from tsbs_daw.lab.songs.score import PROGRESSIONS, Chord, Note, Part, Score, Section, Sung, chord_on, scale_of
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
    groove = choose_groove(style, score.bar_beats, rng)
    kit = str(rng.choice(style.kits))
    hits: list = []
    for section in score.sections:
        if section.playing & {"drums", "hats", "kick"}:
            hits += drum_hits(groove, section, score.bar_beats, rng)
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
