"""The seam: what a network of any kind is to the rest of the program.

A network is `chunk (channels, samples) -> stems`. Engine, chunking, memory ladder, cache, precision, bench, doctor and
manifests know no more of it than what stands here.

B batch, C channels, S stems.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class NetworkConfig(Protocol):
    """What decides a network's shape and what it gives. It travels with the weights.

    Attributes:
        kind: Name of the kind, a key of `models.kinds.KINDS`.
        stems: Names of the outputs, in order.
        sample_rate: In Hz.
        chunk_samples: How many samples the network sees at once.
        stages: What may be asked for: "full", and "mask" where the network has a mask stage.
        any_length: Whether a shorter chunk needs less memory.
        bfloat16_pays: Whether a processor that multiplies bfloat16 gains by it.
        standardised: Whether the weights expect chunks of zero mean and unit deviation.
    """

    @property
    def kind(self) -> str: ...

    @property
    def stems(self) -> tuple[str, ...]: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def chunk_samples(self) -> int: ...

    @property
    def stages(self) -> tuple[str, ...]: ...

    @property
    def any_length(self) -> bool: ...

    @property
    def bfloat16_pays(self) -> bool: ...

    @property
    def standardised(self) -> bool: ...

    def to_dict(self) -> dict[str, Any]: ...

    def describe(self) -> str:
        """Its size in a few words, for people."""
        ...


class SeparationNetwork(nn.Module):
    """Base class of every network. A subclass has a config and `estimate`; the rest has defaults."""

    config: NetworkConfig
    variants_in = ""  # the module whose `variants` knows faster forms; named, because it builds on the network itself
    recordable = False  # whether a run may be recorded as a CUDA graph: nothing in it waits for the host

    def estimate(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """The stems of a batch of chunks.

        Args:
            mixture: In [-1, 1].
            stage: One of `config.stages`.

        Shape:
            (B, C, samples) -> (B, S, C, samples), for any number of channels.
        """
        raise NotImplementedError

    def variants(self, device: torch.device) -> Mapping[str, Callable[[torch.dtype], SeparationNetwork]]:
        """Other forms that compute the same on this device, the fastest first, by what builds each in a format."""
        return importlib.import_module(self.variants_in).variants(self, device) if self.variants_in else {}

    def chunk_bytes(self) -> int:
        """About what a chunk of stereo needs on an accelerator, in its plain form."""
        return 200 * 4 * 2 * self.config.chunk_samples

    def stored(self) -> dict[str, Tensor]:
        """The tensors of a file of weights, by their names there. Writing to one changes the network."""
        return self.state_dict()


class StereoNetwork(SeparationNetwork):
    """Base class of networks that take two channels, no more and no fewer: `estimate_stereo` computes them.

    One channel is heard on both sides; more are taken in pairs of neighbours, a last one alone like mono.
    """

    def estimate_stereo(self, mixture: Tensor) -> Tensor:
        """(B, 2, samples) -> (B, S, 2, samples)."""
        raise NotImplementedError

    def estimate(self, mixture: Tensor, stage: str = "full") -> Tensor:
        batch, channels, samples = mixture.shape
        if channels == 2:
            return self.estimate_stereo(mixture)
        even = mixture if channels % 2 == 0 else torch.cat([mixture, mixture[:, -1:]], dim=1)
        found = self.estimate_stereo(even.reshape(-1, 2, samples))
        found = found.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
        if channels % 2 == 0:
            return found
        last = found[:, :, -2:].mean(2, keepdim=True)
        return torch.cat([found[:, :, : channels - 1], last], dim=2)


def standardised(mixture: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Chunks at zero mean and unit deviation, and what takes their estimates back.

    Shape:
        (B, C, samples); the way back takes (B, S, C, samples).
    """
    mean = mixture.mean((1, 2), keepdim=True)
    deviation = (mixture - mean).square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-5)
    return (mixture - mean) / deviation, lambda found: found * deviation[:, None] + mean[:, None]
