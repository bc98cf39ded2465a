"""The benchmark on real songs: quality of the stems of records. S stems; audio is (channels, samples).

`real_songs.yaml` lists the songs, the stems to score of each, and the repositories of the audio. The benchmark is used
to select models, never for training: `check_not_benchmark` recognises its songs by content.

frame SDR   median of the SDR of each second in which the true stem is above -45 dBFS
SDR         SDR of the whole excerpt
leak        level of the estimate of a silent stem, relative to the mixture

The songs are made from clones of their public repositories:

    git clone https://github.com/mdn/webaudio-examples
    python -m tsbs_daw.lab real-songs OUT --clone webaudio-examples

Files are read from the commit that `real_songs.yaml` pins, whatever is checked out; its hash covers every byte.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import yaml

from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.evaluate import rms_db, rounded, si_sdr, stem_over_mixture, usdr
from tsbs_daw.lab.evaluation.songs import KnownSong, list_song_folders, read_song
from tsbs_daw.separation.separator import Separator
from tsbs_daw.separation.streams import share_residual

SAMPLE_RATE = 44100
FADE_S = 0.01
GIT_S = 600.0


def make_real_songs(
    out: Path, clones: list[Path], *, document: dict[str, Any] | None = None, report: Callable[[str], None] = print
) -> list[Path]:
    """Write every song of the benchmark whose repository is among `clones` as `OUT/<song>/<stem>.flac`.

    Args:
        out: Folder of songs; existing songs are not changed.
        clones: Folders of cloned repositories, named as in `real_songs.yaml`.
        document: The benchmark; by default, the content of `real_songs.yaml`.
        report: Called with a line for each song.

    Returns:
        The songs' folders.

    Raises:
        DatasetError: A clone lacks the pinned commit or a file, or a file cannot be decoded.
    """
    document = document or yaml.safe_load((files("tsbs_daw.lab.evaluation") / "real_songs.yaml").read_text("utf-8"))
    by_name = {clone.absolute().name.removesuffix(".git"): clone for clone in clones}
    if unknown := sorted(set(by_name) - set(document["repositories"])):
        raise DatasetError(
            f"The clone {unknown[0]} is not one of the benchmark's repositories; they are "
            f"{', '.join(document['repositories'])}."
        )
    made = []
    for name, song in document["songs"].items():
        clone = by_name.get(song["repository"])
        if clone is None:
            report(f"{name}: skipped, no clone of {document['repositories'][song['repository']]['url']} was given")
            continue
        folder = out / name
        if not folder.is_dir():
            _write_song(folder, song, clone, document["repositories"][song["repository"]])
            report(f"{name}: {song['title']}")
        made.append(folder)
    return made


def _write_song(folder: Path, song: dict[str, Any], clone: Path, repository: dict[str, str]) -> None:
    stems = {stem: _sum_of(names, song, clone, repository) for stem, names in song["stems"].items()}
    length = max(audio.shape[1] for audio in stems.values())
    if song["length_s"] is not None:
        length = round(song["length_s"] * SAMPLE_RATE)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for stem, audio in stems.items():
        audio = np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1]))))
        audio = _faded(audio * 10.0 ** (song["gain_db"] / 20.0))
        soundfile.write(partial / f"{stem}.flac", audio.T, SAMPLE_RATE, subtype="PCM_24")
    partial.rename(folder)


def _sum_of(names: list[str], song: dict[str, Any], clone: Path, repository: dict[str, str]) -> np.ndarray:
    """Sum files from `start_s` on at 44.1 kHz: (2, samples); (2, 0) without files."""
    total = np.zeros((2, 0))
    for name in names:
        path = f"{song['folder']}/{name}{repository['suffix']}"
        audio, rate = _decode(_file_at(clone, repository["commit"], path), path)
        audio = audio[:, round(song["start_s"] * rate) :]
        if rate != SAMPLE_RATE:
            audio = soxr.resample(audio.T, rate, SAMPLE_RATE, quality="VHQ").T
        longer, shorter = sorted((total, audio), key=lambda part: part.shape[1], reverse=True)
        total = longer.copy()
        total[:, : shorter.shape[1]] += shorter
    return total


def _file_at(clone: Path, commit: str, path: str) -> bytes:
    command = ["git", "-C", str(clone), "cat-file", "blob", f"{commit}:{path}"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout
    except FileNotFoundError as error:
        raise DatasetError("The program git is missing; install it to read the benchmark's repositories.") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DatasetError(
            f"The clone {clone} does not hold {path} at commit {commit[:12]}; clone the whole repository, with its "
            "history."
        ) from error


def _decode(data: bytes, path: str) -> tuple[np.ndarray, int]:
    """Decode a file: (2, samples) float64, and the sample rate."""
    try:
        if not path.endswith(".m4a"):
            audio, rate = soundfile.read(io.BytesIO(data), always_2d=True)
            return _stereo(audio.T), rate
        import av

        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=stream.rate)
            blocks = [
                block.to_ndarray() for frame in (*container.decode(stream), None) for block in resampler.resample(frame)
            ]
            return np.concatenate(blocks, axis=1).astype(np.float64), stream.rate
    except ImportError as error:
        raise DatasetError("Reading .m4a files needs PyAV; install it with: pip install 'tsbs-daw[media]'") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"Cannot decode {path}: {error}") from error


def _stereo(audio: np.ndarray) -> np.ndarray:
    return np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio[:2]


def _faded(audio: np.ndarray) -> np.ndarray:
    fade = min(round(FADE_S * SAMPLE_RATE), audio.shape[1])
    audio = audio.copy()
    audio[:, :fade] *= np.linspace(0.0, 1.0, fade)
    audio[:, audio.shape[1] - fade :] *= np.linspace(1.0, 0.0, fade)
    return audio


logger = logging.getLogger(__name__)

SCHEMA = 1
ACTIVE_DB = -45.0  # a second of a stem below this is a rest, and is not scored
FRAME_S = 1.0
LEVEL_HOP_S = 0.1  # interval of the levels by which a song is recognised
LEVEL_SHIFTS = 4  # fractions of a hop at which levels are compared, because a cut may begin between two hops
SAME_SONG = 0.85  # correlation of levels above which two songs are the same; different songs stay below 0.4
SHORTEST_MATCH_S = 10.0


@dataclass(frozen=True)
class BenchmarkSong:
    """A song of the benchmark.

    Attributes:
        scored: Stems with known truth.
        silent: Stems that the song does not have, so that any estimate of them is a leak.
        levels: Level of the mixture every 0.1 s, in dB.
    """

    name: str
    scored: tuple[str, ...]
    silent: tuple[str, ...]
    levels: np.ndarray


@functools.cache
def benchmark_songs() -> dict[str, BenchmarkSong]:
    """Read the songs of the benchmark, by name."""
    document = yaml.safe_load((files("tsbs_daw.lab.evaluation") / "real_songs.yaml").read_text(encoding="utf-8"))
    return {
        name: BenchmarkSong(
            name,
            tuple(song["scored"]),
            tuple(song["silent"]),
            -np.frombuffer(base64.b64decode(song["levels"]), np.uint8).astype(np.float64) / 2.0,
        )
        for name, song in document["songs"].items()
    }


def evaluate_real(data: Path, separator: Separator, *, progress: Callable[[dict], None] = lambda song: None) -> dict:
    """Evaluate a model on every song of `data`.

    A song of the benchmark is scored on the stems that `real_songs.yaml` lists. For any other song, every stem that
    sounds is scored, and the estimate of every silent stem counts as a leak.

    Args:
        data: Folder of songs.
        separator: The model.
        progress: Called with each song's part of the document.

    Returns:
        A JSON-ready document.

    Raises:
        DatasetError: The folder has no songs, or a song cannot be read.
    """
    songs = []
    for song in read_real_songs(data, separator.stems):
        songs.append(measure_real_song(song, separator))
        logger.info("%s: %s", song.name, songs[-1])
        progress(songs[-1])
    return {
        "schema": SCHEMA,
        "model_hash": separator.model_hash,
        "stems": list(separator.stems),
        "summary": summarise_real(songs, separator.stems),
        "songs": songs,
    }


def read_real_songs(data: Path, stems: tuple[str, ...]) -> Iterator[KnownSong]:
    """Read the songs of a folder, one after another.

    Raises:
        DatasetError: The folder has no songs, or a song cannot be read.
    """
    folders = list_song_folders(data, stems)
    if not folders:
        raise DatasetError(
            f"The folder {data} holds no songs; give a folder of song/{stems[0]}.wav files, or make the "
            "benchmark's with: python -m tsbs_daw.lab real-songs"
        )
    for folder in folders:
        yield read_song(folder, stems)


def measure_real_song(song: KnownSong, separator: Separator) -> dict[str, Any]:
    """Score one song: both stages, the mask stage alone, and both stages with the residual shared among the stems."""
    stages = {stage: separator.separate(song.mixture, song.sample_rate, stage=stage) for stage in ("full", "mask")}
    stages["shared"] = shared_stems(stages["full"], song)
    truth = dict(zip(separator.stems, song.targets, strict=True))
    scored, silent = scored_and_silent(song.name, truth)
    estimates = np.stack([stages["full"][stem] for stem in separator.stems])
    return {
        "name": song.name,
        "seconds": round(song.seconds, 3),
        "stem_over_mixture_db": rounded(stem_over_mixture(estimates, song.mixture, song.sample_rate)),
        "scored": {
            stem: {
                stage: _score(truth[stem], stems[stem], song.sample_rate) for stage, stems in stages.items()
            } | {"seconds": int(active_seconds(truth[stem], song.sample_rate).sum())}
            for stem in separator.stems if stem in scored
        },
        "leak_db": {
            stem: rounded(rms_db(stages["full"][stem]) - rms_db(song.mixture))
            for stem in separator.stems if stem in silent
        },
    }  # fmt: skip


def shared_stems(stems: dict[str, np.ndarray], song: KnownSong) -> dict[str, np.ndarray]:
    """Share the residual among the stems, as in a delivery, so that they sum to the mixture."""
    estimates = np.stack(list(stems.values())).astype(np.float32)
    residual = (song.mixture - estimates.sum(0, dtype=np.float64)).astype(np.float32)
    parts = [part for part, _ in share_residual([(estimates, residual)], song.sample_rate)]
    return dict(zip(stems, np.concatenate(parts, axis=-1), strict=True))


def scored_and_silent(name: str, truth: dict[str, np.ndarray]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stems to score, and those that must stay silent, of a song with this name and these true stems."""
    known = benchmark_songs().get(name)
    if known is not None:
        return known.scored, known.silent
    silent = tuple(stem for stem, audio in truth.items() if rms_db(audio) < 2 * ACTIVE_DB)
    return tuple(stem for stem in truth if stem not in silent), silent


