"""Separation metrics, each for one stem: arrays of shape (channels, samples), results in dB.

uSDR    10 log10((|x|^2 + eps) / (|x - x'|^2 + eps)) over the whole song, as the Music Demixing Challenge defines it
SI-SDR  the same with the target scaled to fit (Le Roux et al., arXiv 1811.02508)
cSDR    SDR of BSS Eval v4, the median over frames of 1 s
"""

from __future__ import annotations

import numpy as np

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
