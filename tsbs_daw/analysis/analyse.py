"""Analysis of a song: extract features from each file once, then derive tempo, beats, bars, sections and key.

Separation leaves traces of the other stems in each stem. A stem is therefore silent where it is far below its own loud
passages, or inaudible; a stem that is far below the mixture everywhere never sounds.

`analyse_apart` does this in a child process, so that a crash, a hang or running out of memory does not cost the stems.
Results are cached, so delivering the same song under another name or in another format needs no second analysis.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tsbs_daw.analysis.beats import METERS, Pulse, find_bars
from tsbs_daw.analysis.features import Features, extract, weights
from tsbs_daw.analysis.key_and_sections import SHARES, find_key, find_sections
from tsbs_daw.analysis.rhythm_features import RhythmFeatures, rhythm_features
from tsbs_daw.analysis.tempo import PulseCandidate, aligned, find_pulses, on_the_attacks
from tsbs_daw.contracts.analysis import Analysis, Beats, Loudness, Span, StemSound, Tempo, TempoChange
from tsbs_daw.core import child
from tsbs_daw.core.errors import AnalysisError, AudioError, JobCancelled
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

SAME_TEMPO = 0.02
EQUAL_TEMPO = 1e-4  # relative tempo changes below this are ignored
UNCLEAR, NO_PULSE = 0.12, 0.04  # clarity below which a pulse is doubtful, and below which there is none
SHORT_S = 8.0  # shorter songs have a doubtful tempo, metre and key


def analyse(mixture: Path, stems: Mapping[str, Path], *, sample_rate_hint: int | None = None) -> Analysis:
    """Analyse a song. A value that cannot be determined is None or marked as doubtful, with a note.

    Args:
        mixture: File of the song.
        stems: Files by stem name. Any of "vocals", "drums", "bass" and "other" improves the result.
        sample_rate_hint: Ignored; the files state their sample rate.

    Raises:
        AnalysisError: A file cannot be read.
    """
    extracted: dict[str, tuple[Features, Loudness]] = {}
    for name, path in {"": mixture, **stems}.items():
        try:
            extracted[name] = extract(Path(path), **_needed_pitches(name, stems))
        except AudioError as problem:
            raise AnalysisError(f"The song cannot be analysed: {problem}") from problem
    song, loudness = extracted.pop("")
    return conclude(song, loudness, extracted)


def _needed_pitches(name: str, stems: Mapping[str, Path]) -> dict[str, bool]:
    """Return the flags of `extract` for the pitches that `conclude` needs from a file.

    Pitches take most of the memory and most of the time. Harmony and sections use the pitches of accompaniment and
    bass; the key also uses the pitches of the vocals and the low pitches of the bass. The mixture replaces missing
    stems.

    Args:
        name: Name of a stem; "" is the mixture.
        stems: Files of all stems, by name.
    """
    if name:
        return {"pitches": name in SHARES, "low_pitches": name == "bass"}
    return {"pitches": not {"other", "bass"} & {*stems}, "low_pitches": not {*SHARES} & {*stems}}


def conclude(song: Features, loudness: Loudness, stems: Mapping[str, tuple[Features, Loudness]]) -> Analysis:
    """Derive the analysis from features and loudness, without reading any file."""
    parts = {name: features for name, (features, _) in stems.items()}
    rhythm = rhythm_features(song, parts)
    candidates = find_pulses(rhythm)
    if candidates and candidates[0].clarity < NO_PULSE:
        candidates = []
    if candidates:
        candidates[0] = replace(candidates[0], pulse=on_the_attacks(candidates[0].pulse, rhythm, song))
    grid = aligned(candidates[0].pulse, rhythm, song, parts) if candidates else None
    tempo, beats = _tempo(candidates, grid, rhythm), _beats(candidates, grid, rhythm)
    sections = find_sections(song, parts, beats.downbeats_s or beats.times_s[::4], song.duration_s)
    short = song.duration_s < SHORT_S
    key = find_key(song, parts, [section.start_s for section in sections], 1.01 if short else weights().doubt["key"])
    paused = bool(candidates) and candidates[0].pulse.paused
    sounding = np.flatnonzero(is_sounding(song.levels, song.level_s, 0.0))
    analysis = Analysis(
        duration_s=round(song.duration_s, 6),
        tempo=tempo,
        beats=beats,
        key=key,
        loudness=loudness,
        intro_s=round(int(sounding[0]) * song.level_s, 4) if len(sounding) else round(song.duration_s, 4),
        stems={name: stem_sound(features, loud_power(song.levels), level) for name, (features, level) in stems.items()},
        sections=sections,
        notes=_notes(song, parts, tempo, beats, rhythm, no_key=key is None, paused=paused),
    )
    log.info("analysed %.1f s: %s, %s", song.duration_s, analysis.tempo, analysis.key)
    return analysis


def _tempo(candidates: list[PulseCandidate], grid: Pulse | None, rhythm: RhythmFeatures) -> Tempo:
    if not candidates or grid is None:
        return Tempo(bpm=None, confidence=0.0, doubtful=True, source=rhythm.source)
    best = candidates[0]
    confidence = _tempo_confidence(candidates)
    return Tempo(
        bpm=round(grid.bpm, 3),
        confidence=confidence,
        doubtful=confidence < weights().doubt["tempo"]
        or best.clarity < UNCLEAR
        or best.pulse.paused
        or rhythm.duration_s < SHORT_S,
        steady=best.pulse.steady,
        source=rhythm.source,
        changes=_changes(grid, rhythm.duration_s),
    )


def _tempo_confidence(candidates: list[PulseCandidate]) -> float:
    """Return the likelihood of the best candidate's tempo, regardless of phase."""
    bpm = candidates[0].pulse.bpm
    same_tempo = [other.likelihood for other in candidates if abs(other.pulse.bpm / bpm - 1) < SAME_TEMPO]
    return round(min(sum(same_tempo), 1.0), 3)


