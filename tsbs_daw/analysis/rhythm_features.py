"""What tells of rhythm, as rows over time: attacks of stems and mixture in bands, changes of harmony, entries.

A row that nothing is heard in is zero, and says nothing for or against any pulse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tsbs_daw.analysis.features import ATTACK_S, PITCH_S, Features, fold

# Row: (stem, band), and the band of the mixture that stands in for a stem that is not there.
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
SILENT = 1e-6  # mean square of a stem that holds nothing: -60 dB
SLACK_FRAMES = 5  # an attack counts for a beat that is up to 23 ms away
HARMONY_SPAN = 5  # pitch frames, 0.5 s, compared before and after
ENTRY_S, ENTRY_DB = 1.5, 20.0  # compared before and after; a stem that gets so much louder comes in
QUIET_DB = -60.0  # of full scale; below it a stem is not there


@dataclass(frozen=True)
class Evidence:
    """rows: name -> (F,) float32, ATTACK_S apart, each with a root mean square of 1, or zero
    pulse: (F,) float64, the rows together, for finding beats
    source: what drums stands for: "drums", or "mixture" without a drums stem that sounds
    """

    rows: dict[str, np.ndarray]
    pulse: np.ndarray
    source: str
    duration_s: float

    def near(self, names: Sequence[str], times_s: np.ndarray) -> np.ndarray:
        """(names, times): the strongest attack near each moment.

        Looked for where it is asked for: the same for every frame would be as large as the rows.
        """
        frames = np.round(times_s / ATTACK_S).astype(np.int64)
        last = len(self.pulse) - 1
        frames = np.clip(frames, 0, last)[:, None] + np.arange(SLACK_FRAMES) - SLACK_FRAMES // 2
        frames = np.clip(frames, 0, last)
        return np.stack([self.rows[name][frames].max(axis=1) for name in names])


def gather(mixture: Features, stems: Mapping[str, Features]) -> Evidence:
    """stems: by name; any may be missing or silent."""
    frames = mixture.attacks.shape[1]
    heard = {name: stem for name, stem in stems.items() if sounds(stem)}
    rows, pulse = {}, np.zeros(frames)

    def put(name: str, row: np.ndarray) -> None:
        even = _even(_fit(row, frames))
        rows[name] = even.astype(np.float32)
        if name in PULSE_WEIGHTS:
            np.add(pulse, PULSE_WEIGHTS[name] * even, out=pulse)

    put("entries", _entries(list(heard.values()) or [mixture], frames))
    for row, (stem, band, instead) in ROWS.items():
        # A stem that was asked for and is silent stays silent; only the drums, which lead, are replaced.
        silent = stem in stems and stem not in heard and stem != "drums"
        attack = heard[stem].attack(band) if stem in heard else mixture.attack(instead)
        put(row, np.zeros(frames) if silent else attack)
    for row, band in MIXTURE_ROWS.items():  # separation blurs some attacks and loses others; this is a second witness
        put(row, mixture.attack(band))
    tonal = [heard[name] for name in ("other", "bass") if name in heard] if stems else [mixture]
    put("chords", _harmony_changes(sum(part.pitches for part in tonal), frames) if tonal else np.zeros(frames))
    # When harmony changes is heard within half a second; which attack it was that changed it, to the hundredth.
    put("changes", rows["chords"] * (rows["bass"] + rows["other"]))
    return Evidence(rows, pulse, "drums" if "drums" in heard else "mixture", mixture.duration_s)


def sounds(stem: Features) -> bool:
    """Whether a stem holds more than what separation leaves behind."""
    return bool(len(stem.levels)) and float(np.percentile(stem.levels, 95)) > SILENT


def _even(row: np.ndarray) -> np.ndarray:
    row = np.maximum(np.asarray(row, np.float64), 0)
    strength = np.sqrt(np.mean(np.square(row))) if row.size else 0.0
    return row / strength if strength > 1e-6 else np.zeros_like(row)


def _fit(row: np.ndarray, frames: int) -> np.ndarray:
    return row[:frames] if len(row) >= frames else np.pad(row, (0, frames - len(row)))


def _harmony_changes(pitches: np.ndarray, frames: int) -> np.ndarray:
    """How much the half second after each moment differs in pitch from the half second before, 0..1."""
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
    """Attacks of stems where they come in or get much louder."""
    row = np.zeros(frames)
    for part in parts:
        span = max(round(ENTRY_S / part.level_s), 1)
        levels = np.pad(part.levels.astype(np.float64), span)
        sums = np.concatenate(([0.0], np.cumsum(levels)))
        mean_db = 10 * np.log10(np.maximum((sums[span:] - sums[:-span]) / span, 10 ** (QUIET_DB / 10)))
        rise = np.clip((mean_db[span:] - mean_db[:-span]) / ENTRY_DB, 0, 1)  # of a moment, from before to after it
        at = np.interp(np.arange(frames) * ATTACK_S, np.arange(len(rise)) * part.level_s, rise)
        row += _fit(part.attack("full"), frames) * np.square(at)
    return row
