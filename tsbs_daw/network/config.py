"""The hyperparameters of TS-BSMamba2. FULL, LITE and TINY are three instances of one class.

The values are those of the paper (arXiv 2409.06245, section 3) or, where it gives none, of the published weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple

from tsbs_daw.core.filenames import safe_name

# 57 bands over 1025 bins: floor(width_hz / 22050 * 1025) bins for widths of 50, 100, 250, 500, 1000 and 2000 Hz. The
# rounding puts the actual edges at 861, 1723, 3618, 7580, 15504 and 19466 Hz; published weights depend on them.
PAPER_BANDS = (2,) * 20 + (4,) * 10 + (11,) * 8 + (23,) * 8 + (46,) * 8 + (92,) * 2 + (121,)

# 33 bands over the same bins: narrow in the range of the partials of bass and voice, wide above it.
TINY_BANDS = (3,) * 10 + (6,) * 8 + (16,) * 4 + (40,) * 4 + (92,) * 4 + (160,) * 2 + (35,)


# A config may come from an untrusted file, and it determines how much memory is allocated. The bounds are far above
# every known network and far below what would do harm.
_BOUNDS = {
    "feature_dim": (1, 1024),
    "mask_blocks": (0, 64),
    "map_blocks": (0, 64),
    "sample_rate": (4000, 384_000),
    "n_fft": (16, 65_536),
    "hop_length": (1, 65_536),
    "d_state": (1, 1024),
    "d_conv": (1, 32),
    "expand": (1, 16),
    "headdim": (1, 1024),
}
_CHUNK_S = (0.05, 120.0)
# Measured: from this width on, matrix products dominate, and bfloat16 saves more time than the conversions cost.
WORTHWHILE_FEATURES = 64
_MOST_STEMS = 16
# The stem cache stores the residual under the first name; the second requests the sum of several stems.
RESERVED_STEMS = ("residual", "rest")


class BandGroup(NamedTuple):
    """Adjacent bands of equal width, computed together.

    Attributes:
        first_band: Index of the first band.
        first_bin: Index of the first bin.
        count: Number of bands.
        band_width: Bins of each band.
    """

    first_band: int
    first_bin: int
    count: int  # type: ignore[assignment]  # hides `tuple.count`, which is not needed here
    band_width: int


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the shapes of the network; it is stored with the weights."""

    feature_dim: int = 128  # N
    mask_blocks: int = 8  # DualNet blocks of the mask stage
    map_blocks: int = 4  # DualNet blocks of the map stage
    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    sample_rate: int = 44100
    n_fft: int = 2048
    hop_length: int = 512
    band_widths: tuple[int, ...] = PAPER_BANDS
    d_state: int = 128  # Mamba-2: state per head
    d_conv: int = 4  # Mamba-2: taps of the causal convolution
    expand: int = 4  # Mamba-2: inner width / N
    headdim: int = 64  # Mamba-2: P
    bidirectional: bool = True  # False: forward only, for the ablation
    channel_activation: Literal["tanh", "prelu"] = "tanh"  # of the channel step; the paper uses tanh
    unit_level: bool = False  # scale the mixture to unit RMS, and scale the estimates back
    standardised: bool = False  # for weights trained on chunks of zero mean and unit standard deviation
    chunk_s: float = 3.0  # the training segment, and therefore the chunk for inference

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: A value has the wrong type or is out of bounds, or values are inconsistent.
        """
        for name, (least, most) in _BOUNDS.items():
            _check_integer(name, getattr(self, name), least, most)
        chunk_s = self.chunk_s
        if isinstance(chunk_s, bool) or not isinstance(chunk_s, (int, float)) or not math.isfinite(chunk_s):
            raise ValueError(f"chunk_s must be a number of seconds, not {chunk_s!r}")
        if not _CHUNK_S[0] <= chunk_s <= _CHUNK_S[1]:
            raise ValueError(f"chunk_s must be between {_CHUNK_S[0]} and {_CHUNK_S[1]}, not {chunk_s}")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length must be at most n_fft = {self.n_fft}, not {self.hop_length}")
        if self.channel_activation not in ("tanh", "prelu"):
            raise ValueError(f"channel_activation must be tanh or prelu, not {self.channel_activation!r}")
        self._check_bands()
        check_stems(self.stems)
        if self.d_inner % self.headdim:
            raise ValueError(f"expand * feature_dim = {self.d_inner} must be a multiple of headdim = {self.headdim}")

    def _check_bands(self) -> None:
        if not isinstance(self.band_widths, tuple) or len(self.band_widths) > self.bins:
            raise ValueError(f"band_widths must be a list of at most {self.bins} whole numbers")
        for width in self.band_widths:
            _check_integer("a band width", width, 1, self.bins)
        if sum(self.band_widths) != self.bins:
            raise ValueError(
                f"band_widths must cover the {self.bins} bins of n_fft = {self.n_fft}, not {sum(self.band_widths)}"
            )

    @property
    def kind(self) -> str:
        return "ts-bs-mamba2"

    @property
    def stages(self) -> tuple[str, ...]:
        return ("full", "mask")

    @property
    def any_length(self) -> bool:
        return True

    @property
    def bfloat16_pays(self) -> bool:
        return self.feature_dim >= WORTHWHILE_FEATURES

    def describe(self) -> str:
        """Describe the size of the network in a few words."""
        return f"{self.feature_dim} features, {self.mask_blocks} + {self.map_blocks} blocks, {self.bands} bands"

    @property
    def chunk_samples(self) -> int:
        return round(self.chunk_s * self.sample_rate)

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def bands(self) -> int:
        return len(self.band_widths)

    @property
    def d_inner(self) -> int:
        return self.expand * self.feature_dim

    @property
    def heads(self) -> int:
        return self.d_inner // self.headdim

    @property
    def band_groups(self) -> tuple[BandGroup, ...]:
        groups, band, bin_ = [], 0, 0
        for width, run in groupby(self.band_widths):
            count = len(list(run))
            groups.append(BandGroup(band, bin_, count, width))
            band, bin_ = band + count, bin_ + count * width
        return tuple(groups)

    def to_dict(self) -> dict[str, Any]:
        """Return the values for `from_dict`; without a false `standardised`, which older versions do not know."""
        values = asdict(self)
        if not self.standardised:
            del values["standardised"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from the result of `to_dict`, which may have been converted to JSON and back.

        Raises:
            TypeError: There is an unknown field.
            ValueError: A value is invalid.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise TypeError(f"unknown fields of ModelConfig: {sorted(unknown)}")
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**options)


def check_stems(stems: object) -> None:
    """Check the names of stems. They become file names, so they must be safe on every system.

    Raises:
        ValueError: A name is unsafe, reserved or used twice, or there are too many.
    """
    if not isinstance(stems, tuple) or not 1 <= len(stems) <= _MOST_STEMS:
        raise ValueError(f"stems must be 1 to {_MOST_STEMS} different names")
    for stem in stems:
        if not isinstance(stem, str) or stem != safe_name(stem) or stem.casefold() in RESERVED_STEMS:
            raise ValueError(f"{stem!r} is not a valid stem name")
    if len({stem.casefold() for stem in stems}) != len(stems):
        raise ValueError("stems must have different names, ignoring case")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")


FULL = ModelConfig()
LITE = replace(FULL, mask_blocks=4, map_blocks=2)
TINY = replace(
    FULL,
    feature_dim=32,
    mask_blocks=2,
    map_blocks=1,
    hop_length=1024,
    band_widths=TINY_BANDS,
    d_state=16,
    expand=2,
    headdim=32,
    unit_level=True,
)
