"""Evaluate the analysis on songs of the project's generator, whose tempo, beats, bars, key and sections are known.

The generator's songs begin on a downbeat. Real songs do not, so the beginning of each is cut off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from tsbs_daw.analysis.analyse import conclude
from tsbs_daw.analysis.features import Features, extract_stream
from tsbs_daw.analysis.key_and_sections import TONICS
from tsbs_daw.audio.read import open_audio
from tsbs_daw.contracts.analysis import Analysis, Loudness
from tsbs_daw.core.errors import DatasetError, UsageError, shown
from tsbs_daw.lab.evaluation.songs import Truth, find_test_songs, read_truth, stem_file
from tsbs_daw.lab.songs.render import SPLITS
from tsbs_daw.separation.separator import Separator

log = logging.getLogger(__name__)

SCHEMA = 1
STEMS = ("vocals", "drums", "bass", "other")
TEMPO_WITHIN = 0.02
BEATS_RIGHT = 0.8  # F-measure from which beats count as right
OCTAVES = (0.5, 2.0)
Listening = Literal["separated", "true", "none"]
SongFeatures = dict[str, tuple[Features, Loudness]]


def evaluate_analysis(
    folders: Sequence[Path],
    separator: Separator | None,
    *,
    listening: Listening = "separated",
    songs: int | None = None,
    progress: Callable[[dict], None] = lambda song: None,
) -> dict:
    """Analyse the songs of data sets and compare the results with the truth.

    Args:
        folders: the data sets
        separator: required for separated stems
        listening: analyse "separated" stems, "true" stems, or "none": the mixture alone
        songs: only the first so many of each folder, by name
        progress: called with each song's part of the document

    Returns:
        A JSON-ready document

    Raises:
        DatasetError: a folder has no songs, or a song has no truth
        AudioError: a file cannot be read
    """
    if listening == "separated" and separator is None:
        raise UsageError("Separated stems need a model; name one, or use the true stems or none.")
    results = []
    for folder in folders:
        for song in find_test_songs(folder, STEMS)[:songs]:
            extracted = extract_song(song, separator, listening)
            analysis = conclude(*extracted.pop(""), extracted)
            results.append({"name": song.name, **compare(analysis, read_cut_truth(song))})
            progress(results[-1])
    return document(results, listening, separator.model_hash if separator else None)


def document(results: list[dict], listening: Listening, model_hash: str | None) -> dict:
    return {
        "schema": SCHEMA,
        "listening": listening,
        "model_hash": model_hash,
        "summary": summarise(results),
        "songs": results,
    }


def extract_song(song: Path, separator: Separator | None, listening: Listening) -> SongFeatures:
    """Extract the features of a song and its stems; the name of the mixture is ""."""
    audio, sample_rate = _read(song / "mixture.wav", cut_of(song))
    parts = {"": audio}
    if listening == "separated":
        assert separator is not None
        parts |= separator.separate(audio, sample_rate)
    elif listening == "true":
        files = {stem: cast("Path", stem_file(song, stem)) for stem in STEMS}  # a generated song has them all
        parts |= {stem: _read(file, cut_of(song))[0] for stem, file in files.items()}
    return {name: extract_stream([part], sample_rate, len(part)) for name, part in parts.items()}


def cut_of(song: Path) -> float:
    """Seconds to cut from the start of a song: 0.1 to 2, derived from its name."""
    digits = "".join(letter for letter in song.name if letter.isdigit())
    return (int(digits or 0) * 7919 % 1900 + 100) / 1000


def read_cut_truth(song: Path) -> Truth:
    return read_truth(song).after(cut_of(song))


def compare(analysis: Analysis, truth: Truth) -> dict:
    """Compare an analysis with the truth: the figures, whether they are right, and whether they are marked doubtful."""
    return {
        "tempo": _compare_tempo(analysis, truth),
        "beats": _compare_beats(analysis, truth),
        "key": _compare_key(analysis, truth),
        "sections": {"f_measure": _boundaries(analysis, truth)},
    }


def _compare_tempo(analysis: Analysis, truth: Truth) -> dict:
    tempo = analysis.tempo
    ratio = tempo.bpm / truth.tempo_bpm if tempo.bpm else None
    right = ratio is not None and abs(ratio - 1) <= TEMPO_WITHIN
    octave = ratio is not None and any(abs(ratio / of - 1) <= TEMPO_WITHIN for of in OCTAVES)
    return {
        "bpm": tempo.bpm,
        "true_bpm": truth.tempo_bpm,
        "confidence": tempo.confidence,
        "doubtful": tempo.doubtful,
        "source": tempo.source,
        "right": right,
        "octave_error": octave,
        "exact": ratio is not None and abs(ratio - 1) <= 0.0005,
        "right_or_marked_octave": right or (octave and tempo.doubtful),
    }


def _compare_beats(analysis: Analysis, truth: Truth) -> dict:
    import mir_eval

    beats = analysis.beats
    f_measure = mir_eval.beat.f_measure(np.asarray(truth.beats_s), np.asarray(beats.times_s))
    of_bars = mir_eval.beat.f_measure(np.asarray(truth.downbeats_s), np.asarray(beats.downbeats_s))
    true, found = np.asarray(truth.beats_s), np.asarray(beats.times_s)
    away = np.abs(true[:, None] - found[None]).min(axis=1) if len(found) else np.asarray([np.inf])
    near = away[away < 0.07]
    return {
        "f_measure": round(float(f_measure), 4),
        "downbeats_f_measure": round(float(of_bars), 4),
        "median_error_ms": round(float(np.median(near)) * 1000, 2) if len(near) else None,
        "confidence": beats.confidence,
        "beats_per_bar": beats.beats_per_bar,
        "true_beats_per_bar": truth.beats_per_bar,
        "meter_confidence": beats.meter_confidence,
        "meter_doubtful": beats.meter_doubtful,
        "bars_right": bool(of_bars >= BEATS_RIGHT and beats.beats_per_bar == truth.beats_per_bar),
    }


def _compare_key(analysis: Analysis, truth: Truth) -> dict:
    said, (tonic, mode) = analysis.key, truth.key
    found = "none"
    if said is not None:
        step = (TONICS[said.mode].index(said.tonic) - tonic) % 12
        if said.mode == mode:
            found = {0: "exact", 5: "fifth", 7: "fifth"}.get(step, "wrong")
        else:
            found = {0: "parallel", 9 if mode == "major" else 3: "relative"}.get(step, "wrong")
    return {
        "key": said.name if said else None,
        "true_key": f"{TONICS[mode][tonic]} {mode}",
        "camelot": said.camelot if said else None,
        "confidence": said.confidence if said else 0.0,
        "doubtful": said.doubtful if said else True,
        "found": found,
        "exact_or_relative": found in ("exact", "relative"),
    }


def _boundaries(analysis: Analysis, truth: Truth) -> float:
    """F-measure of section boundaries within 3 s, without the ends of the song."""
    import mir_eval

    spans = []
    for starts in ([section.start_s for section in analysis.sections], truth.sections_s):
        times = [0.0, *(at for at in starts if 0.5 < at < truth.duration_s - 0.5), truth.duration_s]
        spans.append(np.asarray(list(pairwise(times))))
    if min(len(spans[0]), len(spans[1])) == 1:
        return float(len(spans[0]) == len(spans[1]))
    return round(float(mir_eval.segment.detection(spans[1], spans[0], window=3.0, trim=True)[2]), 4)


def summarise(songs: Sequence[Mapping]) -> dict:
    """Shares over all songs, and how often a figure is wrong although it is not marked doubtful."""
    tempo, beats, key = ([song[part] for song in songs] for part in ("tempo", "beats", "key"))
    errors_ms = [song["median_error_ms"] for song in beats if song["median_error_ms"] is not None]
    return {
        "songs": len(songs),
        "tempo_right": _share(song["right"] for song in tempo),
        "tempo_right_or_marked_octave": _share(song["right_or_marked_octave"] for song in tempo),
        "tempo_right_or_octave": _share(song["right"] or song["octave_error"] for song in tempo),
        "tempo_within_0_05_percent": _share(song["exact"] for song in tempo),
        "beats_f_measure": _mean(song["f_measure"] for song in beats),
        "beats_median_error_ms": round(float(np.median(errors_ms)), 2) if errors_ms else None,
        "downbeats_f_measure": _mean(song["downbeats_f_measure"] for song in beats),
        "meter_right": _share(song["beats_per_bar"] == song["true_beats_per_bar"] for song in beats),
        "bars_right": _share(song["bars_right"] for song in beats),
        "key_exact": _share(song["found"] == "exact" for song in key),
        "key_exact_or_relative": _share(song["exact_or_relative"] for song in key),
        "sections_f_measure": _mean(song["sections"]["f_measure"] for song in songs),
        "trust": {
            "tempo": _trust((song["doubtful"], song["right"]) for song in tempo),
            "bars": _trust((song["meter_doubtful"], song["bars_right"]) for song in beats),
            "key": _trust((song["doubtful"], song["exact_or_relative"]) for song in key),
        },
    }


def _trust(marked: Iterable[tuple[bool, bool]]) -> dict:
    pairs = list(marked)
    sure = [right for doubtful, right in pairs if not doubtful]
    doubtful = [right for doubtful, right in pairs if doubtful]
    return {
        "not_doubtful": len(sure),
        "of_these_wrong": sum(not right for right in sure),
        "doubtful": len(doubtful),
        "of_those_wrong": sum(not right for right in doubtful),
    }


def _share(flags: Iterable[bool]) -> float:
    return _mean(float(flag) for flag in flags)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return round(float(np.mean(known)), 4) if known else 0.0


def _read(path: Path, cut_s: float) -> tuple[np.ndarray, int]:
    """Read a file without its first `cut_s` seconds."""
    with open_audio(path) as reader:
        blocks = list(reader.blocks())
        return np.concatenate(blocks, axis=1)[:, int(cut_s * reader.info.sample_rate) :], reader.info.sample_rate


FIRST_TEST_SEED = SPLITS["test"].start
UNMEASURED = Loudness(integrated_lufs=None, range_lu=None, true_peak_db=None)  # loudness is not used for fitting


def extract_songs(
    folders: Sequence[Path], separator: Separator, kept: Path | None = None
) -> tuple[list[tuple[SongFeatures, Truth]], list[str]]:
    """Separate songs and extract their features, or load them from a cache.

    Args:
        folders: the data sets
        separator: the model
        kept: folder of cached features

    Returns:
        Features and truth of each song, and the ranges of the songs' seeds: "7000-7020", ...

    Raises:
        DatasetError: a folder has no songs, or songs of the test split
    """
    songs, seeds = [], []
    for song in [song for folder in folders for song in find_test_songs(folder, STEMS)]:
        seeds.append(_seed(song))
        known = kept / f"{song.name}.{separator.model_hash[:8]}.npz" if kept else None
        if known is not None and known.exists():
            extracted = _load(known)
        else:
            extracted = extract_song(song, separator, "separated")
            if known is not None:
                known.parent.mkdir(parents=True, exist_ok=True)
                _keep(extracted, known)
        log.info("extracted %s", song.name)
        songs.append((extracted, read_cut_truth(song)))
    return songs, _ranges(seeds)


def _seed(song: Path) -> int:
    seed = int(json.loads((song / "song.json").read_text(encoding="utf-8"))["seed"])
    if seed >= FIRST_TEST_SEED:
        raise DatasetError(f"{shown(song)} belongs to the test split; use songs with seeds below {FIRST_TEST_SEED}.")
    return seed


def _ranges(seeds: Sequence[int]) -> list[str]:
    order = sorted(set(seeds))
    starts = [order[0], *(after for before, after in pairwise(order) if after > before + 1)]
    ends = [*(before for before, after in pairwise(order) if after > before + 1), order[-1]]
    return [f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]


def _keep(extracted: SongFeatures, path: Path) -> None:
    arrays: dict[str, Any] = {
        f"{name}/{field.name}": np.asarray(getattr(features, field.name))
        for name, (features, _) in extracted.items()
        for field in fields(Features)
    }
    np.savez(path, **arrays)


def _load(path: Path) -> SongFeatures:
    extracted = {}
    with np.load(path, allow_pickle=False) as known:
        for name in dict.fromkeys(key.split("/")[0] for key in known.files):
            values = {field.name: known[f"{name}/{field.name}"] for field in fields(Features)}
            plain: dict[str, Any] = {key: value if value.ndim else float(value) for key, value in values.items()}
            extracted[name] = Features(**plain), UNMEASURED
    return extracted
