"""From a score to its stems, and data sets of songs in MUSDB18-HQ's layout.

<folder>/<split>/<song>/ has mixture.wav, vocals.wav, drums.wav, bass.wav, other.wav and song.json.

Splits are ranges of seeds and never meet:

    train 1000 .. 8999
    valid 9000 .. 9499
    test  9500 .. 9999
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import soundfile as sf
from pedalboard import HighpassFilter

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.core.files import write_atomically
from tsbs_daw.lab.songs import effects, mixing, synthesiser, timbres
from tsbs_daw.lab.songs.casting import cast
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, gain, stream
from tsbs_daw.lab.songs.kits import play_kit, play_recorded_kit
from tsbs_daw.lab.songs.material import Material, open_material
from tsbs_daw.lab.songs.recorded_parts import play_loops, play_phrases, play_recorded_part
from tsbs_daw.lab.songs.recorded_voice import sing_live
from tsbs_daw.lab.songs.score import STEMS, Part, Score, truth_of
from tsbs_daw.lab.songs.soundfont import play_font_kit, play_font_part
from tsbs_daw.lab.songs.speakers import Speakers, open_speakers
from tsbs_daw.lab.songs.speech import recite
from tsbs_daw.lab.songs.synthesiser import play_part
from tsbs_daw.lab.songs.voice import random_singer, sing
from tsbs_daw.lab.songs.voice_bank import open_bank, play_bank

log = logging.getLogger(__name__)

ANALYSES = ".analyses"  # of recorded voices, in the data set's folder; may be deleted
SPLITS = {"train": range(1000, 9000), "valid": range(9000, 9500), "test": range(9500, 10000)}

FAMILIES = {
    "sweep": synthesiser.sweep,
    **dict.fromkeys(("saw", "square", "pulse", "supersaw"), synthesiser.synth),
    "warm": synthesiser.warm,
    "pluck": synthesiser.pluck,
    **dict.fromkeys(("steel", "nylon", "clean", "overdrive", "distorted"), timbres.string),
    **dict.fromkeys(("piano", "harp"), timbres.piano),
    "epiano": timbres.epiano,
    "clav": timbres.clav,
    **dict.fromkeys(("organ", "accordion", "harmonica"), timbres.organ),
    **dict.fromkeys(("strings", "fiddle"), timbres.bowed),
    "brass": timbres.brass,
    **dict.fromkeys(("flute", "whistle", "clarinet", "sax"), timbres.wind),
    "fm": synthesiser.fm,
    **dict.fromkeys(("bell", "vibes", "marimba", "kalimba"), timbres.modal),
}
BASS_FAMILIES = {
    **dict.fromkeys(("finger", "pick", "slap", "upright", "drive"), timbres.bass_string),
    **dict.fromkeys(("saw", "square", "sub", "808", "reese", "fm"), synthesiser.bass_synth),
}


RECORDED = ("recorded", "phrases", "loops", "chops")
PUMPING = ("house", "trance", "synthwave", "pop", "dnb")


def render(
    score: Score, material: Material | None = None, voices: Material | None = None, speakers: Speakers | None = None
) -> dict[str, np.ndarray]:
    """Render the stems of a score: {name: (2, samples) float32}, 44.1 kHz. A stem without parts is silent.

    All stems have the same bus gain, so their sum is the mixture and stays below full scale.

    Args:
        score: The song with its timbres chosen.
        material: Pack for parts with the engine "recorded", "phrases" or "loops". With a pack, balance and loudness
            vary as widely as on records.
        voices: Bank for parts with the engine "bank".
        speakers: Singers of parts with the engine "live".
    """
    samples = int(score.duration_s * SAMPLE_RATE)
    rng = stream(score.seed, "mix")
    stems = {name: np.zeros((2, samples), dtype=np.float32) for name in STEMS}
    for stem in STEMS:
        parts = [part for part in score.parts if part.stem == stem and part.events]
        if parts:
            make = {"drums": _drums, "bass": _bass, "other": _other, "vocals": _vocals}[stem]
            source = (material, voices, speakers) if stem == "vocals" else material
            stems[stem] = make(parts, score, samples, stream(score.seed, "mix", stem), source)
    if score.style in PUMPING and rng.random() < 0.6:
        curve = _pumping(score, samples, rng)
        stems["bass"], stems["other"] = stems["bass"] * curve, stems["other"] * curve
    if material is None:
        return _master(stems, rng)
    draws = stream(score.seed, "electronic")
    stems = {name: effects.treat(name, stem, score, draws) for name, stem in stems.items()}
    stems = effects.treat_everything(stems, score, draws)
    clean = {name: mixing.process(stem, [HighpassFilter(25)]) if stem.any() else stem for name, stem in stems.items()}
    return _master(clean, rng, *_balance(score.seed))


def _pumping(score: Score, samples: int, rng) -> np.ndarray:
    """The gain of bass and accompaniment ducking under every kick, as side-chain compression does."""
    depth, recovery_s = float(rng.uniform(0.3, 0.85)), float(rng.uniform(0.08, 0.25))
    curve = np.ones(samples, dtype=np.float32)
    length = int(4 * recovery_s * SAMPLE_RATE)
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    dip = 1.0 - depth * np.exp(-((time_s / recovery_s) ** 2)) * np.minimum(time_s / 0.004, 1.0)
    for part in score.parts:
        for hit in part.events if part.stem == "drums" else ():
            start = int(score.seconds(hit.beat) * SAMPLE_RATE)
            if hit.piece == "kick" and start < samples:
                span = curve[start : start + length]
                np.minimum(span, dip[: len(span)], out=span)
    return curve


def _drums(parts: list[Part], score: Score, samples: int, rng, material) -> np.ndarray:
    total = np.zeros((2, samples), dtype=np.float32)
    for index, part in enumerate(parts):
        engine, kit_rng = part.timbre.get("engine"), stream(part.timbre["seed"], "kit")
        if engine == "loops":
            played = mixing.process(play_loops(part, score, samples, material, kit_rng), mixing.strip_loop(rng))
        else:
            if engine == "recorded":
                groups = play_recorded_kit(part, score, samples, material, kit_rng)
            else:
                groups = (play_font_kit if engine == "font" else play_kit)(part, score, samples, kit_rng)
            played = mixing.mix_drums(groups, part.timbre["family"], rng)
        if len(parts) > 1:  # percussion or a loop lies below the kit
            played = mixing.rms_to(played, -18.0 - (float(rng.uniform(2, 12)) if index else 0.0))
        total += played
    return total


def _bass(parts: list[Part], score: Score, samples: int, rng, material) -> np.ndarray:
    part = parts[0]
    family, part_rng = part.timbre["family"], stream(part.timbre["seed"], "bass")
    dry = _level(part)(_play(part, BASS_FAMILIES, score, samples, part_rng, material), -18.0)
    return mixing.process(dry, mixing.strip_bass(family, rng))


def _level(part: Part):
    """How a dry part is brought to the level that channel strips expect."""
    return mixing.rms_to if part.timbre.get("engine") in RECORDED else mixing.level_to


def _play(part: Part, families: dict, score: Score, samples: int, rng, material) -> np.ndarray:
    engine = part.timbre.get("engine")
    if engine == "font":
        return play_font_part(part, score, samples, rng)
    if engine == "recorded":
        return play_recorded_part(part, score, samples, material, rng)
    if engine == "phrases":
        return play_phrases(part, score, samples, material, rng)
    if engine == "chops":
        (recording,) = (one for one in material.recordings if one.path == part.timbre["chopped"])
        return effects.play_chops(material.audio(recording), part.events, score, samples, rng)
    if engine == "acid":
        return play_part(part.events, synthesiser.acid(rng), score, samples, rng)
    timbre = families[part.timbre["family"]](part.timbre["family"], rng)
    return play_part(part.events, timbre, score, samples, rng)


def _other(parts: list[Part], score: Score, samples: int, rng, material) -> np.ndarray:
    total = np.zeros((2, samples), dtype=np.float32)
    for index, part in enumerate(parts):
        family, part_rng = part.timbre["family"], stream(part.timbre["seed"], "other")
        dry = _level(part)(_play(part, FAMILIES, score, samples, part_rng, material), -18.0)
        amplified = part.timbre.get("amp") or part.timbre.get("instrument") == "power chords"
        strip = "amplified" if amplified or part.timbre.get("engine") == "phrases" else family
        wet = mixing.process(dry, mixing.strip_other(strip, part.mix["figure"], rng))
        level_db = -18.0 - 1.5 * index + float(rng.normal(0, 2.5))
        pan = (
            float(np.clip(rng.normal(0, 0.35), -0.85, 0.85))
            if part.mix["figure"] != "pads"
            else float(rng.normal(0, 0.08))
        )
        pan = 0.0 if part.timbre.get("tracks", 1) > 1 else pan
        total += mixing.pan_and_width(_level(part)(wet, level_db), pan, float(rng.uniform(0.3, 1.4)))
    return total


def _vocals(parts: list[Part], score: Score, samples: int, rng, sources) -> np.ndarray:
    material, bank, speakers = sources
    recorded = any(part.timbre.get("engine") in ("bank", "live", "phrases") for part in parts)
    total = np.zeros((2, samples), dtype=np.float32)
    side = 1.0 if rng.random() < 0.5 else -1.0
    for part in parts:
        timbre, role = part.timbre, part.mix["role"]
        singer = random_singer(timbre["voice"], timbre["kind"], stream(timbre["seed"], "singer"))
        take = stream(timbre["seed"], "take", timbre.get("take", 0))
        loose_s = 0.012 if role == "lead" else 0.02
        if timbre.get("engine") == "phrases":
            voice = play_phrases(part, score, samples, material, take).mean(axis=0)
        elif timbre.get("engine") == "bank":
            voice = play_bank(part, score, samples, bank)
        elif timbre.get("engine") == "live":
            voice = sing_live(part, score, samples, speakers, take, loose_s)
        elif timbre.get("engine") == "speech":
            tract = float(stream(timbre["seed"], "tract").uniform(0.9, 1.12))
            voice = recite(part.events, timbre["speaker"], tract, singer, score, samples, take, loose_s)
        else:
            voice = sing(part.events, singer, score, samples, take, loose_s)
        dry = mixing.level_to(np.stack([voice, voice]), -20.0)
        if recorded:
            wet = effects.channel_strip(dry[:1], role, rng)
        else:
            wet = mixing.process(dry, mixing.strip_vocal(role, rng))
        level_db = {"lead": 0.0, "double": -7.0, "harmony": -6.0, "backing": -9.0}[role] + float(rng.normal(0, 1.5))
        pan = 0.0 if role == "lead" else side * float(rng.uniform(0.1, 0.8))
        side = -side
        total += mixing.pan_and_width(mixing.level_to(wet, -18.0 + level_db), pan, 1.0)
    if recorded:
        return effects.space(total, 60.0 / score.tempo_bpm, rng)
    return mixing.process(total, mixing.send_vocal(rng, 60.0 / score.tempo_bpm))


TYPICAL_LUFS = {"vocals": (-17.0, 2.0), "drums": (-17.5, 2.5), "bass": (-19.0, 2.5), "other": (-18.5, 2.5)}


def _balance(seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """Offsets of the stems in dB and the range of loudness, as far apart as on records (1 to 20 dB below the sum)."""
    rng = stream(seed, "balance")
    offsets = {name: float(rng.normal(0, 2.0)) for name in STEMS}
    if rng.random() < 0.45:  # one stem far back, or two
        for name in rng.permutation(STEMS)[: int(rng.choice([1, 1, 2]))]:
            offsets[str(name)] -= float(rng.uniform(4, 15))
    if rng.random() < 0.2:  # one in front of all
        offsets[str(rng.choice(STEMS))] += float(rng.uniform(3, 8))
    return offsets, (-18.0, -7.0)


def _master(
    stems: dict[str, np.ndarray],
    rng,
    offsets: dict[str, float] | None = None,
    lufs: tuple[float, float] = (-14.0, -9.0),
) -> dict[str, np.ndarray]:
    """Balance the stems as records have it, then limit them together to a loudness drawn between the two of `lufs`."""
    balanced = {}
    for name in STEMS:
        centre, spread = TYPICAL_LUFS[name]
        level = centre + float(np.clip(rng.normal(0, spread), -6, 6))
        balanced[name] = mixing.level_to(stems[name], level + (offsets[name] if offsets else 0.0))
    mixture = np.asarray(sum(balanced.values()))
    target_lufs = float(rng.uniform(*lufs))
    lift = gain(target_lufs - mixing.loudness_lufs(mixture))
    heard = [signal * np.float32(lift) for signal in (mixture, *balanced.values())]
    curve = mixing.bus_gain(heard) * np.float32(lift)
    return {name: (stem * curve).astype(np.float32) for name, stem in balanced.items()}


def split_of(seed: int) -> str:
    """The split that a seed belongs to."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise UsageError(
        f"Seed {seed} belongs to no split; use one from 1000 to 9999 (train, valid and test have ranges of their own)."
    )


