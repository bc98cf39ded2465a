"""Beats and metre.

The beat grid maps beat numbers to seconds: a straight line for sequenced music, piecewise linear for live playing.
Individually tracked beats are off by some milliseconds and sometimes jump to a neighbouring attack. If one tempo
explains most of them, the line through them is taken as the truth and their deviations as noise, so the grid stays
exact to the end of the song. Otherwise the map has the fewest straight segments that stay within 20 ms of the beats.

The metre, three or four beats per bar, and the downbeats follow from what kick, bass and chords play on one beat of the
bar and not on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsbs_daw.analysis.features import ATTACK_HOP, ATTACK_S, RATE_HZ, likelihoods, weighted_sums
from tsbs_daw.analysis.rhythm_features import STEP_S, RhythmFeatures

LATE_S = 0.002  # attacks are detected too early by this (measured on clicks, noise and drums)
SNAP_FRAMES = 3
STEADY_WITHIN_S = 0.025
STEADY_SHARE = 0.35  # share of the beats that must lie within STEADY_WITHIN_S of one line
LOCAL_BEATS, LOCAL_WITHIN, EVEN_SHARE = 9, 0.02, 0.75  # and the local tempo must match the line around most beats
SEARCHED, PHASE_STEP_S = 0.015, 0.01  # range and step of the search for the exact period
BEND_S = 0.02
NEIGHBOURS = 4
TIGHTNESS = 100.0
JOINT_S, NEAR_S = 5.0, 0.03  # range around a tempo leap in which two pulses may meet; tolerance for a shared beat
PAUSE_BEATS = 3  # a longer gap between beats is a pause
FEWEST_OF_RUN = 8  # beats between two pauses; a shorter run cannot have a grid of its own
SAME_PERIOD = 0.01
MOVED_SHARE = 0.1  # separate lines must explain this much more of the beats than one line does


@dataclass(frozen=True)
class Pulse:
    """A beat grid: a piecewise linear map from beat numbers to seconds, extrapolated at both ends.

    Attributes:
        numbers_at_knots: Beat numbers of two or more knots, increasing. The tempo is constant between two knots.
        seconds_at_knots: Their times, increasing.
        paused: The tempo stays the same, but the beats resume off the grid after a pause.
    """

    numbers_at_knots: np.ndarray
    seconds_at_knots: np.ndarray
    paused: bool = False

    @property
    def steady(self) -> bool:
        """Whether there is a single tempo and no pause that moves the beats."""
        return len(self.numbers_at_knots) == 2

    @property
    def tempi_bpm(self) -> np.ndarray:
        """Tempo of each segment between two knots."""
        return 60.0 * np.diff(self.numbers_at_knots) / np.diff(self.seconds_at_knots)

    @property
    def bpm(self) -> float:
        """Median tempo, weighted by time."""
        tempi, spans = self.tempi_bpm, np.diff(self.seconds_at_knots)
        order = np.argsort(tempi)
        middle = np.searchsorted(np.cumsum(spans[order]), spans.sum() / 2)
        return float(tempi[order[min(middle, len(order) - 1)]])

    def moved(self, beats: float) -> Pulse:
        """Return the pulse shifted later by a number of beats, which may be fractional."""
        return replace(self, numbers_at_knots=self.numbers_at_knots - beats)

    def later(self, seconds: float) -> Pulse:
        """Return the pulse shifted later by some seconds, for example from an excerpt's time to the song's."""
        return replace(self, seconds_at_knots=self.seconds_at_knots + seconds)

    def then(self, other: Pulse, strength: np.ndarray, near_s: float) -> Pulse:
        """Join this pulse and another that takes over from it.

        Args:
            other: The later pulse. Both pulses must be steady.
            strength: Strength of attacks, which decides on the first beat of the later pulse.
            near_s: Approximate time of that beat.

        Shape:
            strength: (F,)
        """
        begin, end = near_s - JOINT_S, near_s + JOINT_S
        mine, its = (pulse.at(pulse.numbers(end)) for pulse in (self, other))
        mine, its = mine[mine >= begin], its[its > begin + 2 * 60.0 / self.bpm]
        old, new = (_strengths(strength, times) - strength.mean() for times in (mine, its))
        gains = np.asarray([old[mine < at - NEAR_S].sum() + new[its >= at - NEAR_S].sum() for at in its])
        period = 60.0 / self.bpm
        before = np.asarray([mine[mine < at - NEAR_S][-1] for at in its])
        # Of the moments that fit about equally well, prefer the first one that is a whole beat after the last beat.
        whole = (gains > np.max(gains) - 2 * strength.std()) & (np.abs(its - before - period) < NEAR_S)
        joint = int(np.argmax(whole if whole.any() else gains))
        last, first = before[joint], its[joint]
        start = float(np.ceil(self.numbers_at_knots[0] - 1e-6))
        number = round(self.number_at(last) - start)
        knots = [(0.0, self.at(np.asarray([start]))[0])]
        if whole.any():
            number += 1
        else:
            knots.append((number, last))
            number += max(round((first - last) / min(period, 60.0 / other.bpm)), 1)
        knots.append((number, first))
        end_s = float(other.seconds_at_knots[-1])
        knots.append((number + round(other.number_at(end_s) - other.number_at(first)), end_s))
        numbers, seconds = (np.asarray(values, np.float64) for values in zip(*knots, strict=True))
        return Pulse(numbers, seconds)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Return the times of beats in seconds; beat numbers may be fractional."""
        return _line(np.asarray(numbers, np.float64), self.numbers_at_knots, self.seconds_at_knots)

    def number_at(self, seconds: float) -> float:
        """Return the beat number at a time, which may be fractional."""
        return float(_line(np.asarray([seconds]), self.seconds_at_knots, self.numbers_at_knots)[0])

    def numbers(self, duration_s: float) -> np.ndarray:
        """Return the numbers of all beats within the song."""
        first = int(np.ceil(self.number_at(0.0) - 1e-6))
        return np.arange(first, int(np.ceil(self.number_at(duration_s) - 1e-6)))


