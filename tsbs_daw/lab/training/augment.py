"""From clean excerpts to mixes as records have them, on whichever device the excerpts lie, without waiting for it.

What is done to one stem alone (gain, channels, polarity, equaliser) makes another source of it. What is done on the bus
(equaliser, width, pitch, compressor, limiter) is the same for all stems, so the targets still sum to the mixture.
B examples, S stems, n samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tsbs_daw.lab.training.recipe import AugmentPart

# Read this many samples for one and play them at the nominal rate: up to 2 semitones down and up. Of 3 s these are
# whole numbers with small prime factors, which transforms want.
PITCH_RATIOS = (8 / 9, 14 / 15, 20 / 21, 21 / 20, 15 / 14, 10 / 9)
GAIN_SKEW = 1.7  # above 1: stems near the highest gain are more frequent than quiet ones
EQ_KNOTS, EQ_SPREAD_DB = 9, 3.0
LOW_PASS_HZ = (13_000.0, 19_000.0)  # as lossy encoders cut
FRAME = 256  # samples that share one value of the detectors
CEILING = 0.98
QUIET = 1e-9  # power, -90 dBFS


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def mix_stems(
    excerpts: Tensor, samples: int, settings: AugmentPart, generator: torch.Generator, sample_rate: int
) -> Tensor:
    """Targets of a batch.

    Args:    excerpts: (B, S, 2, m), where m / samples is how much faster they are to be played
    Returns: (B, S, 2, samples)
    """
    x = excerpts * stem_gains(*excerpts.shape[:2], settings, generator)
    swapped = uniform(generator, *x.shape[:2], 1, 1) < settings.swap_channels
    x = torch.where(swapped, x.flip(2), x)
    if settings.equaliser or settings.bus_equaliser or settings.low_pass or x.shape[-1] != samples:
        x = shape_spectrum(x, samples, settings, generator, sample_rate)
    if settings.narrow:
        x = narrow(x, settings.narrow, generator)
    if settings.master:
        x = x * master_gain(x.sum(1), settings, generator, sample_rate)
    return x


def stem_gains(batch: int, stems: int, settings: AugmentPart, generator: torch.Generator) -> Tensor:
    """Level, polarity and silence in one factor: (B, S, 1, 1)."""
    shape = (batch, stems, 1, 1)
    low, high = settings.gain_min_db, settings.gain_max_db
    gain = 10 ** ((high - (high - low) * uniform(generator, *shape) ** GAIN_SKEW) / 20)
    sign = torch.where(uniform(generator, *shape) < settings.flip_polarity, -1.0, 1.0)
    return gain * sign * (uniform(generator, *shape) >= settings.silence_stem)


def shape_spectrum(
    x: Tensor, samples: int, settings: AugmentPart, generator: torch.Generator, sample_rate: int
) -> Tensor:
    """Equalisers of stems and bus, the encoder's low-pass, and the change of pitch, in one transform."""
    batch, stems = x.shape[:2]
    bins = samples // 2 + 1
    hz = torch.arange(bins, device=x.device) * (sample_rate / samples)
    octave = torch.log2(hz / 40.0 + 1.0).clamp(max=9.2) / 9.2 * (EQ_KNOTS - 1)
    below = octave.long().clamp(max=EQ_KNOTS - 2)
    knots = _knots(batch, stems, settings.equaliser, generator) + _knots(batch, 1, settings.bus_equaliser, generator)
    curve_db = torch.lerp(knots[..., below], knots[..., below + 1], octave - below)  # (B, S, bins)
    cut_hz = uniform(generator, batch, 1, 1, low=LOW_PASS_HZ[0], high=LOW_PASS_HZ[1])
    slope_db = (-0.1 * (hz - cut_hz).clamp(min=0)).clamp(min=-90.0)  # 90 dB within 900 Hz
    curve_db = curve_db + slope_db * (uniform(generator, batch, 1, 1) < settings.low_pass)
    spectrum = torch.fft.rfft(x)[..., :bins]
    spectrum = F.pad(spectrum, (0, bins - spectrum.shape[-1]))
    shaped = spectrum * (10 ** (curve_db / 20) * (samples / x.shape[-1]))[:, :, None]
    return torch.fft.irfft(shaped, samples)


