"""Training examples from banks of songs: excerpts drawn on the bank's device and mixed like records.

Pass n is drawn by a generator that is seeded with (seed, rank, n) only. The order of examples therefore needs no state,
and a resumed run sees exactly the examples of an uninterrupted one.

Mixing runs on the device of the excerpts without synchronising with it. Augmentations of a single stem (gain, channels,
polarity, equaliser) turn it into another source. Augmentations of the bus (equaliser, width, pitch, compressor,
limiter) are the same for all stems, so the targets still sum to the mixture.

B examples, S stems, n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tsbs_daw.lab.training.bank import BankSong, SongBank
from tsbs_daw.lab.training.recipe import AugmentPart, DataPart

# Samples to read for each sample to play: changes the pitch by up to 2 semitones down or up. For 3 s, the lengths are
# integers with small prime factors, which makes transforms fast.
PITCH_RATIOS = (8 / 9, 14 / 15, 20 / 21, 21 / 20, 15 / 14, 10 / 9)
GAIN_SKEW = 1.7  # above 1: gains near the maximum are more frequent than low ones
EQ_KNOTS, EQ_SPREAD_DB = 9, 3.0
LOW_PASS_HZ = (13_000.0, 19_000.0)  # cutoff frequencies of lossy encoders
FRAME = 256  # samples for each value of the level detectors
CEILING = 0.98
QUIET = 1e-9  # power, -90 dBFS


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def mix_stems(
    excerpts: Tensor, samples: int, settings: AugmentPart, generator: torch.Generator, sample_rate: int
) -> Tensor:
    """Mix excerpts into the targets of a batch.

    Args:
        excerpts: The excerpts; m / samples is the factor by which they are played faster.
        samples: Length of the targets.
        settings: The augmentations.
        generator: Random numbers, on the device of the excerpts.
        sample_rate: In Hz.

    Shape:
        excerpts: (B, S, 2, m)
        result: (B, S, 2, samples)
    """
    x = excerpts * stem_gains(excerpts.shape[0], excerpts.shape[1], settings, generator)
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
    """Draw level, polarity and silence of each stem as one factor: (B, S, 1, 1)."""
    shape = (batch, stems, 1, 1)
    low, high = settings.gain_min_db, settings.gain_max_db
    gain = 10 ** ((high - (high - low) * uniform(generator, *shape) ** GAIN_SKEW) / 20)
    sign = torch.where(uniform(generator, *shape) < settings.flip_polarity, -1.0, 1.0)
    return gain * sign * (uniform(generator, *shape) >= settings.silence_stem)


def shape_spectrum(
    x: Tensor, samples: int, settings: AugmentPart, generator: torch.Generator, sample_rate: int
) -> Tensor:
    """Apply the equalisers of stems and bus, the low-pass of an encoder, and the change of pitch in one transform."""
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
    """Draw gains in dB at points spaced evenly in octaves: (B, S, knots)."""
    values = torch.randn(batch, stems, EQ_KNOTS, generator=generator, device=generator.device) * EQ_SPREAD_DB
    return values * (uniform(generator, batch, stems, 1) < probability)


def narrow(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Reduce the difference between the channels; in half of the cases to zero, which is mono."""
    side = uniform(generator, len(x), 1, 1, 1, low=-1.0).clamp(min=0.0)
    side = torch.where(uniform(generator, len(x), 1, 1, 1) < probability, side, 1.0)
    return torch.lerp(x.mean(2, keepdim=True), x, side)