def track(rhythm: RhythmFeatures, tempo: float | np.ndarray) -> Pulse | None:
    """Track beats where beats are heard; elsewhere the grid continues at the neighbouring tempo.

    Args:
        rhythm: Features of the song.
        tempo: In BPM, for the whole song or for windows STEP_S apart.

    Returns:
        The pulse; None if fewer than four beats are found.

    Shape:
        tempo: scalar or (windows,)
    """
    from librosa.beat import beat_track

    per_frame = tempo
    pulse = rhythm.pulse
    if isinstance(tempo, np.ndarray):
        # A window gives the tempo at its centre; those of the first and the last window extend to the ends.
        middles = (rhythm.duration_s - (len(tempo) - 1) * STEP_S) / 2 + np.arange(len(tempo)) * STEP_S
        per_frame = np.interp(np.arange(len(pulse)) * ATTACK_S, middles, tempo)
    frames = beat_track(
        onset_envelope=pulse, sr=RATE_HZ, hop_length=ATTACK_HOP, bpm=per_frame, tightness=TIGHTNESS, trim=False
    )[1]
    if len(frames) < 4:
        return None
    seconds = _snapped(pulse, frames)
    kept = rhythm.beats_heard(seconds)
    frames, seconds = frames[kept], seconds[kept]
    expected = 60.0 / (per_frame[frames[:-1]] if isinstance(per_frame, np.ndarray) else per_frame)
    numbers = np.concatenate(([0], np.cumsum(np.maximum(np.round(np.diff(seconds) / expected), 1))))
    # The beats may resume off the grid after a pause; each side then has a line of its own.
    runs = np.split(np.arange(len(seconds)), np.flatnonzero(np.diff(seconds) > PAUSE_BEATS * np.median(expected)) + 1)
    lines = _lines(numbers, seconds, [run for run in runs if len(run) >= FEWEST_OF_RUN])
    if lines is not None:
        return lines
    seconds = _smoothed(numbers, seconds)
    knots = _bent(numbers, seconds)
    return Pulse(numbers[knots], seconds[knots])


