"""What a song is before it sounds: notes, hits, syllables, parts and sections, all in beats; and its harmony."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE

STEMS = ("vocals", "drums", "bass", "other")


@dataclass(frozen=True)
class Note:
    """One note of an instrument."""

    beat: float
    beats: float
    pitch: float  # MIDI number; fractions are cents
    velocity: float  # 0..1
    glide_from: float | None = None  # MIDI pitch where a slide into this note begins


@dataclass(frozen=True)
class Hit:
    """One stroke on a drum kit."""

    beat: float
    piece: str  # "kick", "snare", ...
    velocity: float


@dataclass(frozen=True)
class Sung:
    """One syllable on one note."""

    beat: float
    beats: float
    pitch: float
    velocity: float
    onset: tuple[str, ...]  # consonants before the vowel
    vowel: tuple[str, ...]  # one vowel, or two for a diphthong
    coda: tuple[str, ...]
    phrase_start: bool = False


@dataclass(frozen=True)
class Part:
    """One performer, with its stem and its timbre (plain values only)."""

    name: str
    stem: str
    events: tuple
    timbre: dict
    mix: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A named section of bars, with the parts that play in it."""

    name: str
    bar: int
    bars: int
    energy: float  # 0..1
    playing: frozenset[str]  # names of the roles that play


@dataclass(frozen=True)
class Chord:
    """A chord that sounds from `beat` on."""

    beat: float
    beats: float
    root: int  # pitch class
    intervals: tuple[int, ...]  # semitones above the root, rising from 0
    name: str

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        return tuple((self.root + interval) % 12 for interval in self.intervals)


@dataclass(frozen=True)
class Score:
    """A whole song, as written."""

    seed: int
    style: str
    tonic: int  # pitch class
    mode: str
    scale: tuple[int, ...]  # pitch classes
    tempo_bpm: float
    bar_beats: int
    meter: str
    swing: float  # 0.5 straight .. 0.67 triplet
    swing_unit: float  # beats of the pair that swings is 2 * swing_unit
    sections: tuple[Section, ...]
    chords: tuple[Chord, ...]
    parts: tuple[Part, ...]
    duration_s: float

    def beats_of(self, section: Section) -> tuple[int, int]:
        """A section's first beat, and the one after its last."""
        return section.bar * self.bar_beats, (section.bar + section.bars) * self.bar_beats

    def chords_of(self, section: Section) -> Iterator[Chord]:
        """The chords that begin in a section."""
        first, end = self.beats_of(section)
        return (chord for chord in self.chords if first <= chord.beat < end)

    def chord_at(self, beat: float) -> Chord:
        """The chord that sounds at a beat; after the song's end, its last."""
        for chord in self.chords:
            if chord.beat <= beat + 1e-6 < chord.beat + chord.beats:
                return chord
        return self.chords[-1]

    def seconds(self, beat: float) -> float:
        """Time of a beat, swing included."""
        pair = 2.0 * self.swing_unit
        within = beat % pair
        if within < self.swing_unit:
            warped = within * 2.0 * self.swing
        else:
            warped = pair * self.swing + (within - self.swing_unit) * 2.0 * (1.0 - self.swing)
        return (beat - within + warped) * 60.0 / self.tempo_bpm


NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
}

