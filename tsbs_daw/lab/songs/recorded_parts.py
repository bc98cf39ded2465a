"""Bass, guitar, keyboard and wind parts on recordings, as players play: damped, bent, chorded, double-tracked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.lab.songs.amplifier import amplify
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.instruments import Instrument, instrument, recordings_of
from tsbs_daw.lab.songs.material import Material
from tsbs_daw.lab.songs.sampler import Bend, Sampler, shape
from tsbs_daw.lab.songs.score import Note, Part, Score

CHORD_BEATS = 0.06  # notes that start this close together are one chord
SHORT_S = 0.2  # notes up to this long may be damped
REACH = 3.0  # semitones beyond the recorded range before a part moves by an octave


def play_recorded_part(
    part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator
) -> np.ndarray:
    """A part on the recorded instrument named by its timbre: (2, samples) float32.

    The timbre has "instrument", and may have "amp" (see amplifier.py) and "tracks": 2 for two takes, left and right.
    """
    tracks = int(part.timbre.get("tracks", 1))
    output = np.zeros((2, samples), dtype=np.float32)
    for track in range(tracks):
        take = _take(part, score, samples, material, rng)
        if part.timbre.get("amp"):
            take = amplify(take, part.timbre["amp"], rng)
        if tracks == 1:
            output += take
        else:
            side = track % 2
            output[side] += take[side]
            output[1 - side] += np.float32(0.12) * take[1 - side]
    return output


def _take(part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator) -> np.ndarray:
    name = part.timbre["instrument"]
    entry = instrument(part.stem, name)
    open_notes = Sampler(material, recordings_of(material, part.stem, name))
    damped = recordings_of(material, part.stem, entry.muted) if entry.muted else []
    damped_notes = Sampler(material, damped) if damped else None
    damping = float(rng.choice([0.0, 0.3, 0.9])) if damped else 0.0
    output = np.zeros((2, samples), dtype=np.float32)
    notes = _fold(_roots(part.events) if entry.chords else list(part.events), open_notes.range)
    laziness, drift = float(rng.uniform(0.002, 0.007)), 0.0
    starts = [score.seconds(note.beat) for note in notes]
    ends = _ends(notes, score, entry)
    leading = part.mix.get("figure") == "riff" or part.stem == "bass"
    for note, start_s, end_s in zip(notes, starts, ends, strict=True):
        drift = 0.85 * drift + float(rng.normal(0.0, laziness * 0.5))
        held_s = max(end_s - start_s, 0.03)
        start = int(max(start_s + drift + float(rng.normal(0.0, laziness * 0.4)), 0.0) * SAMPLE_RATE)
        if start >= samples:
            continue
        velocity = float(np.clip(note.velocity + rng.normal(0.0, 0.05), 0.08, 1.0))
        player = open_notes
        if damped_notes is not None and held_s < SHORT_S and rng.random() < damping:
            player = damped_notes
        bend = _bend(note, held_s, leading, entry, rng)
        add_at(output, start, _stereo(player.play(note.pitch, velocity, held_s, entry.release_s, bend)))
    if entry.noises:
        _add_noises(output, notes, score, material, entry.noises, rng)
    return output


def _stereo(sound: np.ndarray) -> np.ndarray:
    return np.broadcast_to(sound, (2, sound.shape[1])) if len(sound) == 1 else sound


def _roots(notes: tuple[Note, ...]) -> list[Note]:
    """The lowest note of every chord: what an instrument that is recorded in chords needs to know."""
    roots: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.beat, note.pitch)):
        if roots and note.beat - roots[-1].beat < CHORD_BEATS:
            if note.pitch < roots[-1].pitch:
                roots[-1] = replace(note, beat=roots[-1].beat)
        else:
            roots.append(note)
    return roots


def _fold(notes: list[Note], limits: tuple[float, float]) -> list[Note]:
    """Move the whole part, then single notes, by octaves into an instrument's range."""
    if not notes:
        return notes
    low, high = limits[0] - REACH, limits[1] + REACH
    middle = float(np.median([note.pitch for note in notes]))
    centre = 0.5 * (low + high)
    whole = 12 * round((centre - middle) / 12) if not low <= middle <= high else 0
    folded = []
    for note in notes:
        pitch = note.pitch + whole
        if pitch < low:
            pitch += 12 * int(np.ceil((low - pitch) / 12))
        elif pitch > high:
            pitch -= 12 * int(np.ceil((pitch - high) / 12))
        folded.append(replace(note, pitch=pitch))
    return folded


def _ends(notes: list[Note], score: Score, entry: Instrument) -> list[float]:
    """When each note is let go: at its end, or where the next one needs the same string."""
    ends = [score.seconds(note.beat + note.beats) for note in notes]
    following: dict[int, int] = {}
    for index in range(len(notes) - 1, -1, -1):
        string = 0 if entry.mono else round(notes[index].pitch)
        later = following.get(string)
        if later is not None and notes[later].beat > notes[index].beat + 0.02:
            ends[index] = min(ends[index], score.seconds(notes[later].beat))
        following[string] = index
    return ends


def _bend(note: Note, held_s: float, leading: bool, entry: Instrument, rng: np.random.Generator) -> Bend | None:
    if not entry.bends:
        return None
    if note.glide_from is not None and abs(note.glide_from - note.pitch) <= 12:
        distance = float(np.clip(note.glide_from - note.pitch, -5, 5))
        return Bend(distance, min(0.06 + 0.02 * abs(distance), 0.6 * held_s))
    if not leading or held_s < 0.25:
        return None
    draw = rng.random()
    vibrato = float(rng.uniform(8, 30)) if held_s > 0.5 and rng.random() < 0.5 else 0.0
    if draw < 0.15:
        return Bend(float(rng.choice([-2.0, -1.0, -1.0, 1.0])), float(rng.uniform(0.08, 0.25)), vibrato)
    return Bend(0.0, 0.1, vibrato, float(rng.uniform(4.5, 6.5))) if vibrato else None


def _add_noises(
    output: np.ndarray, notes: list[Note], score: Score, material: Material, which: tuple[str, str], rng
) -> None:
    """Dead strokes on the sixteenth before some notes."""
    strokes = material.select(*which)
    if not strokes or rng.random() < 0.4:
        return
    chance = float(rng.uniform(0.02, 0.15))
    for note in notes:
        if rng.random() < chance and note.beat >= 0.25:
            stroke = strokes[int(rng.integers(len(strokes)))]
            sound = shape(material.audio(stroke, 0.3), 0.12, 0.08) * np.float32(rng.uniform(0.2, 0.6))
            add_at(output, int(score.seconds(note.beat - 0.25) * SAMPLE_RATE), _stereo(sound))
