"""The recorded instruments by name, and which of them can play what a style asks for. Data, and how it is looked up."""

from __future__ import annotations

from dataclasses import dataclass

from tsbs_daw.lab.songs.material import Material, Recording


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
