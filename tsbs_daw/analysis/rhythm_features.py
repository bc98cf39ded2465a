"""Rhythm features over time: attacks of stems and mixture in bands, changes of harmony, entries of stems.

The row of a silent stem is zero, which is evidence neither for nor against any pulse.

Beats are heard where attacks repeat and are strong relative to the rest of the song. Pads, speech, silence and room
noise have attacks too, and some repeat by chance; they must not bend the grid of the song around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.features import ATTACK_S, PITCH_S, Features, fold

SLOWEST_BPM, FASTEST_BPM = 45.0, 220.0
TEMPI_BPM = np.exp(np.arange(np.log(SLOWEST_BPM), np.log(FASTEST_BPM), 0.004))
PERIODS_S = 60.0 / TEMPI_BPM
STEP_S = 1.0

STRENGTH_S = 3.0  # window in which the strength of attacks is measured
REPEATS_S = 6.0  # window in which attacks must repeat; in shorter ones, speech repeats by chance
TYPICAL_S = 8  # the reference strength and regularity of a song is reached or exceeded in so many seconds
WEAK, IRREGULAR = 0.15, 0.5  # relative to the reference
QUIETEST_DB = 0.05  # RMS of the rise of attacks; a sound below this has no attacks
SHORTEST_S = 3.0  # shortest part with beats, and shortest part without


def heard_seconds(pulse: np.ndarray, attack: np.ndarray) -> np.ndarray:
    """Tell for each second whether beats are heard: never if the song has no attacks, always if it is short.

    Args:
        pulse: Strength of attacks, all rows combined.
        attack: Rise of attacks in dB.

    Shape:
        pulse, attack: (F,), ATTACK_S apart
        returns: (seconds,) bool
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
    """Return how well the attacks repeat in the most regular window around each second, (count,)."""
    windows = repetition(pulse, REPEATS_S).max(axis=1)
    reach = round(REPEATS_S / STEP_S)
    around = [windows[max(second - reach + 1, 0) : second + 1] for second in range(count)]
    return np.asarray([near.max() if len(near) else windows[-1] for near in around])


def _typical(values: np.ndarray) -> float:
    """Return the value that TYPICAL_S seconds reach or exceed; a single crash or a coincidence has no effect."""
    return float(np.sort(values)[-min(TYPICAL_S, len(values))])


def _rms(row: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(row, dtype=np.float64)))) if len(row) else 0.0


def _without_short_runs(flags: np.ndarray) -> np.ndarray:
    """Fill gaps shorter than SHORTEST_S, then remove runs shorter than SHORTEST_S."""
    flags = flags.copy()
    for value in (False, True):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags == value, [False])).astype(np.int8)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            if (end - start) * STEP_S < SHORTEST_S and end - start < len(flags):
                flags[start:end] = not value
    return flags


