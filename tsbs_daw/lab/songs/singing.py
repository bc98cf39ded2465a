"""Sung and rapped lines: phrases, rhythm, contour, and words made of syllables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.lab.songs.score import Score, Section, Sung, nearest_in, scale_step

ONSETS = (
    (),
    ("s",),
    ("t",),
    ("k",),
    ("p",),
    ("b",),
    ("d",),
    ("g",),
    ("m",),
    ("n",),
    ("l",),
    ("r",),
    ("w",),
    ("y",),
    ("f",),
    ("v",),
    ("h",),
    ("sh",),
    ("ch",),
    ("j",),
    ("th",),
    ("dh",),
    ("z",),
    ("s", "t"),
    ("t", "r"),
    ("s", "k"),
    ("b", "r"),
    ("f", "l"),
    ("k", "l"),
    ("p", "l"),
    ("g", "r"),
    ("s", "l"),
    ("d", "r"),
    ("k", "r"),
    ("s", "t", "r"),
)
ONSET_WEIGHTS = np.array(
    [3, 2.5, 3, 2, 1.5, 2, 2.5, 1.5, 3, 3, 3, 2, 2.5, 2, 1.5, 1, 2, 1.2, 0.8, 0.8, 1.2, 2, 0.6] + [0.35] * 12
)
VOWELS = (
    ("ah",),
    ("eh",),
    ("ee",),
    ("oh",),
    ("oo",),
    ("ae",),
    ("uh",),
    ("ih",),
    ("aw",),
    ("er",),
    ("ah", "ih"),
    ("eh", "ih"),
    ("oh", "oo"),
    ("ah", "oo"),
    ("aw", "ih"),
)
VOWEL_WEIGHTS = np.array([3, 2.5, 3, 2, 2.5, 1.5, 2.5, 2, 1.2, 1, 2, 2, 2, 1, 0.4])
CODAS = (
    (),
    ("n",),
    ("m",),
    ("t",),
    ("d",),
    ("s",),
    ("l",),
    ("r",),
    ("k",),
    ("z",),
    ("v",),
    ("ng",),
    ("s", "t"),
    ("n", "d"),
    ("n", "t"),
)
CODA_WEIGHTS = np.array([8, 1.6, 1, 1.5, 1, 1.3, 1, 1, 0.7, 0.8, 0.5, 0.8, 0.4, 0.5, 0.4])


def lexicon(rng: np.random.Generator, size: int) -> list[tuple[tuple, tuple, tuple]]:
    """Syllables this song's words are made of."""

    def pick(options, weights):
        return options[int(rng.choice(len(options), p=weights / weights.sum()))]

    return [(pick(ONSETS, ONSET_WEIGHTS), pick(VOWELS, VOWEL_WEIGHTS), pick(CODAS, CODA_WEIGHTS)) for _ in range(size)]


def _rhythm(beats: int, busy: float, rng: np.random.Generator) -> list[tuple[float, float]]:
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
    section: Section, score: Score, low: int, high: int, words: list, busy: float, rng: np.random.Generator
) -> list[Sung]:
    """A melody of phrases A A' B A'' over a section, within the singer's range from `low` to `high`."""
    scale = score.scale
    phrase_bars = 2 if section.bars % 2 == 0 else 1
    beats = phrase_bars * score.bar_beats
    centre = low + (high - low) * (0.4 + 0.25 * section.energy)
    motifs = []
    for _ in range(2):
        rhythm = _rhythm(beats, busy, rng)
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


def rap_line(section: Section, score: Score, low: int, words: list, rng: np.random.Generator) -> list[Sung]:
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
