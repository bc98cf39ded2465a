"""A softmax classifier: choose among candidates by a weighted sum of their features.

The weights, and the confidences below which a figure is called doubtful, were fitted to songs of the project's
generator with known truth; those for keys also to symbolic songs and plain cadences. `python -m tsbs_daw.lab.evaluation
fit` writes weights.json, which states the data. Probabilities are calibrated for that data and are estimates elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np


@dataclass(frozen=True)
class Weights:
    """Weights of the classifier.

    Attributes:
        of: question to the weights of its features, in order
        doubt: figure to the confidence below which it is doubtful
    """

    of: Mapping[str, np.ndarray]
    doubt: Mapping[str, float]


_in_use: ContextVar[Weights | None] = ContextVar("weights", default=None)


def weights() -> Weights:
    """The weights in use: those of weights.json, except inside `using`."""
    return _in_use.get() or _bundled()


@contextmanager
def using(other: Weights) -> Iterator[None]:
    """Use other weights inside this context, while they are being fitted."""
    token = _in_use.set(other)
    try:
        yield
    finally:
        _in_use.reset(token)


@lru_cache(maxsize=1)
def _bundled() -> Weights:
    known = json.loads((files("tsbs_daw.analysis") / "weights.json").read_text(encoding="utf-8"))
    return Weights({name: np.asarray(values) for name, values in known["weights"].items()}, known["doubt"])


def weighted_sums(question: str, features: np.ndarray) -> np.ndarray:
    """The weighted sum of each candidate.

    Shape:
        features: (candidates, features)
        returns: (candidates,)
    """
    return features @ weights().of[question]


def likelihoods(question: str, features: np.ndarray) -> np.ndarray:
    """The likelihood of each candidate; they sum to 1.

    Shape:
        features: (candidates, features)
        returns: (candidates,)
    """
    sums = weighted_sums(question, features)
    odds = np.exp(sums - sums.max())
    return odds / odds.sum()