def _changes(pulse: Pulse, duration_s: float) -> tuple[TempoChange, ...]:
    """Return the tempo map, starting at the first beat."""
    numbers = pulse.numbers(duration_s)
    if not len(numbers):
        return ()
    first_s = max(float(pulse.at(numbers[:1])[0]), 0.0)
    starts = pulse.seconds_at_knots[:-1]
    inside = [(first_s, pulse.tempi_bpm[max(int(np.searchsorted(starts, first_s, side="right")) - 1, 0)])]
    inside += [(at, bpm) for at, bpm in zip(starts, pulse.tempi_bpm, strict=True) if first_s < at < duration_s]
    if pulse.steady:
        inside = inside[:1]
    changes = [TempoChange(at_s=round(float(at), 6), bpm=round(float(bpm), 4)) for at, bpm in inside]
    new = [True, *(abs(later.bpm / earlier.bpm - 1) > EQUAL_TEMPO for earlier, later in pairwise(changes))]
    return tuple(change for change, is_new in zip(changes, new, strict=True) if is_new)


def _beats(candidates: list[PulseCandidate], grid: Pulse | None, rhythm: RhythmFeatures) -> Beats:
    if not candidates or grid is None:
        return Beats()
    best = candidates[0]
    numbers = best.pulse.numbers(rhythm.duration_s)
    times = np.maximum(best.pulse.at(numbers), 0.0)
    rounded = tuple(np.round(np.maximum(grid.at(numbers), 0.0), 6).tolist())
    core, start_s = rhythm.core()
    inside = np.flatnonzero((times >= start_s) & (times < start_s + core.duration_s))
    bars = find_bars(core, times[inside] - start_s)
    if bars is None:
        return Beats(times_s=rounded, confidence=round(best.likelihood, 3))
    confidence = round(best.likelihood * bars.likelihood, 3)
    doubtful = confidence < weights().doubt["bars"]
    return Beats(
        times_s=rounded,
        confidence=round(best.likelihood, 3),
        downbeats_s=rounded[(int(inside[0]) + bars.first) % bars.beats_per_bar :: bars.beats_per_bar],
        beats_per_bar=bars.beats_per_bar if bars.of_meter >= 0.5 else None,
        meter_confidence=confidence,
        meter_doubtful=doubtful or rhythm.duration_s < SHORT_S,
    )


def _notes(
    song: Features,
    parts: Mapping[str, Features],
    tempo: Tempo,
    beats: Beats,
    rhythm: RhythmFeatures,
    *,
    no_key: bool,
    paused: bool,
) -> tuple[str, ...]:
    notes = []
    if not is_sounding(song.levels, song.level_s, 0.0).any():
        return ("The song is silent.",)
    if song.duration_s < SHORT_S:
        notes.append(f"The song is too short ({song.duration_s:.1f} s) to be sure of its tempo and key.")
    if parts and rhythm.source != "drums":
        notes.append("There are no drums; tempo and beats come from the mixture.")
    if tempo.bpm is None:
        notes.append("No pulse was found.")
    elif tempo.doubtful:
        notes.append(f"The tempo is doubtful; {tempo.bpm / 2:.1f} or {tempo.bpm * 2:.1f} BPM are possible.")
    if paused:
        notes.append("The beats pause and resume off the grid; the tempo map follows them.")
    elif not tempo.steady:
        notes.append("The tempo changes.")
    if tempo.bpm is not None and beats.meter_doubtful:
        odd = f" They may have {beats.beats_per_bar} beats." if (beats.beats_per_bar or 4) not in METERS else ""
        notes.append(f"The bars are doubtful; check where they begin.{odd}")
    if no_key:
        notes.append("Nothing is pitched, so there is no key.")
    return tuple(notes)


INAUDIBLE_DB = -60.0
BELOW_LOUD_DB = 30.0  # sound this far below the loud passages of its stem is bleed from other stems
BELOW_MIXTURE_DB = 40.0  # a stem this far below the mixture is nothing but bleed
SHORTEST_SILENCE_S = 1.0
SHORTEST_SOUND_S = 0.03  # a click does not end a silence
LOUD_PERCENTILE = 95


