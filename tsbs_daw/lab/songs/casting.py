"""Who plays a score: built-in timbres, sound fonts and synthesised voices, drawn by seed.

builtin   nothing but numpy and pedalboard
all       built-in timbres mixed with the training fonts and training voices
heldout   only the held-out font and the held-out voice, for tests of what a model never heard

With a material pack, parts are first offered to recordings as SHARES says; what stays built in may still go to a font.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs import soundfont, speech
from tsbs_daw.lab.songs.bank_voice import cast_voices
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.live_voice import cast_live
from tsbs_daw.lab.songs.material import Material
from tsbs_daw.lab.songs.recorded_casting import cast_recorded
from tsbs_daw.lab.songs.score import Part, Score
from tsbs_daw.lab.songs.speakers import Speakers

TIMBRES = ("builtin", "all", "heldout")
# How often a part leaves the built-in timbres when everything is installed.
FONT_SHARE = {"drums": 0.55, "bass": 0.55, "other": 0.65}
SPEECH_SHARE = 0.5
ELECTRONIC_BASSES = ("sub", "808", "reese")


def cast(
    score: Score,
    timbres: str,
    material: Material | None = None,
    voices: Material | None = None,
    speakers: Speakers | None = None,
) -> Score:
    """Give every part its performer.

    Args:
        score: as composed
        timbres: one of TIMBRES
        material: a pack whose recordings play
        voices: a bank that sings
        speakers: of a pack; without a bank they sing the song's own melody
    Raises: UsageError for an unknown choice, or when a program or font it needs is not installed
    """
    if timbres not in TIMBRES:
        raise UsageError(f"There are no timbres named {timbres!r}; choose one of {', '.join(TIMBRES)}.")
    if timbres == "heldout" and (material is not None or voices is not None):
        raise UsageError("Held-out timbres do not mix with recordings; leave out --material and --voices.")
    if voices is not None:
        score = cast_voices(score, voices)
    elif speakers is not None:
        score = cast_live(score, speakers)
    if material is not None:
        score = cast_recorded(score, material)
    if timbres == "builtin":
        return score
    held_out = timbres == "heldout"
    fonts = soundfont.require_fonts(held_out=held_out)
    speech.require_espeak()
    rng = stream(score.seed, "cast")
    singing = _choose_voice(held_out, rng)
    parts = []
    for part in score.parts:
        if "engine" in part.timbre:  # a recording has it
            parts.append(part)
        elif part.stem == "vocals":
            parts.append(part if singing is None else replace(part, timbre={**part.timbre, **singing}))
        else:
            parts.append(_cast_instrument(part, fonts, held_out, rng))
    return replace(score, parts=tuple(parts))


def _choose_voice(held_out: bool, rng: np.random.Generator) -> dict | None:
    voices = speech.HELD_OUT_VOICES if held_out else speech.TRAINING_VOICES
    spoken = held_out or rng.random() < SPEECH_SHARE
    chosen = str(voices[int(rng.integers(len(voices)))])
    return {"engine": "speech", "speaker": chosen} if spoken else None


def _cast_instrument(part: Part, fonts: list[str], held_out: bool, rng: np.random.Generator) -> Part:
    family = part.timbre["family"]
    if family == "sweep":  # noise has no sampled counterpart, and nothing of it could be learnt by heart
        return part
    share = 1.0 if held_out else FONT_SHARE[part.stem]
    if family in ELECTRONIC_BASSES and part.stem == "bass" and not held_out:
        share = 0.2
    sampled, font = rng.random() < share, str(rng.choice(fonts))
    adventurous = rng.random() < 0.2
    if part.stem == "drums":
        program = int(rng.choice(soundfont.FONTS[font].kits))
    elif part.stem == "bass":
        program = int(rng.choice(soundfont.PROGRAMS.get(family, soundfont.PROGRAMS["bass synth"])))
        program = program if 32 <= program <= 39 else int(rng.choice(soundfont.PROGRAMS["bass synth"]))
    else:
        choices = soundfont.any_program() if adventurous else soundfont.PROGRAMS[family]
        program = int(rng.choice(choices))
    if not sampled:
        return part
    return replace(part, timbre={**part.timbre, "engine": "font", "font": font, "program": program})
