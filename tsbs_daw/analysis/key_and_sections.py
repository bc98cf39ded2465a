"""Key and sections, from the pitches and levels of the stems and the positions of the bars.

A section begins where the playing stems, their levels or the harmonies differ from the bars before.

The key is the one of 24 that fits the pitches of vocals, bass and accompaniment best; it has a Camelot code. A key and
its relative share their notes, and modes (dorian, mixolydian) share those of other keys. The features therefore include
not only the pitch profile but also how often the tonic chord sounds, overall and at the openings of sections, and what
the bass plays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from tsbs_daw.analysis.features import PITCH_S, Features, fold, likelihoods
from tsbs_daw.analysis.rhythm_features import sounds
from tsbs_daw.contracts.analysis import Key, Section

SPAN_BARS = 4  # bars compared before and after a boundary
SHORTEST_BARS = 4
FLOOR_DB, STEP_DB = -50.0, 8.0  # a stem that gets STEP_DB louder weighs as much as a new harmony
BOUNDARY = 0.8  # novelty above which a section may begin
ALIKE = 0.9  # distance below which two sections get the same label


def find_sections(
    mixture: Features, stems: Mapping[str, Features], bars_s: Sequence[float], duration_s: float
) -> tuple[Section, ...]:
    """Find the sections of a song; a song with fewer than eight bars has one section.

    The confidence of a section is the amount of change at its start; for the first section, at its end.

    Args:
        mixture: Features of the mixture.
        stems: Features of the stems, by name.
        bars_s: Start of each bar in seconds, ascending.
        duration_s: Duration of the song.
    """
    edges = np.asarray([start for start in bars_s if start < duration_s - 0.5], np.float64)
    if len(edges) < 2 * SHORTEST_BARS:
        return (Section(start_s=0.0, end_s=duration_s, label="A", confidence=0.0),) if duration_s > 0 else ()
    bars = _describe_bars(mixture, stems, np.append(edges, duration_s))
    novelty = _novelty(bars)
    starts = [0, *_peaks(novelty), len(edges)]
    spans = [bars[first:last] for first, last in pairwise(starts)]
    strength = [novelty[start] for start in starts[1:-1]] or [0.0]
    confidences = np.clip(np.asarray([strength[0], *strength])[: len(spans)] / (3 * BOUNDARY), 0, 1)
    times = [0.0, *edges[starts[1:-1]].tolist(), duration_s]
    return tuple(
        Section(start_s=round(start, 4), end_s=round(end, 4), label=label, confidence=round(float(confidence), 3))
        for start, end, label, confidence in zip(times[:-1], times[1:], _labels(spans), confidences, strict=True)
    )


def _describe_bars(mixture: Features, stems: Mapping[str, Features], edges: np.ndarray) -> np.ndarray:
    """Return the level of each stem and the chroma of the pitched stems for each bar, (bars, features)."""
    parts = list(stems.values()) or [mixture]
    columns = [_level_db(part, edges) / STEP_DB for part in parts]
    tonal = [stems[name] for name in ("other", "bass") if name in stems] or [mixture]
    chroma = fold(np.asarray(sum(part.pitches for part in tonal)))
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


def _novelty(bars: np.ndarray) -> np.ndarray:
    """Return how much the bars from each bar onwards differ from the bars before it, (bars,)."""
    novelty = np.zeros(len(bars))
    for bar in range(2, len(bars) - 1):
        before, after = bars[max(bar - SPAN_BARS, 0) : bar], bars[bar : bar + SPAN_BARS]
        # Adjacent bars count too, so that the peak lies at the change itself and not before it.
        immediate = np.linalg.norm(bars[bar] - bars[bar - 1])
        novelty[bar] = 0.7 * np.linalg.norm(after.mean(axis=0) - before.mean(axis=0)) + 0.3 * immediate
    return novelty


def _peaks(novelty: np.ndarray) -> list[int]:
    """Return the bars at which the novelty peaks."""
    from scipy.signal import find_peaks

    found = find_peaks(np.concatenate((novelty, [0.0])), height=BOUNDARY, distance=SHORTEST_BARS)[0]
    return [int(bar) for bar in found if SHORTEST_BARS // 2 <= bar < len(novelty)]


def _labels(spans: list[np.ndarray]) -> list[str]:
    """Label the sections: A for the first one and those that sound like it, then B, C, ... for new ones."""
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
    """Turn a number into letters: 0 is A, 25 is Z, 26 is AA."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


# ---- key -------------------------------------------------------------------------------------------------------------

