"""Measures of separation, each on one stem: (channels, samples) arrays, results in dB.

uSDR    10 log10((|x|^2 + eps) / (|x - x'|^2 + eps)) over the whole song, as the Music Demixing Challenge defines it
SI-SDR  the same with the target scaled to fit (Le Roux et al., arXiv 1811.02508)
cSDR    SDR of BSS Eval v4, the median over frames of 1 s
"""

from __future__ import annotations

import numpy as np

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
