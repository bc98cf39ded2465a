"""Recorded speakers sing a song's own melody, words and harmonies. The best voices; they need pyworld."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.material import Material
from tsbs_daw.lab.songs.recorded_voice import Delivery, sing_recorded
from tsbs_daw.lab.songs.score import Part, Score
from tsbs_daw.lab.songs.speakers import Speakers, limited
from tsbs_daw.lab.songs.voice import random_singer
from tsbs_daw.lab.songs.world import is_installed

LIVE_SHARE = 0.75  # of songs with vocals
SPOKEN_SHARE = 0.2  # of sung leads, these are delivered as rap, in the speaker's own intonation
TUNED_SHARE = 0.15  # sung with pitch corrected hard
TRACTS = {"soprano": 1.22, "alto": 1.15, "tenor": 1.03, "baritone": 0.98, "bass": 0.9}
FORMANTS = (0.82, 1.22)
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
    chosen = _choose(speakers, rng)
    if chosen is None:
        return score
    spoken, tuned = bool(rng.random() < SPOKEN_SHARE), bool(rng.random() < TUNED_SHARE)
    parts = []
    for part in score.parts:
        if part.stem != "vocals" or "engine" in part.timbre:
            parts.append(part)
        elif not spoken or part.mix["role"] in ("lead", "double"):  # speech has no harmony
            timbre = {**part.timbre, "engine": "live", **chosen, "rap": spoken or part.timbre["kind"] == "rap"}
            parts.append(replace(part, timbre={**timbre, "tuned": tuned}))
    return replace(score, parts=tuple(parts))


def _choose(speakers: Speakers, rng: np.random.Generator) -> dict | None:
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


def sing_live(
    part: Part, score: Score, samples: int, speakers: Speakers, rng: np.random.Generator, loose_s: float
) -> np.ndarray:
    """A cast part: (samples,) float32.

    Args:
        part: its timbre names the recordings
        score: where the beats are
        samples: length
        speakers: of the pack that the part was cast from
        rng: what differs from take to take
        loose_s: how far syllables stray from the beat
    """
    timbre = part.timbre
    by_path = {recording.path: recording for recording in speakers.of_kind("speech")}
    recordings = [by_path[path] for path in timbre["recordings"]]
    speaker = next(one for one in speakers.spoken if one.name == timbre["speaker"])
    personal = stream(timbre["seed"], "formants")
    wanted = TRACTS[timbre["voice"]] * float(personal.uniform(0.94, 1.06)) / speaker.tract
    airy = limited(recordings)
    delivery = Delivery(
        formants=float(np.clip(wanted, *FORMANTS)),
        rap=timbre["rap"],
        effort_db=timbre["effort_db"],
        evenness=timbre["evenness"],
        raw_consonants=not airy,
    )
    singer = random_singer(timbre["voice"], timbre["kind"], stream(timbre["seed"], "singer"))
    if timbre["tuned"]:
        singer = replace(singer, glide_s=0.006, vibrato_cents=0.0, drift_cents=0.5, jitter_cents=0.3, scoop=0.0)
    syllables = speakers.syllables(recordings, airy)
    return sing_recorded(part.events, syllables, delivery, singer, score, samples, rng, loose_s)


def open_speakers(material: Material, cache: Path | None) -> Speakers | None:
    """Open the speakers of a pack; None if it has none, or pyworld is not installed.

    Args:
        material: the pack
        cache: folder for analyses of its recordings
    """
    if not is_installed():
        return None
    has = any(recording.stem == "vocals" and recording.kind == "speech" for recording in material.recordings)
    return Speakers(material, cache) if has else None
