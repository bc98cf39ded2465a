"""The recorded instruments by name, which of them can play what a style asks for, and the sampler that plays them.

The sampler takes the nearest recorded note at the nearest velocity, resamples it to its pitch and cuts it to its
length. It also plays recorded vowels as choirs, whose many voices no vocoder keeps apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.speakers import Speakers

ATTACK_S = 0.0006  # recordings begin at the stroke; the shortest ramp that does not click
END_S = 0.02  # fade where a recording is cut by its own end
SAME_NOTE = 0.5  # semitones within which two recordings count as takes of one note
SAME_LAYER = 0.06  # velocities within which two recordings count as one layer
SOFTEST = 0.15  # velocity 0 still sounds


@dataclass(frozen=True)
class Bend:
    """How the pitch moves within a note: it starts `semitones` away, arrives within `seconds`, then may vibrate."""

    semitones: float = 0.0
    seconds: float = 0.1
    vibrato_cents: float = 0.0
    vibrato_hz: float = 5.5
    vibrato_after_s: float = 0.25


class Sampler:
    """Plays one instrument out of its recordings. Takes of the same note and layer alternate."""

    def __init__(self, material: Material, recordings: list[Recording]):
        self._material = material
        self._recordings = [recording for recording in recordings if recording.pitch is not None]
        self._pitches = np.array([recording.pitch for recording in self._recordings])
        self._shifted: dict[tuple[str, int, int], np.ndarray] = {}
        self._turns: dict[tuple[int, int], int] = {}

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest recorded pitch."""
        return float(self._pitches.min()), float(self._pitches.max())

    def choose(self, pitch: float, velocity: float) -> Recording:
        """The recording of the nearest note, of its nearest layer, the next of its takes."""
        nearest = self._pitches[int(np.argmin(np.abs(self._pitches - pitch)))]
        near = [recording for recording in self._recordings if abs(recording.pitch - nearest) <= SAME_NOTE]
        layer = min(near, key=lambda recording: abs(recording.velocity - velocity)).velocity
        takes = [recording for recording in near if abs(recording.velocity - layer) <= SAME_LAYER]
        key = (round(pitch), round(layer * 100))
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        return takes[turn % len(takes)]

    def play(
        self, pitch: float, velocity: float, held_s: float, release_s: float = 0.08, bend: Bend | None = None
    ) -> np.ndarray:
        """One note: (channels, samples) float32, from silence to silence.

        Args:
            pitch: MIDI number; fractions are cents
            velocity: 0..1; chooses the layer, and scales the level by what the layer differs from it
            held_s: seconds until the release begins; a recording that ends earlier ends by itself
            release_s: seconds the release takes
            bend: how the pitch moves within the note
        """
        recording = self.choose(pitch, velocity)
        length = max(int((held_s + release_s) * SAMPLE_RATE), 64)
        shift = pitch - (recording.pitch or 0.0)  # only recordings with a pitch are kept
        sound = self._bent(recording, shift, length, bend) if bend else self._steady(recording, shift, length)
        level = np.clip((velocity + SOFTEST) / (recording.velocity + SOFTEST), 0.35, 2.0)
        return shape(sound, held_s, release_s) * np.float32(level)

    def _steady(self, recording: Recording, shift: float, length: int) -> np.ndarray:
        half_seconds = int(np.ceil(2 * length / SAMPLE_RATE))
        key = (recording.path, round(shift * 100), half_seconds)
        if key not in self._shifted:
            ratio = 2.0 ** (shift / 12.0)
            source = self._material.audio(recording, half_seconds / 2 * ratio)
            self._shifted[key] = transpose(source, ratio)
        return self._shifted[key][:, :length]

    def _bent(self, recording: Recording, shift: float, length: int, bend: Bend) -> np.ndarray:
        time_s = np.arange(length) / SAMPLE_RATE
        curve = shift + bend.semitones * (0.5 + 0.5 * np.cos(np.pi * np.minimum(time_s / bend.seconds, 1.0)))
        if bend.vibrato_cents:
            depth = bend.vibrato_cents / 100 * np.clip((time_s - bend.vibrato_after_s) / 0.3, 0.0, 1.0)
            curve = curve + depth * np.sin(2 * np.pi * bend.vibrato_hz * time_s)
        position = np.concatenate([[0.0], np.cumsum(2.0 ** (curve[:-1] / 12.0))])
        return read_at(self._material.audio(recording, position[-1] / SAMPLE_RATE + 0.01), position)


