"""What a score would sound like to the analysis of keys, without making a sound: thousands of songs in a minute."""

from __future__ import annotations

import numpy as np

from tsbs_daw.analysis.features import PITCH_S
from tsbs_daw.analysis.key import KEYS, describe_chroma
from tsbs_daw.evaluation.truth import MAJOR_MODES
from tsbs_daw.songs.compose import compose
from tsbs_daw.songs.dsp import stream
from tsbs_daw.songs.score import Part, Score

OVERTONES = {0: 1.0, 7: 0.16, 4: 0.06, 10: 0.03}  # semitones above a note where its overtones are heard, and how loud


def key_example(seed: int, duration_s: float = 40.0) -> tuple[np.ndarray, np.ndarray] | None:
    """What the song of a seed teaches about keys, see fitting.examples; None without anything that has a pitch."""
    score, rng = compose(seed, duration_s), stream(seed, "sketch")
    heard = {name: _chroma(score, name, rng) for name in ("other", "bass", "vocals")}
    heard = {name: part for name, part in heard.items() if part.sum() > 0}
    openings = [score.seconds(section.bar * score.bar_beats) for section in score.sections if rng.random() < 0.7]
    features = describe_chroma(heard, openings) if heard else None
    if features is None:
        return None
    key = (score.tonic, "major" if score.mode in MAJOR_MODES else "minor")
    return features, np.asarray([candidate == key for candidate in KEYS])


def _chroma(score: Score, stem: str, rng: np.random.Generator) -> np.ndarray:
    """(12, F) of a stem's notes with their overtones, over a little of everything."""
    total = np.zeros((12, round(score.duration_s / PITCH_S) + 1))
    for part in score.parts:
        if part.stem == stem:
            total += float(np.exp(rng.normal(0, 0.5))) * _part(part, score, total.shape[1], float(rng.uniform(0.5, 2)))
    noise = rng.exponential(1.0, total.shape) * (total.mean() * rng.uniform(0.02, 0.3))
    return total + noise * (total.sum(axis=0) > 0)


def _part(part: Part, score: Score, frames: int, brightness: float) -> np.ndarray:
    sound = np.zeros((12, frames))
    for event in part.events:
        first = int(score.seconds(event.beat) / PITCH_S)
        last = max(int(score.seconds(event.beat + event.beats) / PITCH_S), first + 1)
        fade = np.exp(-0.1 * np.arange(max(min(last, frames) - first, 0)))
        for above, loud in OVERTONES.items():
            strength = event.velocity * (loud if above == 0 else loud * brightness)
            sound[(round(event.pitch) + above) % 12, first:last] += strength * fade
    return sound
