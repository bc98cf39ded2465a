"""Fit the weights by which the analysis chooses, on songs whose truth is known. Run it again when its features change.

A choice among candidates is a softmax over weighted sums (analysis/choice.py); the weights maximise the likelihood of
the true candidates, with a penalty that keeps them near where they start: at zero, or, of keys, at what fits sketched
scores, of which there are many more than songs.

From where on a figure is doubtful is settled on the same songs, each heard with weights that were fitted without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tsbs_daw.analysis.analyse import conclude
from tsbs_daw.analysis.classifier import Weights, using
from tsbs_daw.analysis.features import PITCH_S, Features
from tsbs_daw.analysis.key import KEYS, Mode, describe_chroma, describe_keys
from tsbs_daw.analysis.metre import describe_bars
from tsbs_daw.analysis.rhythm_features import gather
from tsbs_daw.analysis.sections import find_sections
from tsbs_daw.analysis.tempo import Described, describe_pulses, with_bars
from tsbs_daw.lab.evaluation.analysis import Heard, compare, summarise
from tsbs_daw.lab.evaluation.songs import MAJOR_MODES, Truth
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.score import Part, Score

log = logging.getLogger(__name__)

PENALTY = {"pulse": 1.0, "bar": 1.0, "key": 10.0}
DIGITS = 4  # of a weight
NEAR = 0.12  # of a beat: as far as beats may be from the true ones
FOLDS = 6
WRONG = 0.05  # of the figures that are not called doubtful, at most
NO_DOUBT = {"tempo": 0.0, "bars": 0.0, "key": 0.0}

Example = tuple[np.ndarray, np.ndarray]  # (candidates, features), (candidates,) of bool: which are true


@dataclass(frozen=True)
class Lesson:
    """What a song teaches, heard in one way. heard: by the stem's name, the mixture's is ""; pulse lacks its bars."""

    heard: Heard
    truth: Truth
    pulses: Sequence[Described]
    right_pulses: np.ndarray
    bar: Example
    key: Example | None


def lesson(heard: Heard, truth: Truth) -> Lesson:
    stems = {name: features for name, (features, _) in heard.items()}
    mixture: Features = stems.pop("")
    evidence = gather(mixture, stems)
    pulses = describe_pulses(evidence)
    beats_s = np.asarray(truth.beats_s)
    bars, described = describe_bars(evidence, beats_s)
    first = int(np.argmin(np.abs(beats_s - truth.downbeats_s[0])))
    right_bars = np.asarray([bar == (truth.beats_per_bar, first % truth.beats_per_bar) for bar in bars])
    sections = find_sections(mixture, stems, truth.downbeats_s, truth.duration_s)
    keys = describe_keys(mixture, stems, [section.start_s for section in sections])
    return Lesson(
        heard,
        truth,
        pulses,
        np.asarray([_is_right(one, truth) for one in pulses], bool),
        (described, right_bars),
        None if keys is None else (keys, np.asarray([key == truth.key for key in KEYS])),
    )


def _is_right(described: Described, truth: Truth) -> bool:
    """Whether a pulse's beats are the song's."""
    beats = described.pulse.at(described.pulse.numbers(truth.duration_s))
    if abs(described.pulse.bpm / truth.tempo_bpm - 1) >= 0.02 or not len(beats):
        return False
    away = np.abs(np.asarray(truth.beats_s)[:, None] - beats[None]).min(axis=1)
    return bool(np.median(away) < NEAR * 60 / truth.tempo_bpm)


def fit(lessons: Sequence[Lesson], keys: np.ndarray) -> Weights:
    """Weights of every question. keys: those of keys by sketches, from which songs lead on"""
    sounding = [one.key for one in lessons if one.key is not None]
    key = fit_weights([*sounding, *cadence_examples()], PENALTY["key"], keys)
    bar = fit_weights([one.bar for one in lessons], PENALTY["bar"])
    with using(Weights({"bar": bar}, NO_DOUBT)):
        pulses = [(with_bars(one.pulses), one.right_pulses) for one in lessons if one.pulses]
    return Weights({"pulse": fit_weights(pulses, PENALTY["pulse"]), "bar": bar, "key": key}, NO_DOUBT)


def fit_weights(examples: Iterable[Example], penalty: float, start: np.ndarray | None = None) -> np.ndarray:
    """The weights under which the true candidates are likeliest; examples without a true one are left out."""
    from scipy.optimize import minimize

    known = [example for example in examples if example[1].any()]
    most = max(len(right) for _, right in known)
    features = np.stack([np.pad(of, ((0, most - len(of)), (0, 0))) for of, _ in known])
    right = np.stack([np.pad(of, (0, most - len(of))) for _, of in known])
    there = np.stack([np.arange(most) < len(of) for _, of in known])
    scale = features[there].std(axis=0) + 1e-3
    features = features / scale
    start = np.zeros(len(scale)) if start is None else start * scale

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        sums = np.where(there, features @ weights, -np.inf)
        odds = np.exp(sums - sums.max(axis=1, keepdims=True))
        share = odds / odds.sum(axis=1, keepdims=True)
        of_right = (share * right).sum(axis=1)
        among = share * right / of_right[:, None]
        slope = np.einsum("ec,ecf->f", share - among, features)
        away = weights - start
        return penalty * float(away @ away) - float(np.log(of_right).sum()), slope + 2 * penalty * away

    return minimize(cost, start, jac=True, method="L-BFGS-B").x / scale


def unseen(lessons: Sequence[Lesson], keys: np.ndarray) -> list[dict]:
    """Each lesson's comparison with its truth, by weights that were fitted without its song."""
    songs = sorted({one.truth for one in lessons}, key=lambda truth: truth.tempo_bpm)
    results: list[dict] = [{}] * len(lessons)
    for fold in range(FOLDS):
        left_out = set(songs[fold::FOLDS])
        with using(fit([one for one in lessons if one.truth not in left_out], keys)):
            for number, one in enumerate(lessons):
                if one.truth in left_out:
                    parts = dict(one.heard)
                    results[number] = compare(conclude(*parts.pop(""), parts), one.truth)
    return results


