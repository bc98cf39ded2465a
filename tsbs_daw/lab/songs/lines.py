"""Pitched lines of a song, section by section: basses and chords of the accompaniment, and what is sung or rapped.

Basses and chords follow figures, which are tables of rhythms within a bar. Voices get phrases with rhythm and contour,
on words made of syllables.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.lab.songs.score import Chord, Note, Score, Section, Sung, nearest_in, scale_step, voice_chord

# Basses: "step+length kind" in steps of a quarter beat within a bar of four
_BASS_TEXT = {
    "roots": "0+14 root",
    "sustained": "0+16 root",
    "eighths": "0+2 root, 2+2 root, 4+2 root, 6+2 root, 8+2 root, 10+2 root, 12+2 root, 14+2 root",
    "octaves": "0+2 root, 2+2 octave, 4+2 root, 6+2 octave, 8+2 root, 10+2 octave, 12+2 root, 14+2 octave",
    "offbeat": "2+2 root, 6+2 root, 10+2 root, 14+2 root",
    "rolling": (
        "1+1 root, 2+1 root, 3+1 root, 5+1 root, 6+1 root, 7+1 root, 9+1 root, "
        "10+1 root, 11+1 root, 13+1 root, 14+1 root, 15+1 root"
    ),
    "syncopated": "0+3 root, 3+3 root, 6+2 fifth, 8+2 root, 11+2 root, 14+2 near",
    "fills": "0+6 root, 6+2 root, 8+4 fifth, 12+2 near, 14+2 near",
    "funk": "0+2 root, 3+1 root, 4+1 octave, 7+1 seventh, 8+1 root, 10+2 octave, 13+1 near, 14+1 near",
    "fifths": "0+7 root, 8+7 fifth",
    "walking": "0+4 root, 4+4 chord, 8+4 chord, 12+4 approach",
    "boogie": "0+2 root, 2+2 root, 4+2 third, 6+2 third, 8+2 fifth, 10+2 fifth, 12+2 sixth, 14+2 fifth",
    "dub": "0+3 root, 4+2 third, 6+4 fifth, 12+2 root, 14+2 near",
    "bossa": "0+6 root, 6+2 fifth, 8+6 fifth, 14+2 root",
    "tumbao": "6+6 fifth, 12+4 next",
    "gallop": (
        "0+1 root, 2+1 root, 3+1 root, 4+1 root, 6+1 root, 7+1 root, 8+1 root, "
        "10+1 root, 11+1 root, 12+1 root, 14+1 root, 15+1 root"
    ),
    "slides": "0+6 root, 7+3 root, 11+3 near",
}


def _parse_bass(text: str) -> list[tuple[int, int, str]]:
    notes = []
    for note in text.split(", "):
        place, kind = note.split()
        step, length = place.split("+")
        notes.append((int(step), int(length), kind))
    return notes


_BASS_FIGURES = {name: _parse_bass(text) for name, text in _BASS_TEXT.items()}


def bass_notes(figure: str, section: Section, score: Score, low: int, rng: np.random.Generator) -> list[Note]:
    """Notes of one section. `low` is the lowest MIDI pitch of the instrument; roots lie within the octave above it."""
    steps_in_bar = score.bar_beats * 4
    pattern = [
        (step, min(length, steps_in_bar - step), kind)
        for step, length, kind in _BASS_FIGURES[figure]
        if step < steps_in_bar
    ]
    if score.bar_beats == 3 and figure == "fifths":
        pattern = [(0, 4, "root")] if rng.random() < 0.5 else [(0, 11, "root")]
    notes: list[Note] = []
    first, end = score.beats_of(section)
    for bar in range(section.bars):
        for step, length, kind in pattern:
            if rng.random() < 0.04 and step:
                continue
            beat = first + bar * score.bar_beats + step / 4
            beats = min(length / 4, end - beat)
            pitch = _bass_pitch(kind, beat, score, low, rng)
            accent = 1.0 if step % 4 == 0 else 0.85
            glide = None
            if figure == "slides" and notes and rng.random() < 0.35:
                glide = notes[-1].pitch
            shorten = 0.9 if figure not in ("sustained", "slides") else 1.0
            velocity = float(np.clip(accent * (0.7 + 0.2 * section.energy) + rng.normal(0, 0.05), 0.3, 1.0))
            notes.append(Note(beat, beats * shorten, pitch, velocity, glide))
    return notes


def _bass_pitch(kind: str, beat: float, score: Score, low: int, rng: np.random.Generator) -> int:
    chord = score.chord_at(beat)
    root = low + (chord.root - low) % 12
    third = chord.intervals[1] if len(chord.intervals) > 2 else 7
    fifth = 7 if 7 in chord.intervals else 6 if 6 in chord.intervals else 7
    if kind == "octave":
        return root + 12
    if kind == "fifth":
        return root + fifth if root + fifth < low + 16 else root + fifth - 12
    if kind in ("third", "chord"):
        return nearest_in(
            chord.pitch_classes, root + (third if kind == "third" else int(rng.choice([third, fifth, 12])))
        )
    if kind == "sixth":
        return root + 9
    if kind == "seventh":
        return root + 10
    following = score.chord_at(beat + 1.0)
    goal = low + (following.root - low) % 12
    if kind == "next":
        return goal
    if kind == "approach":
        return goal + int(rng.choice([-1, 1, 2, -2]))
    return scale_step(score.scale, nearest_in(score.scale, root), int(rng.choice([-1, 1, 2, 4])))


# Chords: where one sounds within a bar of 16 steps: "step+length ..." | another rhythm
_CHORD_TEXT = {
    "block": "0+16 | 0+8 8+8 | 0+4 4+4 8+4 12+4 | 0+6 6+10 | 0+6 6+6 12+4",
    "stabs": "0+2 3+2 6+2 10+2 | 2+1 6+1 10+1 14+1 | 3+1 6+2 | 0+1 7+1 10+2",
    "offbeat": "4+1 12+1 | 2+1 6+1 10+1 14+1 | 4+1 6+1 12+1 14+1",
    "charleston": "0+3 6+2 | 6+3 14+2 | 0+2 6+4 12+2 | 2+2 10+4",
    "strum": "0+4 4+2 6+2 10+2 12+2 14+2 | 0+2 2+2 4+2 6+2 8+2 10+2 12+2 14+2 | 0+4 6+2 8+4 14+2",
    "skank16": "2+1 3+1 6+1 10+1 11+1 14+1 | 0+1 3+1 4+1 7+1 10+1 12+1 15+1",
    "power": "0+16 | 0+2 2+2 4+2 6+2 8+2 10+2 12+2 14+2 | 0+6 6+10 | 0+3 3+3 6+2 8+3 11+3 14+2",
    "gallop": "0+1 2+1 3+1 4+1 6+1 7+1 8+1 10+1 11+1 12+1 14+1 15+1",
    "montuno": "0+2 3+1 4+2 7+1 8+1 10+1 12+1 14+1",
    "oompah": "4+3 8+3",
}


def _parse_chords(text: str) -> list[list[tuple[int, int]]]:
    rhythms = []
    for rhythm in text.split("|"):
        pairs = [place.split("+") for place in rhythm.split()]
        rhythms.append([(int(step), int(length)) for step, length in pairs])
    return rhythms


CHORD_RHYTHMS = {name: _parse_chords(text) for name, text in _CHORD_TEXT.items()}


def comp_notes(figure: str, section: Section, score: Score, centre: float, rng: np.random.Generator) -> list[Note]:
    """Notes of one accompanying part in one section, around the MIDI pitch `centre`."""
    melodic = {"pads": _pads, "arpeggio": _arpeggio, "riff": _riff}
    if figure in melodic:
        return melodic[figure](section, score, centre, rng)
    return _struck(figure, section, score, centre, rng)


def _pads(section: Section, score: Score, centre: float, rng: np.random.Generator) -> list[Note]:
    size = int(rng.choice([3, 4, 4]))
    notes, voicing = [], None
    for chord in score.chords_of(section):
        voicing = voice_chord(chord, centre, voicing, size)
        notes += [Note(chord.beat, chord.beats * 0.98, pitch, 0.6 + 0.2 * section.energy) for pitch in voicing]
    return notes


def _struck(figure: str, section: Section, score: Score, centre: float, rng: np.random.Generator) -> list[Note]:
    choices = CHORD_RHYTHMS[figure]
    rhythm = choices[int(rng.integers(len(choices)))]
    size = {"power": 3, "gallop": 3, "strum": int(rng.choice([4, 5, 6]))}.get(figure, int(rng.choice([3, 4])))
    low = centre - 10 if figure in ("power", "gallop") else centre
    staccato = {"stabs": 0.8, "offbeat": 0.7, "skank16": 0.7, "oompah": 0.6, "montuno": 0.9}.get(figure, 0.97)
    notes: list[Note] = []
    voicing: tuple[int, ...] | None = None
    current: Chord | None = None
    for bar in range(section.bars):
        start = (section.bar + bar) * score.bar_beats
        for order, (step, length) in enumerate(rhythm):
            if step >= score.bar_beats * 4 or (rng.random() < 0.05 and step):
                continue
            beat = start + step / 4
            chord = score.chord_at(beat)
            if chord is not current:
                if figure in ("power", "gallop"):
                    root = int(low) + (chord.root - int(low)) % 12
                    voicing = (root, root + (6 if 6 in chord.intervals and 7 not in chord.intervals else 7), root + 12)
                else:
                    voicing = voice_chord(chord, low, voicing, size)
                current = chord
            assert voicing is not None, "the first chord differs from none"
            beats = min(length / 4, score.bar_beats - step / 4) * staccato
            velocity = (0.8 if step % 4 == 0 else 0.65) * (0.8 + 0.2 * section.energy) + rng.normal(0, 0.05)
            pitches = voicing[::-1] if figure == "strum" and order % 2 else voicing
            if figure == "montuno" and order % 2:
                pitches = voicing[:1]
            delay = (0.012 + 0.02 * rng.random()) if figure == "strum" else 0.0
            for rank, pitch in enumerate(pitches):
                notes.append(Note(beat + rank * delay, beats, pitch, float(np.clip(velocity - 0.02 * rank, 0.2, 1.0))))
    return notes


def _arpeggio(section: Section, score: Score, centre: float, rng: np.random.Generator) -> list[Note]:
    unit = float(rng.choice([0.25, 0.5, 0.5, 1 / 3])) if score.bar_beats == 4 else 0.5
    shape = rng.choice(["up", "down", "updown", "random", "alberti"])
    size = int(rng.choice([3, 4, 5, 6]))
    gate = float(rng.choice([0.6, 0.95, 1.8]))
    notes, voicing = [], None
    for chord in score.chords_of(section):
        voicing = voice_chord(chord, centre, voicing, size)
        order = {
            "up": list(voicing), "down": list(voicing[::-1]), "updown": list(voicing) + list(voicing[-2:0:-1]),
            "random": [voicing[i] for i in rng.integers(0, len(voicing), 8)],
            "alberti": [voicing[0], voicing[-1], voicing[1], voicing[-1]],
        }[str(shape)]  # fmt: skip
        for index in range(round(chord.beats / unit)):
            accent = 0.8 if index % 4 == 0 else 0.65
            notes.append(Note(chord.beat + index * unit, unit * gate, order[index % len(order)], accent))
    return notes


def _riff(section: Section, score: Score, centre: float, rng: np.random.Generator) -> list[Note]:
    """A motif of one or two bars, repeated and bent to each chord."""
    bars = int(rng.choice([1, 2]))
    steps, position = [], 0
    total = bars * score.bar_beats * 4
    while position < total:
        length = int(rng.choice([1, 2, 2, 3, 4, 6], p=[0.1, 0.3, 0.2, 0.15, 0.15, 0.1]))
        if rng.random() < 0.72:
            steps.append((position, min(length, total - position), int(rng.choice([-2, -1, -1, 0, 1, 1, 2, 3]))))
        position += length
    notes, (_, end) = [], score.beats_of(section)
    for repeat in range(0, section.bars, bars):
        pitch = nearest_in(score.scale, centre)
        for step, length, move in steps:
            beat = (section.bar + repeat) * score.bar_beats + step / 4
            if beat >= end:
                break
            pitch = scale_step(score.scale, pitch, move) if move else pitch
            pitch = nearest_in(score.scale, centre) if abs(pitch - centre) > 10 else pitch
            sounding = nearest_in(score.chord_at(beat).pitch_classes, pitch) if step % 4 == 0 else pitch
            velocity = 0.8 if step % 4 == 0 else 0.65
            notes.append(Note(beat, length / 4 * float(rng.choice([0.6, 0.95])), sounding, velocity))
    return notes


# Syllables of the sung words: sounds before the vowel, the vowel, and sounds after it, each with how often it is drawn.
ONSETS = (
    (), ("s",), ("t",), ("k",), ("p",), ("b",), ("d",), ("g",), ("m",), ("n",), ("l",), ("r",), ("w",), ("y",), ("f",),
    ("v",), ("h",), ("sh",), ("ch",), ("j",), ("th",), ("dh",), ("z",), ("s", "t"), ("t", "r"), ("s", "k"), ("b", "r"),
    ("f", "l"), ("k", "l"), ("p", "l"), ("g", "r"), ("s", "l"), ("d", "r"), ("k", "r"), ("s", "t", "r"),
)  # fmt: skip
ONSET_WEIGHTS = np.array(
    [3, 2.5, 3, 2, 1.5, 2, 2.5, 1.5, 3, 3, 3, 2, 2.5, 2, 1.5, 1, 2, 1.2, 0.8, 0.8, 1.2, 2, 0.6] + [0.35] * 12
)
VOWELS = (
    ("ah",), ("eh",), ("ee",), ("oh",), ("oo",), ("ae",), ("uh",), ("ih",), ("aw",), ("er",),
    ("ah", "ih"), ("eh", "ih"), ("oh", "oo"), ("ah", "oo"), ("aw", "ih"),
)  # fmt: skip
VOWEL_WEIGHTS = np.array([3, 2.5, 3, 2, 2.5, 1.5, 2.5, 2, 1.2, 1, 2, 2, 2, 1, 0.4])
CODAS = (
    (), ("n",), ("m",), ("t",), ("d",), ("s",), ("l",), ("r",), ("k",), ("z",), ("v",), ("ng",),
    ("s", "t"), ("n", "d"), ("n", "t"),
)  # fmt: skip
CODA_WEIGHTS = np.array([8, 1.6, 1, 1.5, 1, 1.3, 1, 1, 0.7, 0.8, 0.5, 0.8, 0.4, 0.5, 0.4])
Sounds = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # onset, vowel and coda of a syllable


def lexicon(rng: np.random.Generator, size: int) -> list[Sounds]:
    """Syllables this song's words are made of."""

    def pick(options, weights):
        return options[int(rng.choice(len(options), p=weights / weights.sum()))]

    return [(pick(ONSETS, ONSET_WEIGHTS), pick(VOWELS, VOWEL_WEIGHTS), pick(CODAS, CODA_WEIGHTS)) for _ in range(size)]


