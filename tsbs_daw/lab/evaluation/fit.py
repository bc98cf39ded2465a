"""Fit the weights of the analysis to songs with known truth. Rerun it if the features change.

Candidates are chosen by a softmax over weighted sums (analysis/features.py). The weights maximise the likelihood of
the true candidates, with a penalty that keeps them near their start: zero, or for keys the weights that fit symbolic
songs, of which there are many more.

The confidences below which figures are doubtful come from the same songs, each analysed with weights fitted without it.

A symbolic song consists of the pitch features of a generated score, computed without audio: thousands in a minute.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from tsbs_daw.analysis.analyse import conclude
from tsbs_daw.analysis.beats import describe_bars
from tsbs_daw.analysis.features import PITCH_S, Features, Weights, using
from tsbs_daw.analysis.key_and_sections import KEYS, Mode, describe_chroma, describe_keys, find_sections
from tsbs_daw.analysis.rhythm_features import rhythm_features
from tsbs_daw.analysis.tempo import Described, describe_pulses, with_bars
from tsbs_daw.lab.evaluation.analysis import SongFeatures, compare, extract_songs, summarise
from tsbs_daw.lab.evaluation.songs import MAJOR_MODES, Truth
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import stream
from tsbs_daw.lab.songs.score import Part, Score

log = logging.getLogger(__name__)

PENALTY = {"pulse": 1.0, "bar": 1.0, "key": 10.0}
DIGITS = 4  # decimal places of the weights
NEAR = 0.12  # largest deviation from the true beats, as a fraction of a beat
FOLDS = 6
WRONG = 0.05  # largest share of wrong figures among those not marked doubtful
NO_DOUBT = {"tempo": 0.0, "bars": 0.0, "key": 0.0}

COMMAND = "python -m tsbs_daw.lab fit SONGS --out tsbs_daw/analysis/weights.json"

Example = tuple[np.ndarray, np.ndarray]  # (candidates, features), and a boolean mask of the true ones (candidates,)


def write_weights(folders: Sequence[Path], out: Path, model: str, symbolic_songs: int, kept: Path | None) -> dict:
    """Fit the weights, and write weights.json.

    Args:
        folders: Folders of songs with song.json.
        out: The file to write.
        model: Model that separates the stems.
        symbolic_songs: Number of symbolic songs for keys.
        kept: Folder to cache extracted features in.

    Returns:
        Result of `learn`.
    """
    from tsbs_daw.separation.separator import Separator

    separator = Separator.load(model, "cpu")
    songs, seeds = extract_songs(folders, separator, kept)
    learned = learn(songs, symbolic_songs)
    facts = {"model_hash": separator.model_hash, "songs": len(songs), "seeds": seeds, "sketches": symbolic_songs}
    out.write_text(_laid_out({**learned, "how": {"command": COMMAND, **facts}}), encoding="utf-8")
    return learned


def _laid_out(document: dict[str, dict]) -> str:
    """Format JSON with one line per question, so that a diff shows what changed."""
    parts = [
        f" {json.dumps(part)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
        + "\n }"
        for part, values in document.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


@dataclass(frozen=True)
class Lesson:
    """Training examples from one song.

    Attributes:
        extracted: features by stem; the name of the mixture is ""
        pulses: candidates for the pulse, without the feature of their bars
    """

    extracted: SongFeatures
    truth: Truth
    pulses: Sequence[Described]
    right_pulses: np.ndarray
    bar: Example
    key: Example | None


def lesson(extracted: SongFeatures, truth: Truth) -> Lesson:
    """Make the training examples of one song."""
    stems = {name: features for name, (features, _) in extracted.items()}
    mixture: Features = stems.pop("")
    rhythm = rhythm_features(mixture, stems)
    pulses = describe_pulses(rhythm)
    beats_s = np.asarray(truth.beats_s)
    bars, described = describe_bars(rhythm, beats_s)
    first = int(np.argmin(np.abs(beats_s - truth.downbeats_s[0])))
    right_bars = np.asarray([bar == (truth.beats_per_bar, first % truth.beats_per_bar) for bar in bars])
    sections = find_sections(mixture, stems, truth.downbeats_s, truth.duration_s)
    keys = describe_keys(mixture, stems, [section.start_s for section in sections])
    return Lesson(
        extracted,
        truth,
        pulses,
        np.asarray([_is_right(entry, truth) for entry in pulses], bool),
        (described, right_bars),
        None if keys is None else (keys, np.asarray([key == truth.key for key in KEYS])),
    )


def _is_right(described: Described, truth: Truth) -> bool:
    """Return whether the beats of a pulse are the true ones."""
    beats = described.pulse.at(described.pulse.numbers(truth.duration_s))
    if abs(described.pulse.bpm / truth.tempo_bpm - 1) >= 0.02 or not len(beats):
        return False
    away = np.abs(np.asarray(truth.beats_s)[:, None] - beats[None]).min(axis=1)
    return bool(np.median(away) < NEAR * 60 / truth.tempo_bpm)


def fit(lessons: Sequence[Lesson], keys: np.ndarray) -> Weights:
    """Fit the weights of every question.

    Args:
        lessons: the songs
        keys: weights for keys from symbolic songs, as a starting point
    """
    sounding = [entry.key for entry in lessons if entry.key is not None]
    key = fit_weights([*sounding, *cadence_examples()], PENALTY["key"], keys)
    bar = fit_weights([entry.bar for entry in lessons], PENALTY["bar"])
    with using(Weights({"bar": bar}, NO_DOUBT)):
        pulses = [(with_bars(entry.pulses), entry.right_pulses) for entry in lessons if entry.pulses]
    return Weights({"pulse": fit_weights(pulses, PENALTY["pulse"]), "bar": bar, "key": key}, NO_DOUBT)


def fit_weights(examples: Iterable[Example], penalty: float, start: np.ndarray | None = None) -> np.ndarray:
    """Find the weights that maximise the likelihood of the true candidates; skips examples without a true one."""
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
    """Cross-validation: compare each song with its truth, analysed with weights fitted without it."""
    songs = sorted({entry.truth for entry in lessons}, key=lambda truth: truth.tempo_bpm)
    results: list[dict] = [{}] * len(lessons)
    for fold in range(FOLDS):
        left_out = set(songs[fold::FOLDS])
        with using(fit([entry for entry in lessons if entry.truth not in left_out], keys)):
            for number, entry in enumerate(lessons):
                if entry.truth in left_out:
                    parts = dict(entry.extracted)
                    results[number] = compare(conclude(*parts.pop(""), parts), entry.truth)
    return results


def doubt(results: Sequence[Mapping]) -> dict[str, float]:
    """Return the confidence for each figure above which it is right often enough not to be marked doubtful."""
    return {
        "tempo": least_sure((song["tempo"]["confidence"], song["tempo"]["right"]) for song in results),
        "bars": least_sure((song["beats"]["meter_confidence"], song["beats"]["bars_right"]) for song in results),
        "key": least_sure((song["key"]["confidence"], song["key"]["exact_or_relative"]) for song in results),
    }


def least_sure(answers: Iterable[tuple[float, bool]]) -> float:
    """Return the lowest confidence above which at most WRONG of the answers are wrong, counting one extra error.

    Returns 1.01 if there is no such confidence.

    Args:
        answers: confidences, and whether each was right
    """
    wrong, threshold = 1, 1.01
    for count, (confidence, right) in enumerate(sorted(answers, reverse=True), start=1):
        wrong += not right
        if right and wrong <= WRONG * (count + 1):
            threshold = confidence
    return round(threshold, 3)


def learn(songs: Sequence[tuple[SongFeatures, Truth]], symbolic_songs: int) -> dict:
    """Compute the contents of weights.json, except for the description of songs and model.

    Args:
        songs: features of separated stems; each song is used a second time by its mixture alone
        symbolic_songs: number of symbolic songs for keys
    """
    keys = fit_weights(key_examples(symbolic_songs), PENALTY["key"])
    log.info("fitted keys to %d symbolic songs", symbolic_songs)
    in_stems = [lesson(extracted, truth) for extracted, truth in songs]
    in_mixture = [lesson({"": extracted[""]}, truth) for extracted, truth in songs]
    results = unseen([*in_stems, *in_mixture], keys)
    of_stems, of_mixture = results[: len(songs)], results[len(songs) :]
    fitted = fit([*in_stems, *in_mixture], keys)
    return {
        "weights": {name: np.round(values, DIGITS).tolist() for name, values in fitted.of.items()},
        "doubt": doubt(of_stems),
        "unseen": {"separated": _summary(of_stems), "none": _summary(of_mixture)},
    }


def _summary(results: Sequence[dict]) -> dict:
    """How often the analysis is right; nothing is marked doubtful yet."""
    of_marks = ("trust", "tempo_right_or_marked_octave")
    return {name: value for name, value in summarise(results).items() if name not in of_marks}


# Overtones that the pitch features do not remove: semitones above the note, and strength.
OVERTONES = {0: 1.0, 7: 0.12, 4: 0.05, 10: 0.025}
FIRST_SEED = 20_000  # outside all splits of the data sets
LINGERING = 0.5  # share of notes that sound one frame longer than written
# I IV V I and i iv V i: semitones above the tonic, and the triad. The generator rarely writes such simple cadences.
CADENCES: dict[Mode, tuple] = {
    "major": ((0, (0, 4, 7)), (5, (0, 4, 7)), (7, (0, 4, 7)), (0, (0, 4, 7))),
    "minor": ((0, (0, 3, 7)), (5, (0, 3, 7)), (7, (0, 4, 7)), (0, (0, 3, 7))),
}
CADENCE_FRAMES = 22  # two seconds a chord
CADENCE_SHARE = 0.1  # of the symbolic songs


def key_examples(songs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Examples of keys from symbolic songs and plain cadences."""
    examples = [key_example(FIRST_SEED + number) for number in range(songs)]
    plain = cadence_examples()
    return [example for example in examples if example] + plain * max(round(CADENCE_SHARE * songs / len(plain)), 1)


