"""Every family of built-in pitched timbres by name; a family is a function (name, random stream) -> Timbre."""

from __future__ import annotations

from tsbs_daw.lab.songs import acoustic_timbres, synth_timbres

FAMILIES = {
    "sweep": synth_timbres.sweep,
    **dict.fromkeys(("saw", "square", "pulse", "supersaw"), synth_timbres.synth),
    "warm": synth_timbres.warm,
    "pluck": synth_timbres.pluck,
    **dict.fromkeys(("steel", "nylon", "clean", "overdrive", "distorted"), acoustic_timbres.string),
    **dict.fromkeys(("piano", "harp"), acoustic_timbres.piano),
    "epiano": acoustic_timbres.epiano,
    "clav": acoustic_timbres.clav,
    **dict.fromkeys(("organ", "accordion", "harmonica"), acoustic_timbres.organ),
    **dict.fromkeys(("strings", "fiddle"), acoustic_timbres.bowed),
    "brass": acoustic_timbres.brass,
    **dict.fromkeys(("flute", "whistle", "clarinet", "sax"), acoustic_timbres.wind),
    "fm": synth_timbres.fm,
    **dict.fromkeys(("bell", "vibes", "marimba", "kalimba"), acoustic_timbres.modal),
}
BASS_FAMILIES = {
    **dict.fromkeys(("finger", "pick", "slap", "upright", "drive"), acoustic_timbres.bass_string),
    **dict.fromkeys(("saw", "square", "sub", "808", "reese", "fm"), synth_timbres.bass_synth),
}
