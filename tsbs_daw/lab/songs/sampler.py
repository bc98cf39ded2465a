"""Parts played on sound fonts."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.kits import group_of
from tsbs_daw.lab.songs.score import Part, Score
from tsbs_daw.lab.songs.soundfont import DRUM_KEYS, play_font

HIT_S = 0.3  # a drum rings out by itself; the key is only held long enough to start it


def _strength(velocity: float) -> int:
    return int(np.clip(round(24 + 103 * velocity), 1, 127))


def play_font_part(part: Part, score: Score, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A pitched part on the font and program of its timbre: (2, samples) float32."""
    notes = []
    for note in part.events:
        start_s = max(score.seconds(note.beat) + float(rng.normal(0.0, 0.004)), 0.0)
        end_s = max(score.seconds(note.beat + note.beats), start_s + 0.04)
        if start_s < score.duration_s and 0 <= round(note.pitch) <= 127:
            notes.append((start_s, end_s, round(note.pitch), _strength(note.velocity)))
    return play_font(notes, part.timbre["font"], part.timbre["program"], samples)


def play_font_kit(part: Part, score: Score, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A drum part on a font's kit, one (2, samples) signal per mixing group."""
    keys = {piece: int(choices[int(rng.integers(len(choices)))]) for piece, choices in DRUM_KEYS.items()}
    notes: dict[str, list] = {"kick": [], "snare": [], "top": []}
    for hit in part.events:
        start_s = score.seconds(hit.beat) + abs(float(rng.normal(0.0, 0.003)))
        if start_s < score.duration_s:
            notes[group_of(hit.piece)].append((start_s, start_s + HIT_S, keys[hit.piece], _strength(hit.velocity)))
    font, program = part.timbre["font"], part.timbre["program"]
    return {name: play_font(events, font, program, samples, drums=True) for name, events in notes.items()}