# Scale degrees, 0 is the tonic chord; one entry per bar (or half bar when the harmony moves quickly).
PROGRESSIONS = {
    "major": (
        (0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 4, 3), (0, 3, 0, 4), (3, 0, 4, 5), (1, 4, 0, 0), (0, 2, 3, 4),
        (0, 4, 1, 3), (0, 0, 3, 3), (3, 4, 2, 5), (0, 4, 5, 2, 3, 0, 3, 4), (0, 5, 1, 4), (0, 1, 2, 3), (0, 2, 5, 3),
        (0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (3, 3, 0, 0), (5, 4, 3, 4),
    ),
    "minor": (
        (0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 5, 3, 4), (0, 2, 6, 3), (0, 0, 5, 6), (5, 6, 0, 0), (0, 3, 6, 2),
        (0, 6, 5, 4), (0, 4, 5, 3), (0, 0, 3, 3), (0, 6, 3, 5), (3, 0, 4, 0), (0, 2, 5, 4), (0, 0, 0, 0), (5, 2, 0, 6),
    ),
    "modal": ((0, 3), (0, 6, 3, 0), (0, 6), (0, 1), (0, 0, 6, 3), (0, 3, 0, 6), (0, 0, 3, 6)),
}  # fmt: skip


def scale_of(tonic: int, mode: str) -> tuple[int, ...]:
    """Pitch classes of a scale, from its tonic up."""
    return tuple((tonic + step) % 12 for step in MODES[mode])


def chord_on(tonic: int, mode: str, degree: int, colour: str, beat: float, beats: float) -> Chord:
    """The chord on a scale degree. colour: triad, seventh, ninth, sus2, sus4, power, add9, sixth."""
    steps = MODES[mode]
    seven = [steps[(degree + offset) % 7] + 12 * ((degree + offset) // 7) for offset in (0, 2, 4, 6, 8)]
    root = seven[0]
    third, fifth, seventh, ninth = (value - root for value in seven[1:])
    second, fourth = ninth - 12, steps[(degree + 3) % 7] + 12 * ((degree + 3) // 7) - root
    shapes = {
        "triad": (0, third, fifth),
        "seventh": (0, third, fifth, seventh),
        "ninth": (0, third, fifth, seventh, ninth),
        "sus2": (0, second, fifth),
        "sus4": (0, fourth, fifth),
        "power": (0, fifth, 12),
        "add9": (0, third, fifth, ninth),
        "sixth": (0, third, fifth, 9),
    }
    intervals = shapes[colour]
    quality = {(4, 7): "", (3, 7): "m", (3, 6): "dim", (4, 8): "aug"}.get((third, fifth), "")
    suffix = {"triad": "", "seventh": "7", "ninth": "9", "power": "5"}.get(colour, colour)
    name = f"{NOTE_NAMES[(tonic + root) % 12]}{'' if colour in ('power', 'sus2', 'sus4') else quality}{suffix}"
    return Chord(beat, beats, (tonic + root) % 12, tuple(sorted(set(intervals))), name)


def voice_chord(chord: Chord, centre: float, previous: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    """Pitches of a chord near `centre`, moving as little as possible from the previous voicing."""
    classes = [(chord.root + interval) % 12 for interval in chord.intervals][: max(size, 3)]
    target = float(np.mean(previous)) * 0.7 + centre * 0.3 if previous else centre
    best: tuple[float, tuple[int, ...]] | None = None
    for rotation in range(len(classes)):
        order = classes[rotation:] + classes[:rotation]
        for base in (int(centre) - 14, int(centre) - 8, int(centre) - 2):
            pitches: list[int] = []
            low = base
            for pitch_class in order:
                low += (pitch_class - low) % 12
                pitches.append(low)
                low += 1
            while len(pitches) < size:
                pitches.append(pitches[len(pitches) - len(order)] + 12)
            cost = abs(float(np.mean(pitches)) - target)
            if best is None or cost < best[0]:
                best = (cost, tuple(pitches))
    return best[1] if best else ()


def nearest_in(pitch_classes, pitch: float) -> int:
    """The MIDI pitch nearest to `pitch` whose class is among `pitch_classes`."""
    candidates = [round(pitch) + offset for offset in range(-7, 8)]
    allowed = [candidate for candidate in candidates if candidate % 12 in pitch_classes]
    return min(allowed, key=lambda candidate: (abs(candidate - pitch), candidate))


def scale_step(scale: tuple[int, ...], pitch: int, steps: int) -> int:
    """Move along the scale by whole steps."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while pitch % 12 not in scale:
            pitch += direction
    return pitch


def truth_of(score: Score) -> dict:
    """What is known of a song: seed, key, tempo, beats, chords, sections and timbres; times in seconds."""
    beats = int(score.duration_s * score.tempo_bpm / 60.0)
    beat_s = 60.0 / score.tempo_bpm
    return {
        "schema": 1,
        "seed": score.seed,
        "sample_rate": SAMPLE_RATE,
        "duration_s": score.duration_s,
        "style": score.style,
        "key": f"{NOTE_NAMES[score.tonic]} {score.mode}",
        "tonic": score.tonic,
        "mode": score.mode,
        "tempo_bpm": score.tempo_bpm,
        "meter": score.meter,
        "swing": score.swing,
        "beats_s": [round(number * beat_s, 6) for number in range(beats + 1)],
        "downbeats_s": [round(number * beat_s, 6) for number in range(0, beats + 1, score.bar_beats)],
        "chords": [
            {
                "start_s": round(chord.beat * beat_s, 6),
                "end_s": round((chord.beat + chord.beats) * beat_s, 6),
                "name": chord.name,
            }
            for chord in score.chords
        ],
        "sections": [
            {
                "name": section.name,
                "start_s": round(section.bar * score.bar_beats * beat_s, 6),
                "bars": section.bars,
                "playing": sorted(section.playing),
            }
            for section in score.sections
        ],
        "parts": [
            {"name": part.name, "stem": part.stem, "events": len(part.events), **part.timbre}
            for part in score.parts
            if part.events
        ],
    }
