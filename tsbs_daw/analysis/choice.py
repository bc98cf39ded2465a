"""Choose among candidates by what speaks for each: a weighted sum, and from the sums how likely each is.

The weights were fitted on songs of the project's generator, whose truth is known (evaluation/fitting.py); keys also on
sketches of scores and plain cadences. So a probability is honest there and an opinion elsewhere.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

import numpy as np


@lru_cache(maxsize=1)
def weights() -> dict[str, np.ndarray]:
    """Name of a question -> weight of each feature, in the order in which its features come."""
    text = (files("tsbs_daw.analysis") / "weights.json").read_text(encoding="utf-8")
    return {name: np.asarray(values) for name, values in json.loads(text).items()}


def weighed(question: str, features: np.ndarray) -> np.ndarray:
    """(candidates,): how much speaks for each."""
    return features @ weights()[question]


def likelihoods(question: str, features: np.ndarray) -> np.ndarray:
    """How likely each candidate is; they sum to 1.

    Args: features: (candidates, features)
    """
    sums = weighed(question, features)
    odds = np.exp(sums - sums.max())
    return odds / odds.sum()
