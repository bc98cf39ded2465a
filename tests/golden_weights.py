"""Weights of the golden cases by the published names, made from their names alone, and the cases themselves.

The rules stand beside the numbers in tests/network/data: each tensor's values come from a generator seeded with the
checksum of its name, so that the same weights can be made anywhere without a download.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tsbs_daw.network import ModelConfig, TwoStageSeparator, load_reference_state_dict, reference_state_dict

GOLDEN_FILE = Path(__file__).parent / "network" / "data" / "model_golden.npz"


@dataclass(frozen=True)
class GoldenCase:
    """A small network whose outputs are known; shape: of the mixture, (batch, channels, samples)."""

    name: str
    config: ModelConfig
    seed: int
    shape: tuple[int, int, int]

    def mixture(self) -> np.ndarray:
        return np.random.RandomState(self.seed).standard_normal(self.shape) * 0.1

    def expected(self) -> np.ndarray:
        """The final estimates: (batch, stems, channels, samples)."""
        return self._stored("final")

    def expected_masked(self) -> np.ndarray:
        """The mask stage's estimates, shaped alike."""
        return self._stored("mask")

    def state_dict(self, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        """The case's weights by their published names, for the caller alone."""
        return {name: part.to(dtype, copy=True) for name, part in _weights(self).items()}

    def network(self, dtype: torch.dtype = torch.float32) -> TwoStageSeparator:
        network = TwoStageSeparator(self.config).to(dtype).eval()
        load_reference_state_dict(network, self.state_dict(torch.float64))
        return network

    def _stored(self, kind: str) -> np.ndarray:
        with np.load(GOLDEN_FILE) as file:
            return file[f"{self.name}_{kind}"]


CASE_A = GoldenCase("a", ModelConfig(feature_dim=32, mask_blocks=2, map_blocks=1), 11, (1, 2, 10007))
CASE_B = GoldenCase(
    "b", ModelConfig(feature_dim=16, mask_blocks=1, map_blocks=1, stems=("one", "two")), 12, (2, 2, 6615)
)


@cache
def _weights(case: GoldenCase) -> dict[str, torch.Tensor]:
    """Drawn once for all tests, which takes seconds."""
    with torch.device("meta"):
        shapes = reference_state_dict(TwoStageSeparator(case.config))
    salt = f"golden-{case.name}/"
    return {name: torch.from_numpy(_weight(salt, name, tuple(part.shape))) for name, part in shapes.items()}


def _weight(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32((salt + name).encode()))
    if name.endswith("A_log"):
        return np.log(random.uniform(1, 16, shape))
    if name.endswith("dt_bias"):
        dt = np.exp(random.uniform(math.log(1e-3), math.log(1e-1), shape))
        return dt + np.log(-np.expm1(-dt))
    if name.endswith(".D") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * random.standard_normal(shape)
    if name.endswith("bias"):
        return 0.05 * random.standard_normal(shape)
    return random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
