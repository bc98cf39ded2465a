"""Analyse sounds that are in memory."""

from __future__ import annotations

import numpy as np
from signals import RATE

from tsbs_daw.analysis.analyse import conclude
from tsbs_daw.analysis.features import extract_stream
from tsbs_daw.contracts.analysis import Analysis


def analyse_sounds(mixture: np.ndarray, sample_rate: int = RATE, **stems: np.ndarray) -> Analysis:
    """Arrays are (channels, samples)."""
    extracted = {name: extract_stream([sound], sample_rate, len(sound)) for name, sound in stems.items()}
    return conclude(*extract_stream([mixture], sample_rate, len(mixture)), extracted)


def nearest_s(true_s, found_s) -> np.ndarray:
    """How far the nearest found moment is from each true one."""
    return np.abs(np.asarray(true_s)[:, None] - np.asarray(found_s)[None]).min(axis=1)