def _score(target: np.ndarray, estimate: np.ndarray, sample_rate: int) -> dict[str, float | None]:
    return {
        "frame_sdr_db": rounded(frame_sdr(target, estimate, sample_rate)),
        "sdr_db": rounded(usdr(target, estimate)),
        "si_sdr_db": rounded(si_sdr(target, estimate)),
    }


def frame_sdr(target: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Return the median SDR in dB of the seconds in which `target` sounds; NaN if it never does.

    Shape:
        target, estimate: (channels, samples)
    """
    active = active_seconds(target, sample_rate)
    if not active.any():
        return float("nan")
    signal, error = _frames(target, sample_rate)[active], _frames(target - estimate, sample_rate)[active]
    return float(np.median(10.0 * np.log10(signal / np.maximum(error, 1e-12 * signal))))


def active_seconds(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return which complete seconds of `audio` are above -45 dBFS: (seconds,) bool."""
    return 10.0 * np.log10(_frames(audio, sample_rate) + 1e-20) > ACTIVE_DB


def _frames(audio: np.ndarray, sample_rate: int, frame_s: float = FRAME_S) -> np.ndarray:
    """Return the mean power of each complete frame: (frames,)."""
    length = round(frame_s * sample_rate)
    frames = audio.shape[-1] // length
    cut = audio[..., : frames * length].reshape(-1, frames, length)
    return np.square(cut, dtype=np.float64).mean(axis=(0, 2))


def summarise_real(songs: list[dict], stems: tuple[str, ...]) -> dict[str, Any]:
    """Summarise songs: medians per stem and stage, the worst song, the gain of the map stage, and the loudest leak."""
    summary: dict[str, Any] = {"songs": len(songs), "stems": {}, "leak_db": {}}
    for stem in stems:
        parts = [song["scored"][stem] for song in songs if stem in song["scored"]]
        parts = [part for part in parts if part["full"]["frame_sdr_db"] is not None]
        if parts:
            medians = {
                stage: {key: rounded(np.median([part[stage][key] for part in parts])) for key in parts[0][stage]}
                for stage in ("full", "mask", "shared")
            }
            added = np.median([part["full"]["frame_sdr_db"] - part["mask"]["frame_sdr_db"] for part in parts])
            worst = min(part["full"]["frame_sdr_db"] for part in parts)
            summary["stems"][stem] = {
                "songs": len(parts), **medians, "worst_frame_sdr_db": worst, "map_stage_adds_db": rounded(added),
            }  # fmt: skip
        leaks = [song["leak_db"][stem] for song in songs if song["leak_db"].get(stem) is not None]
        if leaks:
            summary["leak_db"][stem] = max(leaks)
    means = [part["full"]["frame_sdr_db"] for part in summary["stems"].values()]
    summary["mean_frame_sdr_db"] = rounded(np.mean(means)) if means else None
    over = [song["stem_over_mixture_db"] for song in songs if song["stem_over_mixture_db"] is not None]
    summary["stem_over_mixture_db"] = max(over) if over else None
    return summary


def mixture_levels(mixture: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the level of the mixture every 0.1 s in dB, at least -120: (frames,)."""
    return np.maximum(10.0 * np.log10(_frames(mixture, sample_rate, LEVEL_HOP_S) + 1e-12), -120.0)


def check_not_benchmark(mixture: np.ndarray, sample_rate: int, name: str) -> None:
    """Refuse a training song that is, or contains, a song of the benchmark, at any level and in any format.

    Args:
        mixture: The song, (channels, samples).
        sample_rate: In Hz.
        name: Name of the song in the error.

    Raises:
        DatasetError: The song is in the benchmark.
    """
    step = round(LEVEL_HOP_S * sample_rate) // LEVEL_SHIFTS
    shifted = [mixture_levels(mixture[..., shift * step :], sample_rate) for shift in range(LEVEL_SHIFTS)]
    for song in benchmark_songs().values():
        if max(_best_correlation(levels, song.levels) for levels in shifted) > SAME_SONG:
            raise DatasetError(
                f"The song {name} is {song.name} of the benchmark, which must never be trained on; remove it from the "
                "training songs."
            )


def _best_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest correlation of the shorter sequence with any section of the longer one."""
    short, long = sorted((first, second), key=len)
    if len(short) < SHORTEST_MATCH_S / LEVEL_HOP_S or short.std() < 1e-6:
        return 0.0
    stretches = np.lib.stride_tricks.sliding_window_view(long, len(short))
    centred = stretches - stretches.mean(axis=1, keepdims=True)
    own = short - short.mean()
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(own)
    return float(np.max(centred @ own / np.maximum(norms, 1e-9)))