def render_dataset(
    folder: Path | str,
    songs: int,
    start_seed: int,
    seconds: float = 40.0,
    *,
    timbres: str = "builtin",
    material: Path | str | None = None,
    voices: Path | str | None = None,
    subtype: str = "PCM_16",
    progress=None,
) -> list[Path]:
    """Write `songs` songs with consecutive seeds; complete songs are not changed.

    Args:
        timbres: "builtin", "all" or "heldout" (see casting.py); the training split refuses held-out timbres.
        material: Folder of a material pack (see material.py), whose recordings play most parts.
        voices: Folder of a voice bank (see voice_bank.py) that sings most songs; a pack may contain one in voices/.
            Without a bank, the pack's speakers sing the songs' own melodies if pyworld is installed.
        subtype: "PCM_16" (the mixture is the exact integer sum of the stems) or "FLOAT".
        progress: Called with (done, total, song folder).

    Returns:
        The songs' folders.

    Raises:
        UsageError: The seeds cross the border of a split.
        OutputError: A file cannot be written.
    """
    if songs < 1 or seconds < 1:
        raise UsageError("A data set needs at least one song of at least one second.")
    split = split_of(start_seed)
    if timbres == "heldout" and split == "train":
        raise UsageError(
            "Held-out timbres are for testing; ask for them with seeds of the split valid or test (9000 to 9999)."
        )
    if split_of(start_seed + songs - 1) != split:
        raise UsageError(
            f"Seeds {start_seed} to {start_seed + songs - 1} cross the end of the split {split}; ask for fewer songs."
        )
    pack = open_material(Path(material)) if material is not None else None
    bank = _bank(material, voices)
    speakers = open_speakers(pack, Path(folder) / ANALYSES) if pack is not None and bank is None else None
    written = []
    for number in range(songs):
        seed = start_seed + number
        target = Path(folder) / split / f"song-{seed:06d}"
        if not (target / "song.json").exists():
            score = cast(compose(seed, seconds), timbres, pack, bank, speakers)
            write_song(target, score, render(score, pack, bank, speakers), subtype)
            log.info("Wrote song %s: %s in %s, %.1f BPM", seed, score.style, score.mode, score.tempo_bpm)
        written.append(target)
        if progress is not None:
            progress(number + 1, songs, target)
    return written