def master_gain(mixture: Tensor, settings: AugmentPart, generator: torch.Generator, sample_rate: int) -> Tensor:
    """Compute the gain over time of a bus compressor and a limiter, to be applied to all stems of a mixture.

    Examples that are not mastered have a gain of one.

    Shape:
        mixture: (B, 2, n)
        result: (B, 1, 1, n)
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
    """Gain of a compressor that follows the mean power of 5 to 200 ms: (B, frames) -> (B, frames)."""
    batch, frames = power.shape
    seconds = 0.005 * 40.0 ** uniform(generator, batch, 1)
    threshold_db = uniform(generator, batch, 1, low=-6.0, high=6.0)  # relative to the mean level
    slope = uniform(generator, batch, 1, low=0.0, high=0.8) * (uniform(generator, batch, 1) < 0.7)  # 1 - 1 / ratio
    time = torch.arange(frames, device=power.device) * (FRAME / sample_rate)
    kernel = torch.exp(-time / seconds)
    kernel = kernel / kernel.sum(1, keepdim=True)
    size = 2 * frames
    followed = torch.fft.irfft(torch.fft.rfft(power, size) * torch.fft.rfft(kernel, size), size)[:, :frames]
    followed = followed.clamp(min=0.0) / kernel.cumsum(1)  # average only over existing frames
    level_db = 10 * torch.log10(followed + QUIET)
    mean_db = 10 * torch.log10(power.mean(1, keepdim=True) + QUIET)
    return 10 ** (-slope * (level_db - mean_db - threshold_db).clamp(min=0.0) / 20)


def _limiter_gain(peaks: Tensor) -> Tensor:
    """Gain of a limiter, reduced before and after each peak, so that it is low enough even after interpolation."""
    needed = (CEILING / _widest(peaks, 2).clamp(min=CEILING))[:, None]
    return F.avg_pool1d(F.pad(needed, (1, 1), mode="replicate"), 3, 1)[:, 0]


def _widest(values: Tensor, frames: int) -> Tensor:
    """Return the largest value within this many frames on either side."""
    return F.max_pool1d(values[:, None], 2 * frames + 1, 1, frames)[:, 0]


QUIET_WEIGHT = 0.02  # weight of a second below the activity threshold; above it, 1


@dataclass(frozen=True)
class Places:
    """Every second of every song in a bank, with the probability that each stem is drawn from it.

    Attributes:
        songs: Number of songs.
        second: First frame of each second.
        begin: First frame of its song.
        end: End of its song.
        chances: Cumulative probabilities.

    Shape:
        second, begin, end: (P,)
        chances: (S, P)
    """

    songs: int
    second: Tensor
    begin: Tensor
    end: Tensor
    chances: Tensor

    @classmethod
    def of(cls, songs: Sequence[BankSong], stems: int, rate: int, data: DataPart, device: torch.device) -> Places:
        levels = np.concatenate([np.asarray(song.levels_db, np.float32).reshape(stems, -1) for song in songs], axis=1)
        counts = [len(song.levels_db[0]) for song in songs]
        second = np.concatenate(
            [song.first + rate * np.arange(count) for song, count in zip(songs, counts, strict=True)]
        )
        begin, end = (np.repeat([getattr(song, name) for song in songs], counts) for name in ("first", "end"))
        sounding = np.where(levels > data.active_above_db, 1.0, QUIET_WEIGHT)
        share = data.active_share
        chances = share * sounding / sounding.sum(1, keepdims=True) + (1 - share) / levels.shape[1]
        frames = [torch.from_numpy(part.astype(np.int64)).to(device) for part in (second, begin, end)]
        cumulative = torch.from_numpy(chances.cumsum(1).astype(np.float32)).to(device)
        return cls(len(songs), frames[0], frames[1], frames[2], cumulative)


class TrainingExcerpts:
    """Sequence of training batches: the targets for each pass number; the mixture is their sum.

    A pass is one forward and backward; a step of the optimiser consists of `accumulate` passes.
    """

    def __init__(
        self,
        banks: Sequence[SongBank],
        data: DataPart,
        augment: AugmentPart,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        device: torch.device | None = None,
    ):
        self.banks, self.data, self.augment = list(banks), data, augment
        self.seed, self.batch, self.rank = seed, batch, rank
        self.device = device or torch.device("cpu")
        self.rate, self.stems = banks[0].sample_rate, len(banks[0].stems)
        self._places: list[Places | None] = [None] * len(banks)
        self.generator = torch.Generator(self.device)

    def __getitem__(self, number: int) -> Tensor:
        """Return the targets of a pass: (B, S, 2, n) float32."""
        dice = np.random.default_rng([self.seed, self.rank, number])
        self.generator.manual_seed(int(dice.integers(2**62)))
        bank, places = self._choose_bank(dice)
        samples, batch = self.size(number)
        ratio = PITCH_RATIOS[dice.integers(len(PITCH_RATIOS))] if dice.random() < self.augment.pitch else 1.0
        length = round(samples * ratio)
        first = self._cut(bank, places, batch, length)
        if self.augment.mixup:
            first = first + self._second_sources(bank, places, batch, length)
        return mix_stems(first, samples, self.augment, self.generator, self.rate)

    def size(self, number: int) -> tuple[int, int]:
        """Return (samples, examples) of a pass, the same on all devices. Longer excerpts mean fewer examples."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        seconds = lengths[np.random.default_rng([self.seed, number]).integers(len(lengths))]
        return round(seconds * self.rate), max(1, round(self.batch * self.data.segment_s / seconds))

    def sizes(self) -> list[tuple[int, int]]:
        """Return all possible (samples, examples) of a pass."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        return [(round(s * self.rate), max(1, round(self.batch * self.data.segment_s / s))) for s in lengths]

    @property
    def songs(self) -> int:
        return sum(len(bank.songs) for bank in self.banks)

    def _choose_bank(self, dice: np.random.Generator) -> tuple[SongBank, Places]:
        """Choose the bank of a batch. All examples come from one bank, so that only songs of one source are mixed."""
        weights = np.array(self.data.source_weights or [1.0] * len(self.banks), float)
        weights *= [bool(bank.songs) for bank in self.banks]
        index = int(dice.choice(len(self.banks), p=weights / weights.sum()))
        bank, places = self.banks[index], self._places[index]
        songs = bank.songs  # read only once, because a follower may add songs at any time
        if places is None or places.songs != len(songs):
            places = Places.of(songs, self.stems, self.rate, self.data, self.device)
            self._places[index] = places
        return bank, places

    def _cut(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        starts, ends = self._draw(places, batch, length, self.data.coherent_probability)
        return bank.store.gather(starts, ends, length)

    def _second_sources(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        """Cut a second source of the same kind for some stems: backing vocals, percussion, a second guitar."""
        starts, ends = self._draw(places, batch, length, 0.0)
        wanted = uniform(self.generator, batch, self.stems) < self.augment.mixup
        gain = 10 ** (uniform(self.generator, batch, self.stems, low=-12.0, high=0.0) / 20) * wanted
        return bank.store.gather(starts, ends, length, wanted) * gain[..., None, None]

    def _draw(self, places: Places, batch: int, length: int, coherent: float) -> tuple[Tensor, Tensor]:
        """Draw excerpts: their first frames, and the ends of their songs, (B, S) each.

        Each excerpt contains a drawn second at a random position.
        """
        generator, shape = self.generator, (batch, self.stems)
        drawn = uniform(generator, self.stems, batch) * places.chances[:, -1:]
        place = torch.searchsorted(places.chances, drawn).T.clamp(max=len(places.second) - 1)
        jitter = uniform(generator, *shape) * self.rate - uniform(generator, *shape) * length
        lead = torch.randint(self.stems, (batch, 1), generator=generator, device=self.device)
        together = uniform(generator, batch, 1) < coherent
        place = torch.where(together, place.gather(1, lead), place)
        jitter = torch.where(together, jitter.gather(1, lead), jitter)
        begin, end = places.begin[place], places.end[place]
        starts = places.second[place] + jitter.long()
        return torch.maximum(torch.minimum(starts, end - length), begin), end


def validation_excerpts(bank: SongBank, *, segment_s: float, excerpts: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Cut fixed excerpts for validation, without augmentation.

    The songs take turns. Of eight random positions in a song, the excerpt is the one whose quietest stem is loudest.

    Returns:
        The targets, and a description of each excerpt's position.

    Shape:
        targets: (excerpts, S, 2, n)
    """
    targets, places = [], []
    samples = round(segment_s * bank.sample_rate)
    for index in range(excerpts):
        song = bank.songs[index % len(bank.songs)]
        rng = np.random.default_rng([seed, 0x76616C, index])
        starts = rng.integers(0, max(song.samples - samples, 0) + 1, size=8)
        start = int(max(starts, key=lambda start: _fullness(song, int(start) // bank.sample_rate, segment_s)))
        targets.append(bank.excerpt(song, start, samples))
        places.append(f"{song.name} at {start / bank.sample_rate:.1f} s")
    return np.stack(targets), places


def _fullness(song: BankSong, second: int, segment_s: float) -> float:
    levels = np.asarray(song.levels_db)[:, second : second + max(1, round(segment_s))]
    return float(np.clip(levels, -60, 0).mean(axis=1).min())
