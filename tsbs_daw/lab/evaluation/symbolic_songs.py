"""What a score would sound like to the analysis of keys, without making a sound: thousands of songs in a minute."""

from __future__ import annotations

from itertools import product

import numpy as np

from tsbs_daw.analysis.features import PITCH_S
from tsbs_daw.analysis.key import KEYS, Mode, describe_chroma
from tsbs_daw.lab.evaluation.truth import MAJOR_MODES
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.score import Part, Score

# Semitones above a note where its overtones are still heard, and how loud: what listening does not take for overtones.
OVERTONES = {0: 1.0, 7: 0.12, 4: 0.05, 10: 0.025}
FIRST_SEED = 20_000  # beyond all splits of the data sets
LINGERING = 0.5  # share of notes that sound a frame longer than they are written
# I IV V I and i iv V i: semitones above the tonic, and the triad there. The generator writes few as plain as these.
CADENCES: dict[Mode, tuple] = {
    "major": ((0, (0, 4, 7)), (5, (0, 4, 7)), (7, (0, 4, 7)), (0, (0, 4, 7))),
    "minor": ((0, (0, 3, 7)), (5, (0, 3, 7)), (7, (0, 4, 7)), (0, (0, 3, 7))),
}
CADENCE_FRAMES = 22  # two seconds a chord
CADENCE_SHARE = 0.1  # of the sketches


def key_examples(songs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What sketches of so many songs, and plain cadences, teach about keys: see fitting.Example."""
    examples = [key_example(FIRST_SEED + number) for number in range(songs)]
    plain = cadence_examples()
    return [example for example in examples if example] + plain * max(round(CADENCE_SHARE * songs / len(plain)), 1)


def cadence_examples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Cadences in C: with and without overtones and a bass, as strong as they are and evened out."""
    return [
        (_cadence(CADENCES[mode], bright, bass, power, bars), np.asarray([key == (0, mode) for key in KEYS]))
        for mode, bright, bass, power, bars in product(CADENCES, (0.0, 1.0), (False, True), (0.5, 1.0), (4, 16))
    ]


def _cadence(chords: tuple, bright: float, bass: bool, power: float, bars: int) -> np.ndarray:
    """bars: after how many of 16 a section begins"""
    other, low = np.zeros((2, 12, len(chords) * CADENCE_FRAMES))
    for number, (root, triad) in enumerate(chords):
        span = slice(number * CADENCE_FRAMES, (number + 1) * CADENCE_FRAMES)
        for step, (above, loud) in product(triad, OVERTONES.items()):
            other[(root + step + above) % 12, span] += (loud if above == 0 else bright * loud) ** power
        low[root, span] = 1.0
    heard = {"other": np.tile(other, 4)} | ({"bass": np.tile(low, 4)} if bass else {})
    features = describe_chroma(heard, [bar * CADENCE_FRAMES * PITCH_S for bar in range(0, 16, bars)])
    assert features is not None
    return features


def key_example(seed: int, duration_s: float = 30.0) -> tuple[np.ndarray, np.ndarray] | None:
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
            total += float(np.exp(rng.normal(0, 0.5))) * _part(
                part, score, total.shape[1], float(rng.uniform(0.2, 2)), rng
            )
    noise = rng.exponential(1.0, total.shape) * (total.mean() * rng.uniform(0.02, 0.3))
    return total + noise * (total.sum(axis=0) > 0)


def _part(part: Part, score: Score, frames: int, brightness: float, rng: np.random.Generator) -> np.ndarray:
    sound = np.zeros((12, frames))
    for event in part.events:
        first = int(score.seconds(event.beat) / PITCH_S)
        last = max(int(score.seconds(event.beat + event.beats) / PITCH_S), first + 1) + int(rng.random() < LINGERING)
        fade = np.exp(-0.1 * np.arange(max(min(last, frames) - first, 0)))
        for above, loud in OVERTONES.items():
            strength = event.velocity * (loud if above == 0 else loud * brightness)
            sound[(round(event.pitch) + above) % 12, first:last] += strength * fade
    return sound
