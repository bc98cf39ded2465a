"""Networks of other packages behind the seam: HTDemucs, BS-RoFormer and Mel-Band RoFormer.

All of them are stereo, may have a stem that is the rest of the mixture, and have validated configs. A package is
imported when a network of it is built; who has only the other one needs no more.

HTDemucs is a hybrid of waveform and spectrogram (arXiv 2211.08553), from the package demucs.

BS-RoFormer (arXiv 2309.02612) and Mel-Band RoFormer (arXiv 2310.01809) come from the package BS-RoFormer, which has
grown since the published weights were trained: hyper-connections and value residuals are switched off here, and its
mask estimators get the expansion that the weights have. Weights keep their published names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from tsbs_daw.network.config import check_stems
from tsbs_daw.network.seam import StereoNetwork


class PackagedConfig(BaseModel):
    """What the configs of all networks from packages share.

    Attributes:
        stems: What the network gives, in its order; among them `complement`.
        complement: The stem that is the mixture without the others, for a network trained on one stem alone.
        standardised: The weights expect chunks of zero mean and unit deviation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    stems: tuple[str, ...]
    complement: str | None = None
    sample_rate: int = Field(44100, ge=8000, le=192_000)
    standardised: bool = False

    @model_validator(mode="after")
    def _stems_are_names(self) -> PackagedConfig:
        check_stems(self.stems)
        if self.complement is not None and (self.complement not in self.stems or len(self.stems) < 2):
            raise ValueError(f"the complement {self.complement!r} is none of the stems {', '.join(self.stems)}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems that the network itself computes."""
        return tuple(stem for stem in self.stems if stem != self.complement)

    @property
    def kind(self) -> str:
        raise NotImplementedError

    @property
    def chunk_samples(self) -> int:
        raise NotImplementedError

    @property
    def any_length(self) -> bool:
        raise NotImplementedError

    def describe(self) -> str:
        """Its size in a few words, for people."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[str, ...]:
        return ("full",)

    @property
    def bfloat16_pays(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class PackagedNetwork(StereoNetwork):
    """A package's network, `inner`, behind the seam."""

    config: PackagedConfig
    inner: Any  # the package's own module

    def __init__(self, config: PackagedConfig):
        super().__init__()
        self.config = config

    def compute(self, mixture: Tensor) -> Tensor:
        """The network's own outputs: (B, 2, samples) -> (B, outputs, 2, samples)."""
        raise NotImplementedError

    def estimate_stereo(self, mixture: Tensor) -> Tensor:
        found = self.compute(mixture)
        config = self.config
        if config.complement is None:
            return found
        rest = (mixture - found.sum(1))[:, None]
        parts = iter(found.unbind(1))
        return torch.cat([rest if stem == config.complement else next(parts)[:, None] for stem in config.stems], dim=1)

    def stored(self) -> dict[str, Tensor]:
        return {name.removeprefix("inner."): tensor for name, tensor in self.state_dict().items()}


# What a published file says of its network that changes neither its shape nor what it computes in use.
_HTDEMUCS_FIXED = {"audio_channels": 2, "cac": True}


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
        for name, wanted in _HTDEMUCS_FIXED.items():
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
        from demucs.htdemucs import HTDemucs

        super().__init__(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.inner = HTDemucs(list(config.outputs), **config.arguments())

    def compute(self, mixture: Tensor) -> Tensor:
        return self.inner(mixture)


# What other trainers' configs may also say. It changes nothing here unless it has another value.
_ROFORMER_UNSUPPORTED = {"linear_transformer_depth": 0, "skip_connection": False, "use_pope": False, "stereo": True}


class RoformerConfig(PackagedConfig):
    """What both RoFormers share, by the names of the package and of published configs."""

    chunk_size: int = Field(352_800, ge=4096, le=4_000_000)  # samples
    dim: int = Field(384, ge=8, le=2048)
    depth: int = Field(6, ge=1, le=48)
    time_transformer_depth: int = Field(1, ge=1, le=8)
    freq_transformer_depth: int = Field(1, ge=1, le=8)
    dim_head: int = Field(64, ge=8, le=256)
    heads: int = Field(8, ge=1, le=64)
    stft_n_fft: int = Field(2048, ge=256, le=16384)
    stft_hop_length: int = Field(441, ge=16, le=16384)
    stft_win_length: int = Field(2048, ge=256, le=16384)
    stft_normalized: bool = False
    zero_dc: bool = True
    mask_estimator_depth: int = Field(2, ge=1, le=8)
    mlp_expansion_factor: int = Field(4, ge=1, le=16)

    @property
    def any_length(self) -> bool:
        return True

    @property
    def chunk_samples(self) -> int:
        """A multiple of the hop, so that frames and samples end together."""
        return self.chunk_size // self.stft_hop_length * self.stft_hop_length

    def describe(self) -> str:
        return f"{self.dim} features, {self.depth} layers, chunks of {self.chunk_samples / self.sample_rate:.1f} s"

    def arguments(self) -> dict[str, Any]:
        """For the package's own constructors, without what each has alone."""
        own = self.model_dump(include=set(RoformerConfig.model_fields) - _ROFORMER_OURS)
        return {**own, "stereo": True, "num_stems": len(self.outputs), "num_residual_streams": 1, "flash_attn": True}

    @classmethod
    def from_published(cls, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> RoformerConfig:
        """A description's values, and the `model:` section of a trainer's config.

        Raises: ValueError: the config is of a network that the package does not have, or out of bounds
        """
        for name, wanted in _ROFORMER_UNSUPPORTED.items():
            if arguments.get(name, wanted) != wanted:
                raise ValueError(f"{name} is {arguments[name]!r}, which is not supported")
        return cls(**{**values, **{name: value for name, value in arguments.items() if name in cls.model_fields}})


_ROFORMER_OURS = {"stems", "complement", "sample_rate", "standardised", "chunk_size", "mlp_expansion_factor"}


def _usual_bands() -> tuple[int, ...]:
    from bs_roformer.bs_roformer import DEFAULT_FREQS_PER_BANDS

    return DEFAULT_FREQS_PER_BANDS


class BSRoformerConfig(RoformerConfig):
    """Bands of whole bins that do not overlap."""

    freqs_per_bands: tuple[Annotated[int, Field(ge=1, le=8193)], ...] = Field(default_factory=_usual_bands)

    @model_validator(mode="after")
    def _bands_cover_the_bins(self) -> BSRoformerConfig:
        if len(self.freqs_per_bands) < 2 or sum(self.freqs_per_bands) != self.stft_n_fft // 2 + 1:
            raise ValueError(f"freqs_per_bands must be several that sum to {self.stft_n_fft // 2 + 1} bins")
        return self

    @property
    def kind(self) -> str:
        return "bs-roformer"


class MelBandRoformerConfig(RoformerConfig):
    """Overlapping bands of the mel scale."""

    num_bands: int = Field(60, ge=2, le=256)

    @property
    def kind(self) -> str:
        return "mel-band-roformer"


class RoformerNetwork(PackagedNetwork):
    """What both RoFormers share."""

    config: RoformerConfig

    def compute(self, mixture: Tensor) -> Tensor:
        samples, hop = mixture.shape[-1], self.config.stft_hop_length
        whole = max(-(-samples // hop) * hop, -(-self.config.stft_n_fft // hop) * hop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the package asks torch for its attention in an old way
            found = self.inner(F.pad(mixture, (0, whole - samples)))
        return found.reshape(len(mixture), len(self.config.outputs), 2, -1)[..., :samples]

    def chunk_bytes(self) -> int:
        """Its attention's and estimators' activations, a few at once."""
        config = self.config
        frames = 1 + config.chunk_samples // config.stft_hop_length
        bins = config.stft_n_fft // 2 + 1
        tokens = frames * len(self.inner.band_split.to_features)
        return 4 * (tokens * (10 * config.dim + 4 * config.heads * config.dim_head) + 24 * frames * bins)

    def stored(self) -> dict[str, Tensor]:
        """By the published names. Tables that follow from the config are not stored."""
        return {
            self.published_name(name): tensor
            for name, tensor in self.state_dict().items()
            if not name.endswith(".rotary_embed.freqs")
        }

    def published_name(self, name: str) -> str:
        return name.removeprefix("inner.").replace(".branch.", ".")

    def _finish(self) -> None:
        """Exchange what the package builds in another way than the published networks."""
        if self.config.mlp_expansion_factor != 4:  # the package's own, and not among its arguments
            kind, inputs = type(self.inner.mask_estimators[0]), self.inner.band_split.dim_inputs
            self.inner.mask_estimators = nn.ModuleList(
                kind(
                    dim=self.config.dim,
                    dim_inputs=inputs,
                    depth=self.config.mask_estimator_depth,
                    mlp_expansion_factor=self.config.mlp_expansion_factor,
                )
                for _ in self.config.outputs
            )


class BSRoformerNetwork(RoformerNetwork):
    """The package's BS-RoFormer."""

    config: BSRoformerConfig

    def __init__(self, config: BSRoformerConfig):
        from bs_roformer import BSRoformer

        super().__init__(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it counts bins with a transform that has no window
            self.inner = BSRoformer(**config.arguments(), freqs_per_bands=config.freqs_per_bands)
        for part in self.inner.modules():
            if hasattr(part, "to_value_residual_mix"):
                part.to_value_residual_mix = None
        self._finish()


class MelBandRoformerNetwork(RoformerNetwork):
    """The package's Mel-Band RoFormer."""

    config: MelBandRoformerConfig

    def __init__(self, config: MelBandRoformerConfig):
        from bs_roformer import MelBandRoformer

        super().__init__(config)
        self.inner = MelBandRoformer(
            **config.arguments(),
            num_bands=config.num_bands,
            sample_rate=config.sample_rate,
            linear_transformer_depth=0,
            add_value_residual=False,
            attn_dropout=0.0,
            ff_dropout=0.0,
        )
        self._finish()

    def published_name(self, name: str) -> str:
        """The package counts an axis that the published networks lack."""
        return re.sub(
            r"^layers\.(\d+)\.(\d+)\.",
            lambda found: f"layers.{found[1]}.{int(found[2]) - 1}.",
            super().published_name(name),
        )