def _knots(batch: int, stems: int, probability: float, generator: torch.Generator) -> Tensor:
    """Gains in dB at points evenly over the octaves: (B, S, knots)."""
    values = torch.randn(batch, stems, EQ_KNOTS, generator=generator, device=generator.device) * EQ_SPREAD_DB
    return values * (uniform(generator, batch, stems, 1) < probability)


def narrow(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Less of the difference between the channels, in a half of the cases none: mono."""
    side = uniform(generator, len(x), 1, 1, 1, low=-1.0).clamp(min=0.0)
    side = torch.where(uniform(generator, len(x), 1, 1, 1) < probability, side, 1.0)
    return torch.lerp(x.mean(2, keepdim=True), x, side)


def master_gain(mixture: Tensor, settings: AugmentPart, generator: torch.Generator, sample_rate: int) -> Tensor:
    """What a bus compressor and a limiter do to a mixture, as a gain over time for it and all its stems.

    Args:    mixture: (B, 2, n)
    Returns: (B, 1, 1, n); one where an example is not mastered
    """
    batch, _, samples = mixture.shape
    squares = F.pad(mixture.square(), (0, -samples % FRAME)).unflatten(-1, (-1, FRAME))
    power = squares.mean((1, 3))  # (B, frames)
    gain = _compressor_gain(power, generator, sample_rate)
    mean = (power * gain.square()).mean(1, keepdim=True)
    loudness_db = uniform(generator, batch, 1, low=settings.loudness_min_db, high=settings.loudness_max_db)
    made_up = (10 ** (loudness_db / 20) / (mean + QUIET).sqrt()).clamp(max=30.0)
    gain = gain * made_up
    gain = gain * _limiter_gain(squares.amax((1, 3)).sqrt() * _widest(gain, 1))
    mastered = uniform(generator, batch, 1) < settings.master
    gain = torch.where(mastered, gain, 1.0)
    return F.interpolate(gain[:, None], scale_factor=float(FRAME), mode="linear")[:, None, :, :samples]


def _compressor_gain(power: Tensor, generator: torch.Generator, sample_rate: int) -> Tensor:
    """A compressor that follows the mean power of 5 to 200 ms: (B, frames) -> (B, frames)."""
    batch, frames = power.shape
    seconds = 0.005 * 40.0 ** uniform(generator, batch, 1)
    threshold_db = uniform(generator, batch, 1, low=-6.0, high=6.0)  # of the mean
    slope = uniform(generator, batch, 1, low=0.0, high=0.8) * (uniform(generator, batch, 1) < 0.7)  # 1 - 1 / ratio
    time = torch.arange(frames, device=power.device) * (FRAME / sample_rate)
    kernel = torch.exp(-time / seconds)
    kernel = kernel / kernel.sum(1, keepdim=True)
    size = 2 * frames
    followed = torch.fft.irfft(torch.fft.rfft(power, size) * torch.fft.rfft(kernel, size), size)[:, :frames]
    followed = followed.clamp(min=0.0) / kernel.cumsum(1)  # before the first frame there is no silence, but nothing
    level_db = 10 * torch.log10(followed + QUIET)
    mean_db = 10 * torch.log10(power.mean(1, keepdim=True) + QUIET)
    return 10 ** (-slope * (level_db - mean_db - threshold_db).clamp(min=0.0) / 20)


def _limiter_gain(peaks: Tensor) -> Tensor:
    """Down before a peak comes and up after it; interpolated over time it never exceeds what the peak needs."""
    needed = (CEILING / _widest(peaks, 2).clamp(min=CEILING))[:, None]
    return F.avg_pool1d(F.pad(needed, (1, 1), mode="replicate"), 3, 1)[:, 0]


def _widest(values: Tensor, frames: int) -> Tensor:
    """The largest value within so many frames on either side."""
    return F.max_pool1d(values[:, None], 2 * frames + 1, 1, frames)[:, 0]
