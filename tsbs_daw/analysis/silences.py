"""Where a stem sounds, to the hundredth of a second.

Separation leaves traces of the other stems in each. So a stem is silent where it is far below its own loud places, or
below what anybody hears; one that is far below the mixture everywhere never sounds.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.analysis.features import Features
from tsbs_daw.contracts.analysis import Loudness, Span, StemSound

INAUDIBLE_DB = -60.0
BELOW_LOUD_DB = 30.0  # of the stem: its traces
BELOW_MIXTURE_DB = 40.0  # of the mixture: a stem that is nothing but traces
SHORTEST_SILENCE_S = 1.0
SHORTEST_SOUND_S = 0.03  # a click in a silence does not end it
LOUD_PERCENTILE = 95


def stem_sound(stem: Features, mixture_power: float, loudness: Loudness) -> StemSound:
    """Where a stem sounds and where it is silent. mixture_power: of the mixture's loud places."""
    sounding = is_sounding(stem.levels, stem.level_s, mixture_power)
    frames = np.flatnonzero(sounding)
    silences = [
        Span(start_s=round(start * stem.level_s, 4), end_s=round(min(end * stem.level_s, stem.duration_s), 4))
        for start, end in _runs(~sounding)
        if (end - start) * stem.level_s >= SHORTEST_SILENCE_S or (start == 0 and end == len(sounding))
    ]
    return StemSound(
        loudness=loudness,
        first_sound_s=round(int(frames[0]) * stem.level_s, 4) if len(frames) else None,
        active_share=_share(silences, stem.duration_s),
        silences=tuple(silences),
    )


def loud_power(levels: np.ndarray) -> float:
    """Mean square of a sound's loud places."""
    return float(np.percentile(levels, LOUD_PERCENTILE)) if len(levels) else 0.0


def is_sounding(levels: np.ndarray, level_s: float, mixture_power: float) -> np.ndarray:
    """(F,) of bool."""
    audible = 10 ** (INAUDIBLE_DB / 10)
    # The loud places of the part that sounds: a stem that enters for a moment only is judged by that moment.
    loud = loud_power(levels[levels > audible])
    if loud < mixture_power * 10 ** (-BELOW_MIXTURE_DB / 10):
        return np.zeros(len(levels), bool)
    sounding = levels > max(audible, loud * 10 ** (-BELOW_LOUD_DB / 10))
    for start, end in _runs(sounding):
        if (end - start) * level_s < SHORTEST_SOUND_S and end - start < len(levels):
            sounding[start:end] = False
    return sounding


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _share(silences: list[Span], duration_s: float) -> float:
    silent = sum(span.end_s - span.start_s for span in silences)
    return round(min(max(1 - silent / duration_s, 0.0), 1.0), 4) if duration_s > 0 else 0.0