def doubt(results: Sequence[Mapping]) -> dict[str, float]:
    """From which confidence on each figure is right so often that it need not be called doubtful."""
    return {
        "tempo": least_sure((song["tempo"]["confidence"], song["tempo"]["right"]) for song in results),
        "bars": least_sure((song["beats"]["meter_confidence"], song["beats"]["bars_right"]) for song in results),
        "key": least_sure((song["key"]["confidence"], song["key"]["exact_or_relative"]) for song in results),
    }


def least_sure(answers: Iterable[tuple[float, bool]]) -> float:
    """The lowest confidence from which on at most a share of WRONG is wrong, if one more were; 1.01: there is none.

    Args: answers: confidence, and whether it was right
    """
    wrong, threshold = 1, 1.01
    for count, (confidence, right) in enumerate(sorted(answers, reverse=True), start=1):
        wrong += not right
        if right and wrong <= WRONG * (count + 1):
            threshold = confidence
    return round(threshold, 3)


def learn(songs: Sequence[tuple[Heard, Truth]], sketches: int) -> dict:
    """The document that is weights.json, but for what the songs and the model were.

    Args: songs: heard in separated stems; each teaches a second time by its mixture alone
          sketches: how many songs' scores teach keys
    """
    keys = fit_weights(key_examples(sketches), PENALTY["key"])
    log.info("keys are fitted to %d sketches", sketches)
    in_stems = [lesson(heard, truth) for heard, truth in songs]
    in_mixture = [lesson({"": heard[""]}, truth) for heard, truth in songs]
    results = unseen([*in_stems, *in_mixture], keys)
    of_stems, of_mixture = results[: len(songs)], results[len(songs) :]
    fitted = fit([*in_stems, *in_mixture], keys)
    return {
        "weights": {name: np.round(values, DIGITS).tolist() for name, values in fitted.of.items()},
        "doubt": doubt(of_stems),
        "unseen": {"separated": _summary(of_stems), "none": _summary(of_mixture)},
    }


def _summary(results: Sequence[dict]) -> dict:
    """How often the analysis is right; nothing was marked as doubtful yet."""
    of_marks = ("trust", "tempo_right_or_marked_octave")
    return {name: value for name, value in summarise(results).items() if name not in of_marks}


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
