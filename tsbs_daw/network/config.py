"""The shape of a network. FULL, LITE and TINY are three values of one class.

Numbers are the paper's (arXiv 2409.06245, section 3) where it gives them, else those of the published weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple

from tsbs_daw.core.filenames import safe_name

# 57 bands of 1025 bins: floor(width_hz / 22050 * 1025) bins for widths of 50, 100, 250, 500, 1000 and 2000 Hz. The
# rounding puts the true edges at 861, 1723, 3618, 7580, 15504 and 19466 Hz; published weights depend on them.
PAPER_BANDS = (2,) * 20 + (4,) * 10 + (11,) * 8 + (23,) * 8 + (46,) * 8 + (92,) * 2 + (121,)

# The same transform in 33 bands: narrow where basses and voices have their partials, wide above.
TINY_BANDS = (3,) * 10 + (6,) * 8 + (16,) * 4 + (40,) * 4 + (92,) * 4 + (160,) * 2 + (35,)


# A config travels in a file from anywhere, and decides how much memory is taken: far beyond every known network, and
# far below what would hurt.
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
# Measured: from this width on, products are what takes the time, and halving it outweighs converting to and fro.
WORTHWHILE_FEATURES = 64
_MOST_STEMS = 16
# The stem cache keeps what the stems leave out under the one name; the other asks for the sum of several stems.
RESERVED_STEMS = ("residual", "rest")


class BandGroup(NamedTuple):
    """Neighbouring bands of one width, computed together.

    first_band, first_bin: where the group starts; count bands of band_width bins each
    """

    first_band: int
    first_bin: int
    count: int  # type: ignore[assignment]  # hides `tuple.count`, which nobody needs of four numbers
    band_width: int


@dataclass(frozen=True)
class ModelConfig:
    """What decides every shape of the network, and so travels with the weights."""

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
    channel_activation: Literal["tanh", "prelu"] = "tanh"  # of the channel step; the paper's is tanh
    unit_level: bool = False  # scale the mixture to unit RMS before, and the estimates back after
    standardised: bool = False  # for weights trained on chunks of zero mean and unit deviation
    chunk_s: float = 3.0  # the training segment, and so the chunk for inference

    def __post_init__(self) -> None:
        """Raises: ValueError: a value of the wrong kind or out of bounds, or values that do not fit each other"""
        for name, (least, most) in _BOUNDS.items():
            _check_integer(name, getattr(self, name), least, most)
        chunk_s = self.chunk_s
        if isinstance(chunk_s, bool) or not isinstance(chunk_s, (int, float)) or not math.isfinite(chunk_s):
            raise ValueError(f"chunk_s is {chunk_s!r} and not a number of seconds")
        if not _CHUNK_S[0] <= chunk_s <= _CHUNK_S[1]:
            raise ValueError(f"chunk_s is {chunk_s} and not between {_CHUNK_S[0]} and {_CHUNK_S[1]}")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length is {self.hop_length}, longer than n_fft = {self.n_fft}")
        if self.channel_activation not in ("tanh", "prelu"):
            raise ValueError(f"channel_activation is tanh or prelu, not {self.channel_activation!r}")
        self._check_bands()
        check_stems(self.stems)
        if self.d_inner % self.headdim:
            raise ValueError(f"expand * feature_dim = {self.d_inner} is not a multiple of headdim = {self.headdim}")

    def _check_bands(self) -> None:
        if not isinstance(self.band_widths, tuple) or len(self.band_widths) > self.bins:
            raise ValueError("band_widths are not a list of whole numbers")
        for width in self.band_widths:
            _check_integer("a band width", width, 1, self.bins)
        if sum(self.band_widths) != self.bins:
            raise ValueError(f"band_widths cover {sum(self.band_widths)} bins and n_fft {self.n_fft} has {self.bins}")

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
        """Its size in a few words, for people."""
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
        """What `from_dict` takes. What is as it always was is left out, so that older versions read the file."""
        found = asdict(self)
        if not self.standardised:
            del found["standardised"]
        return found

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`, also after a journey through JSON. Raises: TypeError for an unknown field."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise TypeError(f"unknown fields of ModelConfig: {sorted(unknown)}")
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**options)


def check_stems(stems: object) -> None:
    """Stems become file names, so only names that are safe as such, on every system, are stems. Raises: ValueError"""
    if not isinstance(stems, tuple) or not 1 <= len(stems) <= _MOST_STEMS:
        raise ValueError(f"stems must be different names, from one to {_MOST_STEMS}")
    for stem in stems:
        if not isinstance(stem, str) or stem != safe_name(stem) or stem.casefold() in RESERVED_STEMS:
            raise ValueError(f"{stem!r} cannot be the name of a stem")
    if len({stem.casefold() for stem in stems}) != len(stems):
        raise ValueError("stems must be different names, also without regard to upper and lower case")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r} and not a whole number between {least} and {most}")


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
