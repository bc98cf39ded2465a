"""Accompaniment: chords held, struck, strummed, broken into arpeggios, and short melodic riffs."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.score import Chord, Note, Score, Section
from tsbs_daw.lab.songs.theory import nearest_in, scale_step, voice_chord

# Where a chord sounds within a bar of 16 steps: "step+length ..." | another rhythm
_RHYTHM_TEXT = {
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


def _parse(text: str) -> list[list[tuple[int, int]]]:
    rhythms = []
    for rhythm in text.split("|"):
        pairs = [place.split("+") for place in rhythm.split()]
        rhythms.append([(int(step), int(length)) for step, length in pairs])
    return rhythms


RHYTHMS = {name: _parse(text) for name, text in _RHYTHM_TEXT.items()}


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
    choices = RHYTHMS[figure]
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
