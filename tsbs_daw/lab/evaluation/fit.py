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

import numpy as np

from tsbs_daw.analysis.analyse import conclude
from tsbs_daw.analysis.classifier import Weights, using
from tsbs_daw.analysis.features import Features
from tsbs_daw.analysis.key import KEYS, describe_keys
from tsbs_daw.analysis.metre import describe_bars
from tsbs_daw.analysis.rhythm_features import gather
from tsbs_daw.analysis.sections import find_sections
from tsbs_daw.analysis.tempo import Described, describe_pulses, with_bars
from tsbs_daw.lab.evaluation.analysis import Heard, compare, summarise
from tsbs_daw.lab.evaluation.symbolic_songs import cadence_examples, key_examples
from tsbs_daw.lab.evaluation.truth import Truth

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