def _lines(numbers: np.ndarray, seconds: np.ndarray, runs: Sequence[np.ndarray]) -> Pulse | None:
    """Return the pulse of a steady song: one line, or one line per run if pauses moved the beats off a common grid.

    Args:
        numbers: Beat numbers.
        seconds: Their times.
        runs: Indices of the beats between two pauses, for each run.

    Returns:
        The pulse; None if the song does not keep one tempo.
    """
    line = _straight(numbers, seconds)
    if line is None:
        return None
    start, period = line
    whole = Pulse(np.asarray([0.0, 1.0]), np.asarray([start, start + period]))
    whole = Pulse(np.asarray([0.0, numbers[-1]]), whole.at(np.asarray([0.0, numbers[-1]])))
    own = [_straight(np.arange(len(run)), seconds[run]) for run in runs]
    if len(runs) < 2 or any(line is None or abs(line[1] / period - 1) > SAME_PERIOD for line in own):
        return whole
    together = np.mean([_share_near(seconds[run], start, period) for run in runs])
    apart = np.mean([_share_near(seconds[run], *line) for run, line in zip(runs, own, strict=True) if line])
    if apart < together + MOVED_SHARE:
        return whole
    knots: list[tuple[float, float]] = []
    for run, line in zip(runs, own, strict=True):
        assert line is not None
        first, last = (line[0] + round((seconds[index] - line[0]) / line[1]) * line[1] for index in (run[0], run[-1]))
        before = knots[-1] if knots else (0.0, first)
        number = before[0] + (max(round((first - before[1]) / line[1]), 1) if knots else 0)
        knots += [(number, first), (number + round((last - first) / line[1]), last)]
    at_numbers, at_seconds = (np.asarray(values, np.float64) for values in zip(*knots, strict=True))
    return Pulse(at_numbers, at_seconds, paused=True)


