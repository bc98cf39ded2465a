"""Training examples from banks of songs: places of songs, drawn where the songs lie, and mixed as records are.

Pass n is drawn with a generator seeded by (seed, rank, n) and nothing else: the order needs no state, and a resumed run
sees exactly what an unbroken run would have seen.

Mixing works on whichever device the excerpts lie, without waiting for it. What is done to one stem alone (gain,
channels, polarity, equaliser) makes another source of it. What is done on the bus (equaliser, width, pitch, compressor,
limiter) is the same for all stems, so the targets still sum to the mixture.

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


QUIET_WEIGHT = 0.02  # of a second below the activity threshold, against 1 above it


@dataclass(frozen=True)
class Places:
    """Every second of every song in a bank, and how likely each stem is drawn from it.

    second:  (P,) first frame; begin, end: (P,) of its song
    chances: (S, P) cumulative, up to one
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
        frames = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (second, begin, end))
        cumulative = torch.from_numpy(chances.cumsum(1).astype(np.float32)).to(device)
        return cls(len(songs), *frames, cumulative)


class TrainingExcerpts:
    """Pass number -> the targets of that pass's batch; the mixture is their sum.

    A pass is one forward and backward; a step of the optimiser makes `accumulate` of them.
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
        """Targets of one pass: (B, S, 2, n) float32."""
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
        """Samples and examples of a pass: all devices have the same, and longer ones mean fewer examples."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        seconds = lengths[np.random.default_rng([self.seed, number]).integers(len(lengths))]
        return round(seconds * self.rate), max(1, round(self.batch * self.data.segment_s / seconds))

    def sizes(self) -> list[tuple[int, int]]:
        """All (samples, examples) that passes may have."""
        lengths = self.data.segments_s or (self.data.segment_s,)
        return [(round(s * self.rate), max(1, round(self.batch * self.data.segment_s / s))) for s in lengths]

    @property
    def songs(self) -> int:
        return sum(len(bank.songs) for bank in self.banks)

    def _choose_bank(self, dice: np.random.Generator) -> tuple[SongBank, Places]:
        """A whole batch is of one source: what belongs together stays together."""
        weights = np.array(self.data.source_weights or [1.0] * len(self.banks), float)
        weights *= [bool(bank.songs) for bank in self.banks]
        index = int(dice.choice(len(self.banks), p=weights / weights.sum()))
        bank, places = self.banks[index], self._places[index]
        songs = bank.songs  # read once: a follower may add to it at any time
        if places is None or places.songs != len(songs):
            places = Places.of(songs, self.stems, self.rate, self.data, self.device)
            self._places[index] = places
        return bank, places

    def _cut(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        starts, ends = self._draw(places, batch, length, self.data.coherent_probability)
        return bank.store.gather(starts, ends, length)

    def _second_sources(self, bank: SongBank, places: Places, batch: int, length: int) -> Tensor:
        """Another source of the same kind for some stems: backing voices, percussion, a second guitar."""
        starts, ends = self._draw(places, batch, length, 0.0)
        wanted = uniform(self.generator, batch, self.stems) < self.augment.mixup
        gain = 10 ** (uniform(self.generator, batch, self.stems, low=-12.0, high=0.0) / 20) * wanted
        return bank.store.gather(starts, ends, length, wanted) * gain[..., None, None]

    def _draw(self, places: Places, batch: int, length: int, coherent: float) -> tuple[Tensor, Tensor]:
        """First frames of excerpts, and the ends of their songs: (B, S) twice.

        An excerpt lies near a second that was drawn, which lies anywhere in it, not always at its beginning.
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
    """Fixed excerpts of whole songs as they are: targets (excerpts, S, 2, n) and where each is from.

    Songs take turns; each gives the loudest (by the quietest of its stems) of eight places drawn by the seed.
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
