"""Choose among candidates by what speaks for each: a weighted sum, and from the sums how likely each is.

The weights were fitted on songs of the project's generator, whose truth is known, keys also on sketches of scores and
plain cadences, and so were the likelihoods below which a figure is called doubtful:
`python -m tsbs_daw.lab.evaluation fit` writes weights.json, which says on what. So a probability is
honest there and an opinion elsewhere.
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
    """of: name of a question -> weight of each feature, in the order in which its features come
    doubt: name of a figure -> the confidence below which it is doubtful
    """

    of: Mapping[str, np.ndarray]
    doubt: Mapping[str, float]


_in_use: ContextVar[Weights | None] = ContextVar("weights", default=None)


def weights() -> Weights:
    """Those in use: of weights.json, but inside `using`."""
    return _in_use.get() or _bundled()


@contextmanager
def using(other: Weights) -> Iterator[None]:
    """Choose by other weights meanwhile: while they are fitted."""
    token = _in_use.set(other)
    try:
        yield
    finally:
        _in_use.reset(token)


@lru_cache(maxsize=1)
def _bundled() -> Weights:
    known = json.loads((files("tsbs_daw.analysis") / "weights.json").read_text(encoding="utf-8"))
    return Weights({name: np.asarray(values) for name, values in known["weights"].items()}, known["doubt"])


def weighed(question: str, features: np.ndarray) -> np.ndarray:
    """(candidates,): how much speaks for each."""
    return features @ weights().of[question]


def likelihoods(question: str, features: np.ndarray) -> np.ndarray:
    """How likely each candidate is; they sum to 1.

    Args: features: (candidates, features)
    """
    sums = weighed(question, features)
    odds = np.exp(sums - sums.max())
    return odds / odds.sum()
