"""Evaluate a model on songs with known stems. Axes: S stems; audio is (channels, samples).

Each song is separated twice, by both stages and by the mask stage alone, and compared with two baselines: the mixture
itself (the result of doing nothing) and the ideal ratio mask (the result of a perfect mask). A picture shows the
spectrograms of one song: target, mask stage, map stage and residual side by side, one row per stem.

Metrics take one stem, arrays of shape (channels, samples), and are in dB:

uSDR    10 log10((|x|^2 + eps) / (|x - x'|^2 + eps)) over the whole song, as the Music Demixing Challenge defines it
SI-SDR  the same with the target scaled to fit (Le Roux et al., arXiv 1811.02508)
cSDR    SDR of BSS Eval v4, the median over frames of 1 s
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.evaluation.songs import KnownSong, find_test_songs, read_song
from tsbs_daw.separation.separator import Separator

EPS = 1e-7


def usdr(target: np.ndarray, estimate: np.ndarray) -> float:
    """SDR of a whole song. Energies are summed over channels and samples; two silent signals give 0."""
    target = np.asarray(target, dtype=np.float64)
    error = target - np.asarray(estimate, dtype=np.float64)
    return float(10.0 * np.log10((np.sum(target**2) + EPS) / (np.sum(error**2) + EPS)))


def si_sdr(target: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR over all channels at once: one scale for the stem, not one per channel."""
    target = np.asarray(target, dtype=np.float64).ravel()
    estimate = np.asarray(estimate, dtype=np.float64).ravel()
    scale = (np.dot(estimate, target) + EPS) / (np.dot(target, target) + EPS)
    projection = scale * target
    error = estimate - projection
    return float(10.0 * np.log10((np.dot(projection, projection) + EPS) / (np.dot(error, error) + EPS)))