def stem_sound(stem: Features, mixture_power: float, loudness: Loudness) -> StemSound:
    """Find where a stem sounds and where it is silent.

    Args:
        stem: Features of the stem.
        mixture_power: Mean square of the loud passages of the mixture.
        loudness: Loudness of the stem.
    """
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
    """Return the mean square of the loud passages of a signal."""
    return float(np.percentile(levels, LOUD_PERCENTILE)) if len(levels) else 0.0


def is_sounding(levels: np.ndarray, level_s: float, mixture_power: float) -> np.ndarray:
    """Tell which frames are not silent.

    Args:
        levels: Mean square of each frame.
        level_s: Distance between frames, in seconds.
        mixture_power: Mean square of the loud passages of the mixture; 0 skips the comparison with it.

    Shape:
        levels: (F,)
        returns: (F,) bool
    """
    audible = 10 ** (INAUDIBLE_DB / 10)
    # Only audible frames count, so that a stem that enters briefly is judged by that moment.
    loud = loud_power(levels[levels > audible])
    if loud < mixture_power * 10 ** (-BELOW_MIXTURE_DB / 10):
        return np.zeros(len(levels), bool)
    sounding = levels > max(audible, loud * 10 ** (-BELOW_LOUD_DB / 10))
    for start, end in _runs(sounding):
        if (end - start) * level_s < SHORTEST_SOUND_S and end - start < len(levels):
            sounding[start:end] = False
    return sounding


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the start and end of each run of True values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _share(silences: list[Span], duration_s: float) -> float:
    silent = sum(span.end_s - span.start_s for span in silences)
    return round(min(max(1 - silent / duration_s, 0.0), 1.0), 4) if duration_s > 0 else 0.0


# ---- in a child process ----------------------------------------------------------------------------------------------

FILE_NAME = "analysis.json"
# An analysis takes 5 s of CPU time plus a twentieth of the song's length; the first one after installation takes 20 s
# more. These limits still suffice if a busy machine gives it only a fifteenth of a core.
LIMIT_S, LIMIT_FOR_EACH_S = 1800.0, 3.0
REPORT_EVERY_S = 1.0
MOST_KEPT = 2000  # analyses of about 20 kB each
COMMAND = child.python("tsbs_daw.analysis.analyse")


class AnalysisCache:
    """A folder of analyses, by cache key. An unreadable file counts as missing."""

    def __init__(self, folder: Path):
        self.folder = folder / "analyses"

    def find(self, key: str) -> Analysis | None:
        """Return the analysis stored under a key, or None."""
        path = self.folder / f"{key}.json"
        try:
            analysis = Analysis.model_validate_json(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError):
            return None
        return analysis

    def keep(self, key: str, analysis: Analysis) -> None:
        """Store an analysis and delete the least recently used ones beyond `MOST_KEPT`.

        Errors, such as a full disk, are ignored.
        """
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{key}.json", analysis.model_dump_json(by_alias=True))
            kept = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in kept[:-MOST_KEPT]:
                path.unlink()


def analyse_apart(
    mixture: Path,
    stems: Mapping[str, Path],
    duration_s: float,
    *,
    report: Callable[[float], None],
    cancelled: Callable[[], bool],
    limit_s: float | None = None,
) -> Analysis:
    """Analyse a song's files in a child process.

    Args:
        mixture: File of the song.
        stems: Files of its stems, by name.
        duration_s: Length of the song. The time limit and the estimated progress depend on it.
        report: Called with the progress, a fraction below 1. It is an estimate from the elapsed time.
        cancelled: Called several times a second; returns True to cancel.
        limit_s: Time limit; None for half an hour plus three times the song's length.

    Raises:
        AnalysisError: The analysis failed or did not finish in time.
        JobCancelled: `cancelled` returned True.
    """
    limit_s = LIMIT_S + LIMIT_FOR_EACH_S * duration_s if limit_s is None else limit_s
    last_reported_s = 0.0

    def waiting(elapsed_s: float) -> None:
        nonlocal last_reported_s
        if cancelled():
            raise JobCancelled("The job was cancelled.")
        if elapsed_s - last_reported_s > REPORT_EVERY_S:
            last_reported_s = elapsed_s
            report(1 - math.exp(-elapsed_s / (10 + duration_s / 5)))

    request = {"mixture": str(mixture), "stems": {name: str(path) for name, path in stems.items()}}
    try:
        return Analysis.model_validate(child.ask(COMMAND, request, limit_s=limit_s, waiting=waiting))
    except child.ChildTimeout as error:
        raise AnalysisError(f"it did not finish within {limit_s:.0f} s") from error
    except child.ChildRefused as error:
        raise AnalysisError(str(error)) from error
    except (child.ChildFailed, ValueError) as error:
        log.warning("the analysis ended with %s: %s", error, getattr(error, "log", ""))
        raise AnalysisError("it ended unexpectedly; the worker's log has the details") from error


def _answer(request: dict[str, Any]) -> Any:
    """Analyse a song inside the child process; see `core.child`."""
    stems = {name: Path(path) for name, path in request["stems"].items()}
    return json.loads(analyse(Path(request["mixture"]), stems).model_dump_json(by_alias=True))


if __name__ == "__main__":
    child.answer(_answer)