def _phrase_rhythm(beats: int, busy: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """(beat, length) pairs of one phrase that leaves room for a breath at its end."""
    sung = beats - float(rng.choice([0.5, 1.0, 1.0, 1.5, 2.0])) if beats > 2 else beats - 0.5
    position = float(rng.choice([0.0, 0.0, 0.5, 1.0, 0.25]))
    notes = []
    while position < sung - 0.24:
        lengths = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
        weights = np.array([0.45 * busy, 0.9 * busy + 0.2, 0.25, 0.8 - 0.4 * busy, 0.3 - 0.2 * busy, 0.25 - 0.2 * busy])
        if position % 0.5:
            weights[3:] *= 0.2
        length = float(rng.choice(lengths, p=weights / weights.sum()))
        length = min(length, sung - position)
        notes.append((position, length))
        position += length
    if notes and rng.random() < 0.6:  # the last note is held
        beat, length = notes[-1]
        notes[-1] = (beat, min(length + float(rng.choice([0.5, 1.0])), beats - beat - 0.1))
    return notes


def sung_line(
    section: Section, score: Score, low: int, high: int, words: list[Sounds], busy: float, rng: np.random.Generator
) -> list[Sung]:
    """A melody of phrases A A' B A'' over a section, within the singer's range from `low` to `high`."""
    scale = score.scale
    phrase_bars = 2 if section.bars % 2 == 0 else 1
    beats = phrase_bars * score.bar_beats
    centre = low + (high - low) * (0.4 + 0.25 * section.energy)
    motifs = []
    for _ in range(2):
        rhythm = _phrase_rhythm(beats, busy, rng)
        moves = [int(rng.choice([-3, -2, -1, -1, 0, 0, 1, 1, 2, 4])) for _ in rhythm]
        text = [words[int(rng.integers(len(words)))] for _ in rhythm]
        motifs.append((rhythm, moves, text))
    line: list[Sung] = []
    for index in range(section.bars // phrase_bars):
        rhythm, moves, text = motifs[1 if index % 4 == 2 else 0]
        if rng.random() < 0.5:
            text = [words[int(rng.integers(len(words)))] for _ in rhythm]
        start = (section.bar + index * phrase_bars) * score.bar_beats
        pitch = nearest_in(score.chord_at(start).pitch_classes, centre + rng.normal(0, 2))
        if rng.random() < 0.12:
            continue
        for order, ((beat, length), move, syllable) in enumerate(zip(rhythm, moves, text, strict=True)):
            changed = move if rng.random() < 0.85 else int(rng.choice([-1, 1, 2]))
            pitch = scale_step(scale, pitch, changed) if changed else pitch
            if not low <= pitch <= high:
                pitch = nearest_in(scale, centre)
            if beat % 1 == 0 or order == len(rhythm) - 1:
                pitch = nearest_in(score.chord_at(start + beat).pitch_classes, pitch)
            velocity = float(np.clip(0.7 + 0.2 * section.energy + rng.normal(0, 0.07), 0.4, 1.0))
            line.append(Sung(start + beat, length, pitch, velocity, *syllable, phrase_start=order == 0))
            if length >= 1.0 and rng.random() < 0.15:  # two notes on one vowel
                line[-1] = replace(line[-1], beats=length / 2, coda=())
                turn = scale_step(scale, pitch, int(rng.choice([-1, 1])))
                line.append(
                    Sung(start + beat + length / 2, length / 2, turn, velocity, (), syllable[1][-1:], syllable[2])
                )
    return line


def rap_line(section: Section, score: Score, low: int, words: list[Sounds], rng: np.random.Generator) -> list[Sung]:
    """Rhythmic speech: sixteenths and eighths around a low pitch that wanders and falls at the end of a line."""
    line: list[Sung] = []
    bar_beats = score.bar_beats
    for bar in range(section.bars):
        position, start = float(rng.choice([0.0, 0.25, 0.5])), (section.bar + bar) * bar_beats
        end = bar_beats - float(rng.choice([0.0, 0.25, 0.5, 1.0]))
        first = True
        while position < end - 0.2:
            length = float(rng.choice([0.25, 0.25, 0.5, 1 / 3]))
            if rng.random() < 0.08:
                position += 0.25
            fall = -3.0 * (position / bar_beats)
            pitch = low + 5 + fall + rng.normal(0, 1.6)
            syllable = words[int(rng.integers(len(words)))]
            line.append(Sung(start + position, length, float(pitch), 0.85, *syllable, phrase_start=first))
            position, first = position + length, False
    return line


def harmony_of(line: list[Sung], scale: tuple[int, ...], steps: int) -> list[Sung]:
    """The line moved along the scale: thirds above or below for backing voices."""
    return [replace(note, pitch=scale_step(scale, nearest_in(scale, note.pitch), steps)) for note in line]


def backing_chords(section: Section, score: Score, centre: float, voice: int, vowel: str) -> list[Sung]:
    """Held vowels on chord tones: "ooh" and "aah" behind the lead."""
    line = []
    for chord in score.chords_of(section):
        classes = chord.pitch_classes
        pitch = nearest_in((classes[voice % len(classes)],), centre + 3 * voice)
        line.append(Sung(chord.beat, chord.beats * 0.95, pitch, 0.6, (), (vowel,), (), phrase_start=True))
    return line
