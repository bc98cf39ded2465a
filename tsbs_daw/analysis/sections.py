"""Sections: boundaries are where other stems play, or levels or harmonies differ from the bars before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tsbs_daw.analysis.features import PITCH_S, Features, fold
from tsbs_daw.contracts.analysis import Section

SPAN_BARS = 4  # to compare before and after a boundary
SHORTEST_BARS = 4
FLOOR_DB, STEP_DB = -50.0, 8.0  # a stem that gets STEP_DB louder weighs as much as new harmony
BOUNDARY = 0.8  # distance above which something has changed
ALIKE = 0.9  # distance below which two sections get the same label


def find_sections(
    mixture: Features, stems: Mapping[str, Features], bars_s: Sequence[float], duration_s: float
) -> tuple[Section, ...]:
    """Find the sections of a song; a song with fewer than eight bars has one section.

    The confidence of a section is the amount of change at its start; the first has that of its end.

    Args:
        mixture: features of the mixture
        stems: features by name
        bars_s: where bars begin, ascending
        duration_s: of the song
    """
    edges = np.asarray([start for start in bars_s if start < duration_s - 0.5], np.float64)
    if len(edges) < 2 * SHORTEST_BARS:
        return (Section(start_s=0.0, end_s=duration_s, label="A", confidence=0.0),) if duration_s > 0 else ()
    bars = _describe(mixture, stems, np.append(edges, duration_s))
    news = _news(bars)
    starts = [0, *_peaks(news), len(edges)]
    spans = [bars[first:last] for first, last in pairwise(starts)]
    strength = [news[start] for start in starts[1:-1]] or [0.0]
    confidences = np.clip(np.asarray([strength[0], *strength])[: len(spans)] / (3 * BOUNDARY), 0, 1)
    times = [0.0, *edges[starts[1:-1]].tolist(), duration_s]
    return tuple(
        Section(start_s=round(start, 4), end_s=round(end, 4), label=label, confidence=round(float(confidence), 3))
        for start, end, label, confidence in zip(times[:-1], times[1:], _labels(spans), confidences, strict=True)
    )


def _describe(mixture: Features, stems: Mapping[str, Features], edges: np.ndarray) -> np.ndarray:
    """The level of each stem and the chroma of pitched stems, bar by bar: (bars, features)."""
    parts = list(stems.values()) or [mixture]
    columns = [_level_db(part, edges) / STEP_DB for part in parts]
    tonal = [stems[name] for name in ("other", "bass") if name in stems] or [mixture]
    chroma = fold(sum(part.pitches for part in tonal))
    chroma = chroma / (np.linalg.norm(chroma, axis=0) + 1e-2 * np.linalg.norm(chroma, axis=0).max(initial=0) + 1e-9)
    frames = np.clip((edges / PITCH_S).astype(int), 0, chroma.shape[1])
    mean = [chroma[:, first : max(last, first + 1)].mean(axis=1) if first < chroma.shape[1] else np.zeros(12)
            for first, last in pairwise(frames)]  # fmt: skip
    return np.concatenate((np.stack(columns, axis=1), np.stack(mean)), axis=1)


def _level_db(part: Features, edges: np.ndarray) -> np.ndarray:
    frames = np.clip((edges / part.level_s).astype(int), 0, len(part.levels))
    sums = np.concatenate(([0.0], np.cumsum(part.levels, dtype=np.float64)))
    mean = (sums[frames[1:]] - sums[frames[:-1]]) / np.maximum(np.diff(frames), 1)
    return np.maximum(10 * np.log10(np.maximum(mean, 1e-12)), FLOOR_DB)


def _news(bars: np.ndarray) -> np.ndarray:
    """How far the bars from each bar on differ from those before it, (bars,)."""
    news = np.zeros(len(bars))
    for bar in range(2, len(bars) - 1):
        before, after = bars[max(bar - SPAN_BARS, 0) : bar], bars[bar : bar + SPAN_BARS]
        # One bar against one: an immediate change stands out against one that is still to come.
        at_once = np.linalg.norm(bars[bar] - bars[bar - 1])
        news[bar] = 0.7 * np.linalg.norm(after.mean(axis=0) - before.mean(axis=0)) + 0.3 * at_once
    return news


def _peaks(news: np.ndarray) -> list[int]:
    from scipy.signal import find_peaks

    found = find_peaks(np.concatenate((news, [0.0])), height=BOUNDARY, distance=SHORTEST_BARS)[0]
    return [int(bar) for bar in found if SHORTEST_BARS // 2 <= bar < len(news)]


def _labels(spans: list[np.ndarray]) -> list[str]:
    """Label A for the first section and for those that sound like it; B, C, ... for new ones."""
    kinds: list[np.ndarray] = []
    labels = []
    for span in spans:
        middle = span.mean(axis=0)
        distances = [np.linalg.norm(middle - kind) for kind in kinds]
        if distances and min(distances) < ALIKE:
            number = int(np.argmin(distances))
        else:
            number = len(kinds)
            kinds.append(middle)
        labels.append(_letters(number))
    return labels


def _letters(number: int) -> str:
    """0: A, 25: Z, 26: AA."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
