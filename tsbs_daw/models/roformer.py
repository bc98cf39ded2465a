"""BS-RoFormer (arXiv 2309.02612) and Mel-Band RoFormer (arXiv 2310.01809) behind the seam.

Both come from the package BS-RoFormer, which has grown since the published weights were trained: hyper-connections
and value residuals are switched off here, and its mask estimators get the expansion that the weights have. Weights keep
their published names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import torch.nn.functional as F
from bs_roformer import BSRoformer, MelBandRoformer
from bs_roformer.bs_roformer import DEFAULT_FREQS_PER_BANDS
from pydantic import Field, model_validator
from torch import Tensor, nn

from tsbs_daw.models.packaged import PackagedConfig, PackagedNetwork

# What other trainers' configs may also say. It changes nothing here unless it has another value.
_UNSUPPORTED = {"linear_transformer_depth": 0, "skip_connection": False, "use_pope": False, "stereo": True}


class RoformerConfig(PackagedConfig):
    """What both kinds share, by the names of the package and of published configs."""

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
        own = self.model_dump(include=set(RoformerConfig.model_fields) - _OURS)
        return {**own, "stereo": True, "num_stems": len(self.outputs), "num_residual_streams": 1, "flash_attn": True}

    @classmethod
    def from_published(cls, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> RoformerConfig:
        """A description's values, and the `model:` section of a trainer's config.

        Raises: ValueError: the config is of a network that the package does not have, or out of bounds
        """
        for name, wanted in _UNSUPPORTED.items():
            if arguments.get(name, wanted) != wanted:
                raise ValueError(f"{name} is {arguments[name]!r}, which is not supported")
        return cls(**{**values, **{name: value for name, value in arguments.items() if name in cls.model_fields}})


_OURS = {"stems", "complement", "sample_rate", "standardised", "chunk_size", "mlp_expansion_factor"}


class BSRoformerConfig(RoformerConfig):
    """Bands of whole bins that do not overlap."""

    freqs_per_bands: tuple[Annotated[int, Field(ge=1, le=8193)], ...] = DEFAULT_FREQS_PER_BANDS

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
    """What both kinds share."""

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
