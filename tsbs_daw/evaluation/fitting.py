"""Fit the weights by which the analysis chooses, on songs whose truth is known. Run it again when its features change.

A choice among candidates is a softmax over weighted sums (analysis/choice.py); the weights maximise the likelihood of
the true candidates, with a penalty that keeps them small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tsbs_daw.analysis.evidence import gather
from tsbs_daw.analysis.features import Features
from tsbs_daw.analysis.key import KEYS, describe_keys
from tsbs_daw.analysis.meter import describe_bars, strengths_of_bars
from tsbs_daw.analysis.sections import find_sections
from tsbs_daw.analysis.tempo import describe_pulses
from tsbs_daw.evaluation.truth import Truth

QUESTIONS = ("pulse", "bar", "key")
PENALTY = {"pulse": 6.0, "bar": 2.0, "key": 1.0}
NEAR = 0.12  # of a beat: as far as beats may be from the true ones

Example = tuple[np.ndarray, np.ndarray]  # (candidates, features), (candidates,) of bool: which are true


def examples(mixture: Features, stems: Mapping[str, Features], truth: Truth) -> dict[str, Example]:
    """What a song teaches for each question; a question that it has no true candidate for is left out."""
    evidence = gather(mixture, stems)
    found: dict[str, Example] = {}
    pulses, features, _ = describe_pulses(evidence)
    right = []
    for pulse in pulses:
        beats = pulse.at(pulse.numbers(truth.duration_s))
        same = abs(pulse.bpm / truth.tempo_bpm - 1) < 0.02 and len(beats) > 0
        away = np.abs(np.asarray(truth.beats_s)[:, None] - beats[None]).min(axis=1) if same else [np.inf]
        right.append(bool(np.median(away) < NEAR * 60 / truth.tempo_bpm))
    found["pulse"] = features, np.asarray(right, bool)
    bars, features = describe_bars(strengths_of_bars(evidence), np.asarray(truth.beats_s))
    first = int(np.argmin(np.abs(np.asarray(truth.beats_s) - truth.downbeats_s[0])))
    is_true = [bar == (truth.beats_per_bar, first % truth.beats_per_bar) for bar in bars]
    found["bar"] = features, np.asarray(is_true, bool)
    sections = find_sections(mixture, stems, truth.downbeats_s, truth.duration_s)
    keys = describe_keys(mixture, stems, [section.start_s for section in sections])
    if keys is not None:
        found["key"] = keys, np.asarray([key == truth.key for key in KEYS])
    return {question: example for question, example in found.items() if example[1].any()}


def fit_weights(songs: Iterable[Example], penalty: float) -> np.ndarray:
    """The weights under which the true candidates are likeliest."""
    from scipy.optimize import minimize

    known = list(songs)
    scale = np.concatenate([features for features, _ in known]).std(axis=0) + 1e-3

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = penalty * float(weights @ weights), 2 * penalty * weights
        for features, right in known:
            sums = features / scale @ weights
            odds = np.exp(sums - sums.max())
            share = odds / odds.sum()
            among = share * right / share[right].sum()
            total -= float(np.log(share[right].sum()))
            slope = slope + (share - among) @ (features / scale)
        return total, slope

    return minimize(cost, np.zeros(len(scale)), jac=True, method="L-BFGS-B").x / scale
