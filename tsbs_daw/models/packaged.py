"""Networks of other packages behind the seam: HTDemucs, BS-RoFormer and Mel-Band RoFormer.

All of them are stereo, may have a stem that is the rest of the mixture, and have validated configs. A package is only
imported when one of its networks is built, so each works without the other.

HTDemucs (arXiv 2211.08553) is a hybrid of waveform and spectrogram networks, from the package demucs.

BS-RoFormer (arXiv 2309.02612) and Mel-Band RoFormer (arXiv 2310.01809) come from the package BS-RoFormer, which has
gained features since the published weights were trained. Its hyper-connections and value residuals are therefore
switched off, and its mask estimators are built with the expansion factor of the weights. Weights keep their published
names.
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
    """Base class of the configs of all networks from packages.

    Attributes:
        stems: Names of the outputs, in order, including `complement`.
        complement: The stem that is the mixture minus the others, for a network trained on a single stem.
        sample_rate: In Hz.
        standardised: Whether the weights expect chunks of zero mean and unit standard deviation.
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
            raise ValueError(f"the complement {self.complement!r} is not one of the stems {', '.join(self.stems)}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems that the network itself computes: all except the complement."""
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
        """Describe the size of the network in a few words."""
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
    """Adapter for a network of another package.

    Attributes:
        inner: The module of the package.
    """

    config: PackagedConfig
    inner: Any

    def __init__(self, config: PackagedConfig):
        super().__init__()
        self.config = config

    def compute(self, mixture: Tensor) -> Tensor:
        """Compute the network's own outputs: (B, 2, samples) -> (B, outputs, 2, samples)."""
        raise NotImplementedError

    def estimate_stereo(self, mixture: Tensor) -> Tensor:
        outputs = self.compute(mixture)
        config = self.config
        if config.complement is None:
            return outputs
        rest = (mixture - outputs.sum(1))[:, None]
        parts = iter(outputs.unbind(1))
        return torch.cat([rest if stem == config.complement else next(parts)[:, None] for stem in config.stems], dim=1)

    def stored(self) -> dict[str, Tensor]:
        return {name.removeprefix("inner."): tensor for name, tensor in self.state_dict().items()}


# Published arguments with only one supported value.
_HTDEMUCS_FIXED = {"audio_channels": 2, "cac": True}


class HTDemucsConfig(PackagedConfig):
    """The arguments of `demucs.htdemucs.HTDemucs`, by its names. Defaults: the published 4-stem model."""

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
        return False  # a shorter chunk is padded to the segment

    @property
    def chunk_samples(self) -> int:
        return int(self._segment * self.sample_rate)

    @property
    def _segment(self) -> Fraction:
        return Fraction(self.segment).limit_denominator(1000)

    def describe(self) -> str:
        return f"HTDemucs, {self.channels} channels, {self.t_layers} transformer layers, segments of {self.segment:g} s"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the package's constructor."""
        own = self.model_dump(exclude={"stems", "complement", "sample_rate", "standardised", "segment"})
        return {**own, "samplerate": self.sample_rate, "segment": self._segment}

    @classmethod
    def from_published(cls, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> HTDemucsConfig:
        """Build a config from a description and a published file.

        Args:
            values: Values of the description.
            arguments: Arguments that the file states; they override the values.

        Raises:
            ValueError: An argument is not supported or out of bounds.
        """
        for name, wanted in _HTDEMUCS_FIXED.items():
            if arguments.get(name, wanted) != wanted:
                raise ValueError(f"{name} = {arguments[name]!r} is not supported")
        stated = {name: value for name, value in arguments.items() if name in cls.model_fields and name != "stems"}
        if (segment := stated.get("segment")) is not None:
            stated["segment"] = _seconds(segment)
        if "samplerate" in arguments:
            stated["sample_rate"] = arguments["samplerate"]
        return cls(**{**values, **stated})


def _seconds(segment: Any) -> float:
    """Read a length in seconds: a number, or a fraction as {"numerator", "denominator"}. Raises: ValueError"""
    try:
        if isinstance(segment, Mapping):
            return float(segment["numerator"] / segment["denominator"])
        return float(segment)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"segment = {segment!r} is not supported") from error


class HTDemucsNetwork(PackagedNetwork):
    """HTDemucs of the package demucs."""

    config: HTDemucsConfig

    def __init__(self, config: HTDemucsConfig):
        from demucs.htdemucs import HTDemucs

        super().__init__(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.inner = HTDemucs(list(config.outputs), **config.arguments())

    def compute(self, mixture: Tensor) -> Tensor:
        return self.inner(mixture)


# Arguments in the configs of some trainers, with their only supported value.
_ROFORMER_UNSUPPORTED = {"linear_transformer_depth": 0, "skip_connection": False, "use_pope": False, "stereo": True}


class RoformerConfig(PackagedConfig):
    """The arguments that both RoFormers share, by the names of the package and of published configs."""

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
        """Length of a chunk, a multiple of the hop length, so that it has no incomplete frame."""
        return self.chunk_size // self.stft_hop_length * self.stft_hop_length

    def describe(self) -> str:
        return f"{self.dim} features, {self.depth} layers, chunks of {self.chunk_samples / self.sample_rate:.1f} s"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that the constructors of both networks share."""
        own = self.model_dump(include=set(RoformerConfig.model_fields) - _ROFORMER_OURS)
        return {**own, "stereo": True, "num_stems": len(self.outputs), "num_residual_streams": 1, "flash_attn": True}

    @classmethod
    def from_published(cls, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> RoformerConfig:
        """Build a config from a description and a trainer's config.

        Args:
            values: Values of the description.
            arguments: The `model:` section of the trainer's config; it overrides the values.

        Raises:
            ValueError: An argument is not supported or out of bounds.
        """
        for name, wanted in _ROFORMER_UNSUPPORTED.items():
            if arguments.get(name, wanted) != wanted:
                raise ValueError(f"{name} = {arguments[name]!r} is not supported")
        return cls(**{**values, **{name: value for name, value in arguments.items() if name in cls.model_fields}})


_ROFORMER_OURS = {"stems", "complement", "sample_rate", "standardised", "chunk_size", "mlp_expansion_factor"}


def _usual_bands() -> tuple[int, ...]:
    from bs_roformer.bs_roformer import DEFAULT_FREQS_PER_BANDS

    return DEFAULT_FREQS_PER_BANDS


class BSRoformerConfig(RoformerConfig):
    """A BS-RoFormer, whose bands consist of whole bins and do not overlap."""

    freqs_per_bands: tuple[Annotated[int, Field(ge=1, le=8193)], ...] = Field(default_factory=_usual_bands)

    @model_validator(mode="after")
    def _bands_cover_the_bins(self) -> BSRoformerConfig:
        if len(self.freqs_per_bands) < 2 or sum(self.freqs_per_bands) != self.stft_n_fft // 2 + 1:
            raise ValueError(f"freqs_per_bands must be two or more bands that sum to {self.stft_n_fft // 2 + 1} bins")
        return self

    @property
    def kind(self) -> str:
        return "bs-roformer"


class MelBandRoformerConfig(RoformerConfig):
    """A Mel-Band RoFormer, whose bands follow the mel scale and overlap."""

    num_bands: int = Field(60, ge=2, le=256)

    @property
    def kind(self) -> str:
        return "mel-band-roformer"


class RoformerNetwork(PackagedNetwork):
    """Base class of both RoFormers."""

    config: RoformerConfig

    def compute(self, mixture: Tensor) -> Tensor:
        samples, hop = mixture.shape[-1], self.config.stft_hop_length
        whole = max(-(-samples // hop) * hop, -(-self.config.stft_n_fft // hop) * hop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the package uses a deprecated attention API of torch
            outputs = self.inner(F.pad(mixture, (0, whole - samples)))
        return outputs.reshape(len(mixture), len(self.config.outputs), 2, -1)[..., :samples]

    def chunk_bytes(self) -> int:
        """Estimate the memory from the activations of attention and estimators, several of which exist at once."""
        config = self.config
        frames = 1 + config.chunk_samples // config.stft_hop_length
        bins = config.stft_n_fft // 2 + 1
        tokens = frames * len(self.inner.band_split.to_features)
        return 4 * (tokens * (10 * config.dim + 4 * config.heads * config.dim_head) + 24 * frames * bins)

    def stored(self) -> dict[str, Tensor]:
        """Return the tensors by their published names, without the rotary frequencies, which the config determines."""
        return {
            self.published_name(name): tensor
            for name, tensor in self.state_dict().items()
            if not name.endswith(".rotary_embed.freqs")
        }

    def published_name(self, name: str) -> str:
        return name.removeprefix("inner.").replace(".branch.", ".")

    def _finish(self) -> None:
        """Rebuild the mask estimators if the published network differs from what the package builds."""
        if self.config.mlp_expansion_factor != 4:  # fixed in the package; not an argument of its constructor
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
    """BS-RoFormer of the package BS-RoFormer."""

    config: BSRoformerConfig

    def __init__(self, config: BSRoformerConfig):
        from bs_roformer import BSRoformer

        super().__init__(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its constructor calls torch.stft without a window, to count bins
            self.inner = BSRoformer(**config.arguments(), freqs_per_bands=config.freqs_per_bands)
        for part in self.inner.modules():
            if hasattr(part, "to_value_residual_mix"):
                part.to_value_residual_mix = None
        self._finish()


class MelBandRoformerNetwork(RoformerNetwork):
    """Mel-Band RoFormer of the package BS-RoFormer."""

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
        """Return the published name; published layers lack the package's optional first transformer, here None."""
        return re.sub(
            r"^layers\.(\d+)\.(\d+)\.",
            lambda match: f"layers.{match[1]}.{int(match[2]) - 1}.",
            super().published_name(name),
        )
