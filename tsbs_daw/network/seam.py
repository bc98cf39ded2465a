"""The seam: the interface between networks of any kind and the rest of the program.

A network maps a chunk (channels, samples) to stems. Engine, chunking, memory limits, cache, precision, bench, doctor
and manifests depend only on this interface.

B batch, C channels, S stems.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class NetworkConfig(Protocol):
    """Everything that determines a network's shape and outputs; it is stored with the weights.

    Attributes:
        kind: Name of the kind, a key of `models.kinds.KINDS`.
        stems: Names of the outputs, in order.
        sample_rate: In Hz.
        chunk_samples: Length of a chunk, in samples.
        stages: The valid stages: "full", and "mask" if the network has a mask stage.
        any_length: Whether a shorter chunk needs less memory.
        bfloat16_pays: Whether bfloat16 is faster on a CPU with native bfloat16 products.
        standardised: Whether the weights expect chunks of zero mean and unit standard deviation.
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
        """Describe the size of the network in a few words."""
        ...


class SeparationNetwork(nn.Module):
    """Base class of every network. A subclass must provide `config` and `estimate`; the rest has defaults.

    Attributes:
        variants_in: Name of the module whose `variants` builds faster forms; imported late, because it imports the
            network.
        recordable: Whether the network can be recorded as a CUDA graph, because it never synchronises with the host.
    """

    config: NetworkConfig
    variants_in = ""
    recordable = False

    def estimate(self, mixture: Tensor, stage: str = "full") -> Tensor:
        """Separate a batch of chunks into stems.

        Args:
            mixture: In [-1, 1].
            stage: One of `config.stages`.

        Shape:
            (B, C, samples) -> (B, S, C, samples), for any number of channels.
        """
        raise NotImplementedError

    def variants(self, device: torch.device) -> Mapping[str, Callable[[torch.dtype], SeparationNetwork]]:
        """Return the faster forms of this network for a device, fastest first: functions that build each in a dtype."""
        return importlib.import_module(self.variants_in).variants(self, device) if self.variants_in else {}

    def chunk_bytes(self) -> int:
        """Estimate the memory that a stereo chunk needs on an accelerator, in the plain form of the network."""
        return 200 * 4 * 2 * self.config.chunk_samples

    def stored(self) -> dict[str, Tensor]:
        """Return the tensors of a weights file, by their names in it; they share the network's memory."""
        return self.state_dict()


class StereoNetwork(SeparationNetwork):
    """Base class of networks that require exactly two channels; subclasses implement `estimate_stereo`.

    A single channel is duplicated. More channels are processed in pairs, and an odd last one is duplicated.
    """

    def estimate_stereo(self, mixture: Tensor) -> Tensor:
        """Separate stereo chunks: (B, 2, samples) -> (B, S, 2, samples)."""
        raise NotImplementedError

    def estimate(self, mixture: Tensor, stage: str = "full") -> Tensor:
        batch, channels, samples = mixture.shape
        if channels == 2:
            return self.estimate_stereo(mixture)
        even = mixture if channels % 2 == 0 else torch.cat([mixture, mixture[:, -1:]], dim=1)
        estimates = self.estimate_stereo(even.reshape(-1, 2, samples))
        estimates = estimates.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
        if channels % 2 == 0:
            return estimates
        last = estimates[:, :, -2:].mean(2, keepdim=True)
        return torch.cat([estimates[:, :, : channels - 1], last], dim=2)


def standardised(mixture: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Standardise chunks to zero mean and unit standard deviation.

    Returns:
        The standardised chunks, and a function that converts estimates back to the original scale.

    Shape:
        mixture: (B, C, samples)
        estimates: (B, S, C, samples)
    """
    mean = mixture.mean((1, 2), keepdim=True)
    deviation = (mixture - mean).square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-5)
    return (mixture - mean) / deviation, lambda estimates: estimates * deviation[:, None] + mean[:, None]
