"""HTDemucs behind the seam: a hybrid of waveform and spectrogram (arXiv 2211.08553), from the package demucs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from demucs.htdemucs import HTDemucs
from pydantic import Field
from torch import Tensor

from tsbs_daw.models.packaged import PackagedConfig, PackagedNetwork

# What a published file says of its network that changes neither its shape nor what it computes in use.
_FIXED = {"audio_channels": 2, "cac": True}


class HTDemucsConfig(PackagedConfig):
    """The arguments of `demucs.htdemucs.HTDemucs`, by its names. The defaults are those of the published four stems."""

    segment: float = Field(7.8, ge=0.5, le=60)  # s
    channels: int = Field(48, ge=4, le=512)
    growth: int = Field(2, ge=1, le=4)
    nfft: int = Field(4096, ge=256, le=16384)
    depth: int = Field(4, ge=1, le=6)
    freq_emb: float = Field(0.2, ge=0, le=1)
    kernel_size: int = Field(8, ge=1, le=32)
    stride: int = Field(4, ge=1, le=16)
    norm_starts: int = Field(4, ge=0, le=16)
    norm_groups: int = Field(4, ge=1, le=64)
    dconv_mode: int = Field(3, ge=0, le=3)
    dconv_depth: int = Field(2, ge=0, le=8)
    dconv_comp: int = Field(8, ge=1, le=64)
    bottom_channels: int = Field(512, ge=0, le=4096)
    t_layers: int = Field(5, ge=0, le=32)
    t_hidden_scale: float = Field(4.0, ge=0.25, le=16)
    t_heads: int = Field(8, ge=1, le=64)

    @property
    def kind(self) -> str:
        return "htdemucs"

    @property
    def any_length(self) -> bool:
        return False  # a shorter chunk is filled up to the segment

    @property
    def chunk_samples(self) -> int:
        return int(self._segment * self.sample_rate)

    @property
    def _segment(self) -> Fraction:
        return Fraction(self.segment).limit_denominator(1000)

    def describe(self) -> str:
        return f"HTDemucs, {self.channels} channels, {self.t_layers} transformer layers, segments of {self.segment:g} s"

    def arguments(self) -> dict[str, Any]:
        """For the package's own constructor."""
        own = self.model_dump(exclude={"stems", "complement", "sample_rate", "standardised", "segment"})
        return {**own, "samplerate": self.sample_rate, "segment": self._segment}

    @classmethod
    def from_published(cls, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> HTDemucsConfig:
        """A description's values, and the arguments that a file states, which count where both speak.

        Raises: ValueError: an argument is of another kind of network, or out of bounds
        """
        for name, wanted in _FIXED.items():
            if arguments.get(name, wanted) != wanted:
                raise ValueError(f"{name} is {arguments[name]!r}, which is not supported")
        stated = {name: value for name, value in arguments.items() if name in cls.model_fields and name != "stems"}
        if isinstance(segment := stated.get("segment"), Mapping):
            stated["segment"] = segment["numerator"] / segment["denominator"]
        elif segment is not None:
            stated["segment"] = float(segment)
        if "samplerate" in arguments:
            stated["sample_rate"] = arguments["samplerate"]
        return cls(**{**values, **stated})


class HTDemucsNetwork(PackagedNetwork):
    """The package's network."""

    config: HTDemucsConfig

    def __init__(self, config: HTDemucsConfig):
        super().__init__(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.inner = HTDemucs(list(config.outputs), **config.arguments())

    def compute(self, mixture: Tensor) -> Tensor:
        return self.inner(mixture)
