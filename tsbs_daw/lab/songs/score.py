"""What a song is before it sounds: notes, hits, syllables, parts and sections, all in beats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

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
    """One performer. `stem` says where it is heard, `timbre` what it sounds like (plain values only)."""

    name: str
    stem: str
    events: tuple
    timbre: dict
    mix: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A stretch of bars with a name of its own, and who plays in it."""

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