def cadence_examples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Examples from cadences in C: with and without overtones and bass, at full and compressed dynamics."""
    return [
        (_cadence(CADENCES[mode], bright, bass, power, bars), np.asarray([key == (0, mode) for key in KEYS]))
        for mode, bright, bass, power, bars in product(CADENCES, (0.0, 1.0), (False, True), (0.5, 1.0), (4, 16))
    ]


def _cadence(chords: tuple, bright: float, bass: bool, power: float, bars: int) -> np.ndarray:
    """Return the key features of a cadence repeated to 16 bars, with a new section every `bars` bars."""
    other, low = np.zeros((2, 12, len(chords) * CADENCE_FRAMES))
    for number, (root, triad) in enumerate(chords):
        span = slice(number * CADENCE_FRAMES, (number + 1) * CADENCE_FRAMES)
        for step, (above, loud) in product(triad, OVERTONES.items()):
            other[(root + step + above) % 12, span] += (loud if above == 0 else bright * loud) ** power
        low[root, span] = 1.0
    extracted = {"other": np.tile(other, 4)} | ({"bass": np.tile(low, 4)} if bass else {})
    features = describe_chroma(extracted, [bar * CADENCE_FRAMES * PITCH_S for bar in range(0, 16, bars)])
    assert features is not None
    return features


def key_example(seed: int, duration_s: float = 30.0) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the example of a symbolic song; None if it has no pitched notes."""
    score, rng = compose(seed, duration_s), stream(seed, "sketch")  # the old name: it seeds the random numbers
    extracted = {name: _chroma(score, name, rng) for name in ("other", "bass", "vocals")}
    extracted = {name: part for name, part in extracted.items() if part.sum() > 0}
    openings = [score.seconds(section.bar * score.bar_beats) for section in score.sections if rng.random() < 0.7]
    features = describe_chroma(extracted, openings) if extracted else None
    if features is None:
        return None
    key = (score.tonic, "major" if score.mode in MAJOR_MODES else "minor")
    return features, np.asarray([candidate == key for candidate in KEYS])


def _chroma(score: Score, stem: str, rng: np.random.Generator) -> np.ndarray:
    """Compute the chroma of a stem from its notes, with overtones and a little noise: (12, F)."""
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