def _bank(material: Path | str | None, voices: Path | str | None) -> Material | None:
    """Return the requested voice bank, or that of the material pack."""
    folder = Path(voices) if voices is not None else Path(material) / "voices" if material is not None else None
    if folder is None or (voices is None and not (folder / "index.json").is_file()):
        return None
    return open_bank(open_material(folder, licensed=False))


def write_song(folder: Path, score: Score, stems: dict[str, np.ndarray], subtype: str = "PCM_16") -> None:
    """Write one song; song.json comes last and says that the song is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if subtype == "PCM_16":
            whole: dict[str, np.ndarray] = {name: np.round(stems[name] * 32767.0).astype(np.int16) for name in STEMS}
            total = sum(stem.astype(np.int32) for stem in whole.values())
            whole["mixture"] = np.clip(total, -32768, 32767).astype(np.int16)
        else:
            whole = {**stems, "mixture": np.asarray(sum(stems[name] for name in STEMS))}
        for name, audio in whole.items():
            sf.write(folder / f"{name}.wav", audio.T, SAMPLE_RATE, subtype=subtype)
        write_atomically(folder / "song.json", json.dumps(truth_of(score), indent=1))
    except (OSError, sf.LibsndfileError) as problem:
        raise OutputError(
            f"The song could not be written to {folder}: {problem}; free space or choose another folder."
        ) from problem
