"""From a score to stems."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs import mixing
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, gain, stream
from tsbs_daw.lab.songs.kits import play_kit
from tsbs_daw.lab.songs.sampler import play_font_kit, play_font_part
from tsbs_daw.lab.songs.score import STEMS, Part, Score
from tsbs_daw.lab.songs.singer import random_singer
from tsbs_daw.lab.songs.speech_singing import recite
from tsbs_daw.lab.songs.synth_player import play_part
from tsbs_daw.lab.songs.timbre_registry import BASS_FAMILIES, FAMILIES
from tsbs_daw.lab.songs.voice import sing

PUMPING = ("house", "trance", "synthwave", "pop", "dnb")


def render(score: Score) -> dict[str, np.ndarray]:
    """Stems of a score: {name: (2, samples) float32}, 44.1 kHz; a stem that nobody plays is silent.

    All stems carry the same bus gain, so their sum is the mixture and stays below full scale.
    """
    samples = int(score.duration_s * SAMPLE_RATE)
    rng = stream(score.seed, "mix")
    stems = {name: np.zeros((2, samples), dtype=np.float32) for name in STEMS}
    for stem in STEMS:
        parts = [part for part in score.parts if part.stem == stem and part.events]
        if parts:
            make = {"drums": _drums, "bass": _bass, "other": _other, "vocals": _vocals}[stem]
            stems[stem] = make(parts, score, samples, stream(score.seed, "mix", stem))
    if score.style in PUMPING and rng.random() < 0.6:
        curve = _pumping(score, samples, rng)
        stems["bass"], stems["other"] = stems["bass"] * curve, stems["other"] * curve
    return _master(stems, rng)


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


def _drums(parts: list[Part], score: Score, samples: int, rng) -> np.ndarray:
    part = parts[0]
    play = play_font_kit if part.timbre.get("engine") == "font" else play_kit
    groups = play(part, score, samples, stream(part.timbre["seed"], "kit"))
    return mixing.mix_drums(groups, part.timbre["family"], rng)


def _bass(parts: list[Part], score: Score, samples: int, rng) -> np.ndarray:
    part = parts[0]
    family, part_rng = part.timbre["family"], stream(part.timbre["seed"], "bass")
    dry = mixing.level_to(_play(part, BASS_FAMILIES, score, samples, part_rng), -18.0)
    return mixing.process(dry, mixing.strip_bass(family, rng))


def _play(part: Part, families: dict, score: Score, samples: int, rng) -> np.ndarray:
    if part.timbre.get("engine") == "font":
        return play_font_part(part, score, samples, rng)
    timbre = families[part.timbre["family"]](part.timbre["family"], rng)
    return play_part(part.events, timbre, score, samples, rng)


def _other(parts: list[Part], score: Score, samples: int, rng) -> np.ndarray:
    total = np.zeros((2, samples), dtype=np.float32)
    for index, part in enumerate(parts):
        family, part_rng = part.timbre["family"], stream(part.timbre["seed"], "other")
        dry = mixing.level_to(_play(part, FAMILIES, score, samples, part_rng), -18.0)
        wet = mixing.process(dry, mixing.strip_other(family, part.mix["figure"], rng))
        level_db = -18.0 - 1.5 * index + float(rng.normal(0, 2.5))
        pan = (
            float(np.clip(rng.normal(0, 0.35), -0.85, 0.85))
            if part.mix["figure"] != "pads"
            else float(rng.normal(0, 0.08))
        )
        total += mixing.pan_and_width(mixing.level_to(wet, level_db), pan, float(rng.uniform(0.3, 1.4)))
    return total


def _vocals(parts: list[Part], score: Score, samples: int, rng) -> np.ndarray:
    total = np.zeros((2, samples), dtype=np.float32)
    side = 1.0 if rng.random() < 0.5 else -1.0
    for part in parts:
        timbre, role = part.timbre, part.mix["role"]
        singer = random_singer(timbre["voice"], timbre["kind"], stream(timbre["seed"], "singer"))
        take = stream(timbre["seed"], "take", timbre.get("take", 0))
        loose_s = 0.012 if role == "lead" else 0.02
        if timbre.get("engine") == "speech":
            tract = float(stream(timbre["seed"], "tract").uniform(0.9, 1.12))
            voice = recite(part.events, timbre["speaker"], tract, singer, score, samples, take, loose_s)
        else:
            voice = sing(part.events, singer, score, samples, take, loose_s)
        wet = mixing.process(mixing.level_to(np.stack([voice, voice]), -20.0), mixing.strip_vocal(role, rng))
        level_db = {"lead": 0.0, "double": -7.0, "harmony": -6.0, "backing": -9.0}[role] + float(rng.normal(0, 1.5))
        pan = 0.0 if role == "lead" else side * float(rng.uniform(0.1, 0.8))
        side = -side
        total += mixing.pan_and_width(mixing.level_to(wet, -18.0 + level_db), pan, 1.0)
    return mixing.process(total, mixing.send_vocal(rng, 60.0 / score.tempo_bpm))


def _master(stems: dict[str, np.ndarray], rng) -> dict[str, np.ndarray]:
    """Balance the stems as records have it, then limit them together to a loudness between -14 and -9 LUFS."""
    typical = {"vocals": (-17.0, 2.0), "drums": (-17.5, 2.5), "bass": (-19.0, 2.5), "other": (-18.5, 2.5)}
    balanced = {}
    for name in STEMS:
        centre, spread = typical[name]
        balanced[name] = mixing.level_to(stems[name], centre + float(np.clip(rng.normal(0, spread), -6, 6)))
    mixture = sum(balanced.values())
    target_lufs = float(rng.uniform(-14.0, -9.0))
    lift = gain(target_lufs - mixing.loudness_lufs(mixture))
    heard = [signal * np.float32(lift) for signal in (mixture, *balanced.values())]
    curve = mixing.bus_gain(heard) * np.float32(lift)
    return {name: (stem * curve).astype(np.float32) for name, stem in balanced.items()}