def transpose(sound: np.ndarray, ratio: float) -> np.ndarray:
    """(channels, samples) played `ratio` times as fast, so that much higher, without aliases."""
    if abs(ratio - 1.0) < 1e-5:
        return sound
    out = soxr.resample(np.ascontiguousarray(sound.T), SAMPLE_RATE * ratio, SAMPLE_RATE, quality="MQ")
    return out.reshape(-1, sound.shape[0]).T


def read_at(sound: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(channels, samples) read at rising fractional positions by cubic interpolation, up to the end of the sound."""
    position = position[position < sound.shape[1] - 3]
    index = position.astype(np.int64)
    part = (position - index).astype(np.float32)
    padded = np.pad(sound, ((0, 0), (1, 2)))
    before, here, after, beyond = (padded[:, index + step] for step in range(4))
    slope, next_slope = 0.5 * (after - before), 0.5 * (beyond - here)
    rest = here - after
    return (((2 * rest + slope + next_slope) * part - 3 * rest - 2 * slope - next_slope) * part + slope) * part + here


def shape(sound: np.ndarray, held_s: float, release_s: float, attack_s: float = ATTACK_S) -> np.ndarray:
    """A copy that rises from zero and falls to zero: at the release, or where the recording itself ends."""
    held = int(held_s * SAMPLE_RATE)
    shaped = sound[:, : held + max(int(release_s * SAMPLE_RATE), 32)].copy()
    length = shaped.shape[1]
    rise = min(max(int(attack_s * SAMPLE_RATE), 1), length)
    shaped[:, :rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)
    fall = length - held
    if fall > 0:
        along = np.arange(1, fall + 1, dtype=np.float32) / np.float32(max(int(release_s * SAMPLE_RATE), 32))
        shaped[:, held:] *= np.exp(-4.0 * along) * np.maximum(1.0 - along, 0.0)
    end = min(int(END_S * SAMPLE_RATE), length)
    shaped[:, length - end :] *= np.linspace(1, 0, end, dtype=np.float32)
    return shaped


RISE_S, FALL_S = 0.06, 0.15


def resampled(audio: np.ndarray, factor: float, quality: str = "HQ") -> np.ndarray:
    """(samples,) played `factor` times as fast, by soxr at one of its qualities."""
    if abs(factor - 1.0) < 1e-6:
        return audio
    return soxr.resample(audio, SAMPLE_RATE * factor, SAMPLE_RATE, quality=quality).astype(np.float32)


def choir(
    line: Sequence[Sung],
    pool: Sequence[Recording],
    speakers: Speakers,
    score: Score,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """A line on the recordings nearest in pitch, each resampled to its note: (samples,) float32."""
    output = np.zeros(samples, dtype=np.float32)
    for note in line:
        recording = min(pool, key=lambda r: abs(r.row["note"] - note.pitch) + 0.3 * rng.random())
        shift = note.pitch - float(recording.row.get("measured") or recording.row["note"])
        octave = 12 * round(shift / 12) if abs(shift) > 7 else 0  # sung an octave away rather than squeaked
        sound = resampled(speakers.voice(recording).audio, 2.0 ** ((shift - octave) / 12))
        begin_s, end_s = score.seconds(note.beat), score.seconds(note.beat + note.beats)
        length = min(int((end_s - begin_s + FALL_S) * SAMPLE_RATE), len(sound))
        time_s = np.arange(length) / SAMPLE_RATE
        left_s = length / SAMPLE_RATE - time_s
        shape = np.sin(0.5 * np.pi * np.clip(time_s / RISE_S, 0, 1)) * np.sin(
            0.5 * np.pi * np.clip(left_s / FALL_S, 0, 1)
        )
        start = int((begin_s + float(rng.normal(0, 0.015))) * SAMPLE_RATE)
        add_at(output, start, (note.velocity * sound[:length] * shape).astype(np.float32))
    return output


@dataclass(frozen=True)
class Instrument:
    """Recordings that belong together, and how they are played.

    Attributes:
        source, kind, articulations: which recordings; without articulations, all of that kind
        release_s: how long a note takes to fall silent once it is let go
        mono: one note at a time; the next one ends the one before
        direct: recorded from the pickup, so it sounds through an amplifier
        chords: every recording is a chord named by its root
        muted: the instrument of its short, damped notes
        noises: (source, kind) of strokes without pitch that players put between the notes
        bends: notes can slide, bend and vibrate
    """

    source: str
    kind: str
    articulations: tuple[str, ...] = ()
    release_s: float = 0.08
    mono: bool = False
    direct: bool = False
    chords: bool = False
    muted: str = ""
    noises: tuple[str, str] | None = None
    bends: bool = False


def _bass(source: str, *articulations: str, kind: str = "bass-note", muted: str = "", noises=None) -> Instrument:
    return Instrument(source, kind, articulations, release_s=0.06, mono=True, muted=muted, noises=noises, bends=True)


def _synth_bass(source: str, *articulations: str) -> Instrument:
    return Instrument(source, "bass-synth-note", articulations, release_s=0.05, mono=True, bends=True)


_SWAG_NOISES = ("swagbass", "bass-noise")
BASSES = {
    "flatwound fingered": _bass("swagbass", "fingered-flat", noises=_SWAG_NOISES),
    "electric fingered": _bass("electric-bass-yr", "finger"),
    "electric picked": _bass("electric-bass-yr", "pick"),
    "growling": _bass("growlybass", "sustain", muted="growling staccato"),
    "growling staccato": _bass("growlybass", "staccato"),
    "round": _bass("pastabass", "round", muted="picked muted", noises=_SWAG_NOISES),
    "picked": _bass("pastabass", "flat-picked", muted="picked muted"),
    "picked muted": _bass("pastabass", "flat-picked-muted"),
    "six-string fingered": _bass("pastabass", "flat-fingered", muted="picked muted"),
    "double pizzicato": _bass("meatbass", "double-pizz"),
    "double fingered": _bass("sneakybass", "double-finger", noises=("sneakybass", "bass-ghost")),
    "double plucked": _bass("sneakybass", "double-pluck", noises=("sneakybass", "bass-ghost")),
    "rubber band": _bass("berklee-bass", "rubberband_bass", "bass_string"),
    "fm double": _bass("berklee-bass", "FM_doublebass", "reverb_double_bass"),
    "zyn": _synth_bass("synth-bass-1"),
    "lately": _synth_bass("lately-bass"),
    "long synth": _synth_bass("berklee-bass", "Longsynth", "syn_bass"),
    "fuzz synth": _synth_bass("berklee-bass", "fuzz_bass"),
    "resonant synth": _synth_bass("berklee-bass", "reso_bass"),
    **{
        f"{name} synth": _synth_bass("sonic-pi-bass", f"bass_{name}")
        for name in ("dnb_f", "drop_c", "hard_c", "hit_c", "thick_c", "trance_c", "voxy_c", "voxy_hit_c", "woodsy_c")
    },
}
_SYNTH_BASSES = tuple(name for name, instrument in BASSES.items() if instrument.kind == "bass-synth-note")
BASS_PLAYERS = {
    "finger": ("flatwound fingered", "electric fingered", "six-string fingered", "round", "growling"),
    "pick": ("picked", "electric picked", "round", "growling", "picked muted"),
    "slap": ("growling staccato", "round", "electric picked", "growling"),
    "upright": (
        "double pizzicato",
        "double pizzicato",
        "double fingered",
        "double plucked",
        "fm double",
        "rubber band",
    ),
    "drive": ("growling", "picked", "electric picked"),
    "sub": ("lately", "zyn", "drop_c synth", "hit_c synth", "long synth"),
    "808": ("drop_c synth", "hit_c synth", "voxy_hit_c synth", "lately"),
    "reese": ("dnb_f synth", "thick_c synth", "fuzz synth", "zyn"),
    **dict.fromkeys(("saw", "square", "fm"), _SYNTH_BASSES),
}


def _guitar(source: str, kind: str, *articulations: str, direct: bool = False, noises=None) -> Instrument:
    return Instrument(source, kind, articulations, release_s=0.07, direct=direct, noises=noises, bends=True)


def _berklee(kind: str, *articulations: str, release_s: float = 0.25, bends: bool = False, mono: bool = False):
    return Instrument("berklee-other", kind, articulations, release_s=release_s, bends=bends, mono=mono)


OTHERS = {
    "direct guitar": _guitar("emilyguitar", "guitar-clean-note", direct=True, noises=("emilyguitar", "guitar-noise")),
    "stratocaster": _guitar("nyanshell-strat", "guitar-clean-note", direct=True),
    "archtop pickup": _guitar("shinyguitar", "guitar-clean-note", direct=True),
    "archtop": _guitar("shinyguitar", "guitar-acoustic-note"),
    "nylon guitar": _guitar("spanish-guitar", "guitar-acoustic-note"),
    "plain guitar": _guitar("berklee-other", "guitar-acoustic-note"),
    "power chords": Instrument(
        "power-chords", "guitar-dist-chord", release_s=0.06, mono=True, chords=True, muted="palm mutes"
    ),
    "palm mutes": Instrument("power-chords", "guitar-dist-palm-mute", release_s=0.04, mono=True, chords=True),
    "electric grand": Instrument("e-pianos", "keys-note", ("cp80",), release_s=0.15),
    "wurlitzer": Instrument("e-pianos", "keys-note", ("wurlitzer",), release_s=0.1),
    "pianet": Instrument("e-pianos", "keys-note", ("pianet",), release_s=0.08),
    "upright piano": Instrument("ion-piano", "keys-note", release_s=0.15),
    "grand piano": _berklee("keys-note"),
    "prepared piano": _berklee("keys-prepared"),
    "soprano sax": Instrument("mtg-sax", "sax-note", ("soprano-sax",), mono=True, bends=True),
    "alto sax": Instrument("mtg-sax", "sax-note", ("alto-sax",), mono=True, bends=True),
    "tenor sax": Instrument("mtg-sax", "sax-note", ("tenor-sax",), mono=True, bends=True),
    "baritone sax": Instrument("mtg-sax", "sax-note", ("baritone-sax",), mono=True, bends=True),
    "saxes": Instrument("mtg-sax", "sax-note"),
    "bells": _berklee("bell-note", "bell", "bell_hits", "tinybell", "templebell"),
    "music box": _berklee("bell-note", "music_box_tone"),
    "glass": _berklee("glass-note", release_s=0.4),
    "kalimba": _berklee("mallet-note", "kalimba", "Kalimba"),
    "bamboo": _berklee("mallet-note", "bamboo_c3", "bamboonaphone", "bamboo_a3", "bamboo_a#4", "bamboo_c#5"),
    "sitar": _berklee("plucked-note", "sitar", bends=True),
    "banjo": _berklee("plucked-note", "banjo_pin", release_s=0.1),
    "bowed strings": _berklee("bowed", release_s=0.15),
    "flutes": _berklee("wind-note", "flute_harmonics", "coocoo_flute", "recorder_harmonics", release_s=0.1, mono=True),
    "khaen": _berklee("wind-note", "khaen_honk", "khaen_lo", release_s=0.1),
    "theremin": _berklee("theremin", release_s=0.2, bends=True, mono=True),
    "synth brass": _berklee("synth-brass", release_s=0.12),
    "string pad": _berklee("pad", "string_pad", release_s=0.5),
    "eerie pad": _berklee("pad", "eerie_synth", release_s=0.5),
    "analogue pad": _berklee("pad", "groovin_analogsynth", release_s=0.4),
    "ambient pad": Instrument("sonic-pi-other", "pad", release_s=0.6),
    "fifths": _berklee("synth-chord", "synth_in_5ths"),
    "minor thirds": _berklee("synth-chord", "synth_in_minor_thirds"),
    "wacky synth": _berklee("synth-chord", "wacky_synth"),
    "long synth": _berklee("synth-note", "Longsynth", "synthdrone_octave", bends=True),
    "short synth": _berklee("synth-note", "Shortsynth_mid", "ping", release_s=0.08, bends=True),
    "blips": Instrument("sonic-pi-other", "synth-note", release_s=0.1),
}
_DIRECT = ("direct guitar", "stratocaster", "archtop pickup")
_PADS = ("string pad", "eerie pad", "analogue pad", "ambient pad", "fifths")
_SYNTHS = ("long synth", "short synth", "blips", "wacky synth", "analogue pad")
_BELLS = ("bells", "music box", "kalimba", "glass")
OTHER_PLAYERS = {
    "steel": ("archtop", "archtop", "plain guitar", "nylon guitar"),
    "nylon": ("nylon guitar", "nylon guitar", "archtop"),
    "clean": _DIRECT,
    "overdrive": _DIRECT,
    "distorted": (*_DIRECT, "power chords"),
    "piano": ("electric grand", "electric grand", "upright piano", "grand piano"),
    "epiano": ("wurlitzer", "wurlitzer", "pianet", "electric grand"),
    "clav": ("pianet", "prepared piano", "archtop pickup"),
    "organ": ("long synth", "khaen", "string pad"),
    "accordion": ("khaen", "saxes"),
    "harmonica": ("soprano sax", "khaen"),
    "strings": ("string pad", "bowed strings", "string pad"),
    "fiddle": ("bowed strings", "soprano sax", "theremin"),
    "harp": ("nylon guitar", "music box", "kalimba"),
    "brass": ("synth brass", "baritone sax", "saxes"),
    "sax": ("alto sax", "tenor sax", "soprano sax", "baritone sax"),
    "clarinet": ("soprano sax", "alto sax", "flutes"),
    "flute": ("flutes", "soprano sax", "theremin"),
    "whistle": ("flutes", "theremin", "glass"),
    "pluck": ("sitar", "banjo", "short synth", "prepared piano", "kalimba"),
    **dict.fromkeys(("bell", "vibes", "kalimba"), _BELLS),
    "marimba": ("bamboo", "kalimba"),
    **dict.fromkeys(("warm", "supersaw"), _PADS),
    **dict.fromkeys(("saw", "square", "pulse", "fm"), _SYNTHS),
}


def instrument(stem: str, name: str) -> Instrument:
    """An instrument of the table."""
    return (BASSES if stem == "bass" else OTHERS)[name]


def recordings_of(material: Material, stem: str, name: str) -> list[Recording]:
    """The pitched recordings of an instrument that the pack has; none when it is not in the pack."""
    entry = instrument(stem, name)
    found = material.select(entry.source, entry.kind, entry.articulations)
    return [recording for recording in found if recording.pitch is not None]


def playable(material: Material, stem: str, family: str | None = None) -> list[str]:
    """Names of the instruments that can stand in for a family, or all of a stem, as far as the pack has them."""
    table, players = (BASSES, BASS_PLAYERS) if stem == "bass" else (OTHERS, OTHER_PLAYERS)
    names = players.get(family, ()) if family is not None else tuple(table)
    return [name for name in names if recordings_of(material, stem, name)]