def heard_at(heard: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Tell whether beats are heard at these times, (times,) bool."""
    return heard[np.clip((np.asarray(times_s) / STEP_S).astype(np.int64), 0, len(heard) - 1)]


def share_heard(heard: np.ndarray, windows: int, window_s: float) -> np.ndarray:
    """Return the share of each window of `repetition` in which beats are heard, (windows,)."""
    size = min(round(window_s / STEP_S), len(heard))
    sums = np.concatenate(([0.0], np.cumsum(heard, dtype=np.float64)))
    starts = np.minimum(np.arange(windows), len(heard) - size)
    return (sums[starts + size] - sums[starts]) / size


def repetition(row: np.ndarray, window_s: float) -> np.ndarray:
    """Return how strongly a row repeats at each of PERIODS_S, in windows STEP_S apart, (windows, periods) float32."""
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


# Row: stem, band, and the band of the mixture that replaces a missing stem.
ROWS = {
    "low": ("drums", "low", "low"),
    "mid": ("drums", "mid", "mid"),
    "high": ("drums", "high", "high"),
    "drums": ("drums", "full", "full"),
    "bass": ("bass", "full", "low"),
    "other": ("other", "full", "mid"),
    "vocals": ("vocals", "full", "mid"),
}
MIXTURE_ROWS = {"mixture": "full", "mixture low": "low", "mixture high": "high"}
PULSE_WEIGHTS = {"drums": 1.0, "bass": 0.5, "other": 0.5, "mixture": 0.5}
SILENT = 1e-6  # mean square of an empty stem: -60 dB
SLACK_FRAMES = 5  # an attack counts for a beat up to 23 ms away
HARMONY_SPAN = 5  # pitch frames (0.5 s) compared before and after a moment
ENTRY_S, ENTRY_DB = 1.5, 20.0  # span compared before and after a moment; a stem enters if it gets this much louder
FEWEST_HEARD = 8  # with fewer beats heard, all beats count as heard
QUIET_DB = -60.0  # re full scale; below it a stem is absent


@dataclass(frozen=True)
class RhythmFeatures:
    """The rhythm features of a song.

    Attributes:
        rows: Rows by name, each (F,) float32, ATTACK_S apart, with an RMS of 1; all zeros if silent.
        pulse: (F,) float64, the rows combined, for beat tracking.
        heard: (seconds,) bool, whether beats are heard in each second.
        source: "drums", or "mixture" if there is no drums stem or it is silent.
    """

    rows: dict[str, np.ndarray]
    pulse: np.ndarray
    heard: np.ndarray
    source: str
    duration_s: float

    def beats_heard(self, times_s: np.ndarray) -> np.ndarray:
        """Tell at which of these times beats are heard, (times,) bool; at all of them if at hardly any."""
        found = heard_at(self.heard, times_s)
        return found if found.sum() >= FEWEST_HEARD else np.ones(len(found), bool)

    def core(self) -> tuple[RhythmFeatures, float]:
        """Return the features from the first second with beats to the last, as a song of its own, and its start."""
        found = np.flatnonzero(self.heard)
        if not len(found):
            return self, 0.0
        return self.part(float(found[0]) * STEP_S, min(float(found[-1] + 1) * STEP_S, self.duration_s))

    def part(self, start_s: float, end_s: float) -> tuple[RhythmFeatures, float]:
        """Return the features from `start_s` to `end_s`, normalised anew, and their exact start in seconds."""
        first, last = (round(at / ATTACK_S) for at in (start_s, end_s))
        if first == 0 and last >= len(self.pulse) - 1:
            return self, 0.0
        start_s = first * ATTACK_S
        seconds = self.heard[int(start_s / STEP_S) : max(int(np.ceil(end_s / STEP_S)), 1)]
        at = heard_at(seconds, np.arange(len(self.pulse[first:last])) * ATTACK_S)
        rows = {name: _normalised(row[first:last], at).astype(np.float32) for name, row in self.rows.items()}
        if first:  # a stem that already plays at the start of the part does not enter there
            rows["entries"][: round(2 * ENTRY_S / ATTACK_S)] = 0
        pulse = np.sum([weight * rows[name] for name, weight in PULSE_WEIGHTS.items()], axis=0, dtype=np.float64)
        return RhythmFeatures(rows, np.asarray(pulse), seconds, self.source, end_s - start_s), start_s

    def near(self, names: Sequence[str], times_s: np.ndarray) -> np.ndarray:
        """Return the strength of the strongest attack near each time, (names, times).

        It is computed on demand, because the result for every frame would take as much memory as the rows.
        """
        frames = np.round(times_s / ATTACK_S).astype(np.int64)
        last = len(self.pulse) - 1
        frames = np.clip(frames, 0, last)[:, None] + np.arange(SLACK_FRAMES) - SLACK_FRAMES // 2
        frames = np.clip(frames, 0, last)
        return np.stack([self.rows[name][frames].max(axis=1) for name in names])


def rhythm_features(mixture: Features, stems: Mapping[str, Features]) -> RhythmFeatures:
    """Compute the rhythm features. Any stem may be missing or silent."""
    frames = mixture.attacks.shape[1]
    sounding = {name: stem for name, stem in stems.items() if sounds(stem)}
    rows, pulse = {}, np.zeros(frames)

    def put(name: str, row: np.ndarray) -> None:
        even = _normalised(_fit(row, frames))
        rows[name] = even.astype(np.float32)
        if name in PULSE_WEIGHTS:
            np.add(pulse, PULSE_WEIGHTS[name] * even, out=pulse)

    put("entries", _entries(list(sounding.values()) or [mixture], frames))
    for row, (stem, band, instead) in ROWS.items():
        # The row of a silent stem stays zero, except that the mixture replaces silent drums, which matter most.
        silent = stem in stems and stem not in sounding and stem != "drums"
        attack = sounding[stem].attack(band) if stem in sounding else mixture.attack(instead)
        put(row, np.zeros(frames) if silent else attack)
    for row, band in MIXTURE_ROWS.items():  # separation blurs some attacks and loses others
        put(row, mixture.attack(band))
    tonal = [sounding[name] for name in ("other", "bass") if name in sounding] if stems else [mixture]
    pitches = np.asarray(sum(part.pitches for part in tonal))
    put("chords", _harmony_changes(pitches, frames) if tonal else np.zeros(frames))
    # Harmony locates a change to within 0.5 s, the attack that coincides with it to within 0.01 s.
    put("changes", rows["chords"] * (rows["bass"] + rows["other"]))
    heard = heard_seconds(pulse, mixture.attack("full"))
    return RhythmFeatures(rows, pulse, heard, "drums" if "drums" in sounding else "mixture", mixture.duration_s)


def sounds(stem: Features) -> bool:
    """Tell whether a stem holds more than bleed from other stems."""
    return bool(len(stem.levels)) and float(np.percentile(stem.levels, 95)) > SILENT


def _normalised(row: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
    """Normalise a row to an RMS of 1 over all frames, or over those in `at`; a silent row becomes zero."""
    row = np.maximum(np.asarray(row, np.float64), 0)
    counted = row if at is None or not at.any() else row[at]
    strength = np.sqrt(np.mean(np.square(counted))) if row.size else 0.0
    return row / strength if strength > 1e-6 else np.zeros_like(row)


def _fit(row: np.ndarray, frames: int) -> np.ndarray:
    return row[:frames] if len(row) >= frames else np.pad(row, (0, frames - len(row)))


def _harmony_changes(pitches: np.ndarray, frames: int) -> np.ndarray:
    """Return how much the pitches of the half second after each moment differ from those before it, 0 to 1."""
    chroma = fold(pitches)
    size = np.linalg.norm(chroma, axis=0)
    chroma = chroma / (size + 1e-3 * size.max(initial=0) + 1e-9)
    span, count = HARMONY_SPAN, chroma.shape[1]
    change = np.zeros(count)
    if count > 2 * span:
        sums = np.cumsum(np.pad(chroma, ((0, 0), (1, 0))), axis=1)
        part = sums[:, span:] - sums[:, :-span]  # part[:, i]: frames i .. i + span - 1
        before, after = part[:, : -span - 1], part[:, span:-1]
        alike = (before * after).sum(axis=0) / (np.linalg.norm(before, axis=0) * np.linalg.norm(after, axis=0) + 1e-9)
        change[span : span + len(alike)] = np.where(alike > 0, 1 - alike, 0)
    return np.interp(np.arange(frames) * ATTACK_S, np.arange(max(count, 1)) * PITCH_S, change if count else [0.0])


def _entries(parts: Sequence[Features], frames: int) -> np.ndarray:
    """Return the attacks of stems where they enter or get much louder."""
    row = np.zeros(frames)
    for part in parts:
        span = max(round(ENTRY_S / part.level_s), 1)
        levels = np.pad(part.levels.astype(np.float64), span)
        sums = np.concatenate(([0.0], np.cumsum(levels)))
        mean_db = 10 * np.log10(np.maximum((sums[span:] - sums[:-span]) / span, 10 ** (QUIET_DB / 10)))
        rise = np.clip((mean_db[span:] - mean_db[:-span]) / ENTRY_DB, 0, 1)  # from before to after each moment
        at = np.interp(np.arange(frames) * ATTACK_S, np.arange(len(rise)) * part.level_s, rise)
        row += _fit(part.attack("full"), frames) * np.square(at)
    return row