def sdr_frames(targets: np.ndarray, estimates: np.ndarray, sample_rate: int, frame_s: float = 1.0) -> np.ndarray:
    """SDR of BSS Eval v4 frame by frame: museval's results without its distortion filters, which take minutes per song.

    The filters split the error into spatial distortion, interference and artefacts (ISR, SIR, SAR). The SDR uses the
    sum of the three, in which they cancel, leaving the estimate minus the target (arXiv 1804.06267).

    Returns:
        In dB; NaN where any target or estimate is silent, infinite where one is perfect, as in museval

    Shape:
        targets, estimates: (S, channels, samples)
        returns: (S, frames)
    """
    count = targets.shape[-1]
    frame = min(round(frame_s * sample_rate), count)

    def cut(stems: np.ndarray) -> np.ndarray:
        """(S, channels, samples) -> (S, channels, frames, frame)"""
        whole = np.asarray(stems, dtype=np.float64)[..., : count // frame * frame]
        return whole.reshape(*stems.shape[:2], -1, frame)

    wanted, found = cut(targets), cut(estimates)
    silent = [(stems.sum(axis=1) == 0).all(axis=-1).any(axis=0) for stems in (wanted, found)]
    with np.errstate(divide="ignore", invalid="ignore"):
        frames = 10 * np.log10(np.square(wanted).sum(axis=(1, 3)) / np.square(found - wanted).sum(axis=(1, 3)))
    return np.where(silent[0] | silent[1], np.nan, frames)


def csdr(frames: np.ndarray) -> float | None:
    """The median of finite frames; None if there are none."""
    finite = frames[np.isfinite(frames)]
    return float(np.median(finite)) if finite.size else None


def rms_db(audio: np.ndarray) -> float:
    """Level of a signal in dBFS; minus infinity for silence."""
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return 10.0 * np.log10(power) if power > 0 else float("-inf")


def rounded(value: float | None) -> float | None:
    """Round for JSON; None for infinity and NaN, which JSON cannot hold."""
    return round(float(value), 3) if value is not None and np.isfinite(value) else None


logger = logging.getLogger(__name__)

SCHEMA = 1
KINDS = ("full", "mask", "mixture", "oracle")
SILENT_DB = -60.0  # stems with a lower RMS over the excerpt are not measured
FRAME_S = 0.1


def evaluate(
    data: Path,
    separator: Separator,
    *,
    songs: int | None = None,
    seconds: float | None = None,
    progress: Callable[[dict], None] = lambda song: None,
) -> dict:
    """Evaluate a model.

    Args:
        data: the data set
        separator: the model
        songs: only the first so many songs
        seconds: only this much from the middle of each song
        progress: called with each song's part of the document as soon as it is measured

    Returns:
        A JSON-ready document

    Raises:
        DatasetError: there are no songs, or one cannot be read
    """
    folders = find_test_songs(data, separator.stems)[:songs]
    results = []
    for folder in folders:
        result = measure_song(read_song(folder, separator.stems, seconds), separator)
        logger.info("%s: %s", folder.name, result)
        results.append(result)
        progress(result)
    return {
        "schema": SCHEMA,
        "model_hash": separator.model_hash,
        "stems": list(separator.stems),
        "silence": silence_level(separator),
        "summary": summarise(results, separator.stems),
        "songs": results,
    }


def measure_song(song: KnownSong, separator: Separator) -> dict:
    """All metrics of one song, for both stages, the mixture and the oracle."""
    begin = time.perf_counter()
    full = _stack(separator.separate(song.mixture, song.sample_rate), separator.stems)
    separation_s = time.perf_counter() - begin
    estimates = {
        "full": full,
        "mask": _stack(separator.separate(song.mixture, song.sample_rate, stage="mask"), separator.stems),
        "mixture": np.broadcast_to(song.mixture, song.targets.shape),
        "oracle": ideal_ratio_mask(song.targets, song.mixture),
    }
    stems = {
        stem: {kind: _measure_stem(song.targets[index], estimates[kind][index]) for kind in KINDS}
        for index, stem in enumerate(separator.stems)
        if rms_db(song.targets[index]) > SILENT_DB
    }
    for kind in KINDS:
        frames = sdr_frames(song.targets, estimates[kind], song.sample_rate)
        for index, stem in enumerate(separator.stems):
            if stem in stems:
                stems[stem][kind]["csdr_db"] = rounded(csdr(frames[index]))
    return {
        "name": song.name,
        "seconds": round(song.seconds, 3),
        "separation_s": round(separation_s, 3),
        "stem_over_mixture_db": rounded(stem_over_mixture(full, song.mixture, song.sample_rate)),
        "residual_db": rounded(rms_db(song.mixture - full.sum(axis=0)) - rms_db(song.mixture)),
        "stems": stems,
    }


def _measure_stem(target: np.ndarray, estimate: np.ndarray) -> dict:
    return {"usdr_db": rounded(usdr(target, estimate)), "si_sdr_db": rounded(si_sdr(target, estimate))}


def stem_over_mixture(estimates: np.ndarray, mixture: np.ndarray, sample_rate: int) -> float:
    """The most that any stem exceeds the mixture in any 0.1 s frame, in dB. Frames of a silent mixture are ignored."""
    frame = max(1, round(FRAME_S * sample_rate))
    frames = max(1, mixture.shape[-1] // frame)

    def power(audio: np.ndarray) -> np.ndarray:
        cut = audio[..., : frames * frame]
        return np.square(cut.reshape(*cut.shape[:-1], frames, -1), dtype=np.float64).mean(axis=(-3, -1))

    floor = 10.0 ** (SILENT_DB / 10.0)
    below = power(mixture)
    sounding = below > floor
    if not sounding.any():
        return float("-inf")
    return float(10.0 * np.log10((power(estimates)[:, sounding] / below[sounding]).max() + 1e-20))


def silence_level(separator: Separator, seconds: float = 4.0) -> dict:
    """RMS of the loudest stem in dBFS, for digital silence and for noise at -100 dBFS; None is exact silence."""
    rate = separator.network.config.sample_rate
    faint = np.random.default_rng(0).normal(0.0, 1e-5, (2, round(seconds * rate))).astype(np.float32)
    levels = {}
    for name, audio in (("digital_db", np.zeros_like(faint)), ("noise_at_minus_100_db", faint)):
        levels[name] = rounded(max(rms_db(stem) for stem in separator.separate(audio, rate).values()))
    return levels


def summarise(songs: list[dict], stems: tuple[str, ...]) -> dict:
    """Over songs: mean uSDR and SI-SDR, median cSDR, and the improvement of each stage over the mixture."""
    summary: dict = {"songs": len(songs), "stems": {}}
    for stem in stems:
        measured = [song["stems"][stem] for song in songs if stem in song["stems"]]
        if not measured:
            continue
        table = {kind: _summarise_kind([song[kind] for song in measured]) for kind in KINDS}
        gain = {kind: rounded(table[kind]["usdr_db"] - table["mixture"]["usdr_db"]) for kind in ("full", "mask")}
        added = rounded(table["full"]["usdr_db"] - table["mask"]["usdr_db"])
        summary["stems"][stem] = {"songs": len(measured), **table, "improvement_db": gain, "map_stage_adds_db": added}
    over = [song["stem_over_mixture_db"] for song in songs if song["stem_over_mixture_db"] is not None]
    summary["stem_over_mixture_db"] = max(over) if over else None
    spent = sum(song["separation_s"] for song in songs)
    summary["times_real_time"] = round(sum(song["seconds"] for song in songs) / spent, 2) if spent else None
    return summary


def _summarise_kind(rows: list[dict]) -> dict:
    summary = {key: rounded(np.mean([row[key] for row in rows])) for key in ("usdr_db", "si_sdr_db")}
    medians = [row["csdr_db"] for row in rows if row["csdr_db"] is not None]
    return {**summary, "csdr_db": rounded(np.median(medians)) if medians else None}


def _stack(stems: dict[str, np.ndarray], order: tuple[str, ...]) -> np.ndarray:
    return np.stack([stems[stem] for stem in order])


N_FFT, HOP_LENGTH = 2048, 512


def ideal_ratio_mask(targets: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """The ideal ratio mask: each target's share of the magnitudes, applied to the mixture.

    It is the best that a real-valued mask could reach; no estimate of a model is involved.

    Shape:
        targets: (S, channels, samples)
        mixture: (channels, samples)
        returns: (S, channels, samples) float32
    """
    window = torch.hann_window(N_FFT)
    samples = mixture.shape[-1]
    if samples <= N_FFT // 2:
        padding = N_FFT - samples
        padded = ideal_ratio_mask(_pad(targets, padding), _pad(mixture, padding))
        return padded[..., :samples]

    def stft(audio: np.ndarray) -> torch.Tensor:
        return torch.stft(torch.from_numpy(audio).float(), N_FFT, HOP_LENGTH, window=window, return_complex=True)

    # One stem at a time: the spectra of all stems of a song would take gigabytes.
    total = sum(stft(target).abs() for target in targets) + 1e-10
    spectrum = stft(np.ascontiguousarray(mixture))
    estimates = [
        torch.istft(spectrum * (stft(target).abs() / total), N_FFT, HOP_LENGTH, window=window, length=samples)
        for target in targets
    ]
    return torch.stack(estimates).numpy()


def _pad(audio: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, samples)])


RANGE_DB = 80.0
COLUMNS = ("target", "mask stage", "mask + map stage", "what the map stage adds")


def draw_picture(song: KnownSong, separator: Separator, path: Path) -> None:
    """Separate a song with both stages and write a PNG, or the format of the ending of `path`.

    Raises:
        UsageError: matplotlib is not installed
    """
    full = separator.separate(song.mixture, song.sample_rate)
    mask = separator.separate(song.mixture, song.sample_rate, stage="mask")
    rows = {
        stem: (song.targets[index], mask[stem], full[stem], full[stem] - mask[stem])
        for index, stem in enumerate(separator.stems)
    }
    draw_rows(rows, song.sample_rate, song.name, path)


def draw_rows(rows: Mapping[str, tuple[np.ndarray, ...]], sample_rate: int, title: str, path: Path) -> None:
    """Draw spectrograms.

    Args:
        rows: stem to audio, (channels, samples), for each of COLUMNS
        sample_rate: in Hz
        title: of the picture
        path: of the file
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("A picture needs matplotlib: pip install 'tsbs-daw[train]'") from error
    # Not pyplot, which keeps global state and looks for a display.
    figure = Figure(figsize=(13, 2.4 * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(COLUMNS), sharex=True, sharey=True, squeeze=False)
    top_db = max(levels_db(parts[0]).max() for parts in rows.values())
    for axis, column in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(column, fontsize=10)
    for row, (stem, parts) in zip(axes, rows.items(), strict=True):
        for axis, audio in zip(row, parts, strict=True):
            extent = (0.0, audio.shape[-1] / sample_rate, 0.0, sample_rate / 2000.0)
            image = axis.imshow(
                levels_db(audio),
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=top_db - RANGE_DB,
                vmax=top_db,
                cmap="magma",
            )
        row[0].set_ylabel(f"{stem}\nkHz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.colorbar(image, ax=axes, label="dB", shrink=0.6)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def levels_db(audio: np.ndarray) -> np.ndarray:
    """The magnitude spectrogram of the mean of the channels in dB: (channels, samples) to (bins, frames)."""
    mono = torch.from_numpy(np.ascontiguousarray(audio.mean(axis=0), dtype=np.float32))
    if mono.shape[-1] <= N_FFT // 2:
        mono = torch.nn.functional.pad(mono, (0, N_FFT - mono.shape[-1]))
    window = torch.hann_window(N_FFT)
    magnitude = torch.stft(mono, N_FFT, HOP_LENGTH, window=window, return_complex=True).abs() / window.sum()
    return (20.0 * torch.log10(magnitude + 1e-8)).numpy()
