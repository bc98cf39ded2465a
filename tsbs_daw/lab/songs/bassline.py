"""Bass lines over a chord progression."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.score import Note, Score, Section
from tsbs_daw.lab.songs.theory import nearest_in, scale_step

# "step+length kind" in steps of a quarter beat within a bar of four
_FIGURE_TEXT = {
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


def _parse(text: str) -> list[tuple[int, int, str]]:
    notes = []
    for note in text.split(", "):
        place, kind = note.split()
        step, length = place.split("+")
        notes.append((int(step), int(length), kind))
    return notes


_FIGURES = {name: _parse(text) for name, text in _FIGURE_TEXT.items()}


def bass_notes(figure: str, section: Section, score: Score, low: int, rng: np.random.Generator) -> list[Note]:
    """Notes of one section. `low` is the lowest MIDI pitch of the instrument; roots lie within the octave above it."""
    steps_in_bar = score.bar_beats * 4
    pattern = [
        (step, min(length, steps_in_bar - step), kind) for step, length, kind in _FIGURES[figure] if step < steps_in_bar
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
            pitch = _pitch(kind, beat, score, low, rng)
            accent = 1.0 if step % 4 == 0 else 0.85
            glide = None
            if figure == "slides" and notes and rng.random() < 0.35:
                glide = notes[-1].pitch
            shorten = 0.9 if figure not in ("sustained", "slides") else 1.0
            velocity = float(np.clip(accent * (0.7 + 0.2 * section.energy) + rng.normal(0, 0.05), 0.3, 1.0))
            notes.append(Note(beat, beats * shorten, pitch, velocity, glide))
    return notes


def _pitch(kind: str, beat: float, score: Score, low: int, rng: np.random.Generator) -> int:
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