def _strengths(strength: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return the strength of the strongest attack within two frames of each time."""
    frames = np.round(times_s / ATTACK_S).astype(np.int64)[:, None] + np.arange(-2, 3)
    return strength[np.clip(frames, 0, len(strength) - 1)].max(axis=1)


def _share_near(seconds: np.ndarray, start: float, period: float) -> float:
    """Return the share of the beats that lie on a line."""
    away = (seconds - start) / period
    return float((np.abs(away - np.round(away)) * period < STEADY_WITHIN_S).mean())


def _snapped(pulse: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the times of the strongest attacks near frames, in seconds, by parabolic interpolation."""
    near = frames[:, None] + np.arange(-SNAP_FRAMES, SNAP_FRAMES + 1)
    strengths = pulse[np.clip(near, 0, len(pulse) - 1)]
    best = np.clip(near[np.arange(len(frames)), strengths.argmax(axis=1)], 1, len(pulse) - 2)
    left, middle, right = pulse[best - 1], pulse[best], pulse[best + 1]
    bend = left - 2 * middle + right
    shift = np.where(bend < -1e-9, 0.5 * (left - right) / np.where(bend < -1e-9, bend, 1.0), 0.0)
    seconds = (best + np.clip(shift, -0.5, 0.5)) * ATTACK_S + LATE_S
    return np.maximum.accumulate(seconds + 1e-6 * np.arange(len(seconds)))


def _straight(numbers: np.ndarray, seconds: np.ndarray) -> tuple[float, float] | None:
    """Return start and period of the line of a steady tempo; None if the song does not keep one.

    In breaks and fills, tracking slips to the off-beats and back; such beats lie off the line and do not affect it.
    """
    from scipy.ndimage import median_filter

    periods = np.diff(seconds) / np.diff(numbers)
    rough = float(np.median(periods))
    steps = min(int(2 * SEARCHED * seconds[-1] / PHASE_STEP_S) + 2, 4000)
    tried = rough * np.linspace(1 - SEARCHED, 1 + SEARCHED, steps)
    together = [_together(seconds, period) for period in tried]
    _, start, period = max((*found, float(period)) for found, period in zip(together, tried, strict=True))
    for within in (3 * STEADY_WITHIN_S, 1.5 * STEADY_WITHIN_S, STEADY_WITHIN_S):
        counts = np.round((seconds - start) / period)
        near = np.abs(seconds - start - counts * period) < within
        if near.sum() < 4 or np.ptp(counts[near]) < 3:
            return None
        period, start = (float(value) for value in np.polyfit(counts[near], seconds[near], 1))
    even = np.abs(median_filter(periods, LOCAL_BEATS) / period - 1) < LOCAL_WITHIN
    share = float(near.mean())
    return (start, period) if share >= STEADY_SHARE and even.mean() >= EVEN_SHARE else None


def _together(seconds: np.ndarray, period: float) -> tuple[int, float]:
    """Return the largest number of beats with the same phase, and that phase in seconds."""
    bins = max(int(period / STEADY_WITHIN_S), 4)
    counts = np.bincount((seconds / period % 1 * bins).astype(np.int64) % bins, minlength=bins)
    pairs = counts + np.roll(counts, -1)
    best = int(pairs.argmax())
    return int(pairs[best]), (best + 1) / bins * period


def _smoothed(numbers: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Move each beat to the median of the positions that its neighbours predict at the local tempo."""
    periods = np.diff(seconds) / np.diff(numbers)
    smooth = np.empty_like(seconds)
    for index in range(len(seconds)):
        near = slice(max(index - NEIGHBOURS, 0), index + NEIGHBOURS + 1)
        period = np.median(periods[near.start : near.stop - 1])
        smooth[index] = np.median(seconds[near] + (numbers[index] - numbers[near]) * period)
    # Neighbours disagree at a sudden tempo change, but time must not run backwards.
    return np.maximum.accumulate(smooth + 1e-6 * np.arange(len(smooth)))


def _bent(numbers: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the indices of the fewest knots whose segments stay within BEND_S of all beats (Douglas-Peucker)."""
    keep, spans = {0, len(numbers) - 1}, [(0, len(numbers) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inner = slice(first + 1, last)
        stray = np.abs(seconds[inner] - np.interp(numbers[inner], numbers[[first, last]], seconds[[first, last]]))
        worst = int(stray.argmax())
        if stray[worst] > BEND_S:
            keep.add(first + 1 + worst)
            spans += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return np.asarray(sorted(keep))


def _line(x: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Interpolate like `np.interp`, but extrapolate linearly beyond both ends."""
    inside = np.interp(x, at, value)
    first = value[0] + (x - at[0]) * (value[1] - value[0]) / (at[1] - at[0])
    last = value[-1] + (x - at[-1]) * (value[-1] - value[-2]) / (at[-1] - at[-2])
    return np.where(x < at[0], first, np.where(x > at[-1], last, inside))


METERS = (4, 3)
ROWS = ("low", "mid", "high", "bass", "other", "vocals", "chords", "mixture", "changes", "entries")
FEWEST_BARS = 3
ODD, LONGEST_LAG = (5, 7, 9, 11), 12
ODD_ROWS = ("low", "mid", "high", "bass", "chords")
# In generated songs with 3 or 4 beats per bar, no odd distance has a greater likeness than all usual ones. In songs
# with odd bars, the odd distance leads by at least 0.11.
ODD_LIKENESS, ODD_MARGIN, ODD_LIKELIHOOD = 0.2, 0.05, 0.4


@dataclass(frozen=True)
class Bars:
    """The bars of a song.

    Attributes:
        beats_per_bar: 3 or 4; also 5, 7, 9 or 11, with a low likelihood.
        first: Index of the first downbeat.
        likelihood: Likelihood that both are right.
        of_meter: Likelihood that beats_per_bar is right, whatever the downbeat.
    """

    beats_per_bar: int
    first: int
    likelihood: float
    of_meter: float


def find_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> Bars | None:
    """Find the bars; return None if the beats do not fill three bars."""
    candidates, features = describe_bars(rhythm, beats_s)
    if not candidates:
        return None
    if odd := _odd_bars(rhythm, beats_s):
        return odd
    likely = likelihoods("bar", features)
    best = int(likely.argmax())
    beats_per_bar, first = candidates[best]
    same_metre = [number for number, candidate in enumerate(candidates) if candidate[0] == beats_per_bar]
    return Bars(beats_per_bar, first, float(likely[best]), float(likely[same_metre].sum()))


def _odd_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> Bars | None:
    """Find bars of 5, 7, 9 or 11 beats; None unless beats at that distance are clearly the most alike.

    The likelihood stays low because no song that the weights were fitted to has such bars.
    """
    heard = rhythm.beats_heard(beats_s)
    strengths = _at_beats(rhythm, beats_s, heard)[[ROWS.index(row) for row in ODD_ROWS]] * heard
    likeness = {}
    for lag in range(2, min(LONGEST_LAG, len(beats_s) // 2) + 1):
        pairs = int((heard[:-lag] & heard[lag:]).sum())
        likeness[lag] = float((strengths[:, :-lag] * strengths[:, lag:]).sum()) / max(pairs, 1) / len(ODD_ROWS)
    odd = max((lag for lag in ODD if lag in likeness), key=lambda lag: likeness[lag], default=None)
    if odd is None:
        return None
    usual = max(value for lag, value in likeness.items() if lag not in ODD and lag != 2 * odd)
    if likeness[odd] < ODD_LIKENESS or likeness[odd] < usual + ODD_MARGIN:
        return None
    phases = [strengths[:, first::odd].sum() for first in range(odd)]
    return Bars(odd, int(np.argmax(phases)), min(likeness[odd], ODD_LIKELIHOOD), 1.0)


def best_bar(features: np.ndarray) -> float:
    """Return the weighted sum of the likeliest candidate of `describe_bars`; 0 if there is none."""
    return float(weighted_sums("bar", features).max()) if len(features) else 0.0


def describe_bars(rhythm: RhythmFeatures, beats_s: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Return candidates as (beats per bar, first downbeat), and their features, (candidates, features)."""
    if len(beats_s) < FEWEST_BARS * max(METERS):
        return [], np.zeros((0, 0))
    heard = rhythm.beats_heard(beats_s)
    strengths = _at_beats(rhythm, beats_s, heard)
    candidates, features = [], []
    for beats_per_bar in METERS:
        usable = len(beats_s) // beats_per_bar * beats_per_bar
        bars = strengths[:, :usable].reshape(len(ROWS), -1, beats_per_bar)
        typical = np.average(bars, axis=1, weights=heard[:usable].reshape(-1, beats_per_bar).mean(axis=1) + 1e-6)
        # How strongly a row varies within its typical bar: large if the row repeats with this number of beats.
        alike = typical.std(axis=1)
        for first in range(beats_per_bar):
            bar = np.roll(typical, -first, axis=1)
            third = bar[:, 2] if beats_per_bar == 4 else (bar[:, 1] + bar[:, 2]) / 2
            is_four = np.asarray([float(beats_per_bar == 4)])
            features.append(np.concatenate((bar[:, 0], third[:3], bar[:3, 1], alike, is_four)))
            candidates.append((beats_per_bar, first))
    return candidates, np.asarray(features)


def _at_beats(rhythm: RhythmFeatures, beats_s: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Return the strength of ROWS at each beat, standardised over the beats that are heard: (rows, beats)."""
    at = np.log1p(rhythm.near(ROWS, beats_s))
    usual = at[:, heard]
    return (at - usual.mean(axis=1, keepdims=True)) / (usual.std(axis=1, keepdims=True) + 0.05)
