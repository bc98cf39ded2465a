"""Where beats are heard: the parts of a song that say something about its tempo, its beats and its bars.

A pad, a speaker, silence or room noise has attacks too, and some repeat by chance. They must not bend the grid of the
song around them. Beats are heard where attacks are strong, compared with the song, and repeat.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.analysis.features import ATTACK_S

SLOWEST_BPM, FASTEST_BPM = 45.0, 220.0
TEMPI_BPM = np.exp(np.arange(np.log(SLOWEST_BPM), np.log(FASTEST_BPM), 0.004))
PERIODS_S = 60.0 / TEMPI_BPM
STEP_S = 1.0

STRENGTH_S = 3.0  # span that the strength of attacks is measured over
REPEATS_S = 6.0  # span that they must repeat within: a speaker does so in shorter ones, by chance
TYPICAL_S = 8  # so many seconds of a song are at least as strong, and as regular, as what it is measured by
WEAK, IRREGULAR = 0.15, 0.5  # relative to these
QUIETEST_DB = 0.05  # RMS of the rise of attacks: less is a sound without attacks
SHORTEST_S = 3.0  # of a part with beats, and of one without


def heard_seconds(pulse: np.ndarray, attack: np.ndarray) -> np.ndarray:
    """Whether beats are heard, (seconds,) bool. Nowhere: the song has no attacks. Everywhere: it is short.

    Args:
        pulse: strength of attacks, all rows combined
        attack: rise of attacks in dB

    Shape:
        pulse, attack: (F,), ATTACK_S apart
    """
    second = round(STEP_S / ATTACK_S)
    count = max(-(-len(pulse) // second), 1)
    if count * STEP_S <= 2 * REPEATS_S:
        return np.ones(count, bool)
    reach = round(STRENGTH_S / 2 / ATTACK_S)
    middles = np.arange(count) * second + second // 2
    strength = np.asarray([_rms(pulse[max(middle - reach, 0) : middle + reach]) for middle in middles])
    rise_db = np.asarray([_rms(attack[max(middle - reach, 0) : middle + reach]) for middle in middles])
    strong = (strength > WEAK * _typical(strength)) & (rise_db > QUIETEST_DB)
    if strong.sum() < SHORTEST_S:
        return np.zeros(count, bool)
    regular = _regularity(pulse, count)
    regular_enough = regular > IRREGULAR * _typical(regular[strong])
    heard = _without_short_runs(strong & regular_enough)
    if heard.any():
        return heard
    return strong if strong.sum() >= TYPICAL_S else np.zeros(count, bool)


def _regularity(pulse: np.ndarray, count: int) -> np.ndarray:
    """How well the attacks repeat in the most regular window around each second, (count,)."""
    windows = repetition(pulse, REPEATS_S).max(axis=1)
    reach = round(REPEATS_S / STEP_S)
    around = [windows[max(second - reach + 1, 0) : second + 1] for second in range(count)]
    return np.asarray([near.max() if len(near) else windows[-1] for near in around])


def _typical(values: np.ndarray) -> float:
    """The value that TYPICAL_S seconds reach: a single crash or chance does not decide."""
    return float(np.sort(values)[-min(TYPICAL_S, len(values))])


def _rms(row: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(row, dtype=np.float64)))) if len(row) else 0.0


def _without_short_runs(flags: np.ndarray) -> np.ndarray:
    """Fills gaps, and then removes runs, that are shorter than SHORTEST_S."""
    flags = flags.copy()
    for value in (False, True):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags == value, [False])).astype(np.int8)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            if (end - start) * STEP_S < SHORTEST_S and end - start < len(flags):
                flags[start:end] = not value
    return flags


def heard_at(heard: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Whether beats are heard at these times, (times,) bool."""
    return heard[np.clip((np.asarray(times_s) / STEP_S).astype(np.int64), 0, len(heard) - 1)]


def share_heard(heard: np.ndarray, windows: int, window_s: float) -> np.ndarray:
    """How much of each window of `repetition` has beats, (windows,)."""
    size = min(round(window_s / STEP_S), len(heard))
    sums = np.concatenate(([0.0], np.cumsum(heard, dtype=np.float64)))
    starts = np.minimum(np.arange(windows), len(heard) - size)
    return (sums[starts + size] - sums[starts]) / size


def repetition(row: np.ndarray, window_s: float) -> np.ndarray:
    """How strongly a row repeats at each of PERIODS_S, in windows STEP_S apart, (windows, periods) float32."""
    from librosa.core import autocorrelate
    from scipy.ndimage import maximum_filter1d

    length = min(round(window_s / ATTACK_S), len(row))
    starts = range(0, len(row) - length + 1, round(STEP_S / ATTACK_S))
    overlap = length / (length - np.arange(length))
    found = np.zeros((len(starts), len(TEMPI_BPM)), np.float32)
    for number, start in enumerate(starts):
        window = row[start : start + length].astype(np.float64)
        window -= window.mean()
        similar = autocorrelate(window) * overlap
        if similar[0] > 1e-9:
            similar = maximum_filter1d(similar / similar[0], 3)
            lags = np.arange(length)
            at = [np.interp(times * PERIODS_S / ATTACK_S, lags, similar, right=0.0) for times in range(1, 5)]
            found[number] = (at[0] + at[1] + 0.5 * at[2] + at[3]) / 3.5
    return found
