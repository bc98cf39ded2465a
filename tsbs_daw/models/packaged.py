"""What the networks of other packages share behind the seam: stereo, a stem that is the rest, validated configs."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

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
