"""Measures of separation, each on one stem: (channels, samples) arrays, results in dB.

uSDR    10 log10((|x|^2 + eps) / (|x - x'|^2 + eps)) over the whole song, as the Music Demixing Challenge defines it
SI-SDR  the same with the target scaled to fit (Le Roux et al., arXiv 1811.02508)
cSDR    SDR of BSS Eval v4, the median over frames of 1 s
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from pathlib import Path

import numpy as np

from tsbs_daw.errors import UsageError

EPS = 1e-7


def usdr(target: np.ndarray, estimate: np.ndarray) -> float:
    """Song-level SDR. Energies are sums over channels and samples; eps keeps silence finite: both silent gives 0."""
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


def bss_eval_frames(targets: np.ndarray, estimates: np.ndarray, sample_rate: int, frame_s: float = 1.0) -> np.ndarray:
    """SDR of BSS Eval v4 frame by frame, by museval.

    Args:    targets, estimates: (S, channels, samples)
    Returns: (S, frames) in dB; NaN where a target or an estimate is silent, as museval has it
    """
    frame = round(frame_s * sample_rate)
    # What comes here is (S, samples, channels); museval warns of silent stems, whose frames are NaN anyway.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = _museval_metrics().bss_eval(
            np.moveaxis(np.asarray(targets, dtype=np.float64), 1, 2),
            np.moveaxis(np.asarray(estimates, dtype=np.float64), 1, 2),
            window=frame,
            hop=frame,
            compute_permutation=False,
            framewise_filters=False,
            bsseval_sources_version=False,
        )
    return np.asarray(scores[0])


def csdr(frames: np.ndarray) -> float | None:
    """Median over the frames that say something; None when none does."""
    finite = frames[np.isfinite(frames)]
    return float(np.median(finite)) if finite.size else None


@functools.cache
def _museval_metrics():
    """museval's metrics without museval's data set reader, whose import fails where ffmpeg is not installed."""
    package = importlib.util.find_spec("museval")
    if package is None or not package.submodule_search_locations:
        raise UsageError("cSDR needs museval: pip install 'tsbs-daw[train]', or ask for --no-csdr")
    path = Path(package.submodule_search_locations[0]) / "metrics.py"
    spec = importlib.util.spec_from_file_location("tsbs_daw_museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
