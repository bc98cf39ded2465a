"""Who plays a score: built-in timbres, sound fonts, recordings, and synthesised or recorded voices, drawn by seed.

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
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.instruments import instrument, playable
from tsbs_daw.lab.songs.kits import draw_kit
from tsbs_daw.lab.songs.material import Material
from tsbs_daw.lab.songs.recorded_parts import phrase_sources
from tsbs_daw.lab.songs.score import Note, Part, Score
from tsbs_daw.lab.songs.speakers import Speakers
from tsbs_daw.lab.songs.voice_bank import cast_voices

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

    Raises:
        UsageError: The choice is unknown, or it needs a program or font that is not installed.
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


LIVE_SHARE = 0.75  # of songs with vocals go to recorded speakers who sing the song's own melody
LIVE_RAP_SHARE = 0.2  # of sung leads, these are delivered as rap, in the speaker's own intonation
LIVE_TUNED_SHARE = 0.15  # sung with pitch corrected hard
FEWEST_SYLLABLES = 6


def cast_live(score: Score, speakers: Speakers) -> Score:
    """Give a song's vocals to a speaker whose formants are moved to the voice type that the part was written for.

    Args:
        score: with vocal parts
        speakers: of a material pack
    """
    rng = stream(score.seed, "live")
    if rng.random() > LIVE_SHARE or not any(part.stem == "vocals" for part in score.parts):
        return score
    chosen = _choose_speaker(speakers, rng)
    if chosen is None:
        return score
    spoken, tuned = bool(rng.random() < LIVE_RAP_SHARE), bool(rng.random() < LIVE_TUNED_SHARE)
    parts = []
    for part in score.parts:
        if part.stem != "vocals" or "engine" in part.timbre:
            parts.append(part)
        elif not spoken or part.mix["role"] in ("lead", "double"):  # speech has no harmony
            timbre = {**part.timbre, "engine": "live", **chosen, "rap": spoken or part.timbre["kind"] == "rap"}
            parts.append(replace(part, timbre={**timbre, "tuned": tuned}))
    return replace(score, parts=tuple(parts))


def _choose_speaker(speakers: Speakers, rng: np.random.Generator) -> dict | None:
    """A speaker with enough syllables, as plain values of a timbre; None after too many tries."""
    for _ in range(8):
        speaker = speakers.spoken[int(rng.integers(len(speakers.spoken)))]
        first, count = int(rng.integers(len(speaker.recordings))), min(4, len(speaker.recordings))
        chosen = [speaker.recordings[(first + step) % len(speaker.recordings)] for step in range(count)]
        if len(speakers.syllables(chosen)) >= FEWEST_SYLLABLES:
            return {
                "speaker": speaker.name,
                "recordings": [recording.path for recording in chosen],
                "effort_db": round(float(rng.uniform(-1.0, 8.0)), 2),
                "evenness": round(float(rng.uniform(0.3, 0.9)), 2),
            }
    return None


# How often each is drawn when a pack is there. A row of engines shares out one part; the rest is a chance per song.
SHARES: dict[str, dict[str, float]] = {
    "drums": {"recorded": 0.64, "loops": 0.08, "builtin": 0.28},
    "bass": {"recorded": 0.58, "acid": 0.06, "builtin": 0.36},
    "other": {"recorded": 0.54, "phrases": 0.08, "chops": 0.06, "builtin": 0.32},
    "vocals": {"phrases": 0.7, "builtin": 0.3},
    "extra": {"loop on drums": 0.15, "phrases in other": 0.2, "two takes": 0.5, "any instrument": 0.2},
    "form": {"solo": 0.3, "rest": 0.45},
}
DIRECT_AMPS = {
    "overdrive": ("crunch", "crunch", "lead"),
    "distorted": ("metal", "metal", "lead"),
    "clean": ("clean", "clean", "clean", "crunch"),
}


def cast_recorded(score: Score, material: Material) -> Score:
    """Give parts to the recordings of a pack as SHARES says, add a loop or phrases at times, and let stems rest."""
    rng = stream(score.seed, "material")
    parts: list[Part] = []
    has = {stem: phrase_sources(material, stem) for stem in ("drums", "other", "vocals")}
    vocals = _draw("vocals", rng) if has["vocals"] else "builtin"
    for part in score.parts:
        if part.stem == "vocals":
            if vocals == "builtin" or "engine" in part.timbre:
                parts.append(part)
            elif part.mix["role"] == "lead":  # speakers have no double and no choir
                parts.append(_phrases(part, has["vocals"], material, rng))
        else:
            parts.append(_cast_part(part, has, material, rng))
    parts += _extras(parts, score, has, rng, material)
    return replace(score, parts=_with_rests(parts, score, rng))


def _draw(row: str, rng: np.random.Generator) -> str:
    names = list(SHARES[row])
    return str(names[int(rng.choice(len(names), p=list(SHARES[row].values())))])


def _chance(name: str, rng: np.random.Generator, row: str = "extra") -> bool:
    return bool(rng.random() < SHARES[row][name])


def _cast_part(part: Part, has: dict[str, dict[str, float]], material: Material, rng: np.random.Generator) -> Part:
    engine = _draw(part.stem, rng)
    if part.timbre["family"] == "sweep" or engine == "builtin":
        return part
    if part.stem == "drums":
        if engine == "loops" and has["drums"]:
            return replace(part, timbre={**part.timbre, "engine": "loops"})
        kit = draw_kit(part.timbre["family"], material, rng)
        return part if kit is None else replace(part, timbre={**part.timbre, "engine": "recorded", "kit": kit})
    if engine == "acid":
        return _acid(part, rng)
    if engine == "chops":
        return _chops(part, material, rng)
    if engine == "phrases" and has["other"]:
        return _phrases(part, has["other"], material, rng)
    return _on_instrument(part, material, rng)


def _on_instrument(part: Part, material: Material, rng: np.random.Generator) -> Part:
    family = part.timbre["family"]
    anything = _chance("any instrument", rng) and part.stem == "other"
    names = playable(material, part.stem, None if anything else family) or playable(material, part.stem)
    if not names:
        return part
    name = str(names[int(rng.integers(len(names)))])
    timbre = {**part.timbre, "engine": "recorded", "instrument": name}
    if instrument(part.stem, name).direct:
        timbre["amp"] = str(rng.choice(DIRECT_AMPS.get(family, DIRECT_AMPS["clean"])))
    if timbre.get("amp", "clean") != "clean" or name == "power chords":
        timbre["tracks"] = 2 if part.mix["figure"] != "riff" and _chance("two takes", rng) else 1
    return replace(part, timbre=timbre)


def _acid(part: Part, rng: np.random.Generator) -> Part:
    """A bass line whose notes slide into each other and are accented at random, as a step sequencer has it."""
    events: list[Note] = []
    for note in part.events:
        near = bool(events) and note.beat - events[-1].beat - events[-1].beats < 0.2
        slide = events[-1].pitch if near and rng.random() < 0.35 else None
        events.append(replace(note, velocity=float(rng.choice([0.55, 0.7, 1.0])), glide_from=slide))
    return replace(part, events=tuple(events), timbre={**part.timbre, "engine": "acid"})


def _chops(part: Part, material: Material, rng: np.random.Generator) -> Part:
    pool = [recording for recording in material.recordings if recording.stem == "other" and recording.seconds > 1.5]
    if not pool:
        return part
    chosen = pool[int(rng.integers(len(pool)))].path
    return replace(part, timbre={**part.timbre, "engine": "chops", "chopped": chosen})


def _phrases(part: Part, sources: dict[str, float], material: Material, rng: np.random.Generator) -> Part:
    chosen = str(list(sources)[int(rng.choice(len(sources), p=list(sources.values())))])
    timbre = {**part.timbre, "engine": "phrases", "phrases": chosen, "semitones": round(float(rng.uniform(-4, 4)), 2)}
    speakers = sorted({r.row["speaker"] for r in material.select(*chosen.split("/")) if "speaker" in r.row})
    if speakers:
        timbre["speaker"] = str(speakers[int(rng.integers(len(speakers)))])
    return replace(part, timbre=timbre)


def _extras(parts: list[Part], score: Score, has: dict[str, dict[str, float]], rng, material: Material) -> list[Part]:
    """A drum loop over the kit, and played phrases beside the other accompaniment."""
    extras = []
    drums = next((part for part in parts if part.stem == "drums" and part.events), None)
    if drums is not None and has["drums"] and drums.timbre.get("engine") != "loops" and _chance("loop on drums", rng):
        timbre = {"family": drums.timbre["family"], "seed": int(rng.integers(2**31)), "engine": "loops"}
        extras.append(replace(drums, name="loop", timbre=timbre))
    if has["other"] and any(part.stem == "other" for part in parts) and _chance("phrases in other", rng):
        notes = []
        for section in score.sections:
            first, end = score.beats_of(section)
            if "other" in section.playing and rng.random() < 0.6:
                notes.append(Note(float(first), float(end - first), 60.0, 0.8))
        part = Part(
            "phrases",
            "other",
            tuple(notes),
            {"family": "clean", "seed": int(rng.integers(2**31))},
            {"figure": "phrase"},
        )
        extras.append(_phrases(part, has["other"], material, rng))
    return extras


def _with_rests(parts: list[Part], score: Score, rng: np.random.Generator) -> tuple[Part, ...]:
    """Sometimes one stem plays alone for a bar or two, or rests for one to four."""
    bars = max(int(score.duration_s * score.tempo_bpm / 60 / score.bar_beats), 1)
    stems = sorted({part.stem for part in parts if part.events})
    silent: list[tuple[float, float, set[str]]] = []
    for name, longest in (("solo", 2), ("rest", 4)):
        if len(stems) > 1 and _chance(name, rng, "form"):
            first = int(rng.integers(bars)) * score.bar_beats
            chosen = str(rng.choice(stems))
            gone = set(stems) - {chosen} if name == "solo" else {chosen}
            silent.append((first, first + int(rng.integers(1, longest + 1)) * score.bar_beats, gone))

    def plays(part: Part, event) -> bool:
        return not any(first <= event.beat < end and part.stem in gone for first, end, gone in silent)

    return tuple(replace(part, events=tuple(event for event in part.events if plays(part, event))) for part in parts)