Mode = Literal["major", "minor"]
TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
KEYS: tuple[tuple[int, Mode], ...] = tuple((tonic, mode) for mode in ("major", "minor") for tonic in range(12))
# Frequency of each scale degree: Albrecht and Shanahan (2013), Temperley (1999).
PROFILES = {
    "major": (
        (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
        (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0),
    ),
    "minor": (
        (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
        (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0),
    ),
}
SCALES = {
    "major": ((0, 2, 4, 5, 7, 9, 11), (0, 2, 4, 5, 7, 9, 10)),
    "minor": ((0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 3, 5, 7, 8, 11), (0, 1, 3, 5, 7, 8, 10)),
}
SHARES = {"other": 1.0, "bass": 0.7, "vocals": 0.5}
CHORD_FRAMES = 8  # 0.7 s
OPENING_S = 1.6
PLAIN = 0.05  # no key if the shares of the most and the least frequent pitch class differ by less than this


def find_key(
    mixture: Features, stems: Mapping[str, Features], openings_s: Sequence[float], doubt_below: float
) -> Key | None:
    """Find the key; return None if nothing is pitched.

    Args:
        mixture: Features of the mixture.
        stems: Features of the stems, by name.
        openings_s: Start of each section in seconds.
        doubt_below: Confidence below which the key is doubtful.
    """
    features = describe_keys(mixture, stems, openings_s)
    if features is None:
        return None
    likely = likelihoods("key", features)
    best = int(likely.argmax())
    tonic, mode = KEYS[best]
    confidence = round(float(likely[best]), 3)
    return Key(
        tonic=TONICS[mode][tonic], mode=mode, camelot=camelot(tonic, mode), confidence=confidence,
        doubtful=confidence < doubt_below,
    )  # fmt: skip


def camelot(tonic: int, mode: Mode) -> str:
    """Return the Camelot code, which counts fifths: 8B is C major, 8A is its relative A minor."""
    major = tonic if mode == "major" else (tonic + 3) % 12
    return f"{(major * 7 + 7) % 12 + 1}{'B' if mode == 'major' else 'A'}"


def describe_keys(mixture: Features, stems: Mapping[str, Features], openings_s: Sequence[float]) -> np.ndarray | None:
    """Return the features of each of KEYS, (24, features); None if nothing is pitched."""
    sounding = {name: stems[name] for name in SHARES if name in stems and sounds(stems[name])}
    if not any(name in stems for name in SHARES):
        sounding = {"other": mixture, "bass": mixture}
    chroma = {name: part.low_pitches if name == "bass" else part.pitches for name, part in sounding.items()}
    return describe_chroma({name: fold(pitches) for name, pitches in chroma.items()}, openings_s)


def describe_chroma(chroma: Mapping[str, np.ndarray], openings_s: Sequence[float]) -> np.ndarray | None:
    """Return the features of each of KEYS from the chroma of each stem; None if nothing is pitched.

    Shape:
        chroma: (12, F) for each stem
        returns: (24, features)
    """
    chroma = {name: part / part.sum(axis=0).mean() for name, part in chroma.items() if part.sum() > 0}
    if not chroma:
        return None
    frames = min(part.shape[1] for part in chroma.values())
    total = np.asarray(sum(SHARES[name] * part[:, :frames] for name, part in chroma.items()))
    profile = total.mean(axis=1) / total.mean(axis=1).sum()
    if profile.max() - profile.min() < PLAIN:
        return None
    low = chroma["bass"].mean(axis=1) if "bass" in chroma else np.zeros(12)
    opening = _opening(total, openings_s)
    opening_low = _opening(chroma["bass"], openings_s) if "bass" in chroma else np.zeros(12)
    chords, first_chords = _chords(total), _chords(np.tile(opening[:, None], CHORD_FRAMES))
    shares = [np.sqrt(profile), low, opening, opening_low, *chords, *first_chords]
    return np.asarray([_describe_key(shares, profile, tonic, mode) for tonic, mode in KEYS])


def _describe_key(shares: list[np.ndarray], profile: np.ndarray, tonic: int, mode: Mode) -> np.ndarray:
    """Return the features of one key.

    Shape:
        shares: (12,) each, by pitch class
        profile: (12,)
    """
    from_tonic = np.roll(profile, -tonic)
    fits = [max(float(from_tonic[list(scale)].sum()) for scale in SCALES[mode])]
    fits += [float(np.corrcoef(from_tonic, of_mode)[0, 1]) for of_mode in PROFILES[mode]]
    degrees = np.concatenate([np.roll(share, -tonic) for share in shares])
    # Major and minor have separate weights for each degree.
    apart = (degrees, np.zeros_like(degrees)) if mode == "major" else (np.zeros_like(degrees), degrees)
    return np.concatenate((fits, *apart, [float(mode == "major")]))


def _opening(chroma: np.ndarray, openings_s: Sequence[float]) -> np.ndarray:
    """Return the shares of pitch classes at the start of the song and of its sections, (12,); zeros if it is silent."""
    span, total = round(OPENING_S / PITCH_S), np.zeros(12)
    first = np.flatnonzero(chroma.sum(axis=0) > 0.2 * chroma.sum(axis=0).mean())
    for start in {int(first[0]) if len(first) else 0, *(round(at / PITCH_S) for at in openings_s if at > 0)}:
        part = chroma[:, start : start + span].sum(axis=1)
        total += part / (part.sum() + 1e-9)
    return total / (total.sum() + 1e-9)


def _chords(chroma: np.ndarray) -> np.ndarray:
    """Return the share of time in which each major and each minor triad fits best, (2, 12)."""
    whole = max(chroma.shape[1] // CHORD_FRAMES, 1) * CHORD_FRAMES
    slow = np.pad(chroma, ((0, 0), (0, max(whole - chroma.shape[1], 0))))[:, :whole]
    slow = slow.reshape(12, -1, CHORD_FRAMES).mean(axis=2)
    slow = slow / (np.linalg.norm(slow, axis=0) + 0.05 * np.linalg.norm(slow, axis=0).max() + 1e-9)
    triads = np.zeros((2, 12, 12))
    for row, third in enumerate((4, 3)):
        for root in range(12):
            triads[row, root, [root, (root + third) % 12, (root + 7) % 12]] = 3**-0.5
    fits = 8 * np.einsum("mrp,pf->mrf", triads, slow)
    odds = np.exp(fits - fits.max(axis=(0, 1)))
    return (odds / odds.sum(axis=(0, 1))).mean(axis=2)
